"""Dockerfiles of several stages: which of them is judged, with what beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import RAILWAY, Files

from .deployment_files import judged, written

SECRET = "c2hvcnQtbGl2ZWQ5MXF6c2hvcnQtbGl2"
WEB = 'FROM node:22 AS base\nFROM base AS web\nCMD ["node", "server.js"]\n'
AGENT = f'FROM python:3.12 AS agent\nENV LIVEKIT_API_SECRET={SECRET}\nSTOPSIGNAL SIGKILL\nCMD ["python", "agent.py", "dev"]\n'
DEV = 'FROM python:3.12 AS dev\nCMD ["python", "agent.py", "dev"]\n'
PROD = 'FROM python:3.12 AS prod\nCMD ["python", "agent.py", "start"]\n'
POD = "{terminationGracePeriodSeconds: 600, containers: [{name: a, image: 'r/v:1', envFrom: [{secretRef: {name: livekit}}]}]}"
K8S = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: voice-agent}}\nspec: {{template: {{spec: {POD}}}}}\n"
RULES = (rules.secrets, rules.grace_period, rules.production_command)


def read(folder: Path, dockerfile: str, compose: str = "", more: str = K8S) -> Files:
    for name, text in {"Dockerfile": dockerfile, "docker-compose.yml": compose, "k.yaml": more}.items():
        if text:
            (folder / name).write_text(text)
    return load([str(folder)])


def found(files: Files) -> list[list[str]]:
    return [[finding.place.file for finding in rule(files, Needs()).findings] for rule in RULES]


def target(name: str, stage: str) -> str:
    return f"services: {{{name}: {{build: {{context: ., target: {stage}}}, stop_grace_period: 10m}}}}\n"


@pytest.mark.parametrize("compose", ["", target("web", "web"), target("web", "base") + "# built elsewhere\n"])
def test_a_target_of_compose_takes_no_stage_from_what_else_is_deployed(tmp_path: Path, compose: str) -> None:
    assert found(read(tmp_path, WEB + AGENT, compose)) == [["Dockerfile"]] * 3


def test_a_stage_that_nothing_builds_is_said_and_searched_for_secrets(tmp_path: Path) -> None:
    both = "services:\n  web: {build: {context: ., target: web}}\n  agent: {build: {context: ., target: prod}}\n"
    files = read(tmp_path, WEB + PROD + AGENT, both, "")
    assert found(files) == [["Dockerfile"], ["docker-compose.yml"], []]
    assert "Dockerfile: its last stage is built by nothing in these files" in files.passed_over
    files = read(tmp_path, WEB + AGENT, target("web", "web"), "")
    assert found(files) == [["Dockerfile"], [], []]


@pytest.mark.parametrize("stage", ["dev", "Development", "app-local"])
def test_a_target_for_development_is_none_of_production(tmp_path: Path, stage: str) -> None:
    dev = DEV.replace("dev\n", f"{stage}\n", 1)
    for more in (K8S, ""):
        files = read(tmp_path, dev + PROD, target("agent", stage), more)
        assert found(files) == [[], [], []]
        assert rules.production_command(files, Needs()).looked_at == 1
        assert "docker-compose.yml: agent builds a stage for development" in files.passed_over
    # Nobody deploys the last one where it is named so, or where it alone is built for development.
    for compose, how in ((target("agent", stage), "built"), (target("agent", "prod"), "named")):
        assert f"Dockerfile: its last stage is {how} for development" in read(tmp_path, PROD + dev, compose).passed_over
        assert found(load([str(tmp_path)])) == [[], [], []]


def test_a_service_for_development_is_searched_for_secrets(tmp_path: Path) -> None:
    more = f"environment: {{LIVEKIT_API_SECRET: {SECRET}}}}}}}\n"
    compose = target("agent", "dev").replace("}}\n", ", " + more)
    assert found(read(tmp_path, DEV + PROD, compose)) == [["docker-compose.yml"], [], []]


LIVEKIT = "environment: {LIVEKIT_URL: $URL, LIVEKIT_API_KEY: $KEY}"
PNPM = (
    f'FROM node:22 AS dev\nCMD ["pnpm", "dev"]\nFROM dev AS prod\nENV OPENAI_API_KEY={SECRET}\nSTOPSIGNAL SIGKILL\n'
    'CMD ["pnpm", "start"]\n'
)


def composed(*services: str) -> str:
    return "services:\n" + "".join(f"  {service}\n" for service in services)


@pytest.mark.parametrize("backend", ["build: ./api, ports: ['80:80']", "image: 'r/backend:1'"])
def test_what_builds_a_stage_for_development_tells_whose_dockerfile_it_is(tmp_path: Path, backend: str) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api/Dockerfile").write_text('FROM node:22\nCMD ["node", "server.js"]\n')
    agent = f"agent: {{build: {{context: ., target: dev}}, {LIVEKIT}}}"
    files = read(tmp_path, PNPM, composed(agent, f"backend: {{{backend}, {LIVEKIT}}}"), "")
    assert [one.name for one in files.deployments] == ["Dockerfile"]
    assert found(files) == [["Dockerfile"], ["Dockerfile"], []]
    # Where nothing says which of several is the worker, all are judged but for servers of something else.
    files = read(tmp_path, PNPM, composed(agent.replace("agent", "app"), f"backend: {{{backend}, {LIVEKIT}}}"), "")
    names = {one.name for one in files.deployments}
    assert ("Dockerfile" in names, "backend" in names, files.doubtful) == (True, "ports" not in backend, True)


@pytest.mark.parametrize("last", ["prod", ""])
def test_what_else_is_built_of_an_agents_dockerfile_is_no_worker(tmp_path: Path, last: str) -> None:
    agent = f"agent: {{build: {{context: ., target: dev}}, {LIVEKIT}}}"
    others = [f"{name}: {{build: {{context: ., target: web}}, {LIVEKIT}}}" for name in ("web", "queue", "shop")]
    files = read(tmp_path, WEB + PNPM, composed(agent, *others), "")
    assert [one.name for one in files.deployments] == []
    assert found(files) == [["Dockerfile"], [], []], "a key in any of its stages"
    assert files.left_out == ["Dockerfile: its last stage is built by nothing in these files"]
    # One that runs the last stage as it is makes it its own; one with a command does not.
    for command, own in (("", []), (", command: ./shop", ["Dockerfile"])):
        target = f"build: {{context: .{', target: prod' if last else ''}}}"
        files = read(tmp_path, WEB + PNPM, composed(agent, f"shop: {{{target}, {LIVEKIT}{command}}}"), "")
        assert [one.name for one in files.deployments] == own
        assert found(files)[0] == ["Dockerfile"]


@pytest.mark.parametrize(
    ("others", "worker"),
    [
        (
            [f"backend: {{image: 'r/backend:1', {LIVEKIT}}}", "sales-agent: {image: 'r/sales:1', env_file: .env}"],
            ["sales-agent"],
        ),
        ([f"voicebot: {{image: 'r/voice:1', {LIVEKIT}}}"], []),
    ],
)
def test_a_name_is_none_beside_what_has_variables_though_that_is_no_worker(
    tmp_path: Path, others: list[str], worker: list[str]
) -> None:
    agent = f"agent: {{build: {{context: ., target: dev}}, {LIVEKIT}}}"
    files = read(tmp_path, PNPM, composed(agent, *others, "watch-agent: {image: 'acme/watch:1'}"), "")
    assert [one.name for one in files.deployments] == [*worker, "Dockerfile"]
    other = others[0].partition(":")[0]
    assert f"docker-compose.yml: {other} works with LiveKit, and nothing says that it is a worker" in files.left_out


@pytest.mark.parametrize("target", ["", ", target: prod"])
def test_what_runs_the_last_stage_of_an_agents_dockerfile_is_said_with_each_verdict(tmp_path: Path, target: str) -> None:
    agent = f"agent: {{build: {{context: ., target: dev}}, {LIVEKIT}}}"
    files = read(tmp_path, PNPM, composed(agent, f"app: {{build: {{context: .{target}}}, env_file: .env}}"), "")
    said = "docker-compose.yml: app is built from an agent's Dockerfile, and nothing says that it is a worker"
    assert (files.deployments, files.left_out) == ([], [said])
    # Another command makes something else of it, and a web site is none.
    for more in ("command: ./shop", "ports: ['80:80']"):
        files = read(tmp_path, PNPM, composed(agent, f"app: {{build: {{context: .{target}}}, {more}}}"), "")
        assert said not in files.left_out


def test_a_key_beside_a_stage_for_development_is_found_by_what_it_is_built_from(tmp_path: Path) -> None:
    compose = composed(f"app: {{build: {{context: ., target: dev}}, environment: {{OPENAI_API_KEY: {SECRET}}}}}")
    assert found(read(tmp_path, DEV + PROD, compose)) == [["docker-compose.yml"], [], []]
    web = WEB + 'FROM base AS dev\nFROM web\nCMD ["node", "server.js"]\n'
    assert found(read(tmp_path, web, compose)) == [[], [], []]


@pytest.mark.parametrize("more", [K8S, ""])
def test_a_file_for_development_takes_no_stage_from_what_is_deployed(tmp_path: Path, more: str) -> None:
    (tmp_path / "compose.dev.yml").write_text(target("agent", "agent"))
    for before in ("", WEB):
        assert found(read(tmp_path, before + AGENT, more=more)) == [["Dockerfile"]] * 3


def test_a_stage_for_development_that_may_be_deployed_is_said_with_each_verdict(tmp_path: Path) -> None:
    last = 'FROM prod AS dev\nCMD ["python", "agent.py", "dev"]\n'
    files = read(tmp_path, PROD + last, target("agent", "dev"))
    assert found(files) == [[], [], []]
    assert files.left_out == ["Dockerfile: its last stage is built for development"]


def test_livekit_cloud_builds_the_last_stage(tmp_path: Path) -> None:
    for stage, before in (("web", WEB), ("prod", PROD)):
        files = read(tmp_path, before + AGENT, target("agent", stage), "")
        assert found(files) == [["Dockerfile"], [], []]
        assert files.left_out == ["Dockerfile: its last stage is built by nothing in these files"]
    (tmp_path / "livekit.toml").write_text('[agent]\nid = "CA_1"\n')
    for stage, before in (("web", WEB), ("prod", PROD)):
        assert found(read(tmp_path, before + AGENT, target("agent", stage), "")) == [["Dockerfile"]] * 3
        assert load([str(tmp_path)]).left_out == []
    (tmp_path / "livekit.toml").rename(tmp_path / "livekit.dev.toml")
    assert found(load([str(tmp_path)])) == [["Dockerfile"], [], []]


def test_which_of_two_agents_stages_is_deployed_is_not_known(tmp_path: Path) -> None:
    files = read(tmp_path, PROD + AGENT, target("agent", "prod"))
    assert found(files) == [["Dockerfile"], [], []]
    said = "Dockerfile: whether its last stage is built these files do not say"
    assert said in files.left_out
    assert said in files.passed_over
    (tmp_path / "k.yaml").unlink()
    assert said in read(tmp_path, PROD + AGENT, target("agent", "$STAGE"), "").left_out


def test_what_a_developer_runs_says_nothing_of_what_another_platform_does(tmp_path: Path) -> None:
    agent = f"agent: {{build: {{context: ., target: dev}}, {LIVEKIT}}}"
    acme = K8S.replace("voice-agent", "acme").replace("livekit", "s").replace("600", "30")
    files = read(tmp_path, PNPM, composed(agent), acme)
    assert "acme" in {one.name for one in files.deployments}
    assert "k.yaml" in found(files)[1]


FLY = "app = 'drive'\nkill_timeout = 300\n[build]\nbuild-target = 'prod'\n[processes]\nagent = 'python -m drive.agent start'\n"
SITE = "app = 'drive-site'\n[build]\nimage = 'r/site'\n[http_service]\ninternal_port = 3000\n"
SERVER = "app = 'drive-livekit'\n[build]\nimage = 'livekit/livekit-server:v1.9.0'\n"
REDIS = K8S.replace("voice-agent", "redis").replace("r/v:1", "redis:7").replace(", envFrom: [{secretRef: {name: livekit}}]", "")
API = 'FROM python:3.12 AS prod\nCMD ["uvicorn", "drive.api:app"]\n'
DEBUG = DEV.replace("AS dev", "AS debug")


@pytest.mark.parametrize(
    "beside",
    [
        {"site/fly.toml": SITE},
        {"livekit/fly.toml": SERVER},
        {"k.yaml": REDIS},
        {"site/fly.toml": SITE, "k.yaml": REDIS},
        # What may be a worker for all that is known, beside one for certain on another platform.
        {"k.yaml": REDIS.replace("redis:7", "r/crm:1").replace("redis", "crm")},
    ],
)
def test_what_is_no_worker_builds_none_of_a_workers_stages(tmp_path: Path, beside: dict[str, str]) -> None:
    tree = {"agent/Dockerfile": API + DEBUG, "agent/fly.toml": FLY}
    files = written(tmp_path, {**tree, **beside})
    assert found(files) == [[], [], []]
    assert "agent/Dockerfile: its last stage is built by nothing in these files" in files.passed_over


def test_what_may_be_the_worker_may_build_the_last_stage(tmp_path: Path) -> None:
    # Of several that no file calls a worker any may be it.
    web = FLY.replace("[processes]\nagent = 'python -m drive.agent start'\n", "").replace("prod", "web")
    files = written(tmp_path, {"agent/Dockerfile": WEB + AGENT, "agent/fly.toml": web, "site/fly.toml": SITE})
    assert found(files)[2] == ["agent/Dockerfile"]
    # What else works with LiveKit may be a worker, too.
    voice = SITE.replace("[http", "[env]\nLIVEKIT_URL = 'wss://a.livekit.cloud'\n[http").replace("drive-site", "drive-agent")
    files = written(tmp_path, {"agent/Dockerfile": PROD + DEBUG, "agent/fly.toml": FLY, "site/fly.toml": voice})
    assert "agent/Dockerfile: whether its last stage is built these files do not say" in files.left_out


@pytest.mark.parametrize("path", ["Dockerfile", "apps/agent/Dockerfile", "/apps/agent/Dockerfile"])
def test_a_dockerfile_on_railway_is_found_from_the_top_too(tmp_path: Path, path: str) -> None:
    def service(where: str) -> str:
        return f'[build]\ndockerfilePath = "{where}"\n[deploy]\ndrainingSeconds = 5\n'

    files = {
        "repo/apps/agent/railway.toml": service(path),
        "repo/apps/agent/Dockerfile": 'FROM python:3.12\nCMD ["python", "agent.py", "start"]\n',
        "repo/apps/web/railway.toml": service("apps/web/Dockerfile"),
        "repo/apps/web/Dockerfile": 'FROM node:22\nCMD ["node", "server.js"]\n',
    }
    found = rules.grace_period(written(tmp_path, files), Needs()).findings
    assert [finding.place.file for finding in found] == ["repo/apps/agent/railway.toml"]


@pytest.mark.parametrize("name", ["railway-agent.toml", "railway.agent.toml", "agent.railway.toml"])
def test_a_service_of_railway_may_have_a_file_of_another_name(tmp_path: Path, name: str) -> None:
    one = '[build]\ndockerfilePath = "Dockerfile.agent"\n[deploy]\nnumReplicas = 1\n'
    files = written(tmp_path, {name: one, "Dockerfile.agent": PROD, "subrailway.toml": one})
    assert [str(finding) for finding in rules.replicas(files, Needs()).findings] == [
        f"{name}:4 deploy.numReplicas: one worker; wanted: at least 2"
    ]


def test_a_dockerfile_that_railway_is_not_told_of_is_not_looked_for(tmp_path: Path) -> None:
    files = written(tmp_path, {"web/railway.toml": "[deploy]\ndrainingSeconds = 5\n", "Dockerfile": PROD})
    assert [one.built_from for one in files.deployments if one.platform is RAILWAY] == ["web/Dockerfile"]


def test_the_last_stage_that_is_no_workers_is_named_apart_from_one_that_is(tmp_path: Path) -> None:
    services = "agent: {build: {context: ., target: prod}}, web: {build: {context: ., target: web}}"
    files = read(tmp_path, PROD + WEB, f"services: {{{services}}}\n", "")
    assert files.passed_over == ["Dockerfile, last stage looks like no worker", "docker-compose.yml: web looks like no worker"]


STAGES = """FROM python:3.12 AS base
FROM base AS api
EXPOSE 8000
CMD ["uvicorn", "interview.api:app"]
FROM base AS worker
CMD ["python", "-m", "interview.worker", "start"]
"""


@pytest.mark.parametrize(("name", "problems"), [("build-target", 0), ("target", 1)])
def test_a_stage_that_is_named_by_another_field_shows_what_is_meant(tmp_path: Path, name: str, problems: int) -> None:
    fly = f"app = 'interview-api'\n[build]\n{name} = 'api'\n[http_service]\ninternal_port = 8000\n"
    agent = "services:\n  agent:\n    build: {context: ., target: worker}\n    stop_grace_period: 10m\n"
    files = written(tmp_path, {"Dockerfile": STAGES, "fly.toml": fly, "compose.yaml": agent})
    assert "interview-api" not in judged(files)
    assert [problem.reason for problem in files.problems] == ["there is no field 'target'; 'build-target' is meant"] * problems
    assert rules.grace_period(files, Needs()).findings == []
