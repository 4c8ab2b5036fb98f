"""Why a check of deployment files says nothing: in words that are true of these files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.manifests.findings import Needs
from suites import test_manifests as checks

from .deployment_files import written

Check = Callable[[Evidence, checks.Manifests], None]


def reason(check: Check, folder: Path, files: dict[str, str]) -> str:
    with pytest.raises(NotJudgeable) as raised:
        check(Evidence(), (written(folder, files), Needs()))
    return str(raised.value)


def composed(more: str) -> str:
    return f"services: {{agent: {{{more}}}}}\n"


STAGES = ("staging", "production")


def test_of_both_environments_no_value_may_be_told(tmp_path: Path) -> None:
    both = {f"compose.{stage}.yaml": composed("image: 'r/agent:1', environment: [LIVEKIT_URL]") for stage in STAGES}
    said = "no LIVEKIT_URL, key or secret that these files tell of both staging and production"
    assert reason(checks.test_separate_environments, tmp_path, both) == said
    (tmp_path / "compose.staging.yaml").unlink()
    assert reason(checks.test_separate_environments, tmp_path, {}) == "no files of both staging and production"


def test_environments_that_a_kustomization_makes_are_not_compared(tmp_path: Path) -> None:
    base = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: agent}\nspec: {template: {spec: {containers: [{name: a}]}}}\n"
    )
    overlay = "resources: [../base]\nimages: [{name: r/agent, newTag: '2'}]\n"
    files = {"base/agent.yaml": base, "base/kustomization.yaml": "resources: [agent.yaml]\n"}
    files |= {f"{stage}/kustomization.yaml": overlay for stage in STAGES}
    said = "no files of both staging and production; what a kustomization changes is not compared"
    assert reason(checks.test_separate_environments, tmp_path, files) == said


def test_parts_without_a_secret_are_said_to_have_none(tmp_path: Path) -> None:
    pod = "{containers: [{name: a, env: [{name: LIVEKIT_URL, value: 'wss://x.livekit.cloud'}]}]}"
    base = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: agent}}\nspec: {{template: {{spec: {pod}}}}}\n"
    files = {"agent.yaml": base, "kustomization.yaml": "resources: [agent.yaml]\nreplicas: [{name: agent, count: 2}]\n"}
    said = "no literal secret was found in parts of workers, and nothing else to judge"
    assert reason(checks.test_secrets, tmp_path, files) == said
    empty = {"agent.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: agent}\n"}
    assert reason(checks.test_secrets, tmp_path, empty) == "no variable and no Secret to judge"


def test_an_image_that_is_named_with_a_variable_is_named(tmp_path: Path) -> None:
    for image in ("r/agent:${TAG:-1.0}", "<your-registry>/agent"):
        files = {"compose.yaml": composed(f"image: '{image}'")}
        assert reason(checks.test_image_pinned, tmp_path, files) == "every image is named with a variable or a placeholder"
    assert reason(checks.test_image_pinned, tmp_path, {"compose.yaml": composed("build: .")}) == "no image is named"
    built = {"compose.yaml": composed("build: ., image: 'r/agent:latest'")}
    assert reason(checks.test_image_pinned, tmp_path, built) == "every image that is named is built by Compose"


@pytest.mark.parametrize("base", ["python:${PYTHON}-slim", "$BASE"])
def test_an_image_that_a_dockerfile_names_with_a_variable_is_named(tmp_path: Path, base: str) -> None:
    files = {"Dockerfile": f'ARG PYTHON=3.13\nFROM {base} AS build\nFROM build\nCMD ["python", "agent.py", "start"]\n'}
    assert reason(checks.test_image_pinned, tmp_path, files) == "every image is named with a variable or a placeholder"


@pytest.mark.parametrize(
    ("size", "said"),
    [("basic-xxs", "what basic-xxs has its name does not tell"), ("'${SIZE}'", "its value is not in the file")],
)
def test_a_size_that_does_not_tell_what_it_has_is_named(tmp_path: Path, size: str, said: str) -> None:
    app = f"name: voice\nworkers:\n- {{name: agent, github: {{repo: a/b}}, instance_size_slug: {size}}}\n"
    said = f"app.yaml:3 workers[0].instance_size_slug: {said}; not judged"
    assert reason(checks.test_resources, tmp_path, {"app.yaml": app}) == f"no resources that these files tell; {said}"
    files = {"compose.yaml": composed("image: 'r/agent:1', command: python agent.py start")}
    assert reason(checks.test_resources, tmp_path / "local", files) == "no file that sets resources"


def test_a_grace_period_before_an_unknown_signal_is_not_said_to_be_missing(tmp_path: Path) -> None:
    image = 'FROM python:3.13\nSTOPSIGNAL SIGQUIT\nCMD ["python", "agent.py", "start"]\n'
    files = {"compose.yaml": composed("build: ., stop_grace_period: 30m"), "Dockerfile": image}
    said = "Dockerfile:2 STOPSIGNAL: not judged: does the worker handle SIGQUIT?"
    assert reason(checks.test_grace_period, tmp_path, files) == f"no stop signal at which a worker is known to drain; {said}"


def test_a_number_of_no_workers_is_said_to_be_for_another_check(tmp_path: Path) -> None:
    files = {"compose.yaml": composed("image: 'r/agent:1', deploy: {replicas: 0}")}
    said = "the least number of workers is 0, which is for manifests.always-on"
    assert reason(checks.test_replicas, tmp_path, files) == said
    files = {"compose.yaml": composed("image: 'r/agent:1'")}
    assert reason(checks.test_replicas, tmp_path, files) == "no file that says how many workers there are"


ROLLOUT = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: agent}\nspec: {strategy: {canary: {}}, %s}\n"
PODS = "template: {spec: {containers: [{name: agent, image: 'r/agent:1', command: [python, agent.py, start]}]}}"
NAMED = "workloadRef: {apiVersion: apps/v1, kind: Deployment, name: agent}"
DEPLOYMENT = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: agent}}\nspec: {{replicas: 0, {PODS}}}\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.yaml": ROLLOUT % PODS}, "a.yaml:4 spec.strategy: how Argo Rollouts replaces workers"),
        ({"a.yaml": ROLLOUT % NAMED, "b.yaml": DEPLOYMENT}, "a.yaml:4 spec.strategy: how Argo Rollouts replaces workers"),
        (
            {"fly.toml": 'app = "agent"\n[deploy]\nstrategy = "bluegreen"\n'},
            "fly.toml:3 deploy.strategy: how Fly.io replaces workers by 'bluegreen'",
        ),
    ],
)
def test_a_way_of_replacing_workers_that_is_not_judged_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    expected = f"no way of replacing workers that is known here; {said}; not judged"
    assert reason(checks.test_rolling_update, tmp_path, files) == expected


TEMPLATE = """Resources:
  Task: {Type: AWS::ECS::TaskDefinition, Properties: {ContainerDefinitions: [{Name: agent, Image: 'r/agent:1'}]}}
  Service:
    Type: AWS::ECS::Service
    Properties: {TaskDefinition: !Ref Task, DesiredCount: 2, DeploymentConfiguration: {MinimumHealthyPercent: 0}}
