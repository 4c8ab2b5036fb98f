"""Deployment files as they lie in repositories: which of them are read, whose they are, and what in them is no evidence."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.manifests import rules, yaml_files
from pytest_lkagents.manifests.commands import modes_of
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import is_dockerfile, load
from pytest_lkagents.manifests.readers.common import FOR_DEVELOPMENT
from suites import test_manifests as checks

from .deployment_files import judged, written

SECRET = "c2hvcnQtbGl2ZWQ5MXF6"


AGENT_IMAGE = 'FROM python:3.12\nCMD ["python", "agent.py", "start"]\n'
COMMENTED = '{\n  // as tools write it\n  "strict": true\n}\n'


def test_a_tools_file_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    files = written(tmp_path, {"tsconfig.json": COMMENTED, "chart.yaml": "a: {b\n", "Dockerfile": AGENT_IMAGE})
    assert (judged(files), files.problems, files.unread) == ({"Dockerfile"}, [], ["chart.yaml:2"])
    assert load([str(tmp_path / "tsconfig.json")]).problems, "one that is named itself is meant"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # Such jobs have services, too.
        (".github/workflows/ci.yml", "jobs:\n  test:\n    services:\n      db: {image: 'postgres:16'}\n    steps: [{\n"),
        ("scripts/railway-test-20260105.json", '[\n{"success": false},\n'),
        ("public/openapi.yaml", "openapi: 3.1.0\npaths:\n  a:\n    kind: {type: string}\n  a: {}\n"),
        ("monitoring/board.json", '{\n  "panels": [{\n    "services": ["a" "b"]\n  }]\n}\n'),
    ],
)
def test_what_is_only_like_a_deployment_file_is_passed_over(tmp_path: Path, name: str, text: str) -> None:
    files = written(tmp_path, {name: text, "Dockerfile": AGENT_IMAGE})
    assert (judged(files), files.problems) == ({"Dockerfile"}, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("railway.json", "{"),
        ("agent.railway.json", '{\n  "deploy": {"numReplicas": 2,\n'),
        ("railway-agent.json", '{"$schema": "x", "deploy": {"numReplicas": 2,\n'),
        ("railway-agent.toml", "[deploy]\nnumReplicas = two\n"),
        ("worker.yaml", "apiVersion: v1\na: {b\n"),
        ("worker.json", '{\n  "apiVersion": "v1",\n  "kind": "Secret"\n  "data": {}\n}\n'),
        ("stack.yml", "services:\n  agent: {image: a\n"),
        ("compose.yaml", "a: {b\n"),
        ("task.json", '{"containerDefinitions": [{]}'),
    ],
)
def test_a_deployment_file_that_cannot_be_read_is_a_problem(tmp_path: Path, name: str, text: str) -> None:
    assert written(tmp_path, {name: text}).problems


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *[(name, True) for name in ("Dockerfile", "Dockerfile-agent", "agent.dockerfile", "Containerfile", "dockerfile.dev")],
        *[
            (name, False)
            for name in ("Dockerfile.dockerignore", "Dockerfile.j2", "Dockerfile.md", "dockerfiles", "Dockerfile_x")
        ],
    ],
)
def test_dockerfiles_have_many_names(name: str, *, is_one: bool) -> None:
    assert is_dockerfile(name, "") is is_one


PROGRAM = "# of whom\n\nfrom os import path\nimport sys\nFROM = 'FROM x'\n"


@pytest.mark.parametrize(
    "name", ["Dockerfile.go", "Dockerfile.ts", "dockerfile.js", "dockerfile.validator.ts", "Dockerfile.yaml"]
)
def test_what_is_named_as_a_program_is_a_dockerfile_where_it_begins_as_such(tmp_path: Path, name: str) -> None:
    assert judged(written(tmp_path, {name: f"# syntax=docker/dockerfile:1\r\n\n{AGENT_IMAGE}"})) == {name}
    files = written(tmp_path, {name: PROGRAM, "Dockerfile": AGENT_IMAGE})
    assert (judged(files), files.problems) == ({"Dockerfile"}, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {voice-agent: {build: .}}\n"),
        ("render.yaml", "services: [{type: worker, name: voice-agent, runtime: docker}]\n"),
        ("fly.toml", 'app = "voice-agent"\n'),
    ],
)
def test_the_image_of_a_worker_is_judged_with_it(tmp_path: Path, name: str, text: str) -> None:
    files = written(tmp_path, {name: text, "Dockerfile": "FROM python:latest\nSTOPSIGNAL SIGKILL\nCMD [./run.sh]\n"})
    assert judged(files) == {"voice-agent", "Dockerfile"}
    assert [finding.place.file for finding in rules.grace_period(files, Needs()).findings if "KILL" in finding.found] == [
        "Dockerfile"
    ]


def test_a_web_site_is_no_worker_though_an_agents_image_lies_beside_it(tmp_path: Path) -> None:
    compose = "services:\n  frontend: {build: ./web, environment: {LIVEKIT_URL: $URL}}\n"
    compose += "  gateway: {build: ./gateway, environment: {LIVEKIT_URL: $URL}}\n"
    files = written(
        tmp_path,
        {
            "agent/Dockerfile": AGENT_IMAGE,
            "gateway/Dockerfile": 'FROM node:22\nCMD ["node", "server.mjs"]\n',
            "compose.yaml": compose,
        },
    )
    assert judged(files) == {"agent/Dockerfile"}


def test_a_folders_name_makes_no_worker_of_a_web_server(tmp_path: Path) -> None:
    served = 'FROM python:3.12\nCMD ["sh", "-c", "uvicorn app:app --port 80"]\n'
    fly = 'app = "backend"\n[build]\ndockerfile = "Dockerfile.guide"\n[http_service]\ninternal_port = 80\n'
    files = written(tmp_path, {"agent/Dockerfile": AGENT_IMAGE, "agent/Dockerfile.guide": served, "agent/fly.guide.toml": fly})
    assert judged(files) == {"agent/Dockerfile"}
    assert judged(written(tmp_path / "livekit-agent/x", {"Dockerfile": "FROM nginx:1.27\n"})) == set()


BESIDE = """services:
  voice-agent: {image: 'r/voice-agent:1.0', command: python agent.py start, stop_grace_period: 10m}
