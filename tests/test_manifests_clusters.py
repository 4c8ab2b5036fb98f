"""What is in clusters beside Kubernetes' own: gateways, meshes, KEDA, Knative; and what the API refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Files

CONTAINER = "{name: main, image: 'r/agent:1', args: [start], envFrom: [{secretRef: {name: livekit}}]}"
AGENT = f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: agent, namespace: voice}}
spec:
  replicas: 2
  template:
    metadata: {{labels: {{app: agent}}}}
    spec: {{containers: [{CONTAINER}]}}
"""
SERVICE = """apiVersion: v1
kind: Service
metadata: {name: status, namespace: voice}
spec: {selector: {app: agent}, ports: [{port: 8081}]}
"""


def document(version: str, kind: str, spec: str, space: str = "voice") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: agent, namespace: {space}}}\nspec: {spec}\n"


def read(folder: Path, *documents: str) -> Files:
    folder.mkdir(exist_ok=True)
    (folder / "agent.yaml").write_text("---\n".join(documents))
    return load([str(folder)])


def reasons(files: Files) -> list[str]:
    return [one.reason for one in [*files.problems, *(problem for made in files.deployments for problem in made.problems)]]


# -- What leads to a worker

GATEWAY = "gateway.networking.k8s.io/v1"
ISTIO = "networking.istio.io/v1"
TO_STATUS = "rules: [{backendRefs: [{name: status, port: 8081}]}]"
FROM_ISTIO = "http: [{route: [{destination: {host: %s}}]}]"
TRAEFIK = "{routes: [{services: [{name: status, port: 8081}]}]}"
CONTOUR = "{tcpproxy: {services: [{name: status, port: 8081}]}}"


@pytest.mark.parametrize(
    ("version", "kind", "spec", "found"),
    [
        (GATEWAY, "HTTPRoute", f"{{parentRefs: [{{name: public}}], {TO_STATUS}}}", "an HTTPRoute"),
        (f"{GATEWAY}alpha2", "TCPRoute", f"{{parentRefs: [{{name: public}}], {TO_STATUS}}}", "a TCPRoute"),
        (GATEWAY, "GRPCRoute", f"{{parentRefs: [{{kind: Service, name: web}}], {TO_STATUS}}}", None),
        (ISTIO, "VirtualService", f"{{gateways: [public], {FROM_ISTIO % 'status'}}}", "a VirtualService"),
        (
            ISTIO,
            "VirtualService",
            f"{{gateways: [mesh, a/b], {FROM_ISTIO % 'status.voice.svc.cluster.local'}}}",
            "a VirtualService",
        ),
        (ISTIO, "VirtualService", f"{{gateways: [public], {FROM_ISTIO % 'status.other'}}}", None),
        (ISTIO, "VirtualService", f"{{gateways: [public], {FROM_ISTIO % 'status.example.com'}}}", None),
        (ISTIO, "VirtualService", f"{{gateways: [mesh], {FROM_ISTIO % 'status'}}}", None),
        (ISTIO, "VirtualService", f"{{{FROM_ISTIO % 'status'}}}", None),
        ("route.openshift.io/v1", "Route", "{to: {kind: Service, name: status}}", "a Route"),
        ("traefik.io/v1alpha1", "IngressRoute", TRAEFIK, "an IngressRoute"),
        ("traefik.io/v1alpha1", "IngressRoute", TRAEFIK.replace("name", "kind: TraefikService, name"), None),
        ("projectcontour.io/v1", "HTTPProxy", CONTOUR, "an HTTPProxy"),
        ("serving.example.com/v1", "Route", "{to: {name: status}}", None),
    ],
)
def test_what_leads_to_a_workers_service_opens_it(
    tmp_path: Path, version: str, kind: str, spec: str, found: str | None
) -> None:
    judged = rules.no_inbound(read(tmp_path, AGENT, SERVICE, document(version, kind, spec)), Needs())
    assert [finding.found for finding in judged.findings] == ([f"{found} opens the worker to others"] if found else [])


def test_a_route_leads_to_the_service_of_the_namespace_that_it_names(tmp_path: Path) -> None:
    spec = f"{{parentRefs: [{{name: public}}], {TO_STATUS}}}"
    elsewhere = document(GATEWAY, "HTTPRoute", spec, "other")
    assert not rules.no_inbound(read(tmp_path / "own", AGENT, SERVICE, elsewhere), Needs()).findings
    named = document(GATEWAY, "HTTPRoute", spec.replace("name: status", "name: status, namespace: voice"), "other")
    assert len(rules.no_inbound(read(tmp_path / "named", AGENT, SERVICE, named), Needs()).findings) == 1


# -- What the API refuses

TARGET = "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: agent}, minReplicas: 2"
CPU = "metrics: [{type: Resource, resource: {name: cpu, %s}}]"


@pytest.mark.parametrize(
    ("version", "spec", "found"),
    [
        (
            "v2",
            "maxReplicas: 9, targetCPUUtilizationPercentage: 50",
            "'targetCPUUtilizationPercentage' in autoscaling/v2, but in",
        ),
        ("v1", f"maxReplicas: 9, {CPU % 'target: {averageUtilization: 50}'}", "no field 'metrics' in autoscaling/v1, but in"),
        ("v2", f"maxReplicas: 9, {CPU % 'targetAverageUtilization: 50'}", "'target' with 'averageUtilization' is meant"),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {type: Utilization}'}", "neither averageUtilization nor averageValue"),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {averageUtilization: 50%}'}", "'50%' is text"),
        ("v1", "maxReplicas: 9, targetCPUUtilizationPercentage: '50'", "'50' is text"),
        ("v1", "maxReplicas: 1, targetCPUUtilizationPercentage: 50", "2 workers at least and 1 at most"),
        ("v1", "maxReplicas: 2, targetCPUUtilizationPercentage: 50", None),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {type: AverageValue, averageValue: 500m}'}", None),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {averageUtilization: $CPU}'}, behavior: {{}}", None),
        ("v2", "maxReplicas: 9, metrics: [{type: Pods, pods: {metric: {name: a}, target: {averageValue: 1}}}]", None),
    ],
)
def test_an_autoscaler_that_kubernetes_refuses_is_unreadable(
    tmp_path: Path, version: str, spec: str, found: str | None
) -> None:
    scaler = document(f"autoscaling/{version}", "HorizontalPodAutoscaler", f"{{{TARGET}, {spec}}}")
    said = reasons(read(tmp_path, AGENT, scaler))
    assert len(said) == (found is not None)
    assert all(found in one for one in said if found)


