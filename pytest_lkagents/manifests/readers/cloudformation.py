"""CloudFormation templates: the ECS task definitions in them, with the service that runs each and what scales it."""

from __future__ import annotations

import re

from pytest_lkagents.manifests.evidence import Candidate
from pytest_lkagents.manifests.model import (
    ECS,
    ECS_INSTANCES,
    FARGATE,
    Autoscaler,
    Deployment,
    Files,
    Given,
    Loss,
    Target,
    Variable,
)
from pytest_lkagents.manifests.readers import ecs
from pytest_lkagents.manifests.readers.common import doubt, whole
from pytest_lkagents.manifests.tree import Node

TASK, SERVICE = "AWS::ECS::TaskDefinition", "AWS::ECS::Service"
SCALED, POLICY = "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy"
# Between the words of a resource's name.
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
COUNT = "ecs:service:DesiredCount"
METRICS = {"ECSServiceAverageCPUUtilization": "cpu", "ECSServiceAverageMemoryUtilization": "memory"}


def reads(document: Node) -> bool:
    return bool(_of_type(document, TASK) or _of_other_tasks(document))


def read(document: Node, files: Files) -> None:
    services = _of_type(document, SERVICE)
    for name, task in _of_type(document, TASK):
        if not task.items("ContainerDefinitions"):
            continue
        lowered = _lower(task)
        made = ecs.deployment_of(lowered)
        made.other_variables += _parameters(lowered, document)
        mine = [service for _, service in services if _names(service.get("TaskDefinition"), name)]
        # Which of several services is meant, no rule can say; without one the tasks are started by something else.
        if len(mine) == 1:
            _attach(made, mine[0])
            if len(services) == 1:
                _scale(made, document)
            _sleep(made)
        files.deployments.append(made)
    for name, service in _of_other_tasks(document):
        said = f"{service.place.file}:{service.place.line}: service {name}, of what task definition is a parameter"
        one = Candidate(Deployment(ECS, CAMEL.sub("-", name), service.place))
        serves = one.is_called_backend or not one.may_be_worker
        other = serves and not (one.is_called_agent or one.is_called_worker)
        (files.passed_over if other or service.place.file in files.for_development else files.left_out).append(said)


def _of_other_tasks(document: Node) -> list[tuple[str, Node]]:
    """The services whose task definition stands elsewhere, and is handed over when the stack is made."""
    parameters = [name for name, _ in document.entries("Parameters")]
    services = _of_type(document, SERVICE)
    return [(own, one) for own, one in services if any(_names(one.get("TaskDefinition"), name) for name in parameters)]


def _of_type(document: Node, type_: str) -> list[tuple[str, Node]]:
    """Names and properties of the resources of a type."""
    return [
        (name, properties)
        for name, resource in document.entries("Resources")
        if resource.text("Type") == type_ and (properties := resource.get("Properties")) is not None
    ]


def _names(node: Node | None, resource: str) -> bool:
    """Whether this is a reference to that resource: ``!Ref Name`` or ``{"Ref": "Name"}``."""
    return node is not None and (node.text() == f"${{{resource}}}" or node.text("Ref") == resource)


def _parameters(task: Node, document: Node) -> list[Variable]:
    """What the variables of a task that are parameters are where whoever makes the stack sets none. Of one whose value lies in
    Systems Manager (``AWS::SSM::Parameter::Value<String>``) the default is a name there."""
    defaults = {
        f"${{{name}}}": parameter.get("Default")
        for name, parameter in document.entries("Parameters")
        if not (parameter.text("Type") or "").startswith("AWS::SSM::")
    }
    return [
        Variable(entry.text("name") or "", default.place, fallback=default.text())
        for container in task.items("containerDefinitions")
        for entry in container.items("environment")
        if (default := defaults.get(entry.text("value") or "")) is not None
    ]


def _lower(node: Node) -> Node:
    """With names as the API and task definition files write them: ``StopTimeout`` is ``stopTimeout`` there."""
    text = _filled_in(node)
    if text is not None:
        return Node(node.place, text)
    if isinstance(node.value, dict):
        return Node(node.place, {name[:1].lower() + name[1:]: _lower(below) for name, below in node.value.items()})
    if isinstance(node.value, list):
        return Node(node.place, [_lower(below) for below in node.value])
    return node


def _filled_in(node: Node) -> str | None:
    """What ``!Ref`` and the like stand for where they are written out, as in JSON: ``${Name}`` for what is not known here."""
    entries = node.entries()
    if len(entries) != 1:
        return None
    ((name, of),) = entries
    if name == "Fn::Sub":
        return of.text() or of.text(0)
    return f"${{{of.text() or name}}}" if name == "Ref" or name.startswith("Fn::") else None


def _attach(made: Deployment, service: Node) -> None:
    launches = {service.text("LaunchType")} | {
        entry.text("CapacityProvider") for entry in service.items("CapacityProviderStrategy")
    }
    if launches & {"FARGATE", "FARGATE_SPOT"}:
        made.platform = FARGATE
    elif launches & {"EC2", "EXTERNAL"}:
        made.platform = ECS_INSTANCES
    if service.items("LoadBalancers"):
        made.unclear.pop("exposures", None)
        made.exposures = [*(made.exposures or []), Given("a load balancer", service.at("LoadBalancers"))]
    made.replicas = whole(service, "DesiredCount")
    made.per_node = service.text("SchedulingStrategy") == "DAEMON"
    if made.replicas is None and service.get("DesiredCount") is None and not made.per_node:
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ecs-service.html
        made.replicas = Given(1, service.place, default=True)
    doubt(made, "replicas", made.replicas, service, "DesiredCount")
    # So many per cent of the tasks are kept, the count rounded up.
    kept = ("DeploymentConfiguration", "MinimumHealthyPercent")
    share = service.number(*kept)
    if share is not None:
        made.lost_at_rollout = Given(Loss(max(0, 100 - int(share)), percent=True), service.at(*kept))


def _scale(made: Deployment, document: Node) -> None:
    """The only target that is a service's count, and the policies that track a metric. Per cent are those of what the tasks
    reserve, which on Fargate is what they have:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_utilization.html"""
    targets = [target for _, target in _of_type(document, SCALED) if target.text("ScalableDimension") == COUNT]
    if len(targets) != 1:
        return
    tracking = [
        found
        for _, policy in _of_type(document, POLICY)
        if (found := policy.get("TargetTrackingScalingPolicyConfiguration")) is not None
    ]
    kept = []
    for policy in tracking:
        share, kind = policy.number("TargetValue"), policy.text("PredefinedMetricSpecification", "PredefinedMetricType")
        metric = METRICS.get(kind or "", kind or "external")
        if metric == "cpu":
            doubt(made, "targets", share, policy, "TargetValue")
            if made.platform is not FARGATE:
                reason = "what load of the worker it means depends on its instance"
                made.unclear["targets"] = Given(reason, policy.at("TargetValue"))
        if kind not in METRICS or made.platform is not FARGATE:
            share = None
        kept.append(Target(metric, policy.at("TargetValue"), None if share is None else share / 100))
    (target,) = targets
    made.autoscaler = Autoscaler(target.place, tuple(kept), whole(target, "MinCapacity"), whole(target, "MaxCapacity"))
    doubt(made, "minimum", made.autoscaler.minimum, target, "MinCapacity")


def _sleep(made: Deployment) -> None:
    scaler = made.autoscaler
    least = made.replicas if scaler is None else scaler.minimum
    made.sleeps = []
    if least is not None and least.value == 0:
        made.sleeps = [Given("is deployed with 0 workers" if scaler is None else "scales to zero workers", least.place)]