"""


@pytest.mark.parametrize(
    ("service", "dockerfile"),
    [
        ("agent-db: {image: 'postgres:16'}", ""),
        ("agent-store: {build: ./api}", "FROM redis:7\n"),
        ("agent-ui: {image: 'r/agent-ui:1.0'}", ""),
        ("agent-backend: {build: ./api}", 'FROM python:3.12\nCMD ["uvicorn", "main:app"]\n'),
        ("agent-api: {build: ./api}", "FROM python:3.12\nENTRYPOINT [./run.sh]\n"),
        ("agent-site: {image: 'r/agent-site:1.0', command: next start}", ""),
    ],
)
def test_what_is_named_after_an_agent_is_not_always_one(tmp_path: Path, service: str, dockerfile: str) -> None:
    files = {"compose.yaml": f"{BESIDE}  {service}\n", **({"api/Dockerfile": dockerfile} if dockerfile else {})}
    assert judged(written(tmp_path, files)) == {"voice-agent"}


def test_a_part_by_its_name_is_a_worker_where_nothing_else_is(tmp_path: Path) -> None:
    assert judged(written(tmp_path, {"compose.yaml": "services: {agent-server: {image: 'r/agent-server:1.0'}}\n"}))
    started = f"{BESIDE}  agent-api: {{image: 'r/agent-api:1.0', command: python agent.py start}}\n"
    assert judged(written(tmp_path, {"compose.yaml": started})) == {"voice-agent", "agent-api"}
    dev = {"compose.yaml": "services: {agent-server: {image: 'r/agent-server:1.0'}}\n", "compose.dev.yaml": BESIDE}
    assert judged(written(tmp_path / "dev", dev)) == {"agent-server", "voice-agent"}
    # Whose image a Dockerfile makes, the file of Kubernetes does not say.
    pod = "{containers: [{name: agent, image: 'r/agent-server:1.0'}]}"
    text = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: agent-server}}\nspec: {{template: {{spec: {pod}}}}}\n"
    files = written(tmp_path / "other", {"Dockerfile": AGENT_IMAGE, "worker.yaml": text})
    assert judged(files) == {"agent-server", "Dockerfile"}


def deployed(name: str, image: str, more: str = "") -> str:
    pod = f"{{containers: [{{name: main, image: '{image}'{more}}}]}}"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{template: {{spec: {pod}}}}}\n"


@pytest.mark.parametrize(
    ("name", "image"),
    [("voice-agent", "acme/agent-server:1.0"), ("agent-server", "acme/x:1.0"), ("voice-agent", "acme/agent-api:1.0")],
)
def test_what_compose_runs_makes_no_part_of_what_a_cluster_runs(tmp_path: Path, name: str, image: str) -> None:
    compose = "services: {agent: {build: ., command: python agent.py start, stop_grace_period: 10m}}\n"
    files = {"Dockerfile": AGENT_IMAGE, "docker-compose.yml": compose, "k8s/deployment.yaml": deployed(name, image)}
    read = written(tmp_path, files)
    assert judged(read) == {"agent", name, "Dockerfile"}
    assert [finding.place.file for finding in rules.grace_period(read, Needs()).findings] == ["k8s/deployment.yaml"]


@pytest.mark.parametrize(
    ("name", "is_one"), [("agent-ui", False), ("agent-db", False), ("voice-agent-tokens", False), ("db-agent", True)]
)
def test_the_word_behind_agent_tells_a_part(tmp_path: Path, name: str, *, is_one: bool) -> None:
    starts = deployed("voice-agent", "acme/voice:1.0", ", command: [python, agent.py, start]")
    files = written(tmp_path, {"agent.yaml": starts, "other.yaml": deployed(name, "acme/other:1.0", LIVEKIT)})
    assert judged(files) == {"voice-agent", name} if is_one else {"voice-agent"}


def test_a_part_is_none_beside_a_worker_that_its_image_starts(tmp_path: Path) -> None:
    files = {"Dockerfile": AGENT_IMAGE, "ui.yaml": deployed("agent-ui", "acme/ui:1.0")}
    assert judged(written(tmp_path, files)) == {"agent-ui", "Dockerfile"}
    files["agent.yaml"] = deployed("voice-agent", "acme/agent:1.0")
    assert judged(written(tmp_path, files)) == {"voice-agent", "Dockerfile"}


def test_what_a_livekit_server_is_built_from_makes_it_one(tmp_path: Path) -> None:
    compose = "services: {livekit-server: {build: {dockerfile: Dockerfile.livekit}, environment: {LIVEKIT_KEYS: $KEYS}}}\n"
    files = written(tmp_path, {"Dockerfile.livekit": "FROM livekit/livekit-server:v1.9\n", "compose.yaml": compose})
    assert judged(files) == set()
    for tag in ("v1", "${SIP_VERSION}"):
        assert judged(written(tmp_path / "other", {"agent/Dockerfile": f"FROM livekit/sip:{tag}\n"})) == set()


def test_what_livekit_cloud_builds_is_a_worker_whatever_it_starts(tmp_path: Path) -> None:
    api = "services: {backend: {image: 'acme/backend:1', environment: {LIVEKIT_URL: $URL, LIVEKIT_API_KEY: $KEY}}}\n"
    files = {"app/Dockerfile": "FROM python:3.13\nENTRYPOINT [/app/entrypoint.sh]\n", "app/livekit.toml": "[agent]\n"}
    for more in ({}, {"compose.yaml": api}):
        found = written(tmp_path, files | more)
        assert "app/Dockerfile" in judged(found)
        assert not any("nothing looks like" in note for note in rules.readable(found, Needs()).notes)


def test_where_nothing_looks_like_a_worker_all_that_may_be_one_are_judged(tmp_path: Path) -> None:
    compose = (
        "services:\n  db: {image: 'postgres:16', ports: ['5432:5432']}\n  livekit: {image: 'livekit/livekit-server:v1.9'}\n"
    )
    files = written(tmp_path, {"compose.yaml": compose})
    assert (judged(files), files.doubtful) == (set(), False)
    files = written(tmp_path, {"compose.yaml": compose + "  assistant: {image: 'registry.internal/assistant:1'}\n"})
    assert (judged(files), files.doubtful) == ({"assistant"}, True)
    assert "nothing looks like a LiveKit worker; judged is assistant" in rules.readable(files, Needs()).notes


COMPOSE = "services: {agent: {image: 'r/agent:1.0', stop_grace_period: 10m}}\n"


def test_a_part_of_a_compose_service_is_judged_for_secrets_alone(tmp_path: Path) -> None:
    part = f"services:\n  agent: {{restart: always, environment: {{LIVEKIT_API_SECRET: {SECRET}}}}}\n"
    files = written(tmp_path, {"docker-compose.yml": COMPOSE, "docker-compose.prod.yml": part})
    assert [one.place.file for one in files.deployments] == ["docker-compose.yml"]
    assert files.passed_over == ["docker-compose.prod.yml: agent is a whole service only with another file"]
    (finding,) = rules.secrets(files, Needs()).findings
    assert finding.place.file == "docker-compose.prod.yml"
    files = written(tmp_path / "other", {"compose.override.yaml": part})
    (finding,) = rules.secrets(files, Needs()).findings
    assert finding.found == "LIVEKIT_API_SECRET is a literal"


KEY = "sk-proj-9aJ2kLm83QzXw71Rt5Yb"
WHOLE = "services: {voice: {image: 'r/agent:1.0'}, db: {image: 'postgres:16'}, ui: {image: 'r/ui:1.0'}}\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"docker-compose.prod.yml": "agent: {environment: {OPENAI_API_KEY: " + KEY + "}}"}, "OPENAI_API_KEY is a literal"),
        (
            {"docker-compose.yml": WHOLE, "docker-compose.prod.yml": "voice: {environment: [OPENAI_API_KEY=" + KEY + "]}"},
            "OPENAI_API_KEY is a literal",
        ),
        (
            {
                "base.yml": WHOLE,
                "production.yml": "voice: {restart: always, environment: {LIVEKIT_API_SECRET: " + SECRET + "}}",
            },
            "LIVEKIT_API_SECRET is a literal",
        ),
        (
            {"compose.yaml": "agent: {extends: {file: base.yml, service: a}, environment: {API_KEY: " + KEY + "}}"},
            "API_KEY is a literal",
        ),
        ({"compose.prod.yaml": "agent: {environment: {DB: 'postgres://a:k3Y0fTheDb@db/a'}}"}, "DB has a password in its URL"),
        ({"compose.override.yaml": "agent: {build: {args: {HF_TOKEN: " + KEY + "}}}"}, "HF_TOKEN is a literal"),
    ],
)
def test_a_secret_in_a_part_of_a_worker_is_found(tmp_path: Path, files: dict[str, str], found: str) -> None:
    files = {name: text if text.startswith("services") else f"services: {{{text}}}\n" for name, text in files.items()}
    (finding,) = rules.secrets(written(tmp_path, files), Needs()).findings
    assert finding.found == found


def test_parts_of_what_is_no_worker_are_left_alone_and_prove_nothing(tmp_path: Path) -> None:
    parts = f"services: {{db: {{environment: {{POSTGRES_PASSWORD: {SECRET}}}}}, ui: {{environment: {{A_TOKEN: {SECRET}}}}}}}\n"
    files = written(tmp_path, {"compose.yaml": WHOLE, "compose.prod.yaml": parts})
    assert rules.secrets(files, Needs()).findings == []
    part = "services: {agent: {environment: {A: b}}, agent-db: {environment: {POSTGRES_PASSWORD: " + SECRET + "}}}\n"
    files = written(tmp_path / "alone", {"compose.prod.yaml": part})
    assert (rules.secrets(files, Needs()).looked_at, rules.readable(files, Needs()).looked_at) == (0, 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("azure.yaml", "services: {agent: {project: ./agent, language: py, host: containerapp}}\n"),
        ("azure.yaml", "services: {agent: {image: r/agent, host: containerapp}}\n"),
        ("values.yaml", "services: {agent: {image: {repository: r/agent, tag: latest}}}\n"),
        ("values-prod.yaml", "services: {agent: {image: r/agent}}\n"),
        ("settings.yaml", "services: {agent: {restart: always}}\n"),
        ("settings.yaml", "services: {agent: {restart: always, environment: production}}\n"),
        ("settings.yaml", "services: {agent: {environment: {A: b}}}\n"),
        ("prod.yaml", "services: {agent: {image: {tag: latest}, ports: [80], environment: {A: b}}}\n"),
        (
            "deploy.yaml",
            "services: {agent: {image: r/agent}}\nprofiles: {}\ndeployment: {agent: {dcloud: {count: 2}}}\n",
        ),
        ("porter.yaml", "services: [{name: agent, type: worker, run: python agent.py start, cpuCores: 4}]\n"),
        ("koyeb.yaml", "services: [{name: agent, type: worker, docker: {image: r/agent}, env: [{key: A, value: b}]}]\n"),
    ],
)
def test_what_has_services_of_another_platform_is_not_read(tmp_path: Path, name: str, text: str) -> None:
    files = written(tmp_path, {name: text})
    assert (files.read, files.deployments, files.passed_over) == ([], [], [])
    assert load([str(tmp_path / name)]).strange == [str(tmp_path / name)]


def test_a_compose_file_with_what_compose_refuses_is_read(tmp_path: Path) -> None:
    text = "services: {agent: {image: r/agent}}\ndeployment: {replicas: 2}\n"
    files = written(tmp_path, {"docker-compose.prod.yml": text})
    assert judged(files) == {"agent"}


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("render.yaml", "{type: worker, name: agent}"),
        ("blueprint.yaml", "{type: worker, name: agent, image: {url: 'r/agent:1'}}"),
        ("blueprint.yaml", "{type: worker, name: agent, numInstances: 2, maxShutdownDelaySeconds: 300}"),
        ("deploy/render.staging.yml", "{type: worker, name: agent, image: {url: 'r/agent:1'}}"),
        ("blueprint.yaml", "{type: worker, name: agent, runtime: docker}"),
        ("blueprint.yaml", "{type: worker, name: agent, env: docker}"),
    ],
)
def test_a_blueprint_of_render_is_told_by_its_name_or_its_services(tmp_path: Path, name: str, service: str) -> None:
    assert judged(written(tmp_path, {name: f"services: [{service}]\n"})) == {"agent"}


def test_each_service_that_takes_a_value_from_another_one_is_named(tmp_path: Path) -> None:
    text = "services:\n  agent: {image: 'r/agent:1.0', stop_grace_period: 60s}\n"
    text += "  agent-b: {extends: agent}\n  agent-c: {extends: {service: agent-b}}\n"
    findings = rules.grace_period(written(tmp_path, {"compose.yaml": text}), Needs()).findings
    assert [(one.place.line, one.place.field) for one in findings] == [
        (2, f"services.{name}.stop_grace_period") for name in ("agent", "agent-b", "agent-c")
    ]


@pytest.mark.parametrize("none", ["scale: 0", "deploy: {replicas: 0}"])
def test_a_service_of_none_that_others_extend_is_no_worker(tmp_path: Path, none: str) -> None:
    base = f"  base: {{image: 'r/agent:1.0', command: python agent.py start, environment: {{A_TOKEN: {SECRET}}}, {none}}}\n"
    more = "{extends: {service: base}, scale: 2, deploy: {replicas: 2}, stop_grace_period: 10m}"
    files = written(tmp_path, {"compose.yaml": f"services:\n{base}  en: {more}\n  de: {more}\n"})
    assert judged(files) == {"en", "de"}
    assert not rules.always_on(files, Needs()).findings
    assert not rules.grace_period(files, Needs()).findings
    assert files.passed_over == ["compose.yaml: base runs nowhere, and is there for others to extend"]
    assert rules.secrets(files, Needs()).findings, "its variables are theirs"
    files = written(
        tmp_path, {"compose.yaml": f"services:\n{base}  more: {{extends: base}}\n  en: {more.replace('base', 'more')}\n"}
    )
    assert judged(files) == {"en"}, "one that extends it is such a base, too"
    for others in ("", "  dev: {extends: base, profiles: [dev], scale: 1, deploy: {replicas: 1}}\n"):
        files = written(tmp_path, {"compose.yaml": f"services:\n{base}{others}"})
        assert rules.always_on(files, Needs()).findings, "nobody extends it but for development"


def test_a_file_for_development_by_its_name_is_judged_for_secrets_alone(tmp_path: Path) -> None:
    dev = f"services: {{agent: {{build: ., command: python agent.py dev, environment: {{LIVEKIT_API_SECRET: {SECRET}}}}}}}\n"
    image = 'FROM python:3.12\nCMD ["python", "agent.py", "dev"]\n'
    files = written(tmp_path, {"compose.yaml": COMPOSE, "docker-compose.dev.yml": dev, "Dockerfile.dev": image})
    assert len(files.deployments) == 3
    command = rules.production_command(files, Needs())
    assert (command.looked_at, command.findings) == (0, [])
    assert command.notes == [
        "Dockerfile.dev: for development by its name, not judged",
        "docker-compose.dev.yml: for development by its name, not judged",
    ]
    grace = rules.grace_period(files, Needs())
    assert (grace.looked_at, grace.findings) == (1, [])
    assert len(grace.notes) == 1, "a Dockerfile has no grace period"
    (finding,) = rules.secrets(files, Needs()).findings
    assert finding.place.file == "docker-compose.dev.yml"
    note = "judged only for secrets, separate environments and whether it can be read"
    assert any(note in said for said in rules.readable(files, Needs()).notes)
    for name in ("docker-compose.dev.yml", "Dockerfile.dev"):
        alone, beside = [str(tmp_path / name)], [str(tmp_path / name), str(tmp_path)]
        assert rules.production_command(load(alone), Needs()).findings, "one that is named itself is meant"
        for paths in (beside, beside[::-1]):
            files = load(paths)
            assert [finding.place.file for finding in rules.production_command(files, Needs()).findings] == [name]
            assert len(files.deployments) == len(set(files.read)) == 3


@pytest.mark.parametrize("folder", ["dev", "environments/Development", "local/agent"])
def test_a_folder_for_development_by_its_name_is_judged_for_secrets_alone(tmp_path: Path, folder: str) -> None:
    dev = f"services: {{agent: {{image: 'r/agent:latest', environment: {{LIVEKIT_API_SECRET: {SECRET}}}}}}}\n"
    files = written(tmp_path, {"prod/compose.yaml": COMPOSE, f"{folder}/compose.yaml": dev})
    grace = rules.grace_period(files, Needs())
    assert (grace.looked_at, grace.findings) == (1, [])
    assert grace.notes == [f"{folder}/compose.yaml: for development by its name, not judged"]
    (finding,) = rules.secrets(files, Needs()).findings
    assert finding.place.file == f"{folder}/compose.yaml"
    for paths in ([f"{folder}"], [f"{folder}", "prod"], [f"{folder}", "."], [f"{folder}/compose.yaml", "."]):
        files = load([str(tmp_path / path) for path in paths])
        assert rules.grace_period(files, Needs()).findings, "one that is named itself is meant"


@pytest.mark.parametrize("folder", ["local-guide", "devops", "agents/dev-relations"])
def test_a_folder_that_is_named_after_an_agent_is_not_for_development(tmp_path: Path, folder: str) -> None:
    dev = "services: {agent: {image: 'r/agent:1', stop_grace_period: 60s}}\n"
    files = written(tmp_path, {"prod/compose.yaml": COMPOSE, f"{folder}/compose.yaml": dev})
    assert [finding.place.file for finding in rules.grace_period(files, Needs()).findings] == [f"{folder}/compose.yaml"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {agent: {image: 'r/agent:1.0', stop_grace_period: 15M}}\n"),
        ("fly.toml", 'app = "agent"\nkill_timeout = "15M"\n'),
    ],
)
def test_a_duration_in_capitals_is_none(tmp_path: Path, name: str, text: str) -> None:
    files = written(tmp_path, {name: text})
    assert (rules.grace_period(files, Needs()).looked_at, len(rules.readable(files, Needs()).findings)) == (0, 1)


def test_an_editors_container_is_for_development(tmp_path: Path) -> None:
    editor = "services: {agent: {build: ., volumes: ['.:/app'], environment: {LIVEKIT_API_SECRET: " + SECRET + "}}}\n"
    editors = {".devcontainer/docker-compose.yml": editor, ".devcontainer/python/Dockerfile": "FROM python:latest\n"}
    files = written(tmp_path, {"compose.yaml": COMPOSE, **editors})
    grace = rules.grace_period(files, Needs())
    assert (grace.looked_at, grace.findings) == (1, [])
    assert grace.notes == [".devcontainer/docker-compose.yml: for development by its name, not judged"]
    (finding,) = rules.secrets(files, Needs()).findings
    assert finding.place.file == ".devcontainer/docker-compose.yml"
    assert rules.grace_period(load([str(tmp_path / ".devcontainer/docker-compose.yml")]), Needs()).findings, (
        "it is named itself"
    )


DEVELOPED = "services: {voice: {build: ., command: python agent.py dev}}\n"
LIVEKIT = ", env: [{name: LIVEKIT_URL, value: 'wss://voice.livekit.cloud'}]"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, []),
        ({"web/compose.yaml": "services: {web: {image: 'r/web-site:1'}}\n"}, []),
        # What else is for development is judged where there is nothing better.
        ({"docker-compose.dev.yml": DEVELOPED}, ["docker-compose.dev.yml"]),
    ],
)
def test_an_editors_container_is_judged_for_secrets_alone_also_where_nothing_is_deployed(
    tmp_path: Path, more: dict[str, str], said: list[str]
) -> None:
    secret = "environment: {LIVEKIT_API_SECRET: " + SECRET + "}"
    editor = f"services: {{agent: {{build: ., command: python agent.py dev, {secret}}}}}\n"
    image = 'FROM python:3.12\nCMD ["python", "agent.py", "dev"]\n'
    files = written(tmp_path, {".devcontainer/compose.yaml": editor, ".devcontainer/Dockerfile": image, **more})
    assert [finding.place.file for finding in rules.production_command(files, Needs()).findings] == said
    assert [finding.place.file for finding in rules.secrets(files, Needs()).findings] == [".devcontainer/compose.yaml"]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("deployment.yaml", deployed("voice-bot", "acme/bot:1.0", LIVEKIT), "voice-bot"),
        ("deployment.yaml", deployed("reception", "acme/reception:1.0"), "reception"),
        ("compose.yaml", "services: {voice: {build: ., env_file: .env}, store: {image: 'acme/store:1'}}\n", "voice"),
    ],
)
def test_a_file_for_development_does_not_decide_what_is_judged_of_others(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    files = written(tmp_path, {"docker-compose.dev.yml": DEVELOPED, name: text})
    assert judged(files) == {"voice", found}
    assert [finding.place.file for finding in rules.grace_period(files, Needs()).findings] == [name]
    assert not rules.production_command(files, Needs()).findings


def test_what_may_be_a_worker_beside_one_for_development_is_said_to_be_doubtful(tmp_path: Path) -> None:
    files = written(
        tmp_path, {"docker-compose.dev.yml": DEVELOPED, "deployment.yaml": deployed("reception", "acme/reception:1.0")}
    )
    assert (
        "nothing but what is for development looks like a LiveKit worker; judged is reception"
        in rules.readable(files, Needs()).notes
    )
    backend = deployed("backend", "acme/backend:1.0", ", command: [node, server.js]")
    assert judged(written(tmp_path / "api", {"docker-compose.dev.yml": DEVELOPED, "backend.yaml": backend})) == {"voice"}
    web = {"docker-compose.dev.yml": DEVELOPED, "web/Dockerfile": 'FROM node:22\nCMD ["node", "server.mjs"]\n'}
    assert judged(written(tmp_path / "web", web)) == {"voice"}


@pytest.mark.parametrize(
    "others", [{}, {"redis.yaml": deployed("redis", "redis:7")}, {"compose.yaml": "services: {cache: {image: 'valkey:8'}}\n"}]
)
@pytest.mark.parametrize(
    ("name", "text"),
    [("voice.acme.dev.yaml", deployed("voice-agent", "acme/voice:1.0")), ("fly.dev.toml", 'app = "voice-agent"\n')],
)
def test_a_file_for_development_is_judged_where_no_other_one_has_a_worker(
    tmp_path: Path, name: str, text: str, others: dict[str, str]
) -> None:
    files = written(tmp_path, {name: text, **others})
    assert [finding.place.file for finding in rules.grace_period(files, Needs()).findings] == [name]


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        *[(name, True) for name in ("Dockerfile.dev", "dev.Dockerfile", "compose.local.yml", "fly_development.toml")],
        *[(name, False) for name in ("device.Dockerfile", "compose.devices.yml", "Dockerfile.localized")],
    ],
)
def test_names_of_files_for_development(name: str, *, is_it: bool) -> None:
    assert bool(FOR_DEVELOPMENT.search(name)) is is_it


def test_named_checks_of_fly_are_read(tmp_path: Path) -> None:
    fly = 'app = "agent"\n[[checks]]\nname = "health"\nport = 9999\ntype = "http"\npath = "/"\n'
    (finding,) = rules.health_probe(written(tmp_path, {"fly.toml": fly}), Needs()).findings
    assert (finding.found, finding.place.line) == ("a health probe on port 9999", 4)


def test_services_in_projects_of_render_are_read(tmp_path: Path) -> None:
    service = "{type: worker, name: agent, runtime: image, envVars: [{key: LIVEKIT_API_SECRET, value: " + SECRET + "}]}"
    blueprint = "projects:\n- name: voice\n  environments:\n  - name: production\n    services: [" + service + "]\n"
    files = written(tmp_path, {"render.yaml": blueprint})
    assert [(deployment.name, deployment.environment) for deployment in files.deployments] == [("agent", "production")]
    assert rules.secrets(files, Needs()).findings
    assert judged(written(tmp_path, {"render.yaml": "ungrouped: {services: [" + service + "]}\n"})) == {"agent"}


def test_settings_that_lie_in_a_secret_are_none(tmp_path: Path) -> None:
    entries = {
        "NODE_ENV": "production",
        "AWS_SES_REGION": "eu-central-1",
        "GOOGLE_CALLBACK_URL": "https://x.example.io/oauth/callback",
        "POSTGRES_USER": "administrator",
        "SIP_IP": "203.0.113.17",
        "LIVEKIT_URL": "livekit.internal.net",
        "ACCESS_TOKEN_LIFETIME": "15 minutes",
        "DATABASE_URL": "postgres://app:Wq81mzP0aa@db/app",
        "REPLICA_URL": "postgres://app:CHANGE_ME@db/app?pool_timeout=10",
        "LIVEKIT_API_KEY": "access_token",
        "livekit-webhook-secret": "webhook-secret",
        "PGUSER": "voice1",
        "PGDATABASE": "voice_calls_2",
        "AUDIT_LOG_PATH": "/data/audit.log",
        "SESSION_DIR": "./data/sessions",
        "MODEL_FILE": "/k2Jd82mxQ0/7Wq81mzP0aa",
        "DB_PASS": "correct-horse-battery",
        "DB_PASSWORD": '"80317264"',
        "SIP_TRUNK": '"80317264"',
        "LIVEKIT_API_SECRET": SECRET,
        "SALT": "k2Jd82mxQ0",
    }
    text = "".join(f"  {name}: {value}\n" for name, value in entries.items())
    files = written(tmp_path, {"s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n" + text})
    assert {stored.name for stored in files.secrets} == {
        "DATABASE_URL",
        "DB_PASS",
        "DB_PASSWORD",
        "LIVEKIT_API_SECRET",
        "MODEL_FILE",
        "SALT",
    }


def test_what_is_encrypted_or_refers_to_a_store_is_no_secret(tmp_path: Path) -> None:
    sops = "ENC[AES256_GCM,data:p673w7sP,iv:YY9x,tag:gKe1,type:str]"
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: livekit}\n"
    text = f'{head}stringData: {{LIVEKIT_API_SECRET: "{sops}", OPENAI_API_KEY: "op://prod/openai/credential"}}\n'
    assert written(tmp_path, {"secret.yaml": text}).secrets == []


def test_a_secret_in_base64_of_several_lines_is_found(tmp_path: Path) -> None:
    encoded = base64.encodebytes((SECRET * 4).encode()).decode()
    assert "\n" in encoded.strip()
    block = "".join(f"    {line}\n" for line in encoded.splitlines())
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: livekit}\ndata:\n  LIVEKIT_API_SECRET: |\n" + block
    assert [stored.name for stored in written(tmp_path, {"secret.yaml": text}).secrets] == ["LIVEKIT_API_SECRET"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {agent: {build: {context: ., args: {HF_TOKEN: " + SECRET + "}}}}\n"),
        ("compose.yaml", "services: {agent: {build: {context: ., args: [HF_TOKEN=" + SECRET + "]}}}\n"),
        ("fly.toml", f'app = "agent"\n[build.args]\nHF_TOKEN = "{SECRET}"\n'),
    ],
)
def test_a_secret_among_the_arguments_of_a_build_is_found(tmp_path: Path, name: str, text: str) -> None:
    (finding,) = rules.secrets(written(tmp_path, {name: text}), Needs()).findings
    assert finding.found == "HF_TOKEN is a literal"


def test_secrets_of_a_container_app_that_are_none_are_left_alone(tmp_path: Path) -> None:
    entries = {"a": "", "b": "your-api-secret", "c": "wss://x.livekit.cloud", "d": "op://prod/livekit/secret", "e": SECRET}
    secrets = ", ".join(f'{{name: {name}-key, value: "{value}"}}' for name, value in entries.items())
    app = f"properties: {{configuration: {{secrets: [{secrets}]}}, template: {{containers: [{{name: agent}}]}}}}\n"
    assert [stored.name for stored in written(tmp_path, {"app.yaml": app}).secrets] == ["e-key"]


def test_what_a_variable_of_compose_falls_back_to_may_be_a_secret(tmp_path: Path) -> None:
    compose = (
        "services: {agent: {image: a, environment: {A_SECRET: '${A_SECRET:-devsecret}', B_SECRET: '${B_SECRET:-"
        + SECRET
        + "}'}}}\n"
    )
    (finding,) = rules.secrets(written(tmp_path, {"compose.yaml": compose}), Needs()).findings
    assert finding.found == "what B_SECRET falls back to is a literal"


def workload(kind: str, spec: str) -> str:
    return f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: agent}}\nspec: {{{spec}}}\n"


POD = "template: {spec: {containers: [{name: agent, image: 'r/agent:1', resources: {limits: {cpu: 4}}}]}}"


def scaler(kind: str, name: str, per_cent: int) -> str:
    metric = f"{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: {per_cent}}}}}}}"
    spec = f"scaleTargetRef: {{kind: {kind}, name: {name}}}, minReplicas: 2, maxReplicas: 9, metrics: [{metric}]"
    return f"apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: agent}}\nspec: {{{spec}}}\n"


@pytest.mark.parametrize(("production", "staging"), [(95, 50), (50, 95)])
def test_each_of_several_autoscalers_is_judged(tmp_path: Path, production: int, staging: int) -> None:
    files = written(
        tmp_path,
        {
            "base/agent.yaml": workload("Deployment", POD),
            "overlays/production/hpa.yaml": scaler("Deployment", "agent", production),
            "overlays/staging/hpa.yaml": scaler("Deployment", "agent", staging),
        },
    )
    found = rules.scale_up_below_threshold(files, Needs())
    assert (found.looked_at, [finding.found for finding in found.findings]) == (2, ["scales up at 95%"])
    assert rules.stabilization(files, Needs()).looked_at == rules.scaling_metric(files, Needs()).looked_at == 2


def test_what_is_for_development_is_not_attached_to_what_others_deploy(tmp_path: Path) -> None:
    rollout = workload("Rollout", "replicas: 1, workloadRef: {apiVersion: apps/v1, kind: Deployment, name: agent}")
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: agent}\nspec: {type: NodePort, selector: {app: agent}}\n"
    labelled = POD.replace("template: {", "template: {metadata: {labels: {app: agent}}, ", 1)
    files = written(
        tmp_path,
        {
            "deployment.yaml": workload("Deployment", f"replicas: 2, {labelled}"),
            "hpa.yaml": scaler("Deployment", "agent", 50),
            "hpa.dev.yaml": scaler("Deployment", "agent", 90),
            "rollout.dev.yaml": rollout.replace("apps/v1\nkind", "argoproj.io/v1alpha1\nkind", 1),
            "service.dev.yaml": service,
        },
    )
    (found,) = files.deployments
    assert [scaler.place.file for scaler in found.autoscalers] == ["hpa.yaml"]
    assert (found.replicas is not None and found.replicas.value, found.exposures) == (2, [])
    (tmp_path / "deployment.yaml").rename(tmp_path / "deployment.dev.yaml")
    (found,) = load([str(tmp_path)]).deployments
    assert (len(found.autoscalers), bool(found.exposures)) == (2, True)


def test_a_rollout_runs_the_deployment_that_it_names(tmp_path: Path) -> None:
    reference = "workloadRef: {apiVersion: apps/v1, kind: Deployment, name: agent}"
    rollout = workload("Rollout", f"replicas: 3, {reference}").replace("apps/v1\nkind", "argoproj.io/v1alpha1\nkind", 1)
    rollout = rollout.replace("name: agent}\nspec", "name: agents}\nspec")
    deployment = workload("Deployment", f"replicas: 0, strategy: {{type: Recreate}}, {POD}")
    files = {"agent.yaml": deployment, "rollout.yaml": rollout, "hpa.yaml": scaler("Rollout", "agents", 90)}
    (found,) = written(tmp_path, files).deployments
    assert found.replicas is not None
    assert (found.replicas.value, found.replicas.place.file, found.sleeps, found.lost_at_rollout) == (
        3,
        "rollout.yaml",
        [],
        None,
    )
    assert rules.scale_up_below_threshold(load([str(tmp_path)]), Needs()).findings
    (tmp_path / "rollout.yaml").unlink()
    assert rules.always_on(load([str(tmp_path)]), Needs()).findings


def test_a_probe_that_does_not_tell_what_it_asks_is_not_judged(tmp_path: Path) -> None:
    compose = "services: {agent: {image: a, healthcheck: {test: [CMD, pgrep, -f, agent.py]}}}\n"
    found = rules.health_probe(written(tmp_path, {"compose.yaml": compose}), Needs())
    assert (found.findings, found.looked_at) == ([], 0)
    assert "is not in the file" in found.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        f"services: {{agent: {{image: 'r/agent:1', environment: {{LIVEKIT_API_SECRET: {SECRET}, LEVEL: info}}}}}}\n",
        f"services: {{agent: {{image: 'r/agent:1', command: python agent.py start --api-secret {SECRET}}}}}\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: livekit}}\nstringData: {{LIVEKIT_API_SECRET: {SECRET}}}\n",
    ],
)
def test_secrets_in_what_another_program_printed_are_neither_red_nor_green(tmp_path: Path, text: str) -> None:
    found = rules.secrets(load(["-"], text), Needs())
    assert (found.findings, found.looked_at) == ([], 0)
    assert "may come from outside of the repository; not judged" in found.notes[0]
    (tmp_path / "own.yaml").write_text(text)
    (finding,) = rules.secrets(load(["-", str(tmp_path / "own.yaml")], text), Needs()).findings
    assert finding.place.file == str(tmp_path / "own.yaml")


def test_what_another_program_printed_without_secrets_passes() -> None:
    text = "services: {agent: {image: 'r/agent:1', environment: {LIVEKIT_API_SECRET: '${LIVEKIT_API_SECRET}'}}}\n"
    found = rules.secrets(load(["-"], text), Needs())
    assert (found.findings, found.looked_at, found.notes) == ([], 1, [])


@pytest.mark.parametrize(
    ("placement", "swarm"), [("{}", False), ("{constraints: []}", True), ("{max_replicas_per_node: 1}", True)]
)
def test_an_empty_placement_makes_no_swarm(tmp_path: Path, placement: str, *, swarm: bool) -> None:
    deploy = f"deploy: {{resources: {{limits: {{cpus: '4', memory: 8g}}}}, placement: {placement}}}"
    health = "healthcheck: {test: [CMD, curl, -f, 'http://localhost:8081/'], retries: 1}"
    files = written(tmp_path, {"compose.yaml": f"services: {{agent: {{image: 'r/agent:1', {deploy}, {health}}}}}\n"})
    assert bool(rules.replicas(files, Needs()).looked_at) is swarm
    assert bool(rules.health_probe(files, Needs()).findings) is swarm


PRODUCED = 'FROM python:3.12 AS production\nCMD ["python", "agent.py", "start"]\n'
DEVELOPING = f'FROM production AS development\nENV API_TOKEN={SECRET}\nCMD ["python", "agent.py", "dev"]\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {agent: {build: {context: ., target: %s}}}\n"),
        ("fly.toml", 'app = "agent"\n[build]\nbuild-target = "%s"\n'),
    ],
)
def test_of_a_dockerfile_the_stage_is_judged_that_is_built(tmp_path: Path, name: str, text: str) -> None:
    def commands(target: str) -> tuple[int, list[str]]:
        files = written(tmp_path, {name: text % target, "Dockerfile": PRODUCED + DEVELOPING})
        assert len(rules.secrets(files, Needs()).findings) == 1, "whatever the stage"
        found = rules.production_command(files, Needs())
        return found.looked_at, [finding.found for finding in found.findings]

    assert commands("production") == commands("Production") == (1, [])
    assert commands("development") == (1, ["the worker is started with 'dev'"])
    for unknown in ("$STAGE", "nowhere"):
        assert commands(unknown) == (0, [])
        files = load([str(tmp_path)])
        assert f"{name}: agent builds a stage of Dockerfile that is not known" in files.passed_over
        assert rules.image_pinned(files, Needs()).looked_at == 0


def test_each_stage_that_is_built_is_judged(tmp_path: Path) -> None:
    both = "services: {agent: {build: {context: ., target: production}}, other-agent: {build: .}}\n"
    files = written(tmp_path, {"compose.yaml": both, "Dockerfile": PRODUCED + DEVELOPING})
    assert judged(files) == {"agent", "other-agent", "Dockerfile", "Dockerfile, stage production"}
    found = rules.production_command(files, Needs())
    assert (found.looked_at, len(found.findings)) == (2, 1)


@pytest.mark.parametrize(("stage", "looked_at"), [("production", 1), ("development", 0)])
def test_a_last_stage_that_is_built_for_development_is_not_judged(tmp_path: Path, stage: str, looked_at: int) -> None:
    dev = f"services: {{agent: {{build: {{context: ., target: {stage}}}}}}}\n"
    deployment = deployed("voice", "r/voice:1", LIVEKIT)
    files = written(tmp_path, {"compose.dev.yaml": dev, "Dockerfile": PRODUCED + DEVELOPING, "deployment.yaml": deployment})
    assert rules.production_command(files, Needs()).looked_at == looked_at
    assert ("Dockerfile: its last stage is built for development" in files.passed_over) is not bool(looked_at)
    assert rules.secrets(files, Needs()).findings


@pytest.mark.parametrize(
    ("signal", "looked_at", "found"),
    [
        ("SIGTERM", 1, 0),
        ("int", 1, 0),
        ("15", 1, 0),
        ("SIGQUIT", 0, 0),
        ("3", 0, 0),
        ("$SIGNAL", 0, 0),
        ("SIGSTOP", 1, 1),
        ("19", 1, 1),
    ],
)
def test_a_signal_that_a_worker_may_not_handle_is_no_pass(tmp_path: Path, signal: str, looked_at: int, found: int) -> None:
    compose = f"services: {{agent: {{build: ., stop_grace_period: 10m, stop_signal: '{signal}'}}}}\n"
    judgement = rules.grace_period(written(tmp_path, {"compose.yaml": compose}), Needs())
    assert (judgement.looked_at, len(judgement.findings)) == (looked_at, found)
    assert any(f"does the worker handle {signal}?" in note for note in judgement.notes) is not bool(looked_at)
    plain, image = compose.replace(f", stop_signal: '{signal}'", ""), f"{AGENT_IMAGE}STOPSIGNAL {signal}\n"
    judgement = rules.grace_period(written(tmp_path, {"compose.yaml": plain, "Dockerfile": image}), Needs())
    assert (judgement.looked_at, len(judgement.findings)) == (looked_at, found)
    short = {"compose.yaml": plain.replace("10m", "10s"), "Dockerfile": image}
    assert rules.grace_period(written(tmp_path, short), Needs()).findings


@pytest.mark.parametrize(
    ("profiles", "judged_"), [("[dev]", False), ("[dev, local]", False), ("[dev, prod]", True), ("[]", True)]
)
def test_a_service_of_a_profile_for_development_is_judged_for_secrets_alone(
    tmp_path: Path, profiles: str, *, judged_: bool
) -> None:
    dev = "build: ., command: python agent.py dev, environment: {LIVEKIT_API_SECRET: " + SECRET + "}"
    text = f"services: {{agent: {{image: 'r/agent:1', stop_grace_period: 10m}}, try: {{profiles: {profiles}, {dev}}}}}\n"
    files = written(tmp_path, {"compose.yaml": text})
    assert bool(rules.production_command(files, Needs()).findings) is judged_
    said = "compose.yaml: try is started only by a profile for development"
    assert (said in files.passed_over) is not judged_
    assert rules.secrets(files, Needs()).findings


POD_OF_TYPES = "template: {spec: {%s, containers: [{name: agent, image: 'r/agent:1', %s}]}}"


@pytest.mark.parametrize(
    ("kind", "spec", "reason"),
    [
        (
            "Deployment",
            f"updateStrategy: {{type: RollingUpdate}}, {POD}",
            "no field 'updateStrategy' in a Deployment; 'strategy'",
        ),
        ("StatefulSet", f"strategy: {{type: Recreate}}, {POD}", "no field 'strategy' in a StatefulSet; 'updateStrategy'"),
        ("DaemonSet", f"replicas: 2, {POD}", "there is no field 'replicas' in a DaemonSet"),
        ("Deployment", f"replicas: '2', {POD}", "'2' is text"),
        ("Deployment", POD_OF_TYPES % ("terminationGracePeriodSeconds: '600'", "tty: false"), "'600' is text"),
        ("Deployment", POD_OF_TYPES % ("a: 1", "livenessProbe: {failureThreshold: '3'}"), "'3' is text"),
        *[
            ("Deployment", POD_OF_TYPES % ("a: 1", f"livenessProbe: {{{field}}}"), reason)
            for field, reason in (
                ("failureThreshold: five", "'five' is text, where Kubernetes takes a number only"),
                ("periodSeconds: 10s", "'10s' is text"),
                ("httpGet: {port: '8081'}", "'8081' is text, where Kubernetes takes a number, or the name of a port"),
                ("tcpSocket: {port: '8081'}", "'8081' is text"),
                ("grpc: {port: '8081'}", "'8081' is text, where Kubernetes takes a number only"),
            )
        ],
        ("Deployment", f"strategy: {{rollingUpdate: {{maxUnavailable: '1'}}}}, {POD}", "a number, or text in per cent"),
        ("StatefulSet", f"updateStrategy: {{rollingUpdate: {{maxUnavailable: one}}}}, {POD}", "'one' is text"),
        ("Deployment", f"replicas: two, {POD}", "'two' is no value"),
        ("Deployment", POD_OF_TYPES % ("a: 1", "env: [{name: PORT, value: 8081}]"), "the value of PORT is a number"),
        ("StatefulSet", POD_OF_TYPES % ("a: 1", "env: [{name: DEBUG, value: true}]"), "the value of DEBUG is a number or"),
        *[
            (
                "Deployment",
                POD_OF_TYPES % ("a: 1", f"env: [{{name: DEBUG, value: {value}}}]"),
                "the value of DEBUG is a number or",
            )
            for value in ("yes", "No", "ON", "off", "y", "N")
        ],
    ],
)
def test_what_kubernetes_refuses_by_kind_or_type_is_unreadable(tmp_path: Path, kind: str, spec: str, reason: str) -> None:
    files = written(tmp_path, {"agent.yaml": workload(kind, spec)})
    (problem,) = [*files.problems, *(problem for deployment in files.deployments for problem in deployment.problems)]
    assert reason in problem.reason


@pytest.mark.parametrize(
    "spec",
    [
        f"replicas: '${{REPLICAS}}', {POD}",
        f"strategy: {{rollingUpdate: {{maxUnavailable: 25%, maxSurge: '100%'}}}}, {POD}",
        POD_OF_TYPES % ("a: 1", "livenessProbe: {httpGet: {port: health}, periodSeconds: PERIOD, failureThreshold: '$(N)'}"),
        f"replicas: '{{{{ .Values.replicas }}}}', {POD}",
        POD_OF_TYPES % ("a: 1", "env: [{name: A, value: '8081'}, {name: B, value: }, {name: C, value: 'yes'}]"),
        POD_OF_TYPES % ("a: 1", "env: [{name: A, value: yEs}, {name: B, value: !!str y}, {name: C, value: !!str yes}]"),
    ],
)
def test_types_that_kubernetes_takes_or_that_are_to_be_filled_in_are_no_problem(tmp_path: Path, spec: str) -> None:
    assert written(tmp_path, {"agent.yaml": workload("Deployment", spec)}).problems == []
    rollout = workload("Rollout", f"replicas: '2', {POD}").replace("apps/v1", "argoproj.io/v1alpha1")
    assert written(tmp_path, {"agent.yaml": rollout}).problems == []


def test_kubectl_reads_truth_values_as_yaml_1_1_has_them_and_others_do_not(tmp_path: Path) -> None:
    pod = POD_OF_TYPES % ("hostNetwork: %s", "ports: [{containerPort: 8081}]")
    for value, found in (("yes", True), ("on", True), ("no", False), ("true", True)):
        files = written(tmp_path, {"agent.yaml": workload("Deployment", pod % value)})
        assert bool(rules.no_inbound(files, Needs()).findings) is found
    compose = "services: {agent: {image: 'r/agent:1', environment: {A_TOKEN: yes}, ports: [y]}}\n"
    (deployment,) = written(tmp_path / "compose", {"compose.yaml": compose}).deployments
    assert [variable.literal for variable in deployment.variables] == ["yes"]


def test_kustomize_reads_yaml_1_2_and_quotes_what_kubectl_would_misread(tmp_path: Path) -> None:
    text = workload("Deployment", POD_OF_TYPES % ("a: 1", "env: [{name: DEBUG, value: yes}]"))
    files = {"agent.yaml": text, "kustomization.yaml": "resources: [agent.yaml]\n"}
    assert written(tmp_path, files).problems == []


def test_flux_has_kustomize_read_the_files_of_a_folder_without_a_kustomization(tmp_path: Path) -> None:
    text = workload("Deployment", POD_OF_TYPES % ("a: 1", "env: [{name: DEBUG, value: yes}]"))
    flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a}\nspec: {path: ./apps/agent}\n"
    assert written(tmp_path, {"clusters/prod/flux.yaml": flux, "apps/agent/agent.yaml": text}).problems == []


def test_kubernetes_refuses_a_workloads_field_in_what_scales_it(tmp_path: Path) -> None:
    scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\nspec: {replicas: 2}\n"
    (problem,) = written(tmp_path, {"hpa.yaml": scaler}).problems
    assert problem.reason == "there is no field 'replicas' in a HorizontalPodAutoscaler"


SCALED = (
    "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: agent}\n"
    "spec: {minReplicas: 2, maxReplicas: 9, scaleTargetRef: {kind: Deployment, name: agent}}\n"
)


def test_many_documents_in_one_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "MOST_NODES", 50)
    text = workload("Deployment", POD)
    files = load(["-"], "---\n".join([text] * 20))
    assert (len(files.deployments), files.problems, files.too_large) == (20, [], [])
    (tmp_path / "agent.yaml").write_text(f"{text}---\na: [{', '.join(['1'] * 60)}]\n")
    files = load([str(tmp_path)])
    assert (judged(files), files.problems, files.read) == ({"agent"}, [], ["agent.yaml"]), "those before it count"
    large = "agent.yaml:6: a document of more than 50 values"
    assert f"{large}, not judged" in rules.readable(files, Needs()).notes
    with pytest.raises(NotJudgeable, match=large):
        checks.judge(rules.stabilization, (files, Needs()), Evidence(), "no autoscaler", "well")
    # What stands behind it may change what is to be said of those before.
    (tmp_path / "agent.yaml").write_text(f"{text}---\na: [{', '.join(['1'] * 60)}]\n---\n{SCALED}")
    files = load([str(tmp_path)])
    assert [one.autoscaler is not None for one in files.deployments] == [True]
    assert [finding.found for finding in rules.replicas(files, Needs()).findings] == []
    monkeypatch.setattr(yaml_files, "MOST_IN_FILE", 100)
    files = load(["-"], "---\n".join([text] * 20))
    assert (files.deployments, files.read, files.strange) == ([], [], [])
    assert files.too_large == ["standard input:34: a file of more than 100 values"]


def test_standard_input_that_is_too_large_is_not_judged() -> None:
    files = load(["-"], workload("Deployment", POD) + "# padded\n" * 250_000)
    assert (files.deployments, files.problems) == ([], [])
    assert rules.readable(files, Needs()).notes == ["standard input: more than 2 MB, not judged"]


def test_an_alias_that_contains_itself_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: &x {agent: *x}\n")
    (problem,) = load([str(tmp_path)]).problems
    assert "an alias that contains itself" in problem.reason


def test_a_file_of_a_folder_that_cannot_be_opened_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme.json").write_text("{}")
    (tmp_path / "agent.yaml").write_text(workload("Deployment", POD))
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere.yaml")
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "acme.json":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    files = load([str(tmp_path)])
    assert (judged(files), files.unread) == ({"agent"}, ["acme.json"])
    assert "acme.json: cannot be read, not judged" in rules.readable(files, Needs()).notes
    for paths in ([str(tmp_path / "acme.json")], [str(tmp_path / "acme.json"), str(tmp_path)]):
        with pytest.raises(PermissionError):
            load(paths)


def test_a_probe_with_a_shorter_grace_period_of_its_own_is_said(tmp_path: Path) -> None:
    probe = "livenessProbe: {terminationGracePeriodSeconds: 60, httpGet: {port: 8081}}"
    spec = POD_OF_TYPES % ("terminationGracePeriodSeconds: 600", probe)
    found = rules.grace_period(written(tmp_path, {"agent.yaml": workload("Deployment", spec)}), Needs())
    assert (found.findings, found.looked_at) == ([], 1)
    assert "a worker that fails this probe has 60 s only, of 600 s" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "is_read"),
    [
        ("fly.toml", "kill_timeout = 5\n", True),
        ("fly-worker.toml", '[processes]\nworker = "python agent.py start"\n', True),
        ("fly.toml", 'owner = "voice"\n', False),
        ("flyway.toml", '[env]\nA = "b"\n', False),
        ("worker.toml", 'app = "voice"\nprimary_region = "ams"\n', True),
        ("worker.toml", 'app = "voice"\n', False),
    ],
)
def test_a_file_of_fly_need_not_name_its_app(tmp_path: Path, name: str, text: str, *, is_read: bool) -> None:
    assert written(tmp_path, {name: text}).read == [name] * is_read


FLY_LINE = "app = 'a'\nprimary_region = 'ams'\n[processes]\nagent = "
CEREBRIUM_LINE = "[cerebrium.deployment]\nname = 'a'\n[cerebrium.runtime.custom]\nentrypoint = "


@pytest.mark.parametrize(
    ("name", "text"),
    [("fly.toml", FLY_LINE), ("cerebrium.toml", CEREBRIUM_LINE)],
)
@pytest.mark.parametrize(
    ("line", "modes"),
    [
        ("\"sh -c 'cd /app && exec python agent.py dev'\"", {"dev"}),
        ("\"sh -c 'python prepare.py; exec python agent.py start'\"", {"start"}),
        ("\"python 'my agent.py' start\"", {"start"}),
        ('""', set()),
    ],
)
def test_a_line_is_taken_apart_as_a_shell_does(tmp_path: Path, name: str, text: str, line: str, modes: set[str]) -> None:
    (one,) = written(tmp_path, {name: f"{text}{line}\n"}).deployments
    assert (modes_of(one.command.value) if one.command is not None else set()) == modes


@pytest.mark.parametrize(
    ("rest", "mode"),
    [
        ('ENTRYPOINT ["python", "agent.py"]\n', None),
        ('ENTRYPOINT ["python", "agent.py"]\nCMD ["start"]\n', "start"),
        ('CMD ["start"]\nENTRYPOINT ["python", "agent.py"]\n', "start"),
        ("ENV A=b\n", "dev"),
    ],
)
def test_an_entrypoint_takes_the_command_of_its_base_away(tmp_path: Path, rest: str, mode: str | None) -> None:
    base = 'FROM python:3.12 AS base\nENTRYPOINT ["python", "agent.py"]\nCMD ["dev"]\nFROM base\n'
    (image,) = written(tmp_path, {"Dockerfile": base + rest}).deployments
    assert image.command is not None
    assert modes_of(image.command.value) == ({mode} if mode else set())


@pytest.mark.parametrize(
    ("rest", "mode"),
    [
        ('ENTRYPOINT uv run agent.py\nCMD ["start"]\n', None),
        ('ENTRYPOINT exec python agent.py start\nCMD ["dev"]\n', "start"),
        ('ENTRYPOINT ["python", "agent.py"]\nCMD start\n', None),
        ('ENTRYPOINT ["tini", "--"]\nCMD python agent.py start\n', "start"),
        ("CMD python agent.py dev\n", "dev"),
    ],
)
def test_of_a_shell_an_entrypoint_and_a_command_are_not_one_line(tmp_path: Path, rest: str, mode: str | None) -> None:
    (image,) = written(tmp_path, {"Dockerfile": f"FROM python:3.12\n{rest}"}).deployments
    assert image.command is not None
    assert modes_of(image.command.value) == ({mode} if mode else set())


def test_a_command_without_words_says_nothing(tmp_path: Path) -> None:
    files = written(tmp_path, {"compose.yaml": "services: {agent: {image: a, command: ['']}}\n"})
    assert rules.secrets(files, Needs()).findings == []


TOKEN = "sk-proj-Zb7Qm2Xv9Kd4Tn8Lw1Rp6Hy3F5g8J2"
PEM = "-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY\\n-----END EC PRIVATE KEY-----\\n"
ACCOUNT = f'{{"type": "service_account", "private_key": "{PEM}"}}'


@pytest.mark.parametrize("value", [TOKEN, f"Bearer {TOKEN}", PEM, ACCOUNT, "ghp_8f3Kd92mQz71Lw0XcVb54NtRy6Hs2Jp9GeAu"])
def test_a_key_is_a_secret_whatever_its_name(tmp_path: Path, value: str) -> None:
    agent = workload("Deployment", POD.replace("image:", f"args: [start], env: [{{name: UPSTREAM, value: '{value}'}}], image:"))
    kept = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  one: '{value}'\n  many: |\n    # as it is\n"
    kept += "".join(f"    {line}\n" for line in value.split("\\n"))
    compose = (
        f"services: {{agent: {{image: 'r/agent:1', command: [agent, start, '{value}'], environment: {{A_URL: '{value}'}}}}}}\n"
    )
    files = written(tmp_path, {"a.yaml": agent, "c.yaml": kept, "compose.yaml": compose})
    found = sorted(str(finding.place).partition(" ")[0] for finding in rules.secrets(files, Needs()).findings)
    assert found == ["a.yaml:4", "c.yaml:5", "c.yaml:8", "compose.yaml:1", "compose.yaml:1"]


STANDS_IN = "-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "value",
    [
        *("sk-proj-xxx", "sk-ant-...", "<your key>", "sk-proj-your-openai-key-here", "sk-ant-api03-xxxxxxxxxxxxxxxxxxxxxxxx"),
        *("AKIAIOSFODNN7EXAMPLE", "gsk_12345678901234567890123456789012345678901234567890", "xoxb-your-slack-bot-token"),
        *(STANDS_IN.format("..."), STANDS_IN.format("YOURPRIVATEKEYGOESHERE"), "sk-SK-Chirp3-HD-Achernar"),
    ],
)
def test_what_stands_for_a_key_is_none(tmp_path: Path, value: str) -> None:
    agent = workload("Deployment", POD.replace("image:", f"args: [start], env: [{{name: UPSTREAM, value: '{value}'}}], image:"))
    kept = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{one: '{value}'}}\n"
    assert not rules.secrets(written(tmp_path, {"a.yaml": agent, "c.yaml": kept}), Needs()).findings


def test_a_file_that_a_document_keeps_is_searched_line_by_line(tmp_path: Path) -> None:
    lines = f"  dotenv:\n    content: |\n      LIVEKIT_URL=wss://a.livekit.cloud\n\n      OPENAI_API_KEY={TOKEN}\n"
    compose = f"services: {{agent: {{image: 'r/agent:1', configs: [dotenv]}}}}\nconfigs:\n{lines}"
    kept = (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  .env: &all |\n    A=b\n    OPENAI_API_KEY={TOKEN}\n"
    )
    kept += f"  again: *all\n  folded: >\n    A=b\n\n    OPENAI_API_KEY={TOKEN}\n"
    found = [str(stored.place) for stored in written(tmp_path, {"c.yaml": kept, "compose.yaml": compose}).secrets]
    assert sorted(found) == [
        'c.yaml:7 data[".env"]',
        "c.yaml:8 data.again",
        "c.yaml:9 data.folded",
        "compose.yaml:7 configs.dotenv.content",
    ]
