"""Deployment files: what is known of the health endpoint that a probe asks, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Judgement, Needs
from pytest_lkagents.manifests.load import load


def probed(folder: Path, files: dict[str, str], needs: Needs = Needs()) -> Judgement:  # noqa: B008 - it is frozen
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return rules.health_probe(load([str(folder)]), needs)


def pod(container: str, probe: str = "httpGet: {path: /health, port: 8080}", beside: str = "") -> str:
    return (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: voice-agent}\nspec: {template: {spec: {containers: ["
        f"{{name: agent, image: 'r/agent:1', {container}, readinessProbe: {{{probe}}}}}{beside}]}}}}}}\n"
    )


OWN, BOTH = "ports: [{name: own, containerPort: 8080}]", "ports: [{containerPort: 8080}, {containerPort: 8081}]"
IMAGE = "FROM python:3.12\nCMD [python, agent.py, start]\n"
COMPOSED = "services: {agent: {build: ., healthcheck: {test: [CMD, curl, -f, 'http://localhost:8080/health']}"
ENDPOINT = 'HEALTHCHECK CMD ["curl", "-f", "http://localhost:8080/health"]\n'


@pytest.mark.parametrize(
    "files",
    [
        {"worker.yaml": pod(OWN)},
        {"worker.yaml": pod(OWN, "httpGet: {path: /health, port: own}")},
        {"worker.yaml": pod(OWN, "tcpSocket: {port: 8080}")},
        {"worker.yaml": pod(BOTH)},
        {"worker.yaml": pod("env: [{name: PORT, value: '8080'}]")},
        {"worker.yaml": pod("env: [{name: HEALTH_PORT, valueFrom: {configMapKeyRef: {name: a, key: b}}}]")},
        {"worker.yaml": pod("args: [start, '--health-port=8080']")},
        {"worker.yaml": pod("args: [start]", beside=", {name: health, image: 'r/health:1', ports: [{containerPort: 8080}]}")},
        {"worker.yaml": pod("args: [start]"), "Dockerfile": f"{IMAGE}EXPOSE 8080/tcp\n"},
        {"compose.yaml": COMPOSED + ", expose: [8080]}}\n"},
        {"compose.yaml": COMPOSED + ", ports: ['127.0.0.1:9000:8080']}}\n"},
        {"compose.yaml": COMPOSED + ", environment: {PORT: $PORT}}}\n"},
        {"compose.yaml": COMPOSED + "}}\n", "Dockerfile": f"{IMAGE}ENV PORT=8080\n"},
        {"agent/Dockerfile": f"FROM python:3.12\nEXPOSE 8080-8081\n{ENDPOINT}"},
        {"fly.toml": 'app = "agent"\n[[services]]\ninternal_port = 8080\n[[services.http_checks]]\npath = "/health"\n'},
    ],
)
def test_a_probe_of_a_port_that_the_files_name_is_not_judged(tmp_path: Path, files: dict[str, str]) -> None:
    found = probed(tmp_path, files)
    assert (found.findings, found.looked_at) == ([], 0)
    assert "not judged without lk_health_port" in found.notes[0]
    assert probed(tmp_path, files, Needs(health_port=8081)).findings, "measured or declared"


@pytest.mark.parametrize(
    "files",
    [
        {"worker.yaml": pod("args: [start]")},
        {"worker.yaml": pod("ports: [{containerPort: 8081}]")},
        {"worker.yaml": pod("env: [{name: HEALTH_PORT, value: '8081'}, {name: REDIS_PORT, valueFrom: {}}]")},
        {"worker.yaml": pod("args: [start]"), "Dockerfile": f"{IMAGE}EXPOSE 8081\n"},
        {"agent/Dockerfile": f"FROM python:3.12\n{ENDPOINT}"},
    ],
)
def test_a_probe_of_a_port_that_nothing_names_is_judged(tmp_path: Path, files: dict[str, str]) -> None:
    (finding,) = probed(tmp_path, files).findings
    assert "on port 8080" in finding.found


def test_what_takes_any_answer_succeeds_on_any_path(tmp_path: Path) -> None:
    text = "services: {agent: {image: 'r/agent:1', healthcheck: {test: curl %s http://localhost:%d/health || exit 1}}}\n"
    found = probed(tmp_path, {"compose.yaml": text % ("-s", 8081)})
    assert (found.findings, found.looked_at) == ([], 1)
    assert "curl without --fail takes any answer" in found.notes[0]
    for failing in (text % ("-sf", 8081), text % ("-s", 9999)):
        assert probed(tmp_path, {"compose.yaml": failing}).findings


def test_a_single_failure_ends_a_worker_whatever_its_port(tmp_path: Path) -> None:
    text = pod(OWN).replace("readinessProbe: {", "livenessProbe: {failureThreshold: 1, ")
    (finding,) = probed(tmp_path, {"worker.yaml": text}).findings
    assert finding.found == "a single failed liveness probe ends the worker"


RENDER = "services: [{type: web, name: voice-agent, runtime: docker, healthCheckPath: /health%s}]\n"
RAILWAY = '[deploy]\nhealthcheckPath = "/health"\n'
STARTS = 'FROM python:3.12\nCMD ["python", "agent.py", "start"]\n'


@pytest.mark.parametrize(
    ("files", "judged"),
    [
        ({"railway.toml": f'{RAILWAY}startCommand = "python agent.py start"\n'}, True),
        ({"railway.toml": f'{RAILWAY}startCommand = "uv run python -m voice_agent start"\n'}, True),
        ({"railway.toml": f'{RAILWAY}startCommand = "python healthcheck.py & python agent.py start"\n'}, False),
        ({"railway.toml": f'{RAILWAY}startCommand = "python healthcheck.py &\\npython agent.py start"\n'}, False),
        ({"railway.toml": f"{RAILWAY}startCommand = \"sh -c 'python health.py; exec python agent.py start'\"\n"}, False),
        ({"railway.toml": f"{RAILWAY}startCommand = \"concurrently 'python health.py' 'python agent.py start'\"\n"}, False),
        ({"railway.toml": f'{RAILWAY}startCommand = "./start.sh python agent.py start"\n'}, False),
        ({"railway.toml": f'{RAILWAY}startCommand = "python agent.py start --port 8000"\n'}, False),
        ({"railway.toml": RAILWAY}, False),
        ({"railway.toml": RAILWAY, "Dockerfile": STARTS}, True),
        ({"railway.toml": RAILWAY, "Dockerfile": STARTS + "EXPOSE 8080\n"}, False),
        ({"railway.toml": RAILWAY, "Dockerfile": STARTS + "ENV HEALTH_PORT=8080\n"}, False),
        ({"render.yaml": RENDER % ""}, False),
        ({"render.yaml": RENDER % ", dockerCommand: python agent.py start"}, True),
        ({"render.yaml": RENDER % ", dockerCommand: python agent.py start, envVars: [{key: PORT, value: 10000}]"}, False),
    ],
)
def test_a_path_of_an_unknown_port_is_judged_where_an_agent_alone_is_started(
    tmp_path: Path, files: dict[str, str], *, judged: bool
) -> None:
    found = probed(tmp_path, files)
    assert (bool(found.findings), found.looked_at) == (judged, int(judged))
    assert judged or "/health, which a health server of the worker's own may answer" in found.notes[0]
    assert probed(tmp_path, files, Needs(health_port=8081)).findings, "measured or declared"


def test_a_probe_may_ask_where_the_redirect_of_the_measured_path_leads(tmp_path: Path) -> None:
    files = {"worker.yaml": pod("args: [start]", "httpGet: {path: /status, port: 8081}")}
    assert probed(tmp_path, files, Needs(health_port=8081, health_path="/")).findings
    found = probed(tmp_path, files, Needs(health_port=8081, health_path="/", health_leads_to="/status"))
    assert (found.findings, found.looked_at) == ([], 1)


@pytest.mark.parametrize(
    ("leads_to", "there"),
    [
        ("http://172.18.0.3:9000/live", "httpGet: {path: /live, port: 9000}"),
        ("https://172.18.0.3:8443/live", "httpGet: {path: /live, port: 8443, scheme: HTTPS}"),
        ("https://172.18.0.3/", "httpGet: {port: 443, scheme: HTTPS}"),
    ],
)
def test_a_probe_may_ask_on_the_port_to_which_a_redirect_leads(tmp_path: Path, leads_to: str, there: str) -> None:
    def of(probe: str) -> Judgement:
        needs = Needs(health_port=8081, health_path="/", health_leads_to=leads_to)
        return probed(tmp_path, {"worker.yaml": pod("args: [start]", probe)}, needs)

    assert of(there).findings == []
    (wrong,) = of("httpGet: {path: /other, port: 8081}").findings
    assert leads_to not in str(wrong)


def test_a_single_failure_that_ends_the_worker_is_named_where_it_is_allowed(tmp_path: Path) -> None:
    probe = "          livenessProbe:\n            httpGet: {port: 8081}\n            failureThreshold: 1\n"
    agent = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: agent}\nspec:\n  template:\n    spec:\n      containers:\n"
    agent += "        - name: agent\n          args: [agent.py, start]\n" + probe
    check = "{\n'command': ['CMD-SHELL', 'curl -f http://localhost:8081/'],\n'retries': 1}"
    task = f"{{'family': 'agent', 'containerDefinitions': [{{'name': 'a', 'command': ['start'], 'healthCheck': {check}}}]}}"
    stack = "services:\n  agent:\n    command: agent.py start\n    image: r\n    deploy: {mode: replicated}\n"
    stack += "    healthcheck:\n      test: curl -f http://localhost:8081/\n      retries: 1\n"
    files = {"agent.yaml": agent, "task.json": task.replace("'", '"'), "stack.yaml": stack}
    found = sorted(str(finding.place) for finding in probed(tmp_path, files).findings)
    assert found == [
        "agent.yaml:12 spec.template.spec.containers[0].livenessProbe.failureThreshold",
        "stack.yaml:8 services.agent.healthcheck.retries",
        "task.json:3 containerDefinitions[0].healthCheck.retries",
    ]


@pytest.mark.parametrize(
    ("test", "is_run"),
    [
        ('["curl", "-f", "http://localhost:8081/"]', False),
        ('["CMD", "curl", "-f", "http://localhost:8081/"]', True),
        ('["CMD-SHELL", "curl -f http://localhost:8081/"]', True),
        ("curl -f http://localhost:8081/", True),
    ],
)
def test_a_test_of_compose_that_is_never_run_is_none(tmp_path: Path, test: str, *, is_run: bool) -> None:
    compose = f"services: {{agent: {{image: 'r/agent:1', healthcheck: {{test: {test}}}}}}}\n"
    judgement = probed(tmp_path, {"compose.yaml": compose})
    assert (judgement.looked_at, judgement.findings) == (int(is_run), [])
    found = [str(finding.place) + " " + finding.found for finding in rules.readable(load([str(tmp_path)]), Needs()).findings]
    said = "a test that is a list, and does not begin with CMD, CMD-SHELL or NONE, is never run"
    assert found == ([] if is_run else [f"compose.yaml:1 services.agent.healthcheck.test {said}"])