def test_numbers_of_a_trigger_are_text(tmp_path: Path) -> None:
    spec = (
        "{scaleTargetRef: {name: agent}, minReplicaCount: 2, triggers: [{type: cpu, metadata: {type: Utilization, value: %s}}]}"
    )
    files = read(tmp_path / "number", AGENT, document("keda.sh/v1alpha1", "ScaledObject", spec % "50"))
    assert reasons(files) == ["'value' is a number or a truth value, where KEDA takes text only, in quotes"]
    assert reasons(read(tmp_path / "text", AGENT, document("keda.sh/v1alpha1", "ScaledObject", spec % "'50'"))) == []


# -- Knative


def knative(notes: str = "", more: str = "", labels: str = "", container: str = CONTAINER) -> str:
    return (
        f"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: agent, labels: {{{labels}}}}}\n"
        f"spec: {{template: {{metadata: {{annotations: {{{notes}}}}}, spec: {{{more}containers: [{container}]}}}}}}\n"
    )


KEPT = "autoscaling.knative.dev/min-scale: '2'"
PLAIN = "{image: 'r/agent:1', args: [start], env: [{name: LIVEKIT_URL, value: 'wss://a.example.com'}]}"


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        (knative(), "Knative"),
        (knative(KEPT, container=PLAIN), "Knative"),
        (knative(labels="networking.knative.dev/visibility: cluster-local", container=PLAIN), "Knative"),
        (knative(more="imagePullSecrets: [{name: registry}], ", container=PLAIN), "Knative"),
        (knative("autoscaling.knative.dev/minScale: '2', run.googleapis.com/cpu-throttling: 'false'"), "Cloud Run"),
        (knative("autoscaling.knative.dev/minScale: '2'", container=PLAIN), "Cloud Run"),
        (knative(labels="cloud.googleapis.com/location: europe-west1"), "Cloud Run"),
    ],
)
def test_a_service_of_a_clusters_knative_is_none_of_cloud_run(tmp_path: Path, text: str, platform: str) -> None:
    (deployment,) = read(tmp_path, text).deployments
    assert deployment.platform.name == platform


@pytest.mark.parametrize(
    ("seconds", "looked_at", "found"),
    [("timeoutSeconds: 1200, ", 1, []), ("timeoutSeconds: 600, ", 0, []), ("timeoutSeconds: 300, ", 1, ["300 s"]), ("", 0, [])],
)
def test_knative_waits_as_long_as_its_timeout(tmp_path: Path, seconds: str, looked_at: int, found: list[str]) -> None:
    judged = rules.grace_period(read(tmp_path, knative(KEPT, seconds)), Needs())
    assert (judged.looked_at, [finding.found for finding in judged.findings]) == (looked_at, found)
    assert bool(judged.notes) is (looked_at == 0)


@pytest.mark.parametrize(
    ("notes", "asleep", "workers"),
    [
        (KEPT, [], (1, 0)),
        ("autoscaling.knative.dev/minScale: '1'", [], (1, 1)),
        ("autoscaling.knative.dev/min-scale: '0'", ["scales to zero workers"], (0, 0)),
        ("", None, (0, 0)),
        ("autoscaling.knative.dev/class: hpa.autoscaling.knative.dev", [], (1, 1)),
    ],
)
def test_knative_keeps_as_many_workers_as_its_file_says(
    tmp_path: Path, notes: str, asleep: list[str] | None, workers: tuple[int, int]
) -> None:
    files = read(tmp_path, knative(notes))
    judged, counted = rules.always_on(files, Needs()), rules.replicas(files, Needs())
    assert (judged.looked_at, [finding.found for finding in judged.findings]) == (asleep is not None, asleep or [])
    assert (counted.looked_at, len(counted.findings)) == workers


def test_a_knative_service_is_open_unless_it_is_local_to_its_cluster(tmp_path: Path) -> None:
    (finding,) = rules.no_inbound(read(tmp_path / "open", knative()), Needs()).findings
    assert finding.found == "a Knative Service that is not cluster-local opens the worker to others"
    local = read(tmp_path / "local", knative(labels="networking.knative.dev/visibility: cluster-local"))
    assert (rules.no_inbound(local, Needs()).looked_at, rules.no_inbound(local, Needs()).findings) == (1, [])


def test_requests_to_a_knative_service_scale_no_worker(tmp_path: Path) -> None:
    by_requests = read(tmp_path / "requests", knative(f"{KEPT}, autoscaling.knative.dev/metric: rps"))
    assert len(rules.scaling_metric(by_requests, Needs()).findings) == 1
    by_cpu = read(tmp_path / "cpu", knative(f"{KEPT}, autoscaling.knative.dev/class: hpa.autoscaling.knative.dev"))
    assert (rules.scaling_metric(by_cpu, Needs()).looked_at, rules.scaling_metric(by_cpu, Needs()).findings) == (1, [])
