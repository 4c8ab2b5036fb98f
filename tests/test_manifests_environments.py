"""Whether staging and production have projects of their own: what each takes from where, as far as the files say that."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Judgement, Needs
from pytest_lkagents.manifests.load import load

from .deployment_files import written

URL = "wss://acme-k2x91.livekit.cloud"
STAGES = ("staging", "production")
ENV_FROM = "envFrom: [{configMapRef: {name: lk}}]"
BY_KEY = "env: [{name: LIVEKIT_URL, valueFrom: {configMapKeyRef: {name: lk, key: LIVEKIT_URL}}}]"
CONFIG = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: lk}}\ndata: {{LIVEKIT_URL: '{URL}'}}\n"


def agent(env: str) -> str:
    container = f"{{name: agent, image: 'r/agent:1', command: [python, agent.py, start], {env}}}"
    spec = f"spec: {{template: {{spec: {{containers: [{container}]}}}}}}\n"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: voice-agent}}\n{spec}"


def compared(folder: Path, files: dict[str, str]) -> Judgement:
    return rules.separate_environments(written(folder, files), Needs())


@pytest.mark.parametrize("env", [ENV_FROM, BY_KEY])
@pytest.mark.parametrize(
    ("folders", "more"),
    [
        (STAGES, {"production/config.yaml": CONFIG}),
        (("a/staging", "b/production"), {"b/production/config.yaml": CONFIG}),
        # Of one folder, whose files are named after the environments.
        (("k8s-staging", "k8s-production"), {"config-production.yaml": CONFIG}),
        (("k8s-staging", "k8s-production"), {"c.yaml": CONFIG.replace("{name: lk", "{labels: {environment: prod}, name: lk")}),
        # What a Kustomization changes, makes, or puts values into.
        (
            STAGES,
            {
                "config.yaml": CONFIG,
                "staging/config.yaml": CONFIG,
                "staging/kustomization.yaml": "resources: [config.yaml]\npatches: [{patch: '', target: {name: lk}}]\n",
            },
        ),
        (
            STAGES,
            {
                "production/config.yaml": CONFIG,
                "staging/kustomization.yaml": "configMapGenerator: [{name: lk, literals: ['LIVEKIT_URL=wss://stg.example']}]\n",
            },
        ),
        (
            STAGES,
            {
                "config.yaml": CONFIG,
                **{
                    f"{stage}/kustomization.yaml": "resources: [../config.yaml, agent.yaml]\nconfigMapGenerator:\n"
                    f"- {{name: lk, behavior: merge, literals: ['LIVEKIT_URL=wss://{stage}.livekit.cloud']}}\n"
                    for stage in STAGES
                },
            },
        ),
    ],
)
def test_a_config_map_of_the_other_environment_is_not_taken(
    tmp_path: Path, env: str, folders: tuple[str, str], more: dict[str, str]
) -> None:
    judgement = compared(tmp_path, {**{f"{folder}/agent.yaml": agent(env) for folder in folders}, **more})
    assert (judgement.looked_at, judgement.findings) == (0, [])


@pytest.mark.parametrize("env", [ENV_FROM, BY_KEY])
@pytest.mark.parametrize(
    ("folders", "looked_at"), [(("",), 1), (STAGES, 1), (("production", ""), 1), (("staging", "staging/x"), 0)]
)
def test_a_config_map_is_taken_from_the_folder_or_the_nearest_above_it(
    tmp_path: Path, env: str, folders: tuple[str, ...], looked_at: int
) -> None:
    files = {f"{stage}/agent.yaml": agent(env) for stage in STAGES}
    judgement = compared(tmp_path, files | {f"{folder}/config.yaml".lstrip("/"): CONFIG for folder in folders})
    assert (judgement.looked_at, len(judgement.findings)) == (looked_at, looked_at)


def test_a_config_map_below_is_not_passed_over_for_one_above(tmp_path: Path) -> None:
    texts = {f"deploy/{stage}/agent.yaml": agent(ENV_FROM) for stage in STAGES} | {"deploy/lk.yaml": CONFIG}
    assert compared(tmp_path / "a", texts).findings
    below = {f"deploy/{stage}/config/lk.yaml": CONFIG.replace("acme", f"acme-{stage}") for stage in STAGES}
    assert not compared(tmp_path / "b", texts | below).findings


def test_of_two_config_maps_of_one_folder_none_is_taken(tmp_path: Path) -> None:
    files = {f"{stage}/agent.yaml": agent(ENV_FROM) for stage in STAGES}
    assert not compared(tmp_path, files | {"a.yaml": CONFIG, "b.yaml": CONFIG}).looked_at


def group(name: str, url: str = URL) -> str:
    return f"{{name: {name}, envVars: [{{key: LIVEKIT_URL, value: '{url}'}}]}}"


def environment(name: str, links: str, groups: str = "") -> str:
    linked = ", ".join(f"{{fromGroup: {link}}}" for link in links.split())
    service = f"{{type: worker, name: voice-agent, runtime: docker, envVars: [{linked}]}}"
    return f"{{name: {name}, services: [{service}], envVarGroups: [{groups}]}}"


@pytest.mark.parametrize(
    ("staging", "production", "groups", "looked_at", "found"),
    [
        (("common", ""), ("common", ""), group("common"), 1, True),
        # Its own environment's comes first.
        (("lk", group("lk")), ("lk", group("lk", "wss://other.livekit.cloud")), "", 1, False),
        (("lk", group("lk")), ("lk", group("lk")), "", 1, True),
        # Which of two holds, or what is in one that lies elsewhere, the file does not say.
        (("common staging", ""), ("common", ""), f"{group('common')}, {group('staging', 'wss://x.livekit.cloud')}", 0, False),
        (("common elsewhere", ""), ("common", ""), group("common"), 0, False),
        (("lk", ""), ("common", ""), f"{group('lk')}, {group('lk')}, {group('common')}", 0, False),
    ],
)
def test_of_groups_of_render_those_are_compared_that_are_known(
    tmp_path: Path, staging: tuple[str, str], production: tuple[str, str], groups: str, looked_at: int, *, found: bool
) -> None:
    both = f"{environment('staging', *staging)}, {environment('production', *production)}"
    text = f"projects: [{{name: voice, environments: [{both}]}}]\nenvVarGroups: [{groups}]\n"
    judgement = compared(tmp_path, {"render.yaml": text})
    assert (judgement.looked_at, bool(judgement.findings)) == (looked_at, found)


def test_what_both_take_from_one_place_is_said_with_their_names(tmp_path: Path) -> None:
    said = "staging's voice-agent and production's voice-agent both take LIVEKIT_URL from here"
    (shared,) = compared(tmp_path, {**{f"{stage}/agent.yaml": agent(ENV_FROM) for stage in STAGES}, "c.yaml": CONFIG}).findings
    assert (str(shared.place), shared.found) == ("c.yaml:4 data.LIVEKIT_URL", said)
    both = ", ".join(environment(stage, "common") for stage in STAGES)
    text = f"projects: [{{name: voice, environments: [{both}]}}]\nenvVarGroups: [{group('common')}]\n"
    (shared,) = compared(tmp_path / "render", {"render.yaml": text}).findings
    assert (shared.place.line, shared.found) == (2, said)


SCALER = """---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: voice-agent}
spec: {scaleTargetRef: {kind: Deployment, name: voice-agent}, minReplicas: 2, maxReplicas: 9}
"""
IMAGE = 'FROM python:3.12\nCMD ["python", "agent.py", "start"]\n'


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = f"env: [{{name: LIVEKIT_URL, value: '{URL}'}}]"
    both = {"worker.yaml": agent(env) + SCALER, "Dockerfile": IMAGE}
    texts = {f"{stage}/{name}": text for stage in STAGES for name, text in both.items()}
    written(tmp_path, texts)
    for paths in (["staging", "production"], ["production/", str(tmp_path / "staging")], [".", "staging"]):
        files = load(paths)
        assert sorted(files.read) == sorted(texts)
        scalers = {one.place.file: one.autoscalers for one in files.deployments if one.name == "voice-agent"}
        assert {file: [str(one.place) for one in own] for file, own in scalers.items()} == {
            f"{stage}/worker.yaml": [f"{stage}/worker.yaml:6"] for stage in STAGES
        }
        judgement = rules.separate_environments(files, Needs())
        assert (judgement.looked_at, len(judgement.findings)) == (1, 1)


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["k8s"], ["agent.yaml", "x/agent.yaml"]),
        (["k8s", "k8s/x", "k8s/../k8s"], ["agent.yaml", "x/agent.yaml"]),
        (["k8s/x", "k8s/agent.yaml"], ["agent.yaml", "x/agent.yaml"]),
        (["k8s/x", "agent.yaml"], ["agent.yaml", "k8s/x/agent.yaml"]),
        # Files alone are named as they were typed.
        (["k8s/agent.yaml", "k8s/x/agent.yaml", "./k8s/agent.yaml"], ["k8s/agent.yaml", "k8s/x/agent.yaml"]),
    ],
)
def test_each_file_is_read_once_and_named_by_what_all_paths_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], shown: list[str]
) -> None:
    written(tmp_path, {f"{folder}agent.yaml": agent(ENV_FROM) for folder in ("", "k8s/", "k8s/x/")})
    monkeypatch.chdir(tmp_path)
    for given in (paths, paths[::-1]):
        assert sorted(load(given).read) == shown


def test_folders_above_the_project_say_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, {f"{folder}/agent.yaml": agent(ENV_FROM) for folder in ("builds/test/k8s", "home/live", "other/live")})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    apart = load([str(tmp_path / "builds/test/k8s"), str(tmp_path / "home/live")])
    assert sorted(apart.read) == ["k8s/agent.yaml", "live/agent.yaml"]
    alike = load([str(tmp_path / "home/live"), str(tmp_path / "other/live")])
    assert sorted(alike.read) == ["home/live/agent.yaml", "other/live/agent.yaml"]