"""


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"a.yaml": TEMPLATE}, "MinimumHealthyPercent 100 and MaximumPercent 200"),
        (
            {"a.yaml": DEPLOYMENT.replace("replicas: 0", "replicas: 2, strategy: {type: Recreate}")},
            "a Deployment with strategy RollingUpdate and maxUnavailable 0",
        ),
        (
            {"compose.yaml": composed("image: 'r/agent:1', deploy: {replicas: 2, update_config: {parallelism: 0}}")},
            "update_config order start-first, on Swarm",
        ),
        ({"fly.toml": 'app = "agent"\n[deploy]\nstrategy = "immediate"\n'}, "strategy bluegreen"),
        (
            {"render.yaml": "services: [{type: worker, name: agent, runtime: image, numInstances: 1, disk: {name: models}}]\n"},
            "a service without a disk",
        ),
        ({"railway.toml": '[deploy]\nrequiredMountPath = "/models"\n'}, "a service without a volume"),
    ],
)
def test_new_workers_first_are_wanted_in_the_words_of_the_platform(tmp_path: Path, files: dict[str, str], wanted: str) -> None:
    with pytest.raises(AssertionError, match=f"; wanted: new workers first: {wanted}$"):
        checks.test_rolling_update(Evidence(), (written(tmp_path, files), Needs()))


def test_a_rollout_that_stops_some_first_is_not_said_to_start_others_first(tmp_path: Path) -> None:
    evidence = Evidence()
    checks.test_rolling_update(
        evidence, (written(tmp_path, {"a.yaml": DEPLOYMENT.replace("replicas: 0", "replicas: 4")}), Needs())
    )
    assert evidence.summary == "never all at once (1 looked at)"


def test_of_many_files_that_are_read_the_number_is_said(tmp_path: Path) -> None:
    evidence, files = Evidence(), {f"{name}.yaml": DEPLOYMENT for name in "abcdefg"}
    checks.test_readable(evidence, (written(tmp_path, files), Needs()))
    assert evidence.summary.startswith("read a.yaml, b.yaml, c.yaml, d.yaml, e.yaml and 2 more (7 looked at)")


def test_a_service_whose_task_definition_is_a_parameter_is_named(tmp_path: Path) -> None:
    parameters, service = "Parameters: {Task: {Type: String}}\nResources:\n", TEMPLATE[TEMPLATE.index("  Service:") :]
    said = reason(checks.test_grace_period, tmp_path, {"a.yaml": parameters + service})
    assert said.endswith("a.yaml:5: service Service, of what task definition is a parameter; not judged")
    agent = parameters + service.replace("Service:", "VoiceWebAgent:", 1)
    assert "service VoiceWebAgent" in reason(checks.test_grace_period, tmp_path, {"a.yaml": agent})
    site = parameters + service.replace("Service:", "WebSite:", 1)
    assert reason(checks.test_grace_period, tmp_path, {"a.yaml": site}) == checks.NO_WORKER


@pytest.mark.parametrize("check", [checks.test_readable, checks.test_image_pinned, checks.test_secrets])
def test_where_nothing_is_known_to_be_a_worker_this_is_the_reason(tmp_path: Path, check: Check) -> None:
    site = {"compose.yaml": "services: {frontend: {image: 'r/frontend:latest', environment: {A_KEY: b}}}\n"}
    assert reason(check, tmp_path, site).startswith(checks.NO_WORKER)


def test_what_is_passed_over_is_named_once_and_apart(tmp_path: Path) -> None:
    railway = "[deploy]\ndrainingSeconds = 600\n"
    dockerfiles = {"agent": "python agent.py start", "web": "nginx", "tokens": "uvicorn tokens:app"}
    files = {f"{name}/Dockerfile": f"FROM a:1\nCMD {command}\n" for name, command in dockerfiles.items()}
    files |= {f"{name}/railway.toml": railway for name in dockerfiles}
    evidence = Evidence()
    checks.test_readable(evidence, (written(tmp_path, files), Needs()))
    assert ": tokens/Dockerfile looks like no worker; tokens/railway.toml: railway looks" in evidence.summary
    assert "web/railway.toml: railway looks like no worker" in evidence.summary
