"""Deployments as projects have them: whom of what they deploy the rules judge, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.commands import modes_of
from pytest_lkagents.manifests.findings import Judgement, Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Files
from suites import test_manifests as checks

LIVEKIT = "environment: {LIVEKIT_URL: $URL, LIVEKIT_API_KEY: $KEY}"
KEY = "env: [{name: LIVEKIT_API_KEY, valueFrom: {secretKeyRef: {name: keys, key: k}}}]"
IMAGE = 'FROM python:3.12\nCMD ["python", "agent.py", "start"]\n'


def pods(*names_and_more: tuple[str, str], pod: str = "", annotations: str = "") -> str:
    """Deployments of Kubernetes, each with what its container has beside an image."""
    return "---\n".join(
        "apiVersion: apps/v1\nkind: Deployment\n"
        f"metadata: {{name: {name}}}\nspec: {{template: {{metadata: {{annotations: {{{annotations}}}}}, spec: {{"
        f"{pod if name == 'voice-agent' else ''}containers: [{{name: main, image: 'r/{name}:latest', {more}}}]}}}}}}\n"
        for name, more in names_and_more
    )


def open_to_all(name: str) -> str:
    spec = f"{{type: LoadBalancer, selector: {{app: {name}}}}}"
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def composed(*services: str) -> str:
    return "services:\n" + "".join(f"  {service}\n" for service in services)


def read(folder: Path, files: dict[str, str]) -> Files:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return load([str(folder)])


def judged(files: Files) -> set[str]:
    return {one.name for one in files.deployments}


CELERY = f"worker: {{image: 'r/app:1', command: celery -A app worker, stop_grace_period: 10m, {LIVEKIT}}}"
RENDERED = """services:
- {type: worker, name: celery-worker, runtime: python, maxShutdownDelaySeconds: 300, envVars: [{key: LIVEKIT_URL, value: a}]}
- {type: worker, name: voice-agent, runtime: python, envVars: [{fromGroup: shared}]}
"""
API = ("api", KEY)
FROM_SECRET = "env: [{name: DOPPLER_TOKEN, valueFrom: {secretKeyRef: {name: doppler, key: t}}}]"
INBOUND = "inbound-agent: {image: 'r/in:1', command: python agent.py start, stop_grace_period: 10m}"


@pytest.mark.parametrize(
    ("files", "short"),
    [
        ({"compose.yaml": composed(CELERY, "agent: {build: ./agent, env_file: .env}")}, {"agent"}),
        ({"k.yaml": pods(("api-worker", KEY), ("agent", "envFrom: [{secretRef: {name: env}}]"))}, {"agent", "api-worker"}),
        ({"render.yaml": RENDERED}, {"voice-agent"}),
        (
            {
                "k.yaml": pods(
                    ("inbound-agent", "envFrom: [{secretRef: {name: livekit}}]"),
                    ("outbound-agent", "envFrom: [{secretRef: {name: outbound-secrets}}]"),
                )
            },
            {"inbound-agent", "outbound-agent"},
        ),
        (
            {
                "docker-compose.yml": composed(INBOUND),
                "deploy/docker-compose.yml": composed("voice-agent: {image: 'r/voice:latest', env_file: .env}"),
            },
            {"voice-agent"},
        ),
        (
            {
                "docker-compose.yml": composed(INBOUND, "outbound-agent: {build: ./outbound-agent}"),
                "outbound-agent/Dockerfile": 'FROM node:22\nCMD ["pnpm", "start"]\n',
            },
            {"outbound-agent"},
        ),
        (
            {
                "docker-compose.yml": composed(
                    "voice-agent: {image: 'r/v:1', volumes: ['./.env:/app/.env']}", f"api: {{image: 'r/api:1', {LIVEKIT}}}"
                )
            },
            {"voice-agent"},
        ),
        ({"docker-compose.yml": composed("voice-agent: {image: 'r/v:1'}", f"api: {{image: r, {LIVEKIT}}}")}, {"voice-agent"}),
        ({"k.yaml": pods(("voice-agent", FROM_SECRET), API)}, {"voice-agent"}),
        ({"k.yaml": pods(("voice-agent", "ports: []"), API)}, {"voice-agent"}),
        (
            {"k.yaml": pods(("voice-agent", "ports: []"), API, pod="volumes: [{name: e, secret: {secretName: env}}], ")},
            {"voice-agent"},
        ),
        (
            {"k.yaml": pods(("voice-agent", "ports: []"), API, annotations="vault.hashicorp.com/agent-inject: 'true'")},
            {"voice-agent"},
        ),
    ],
)
def test_no_other_takes_the_place_of_an_agent(tmp_path: Path, files: dict[str, str], short: set[str]) -> None:
    found = read(tmp_path, {**files, **({"s.yaml": open_to_all("api")} if "k.yaml" in files else {})})
    lines = {(one.place.file, one.place.line): one.name for one in found.deployments}
    findings = rules.grace_period(found, Needs()).findings
    assert {
        lines[place.file, max(line for file, line in lines if file == place.file and line <= place.line)]
        for place in (finding.place for finding in findings)
    } == short
    assert rules.no_inbound(found, Needs()).findings == []


def test_celery_is_no_worker_and_what_is_left_out_is_said_with_each_verdict(tmp_path: Path) -> None:
    files = read(tmp_path, {"compose.yaml": composed(CELERY, INBOUND, "sales-agent: {image: 'r/sales:1', env_file: .env}")})
    assert judged(files) == {"inbound-agent"}
    evidence = Evidence()
    checks.judge(rules.grace_period, (files, Needs()), evidence, "nothing", "well")
    left_out = "compose.yaml: sales-agent is named like a worker, and nothing else says that it is one; not judged"
    assert evidence.summary == f"well (1 looked at); {left_out}"


def test_a_name_is_unsure_beside_what_works_with_livekit(tmp_path: Path) -> None:
    files = read(tmp_path, {"k.yaml": pods(("voice-agent", "ports: []"), API)})
    assert (judged(files), files.unsure) == ({"voice-agent"}, ["voice-agent"])


STARTED = 'FROM node:22\nCMD ["node", "dist/agent.js", "start"]\n'
NAMELESS = ["pnpm dev", "uv run agent dev", "npm run dev", "yarn dev", "make dev", "./entrypoint.sh dev", "deno task dev"]


@pytest.mark.parametrize("command", NAMELESS)
def test_a_command_that_is_replaced_is_no_evidence(tmp_path: Path, command: str) -> None:
    compose = {"compose.yaml": composed(f"agent: {{build: ., command: {command}}}"), "Dockerfile": STARTED}
    pod = {"k.yaml": pods(("agent", f"command: [{', '.join(command.split())}]")), "Dockerfile": STARTED}
    for number, files in enumerate((compose, pod)):
        found = rules.production_command(read(tmp_path / str(number), files), Needs())
        assert (found.findings, found.looked_at) == ([], 0)
        assert "what its 'dev' starts is not in the file; not judged" in found.notes[0]


@pytest.mark.parametrize(
    ("dockerfile", "services", "found"),
    [
        (STARTED, ["agent: {build: ., command: pnpm dev}", "other-agent: {build: .}"], (1, 0)),
        (STARTED, ["agent: {build: ., command: node dist/agent.js dev}"], (1, 1)),
        (STARTED.replace("CMD", "ENTRYPOINT"), ["agent: {build: ., command: --debug}"], (1, 0)),
        (STARTED.replace("CMD", "ENTRYPOINT"), ["agent: {build: ., entrypoint: ./run.sh}"], (0, 0)),
    ],
)
def test_a_command_counts_where_something_runs_it(
    tmp_path: Path, dockerfile: str, services: list[str], found: tuple[int, int]
) -> None:
    files = read(tmp_path, {"compose.yaml": composed(*services), "Dockerfile": dockerfile})
    judgement = rules.production_command(files, Needs())
    assert (judgement.looked_at, len(judgement.findings)) == found


@pytest.mark.parametrize(
    ("line", "modes"),
    [
        ('if [ "$E" = prod ]; then python agent.py start; else python agent.py dev; fi', {"start", "dev"}),
        ('[ -n "$PROD" ] && python agent.py start || python agent.py dev', {"start", "dev"}),
        ("[ -n $PROD ] && exec python agent.py start; exec python agent.py dev", {"start", "dev"}),
        ("case $E in prod) node agent.cjs start;; *) node agent.mts dev;; esac", {"start", "dev"}),
        ("python agent.py start || python agent.py console", {"start", "console"}),
        ("python prepare.py dev; exec python agent.py start", {"start"}),
        ("test -d models || python agent.py download-files; python agent.py start", {"start"}),
    ],
)
def test_between_two_modes_a_condition_decides(tmp_path: Path, line: str, modes: set[str]) -> None:
    assert modes_of(["sh", "-c", line]) == modes
    files = read(tmp_path, {"Dockerfile": f"FROM python:3.12\nCMD {line}\n"})
    found = rules.production_command(files, Needs())
    assert (found.findings, found.looked_at, len(found.notes)) == ([], *((1, 0) if modes == {"start"} else (0, 1)))


def test_a_template_is_said_by_each_check_that_finds_nothing_else(tmp_path: Path) -> None:
    files = read(tmp_path, {"k.yaml": "apiVersion: apps/v1\nkind: Deployment\n{{- if .Values.agent }}\nspec: {}\n{{- end }}\n"})
    with pytest.raises(NotJudgeable, match="templates are not judged"):
        checks.judge(rules.grace_period, (files, Needs()), Evidence(), "nothing", "well")


@pytest.mark.parametrize(
    ("services", "workers"),
    [
        # What watches something may be an agent, and a voicebot beside a name is judged, too.
        (
            ["log-agent: {image: 'r/log:1', volumes: ['./a:/a']}", f"voicebot: {{image: r, {LIVEKIT}}}"],
            {"log-agent", "voicebot"},
        ),
        (["hotel-agent: {image: 'r/h:1', env_file: .env}", f"api: {{image: r, {LIVEKIT}}}"], {"hotel-agent"}),
        (
            ["desk-agent: {image: 'r/d:1', env_file: .env}", f"voicebot: {{image: r, {LIVEKIT}}}"],
            {"desk-agent", "voicebot"},
        ),
        # A queue's worker is none even where nothing else is.
        ([CELERY], set()),
        ([f"celery-worker: {{image: r, {LIVEKIT}}}", f"backend: {{image: r, {LIVEKIT}}}"], {"backend"}),
        ([f"agent: {{image: 'r/agent:1', command: rq worker, {LIVEKIT}}}"], set()),
        ([f"temporal-agent: {{image: 'r/agent:1', {LIVEKIT}}}"], {"temporal-agent"}),
        ([f"livekit-temporal-worker: {{image: 'r/agent:1', {LIVEKIT}}}"], {"livekit-temporal-worker"}),
        ([f"temporal-voice-worker: {{image: 'r/a:1', {LIVEKIT}}}"], {"temporal-voice-worker"}),
        ([f"worker: {{image: 'ghcr.io/celery/app:1', {LIVEKIT}}}"], {"worker"}),
        ([f"worker: {{image: 'r/rq:1', {LIVEKIT}}}"], set()),
        ([f"worker: {{image: r, command: python worker.py, {LIVEKIT}}}"], {"worker"}),
        # The token of a store opens variables.
        (["voice-agent: {image: r, environment: [DOPPLER_TOKEN]}", f"api: {{image: r, {LIVEKIT}}}"], {"voice-agent"}),
        (["watch-agent: {image: r, volumes: ['/proc:/proc']}", f"worker: {{image: s, {LIVEKIT}}}"], {"worker"}),
        (
            ["watch-agent: {image: r, volumes: ['/etc/a.env:/.env']}", f"worker: {{image: s, {LIVEKIT}}}"],
            {"watch-agent", "worker"},
        ),
        (["watch-agent: {image: r, secrets: [env]}", f"worker: {{image: s, {LIVEKIT}}}"], {"watch-agent", "worker"}),
    ],
)
def test_who_is_a_worker(tmp_path: Path, services: list[str], workers: set[str]) -> None:
    assert judged(read(tmp_path, {"compose.yaml": composed(*services)})) == workers


@pytest.mark.parametrize(
    "name",
    [
        *("voice-ui", "assistant-ui", "invoice-service", "voice-dashboard", "slack-bot", "voice-web", "certbot"),
        *("chatbot-server", "voicebot-ui", "voicebot-open", "voicebot-served"),
    ],
)
def test_what_is_called_a_voice_is_no_worker_beside_one_and_is_said(tmp_path: Path, name: str) -> None:
    more = {"voicebot-open": ", ports: ['80:80']", "voicebot-served": ", command: npm start"}.get(name, "")
    name = "voicebot" if more else name
    agent = "sales-agent: {image: 'r/s:1', env_file: .env, stop_grace_period: 10m}"
    files = read(tmp_path, {"compose.yaml": composed(agent, f"{name}: {{image: 'r/x:1', {LIVEKIT}{more}}}")})
    assert judged(files) == {"sales-agent"}
    evidence = Evidence()
    checks.judge(rules.grace_period, (files, Needs()), evidence, "nothing", "well")
    said = f"; compose.yaml: {name} works with LiveKit, and nothing says that it is a worker; not judged"
    assert evidence.summary == f"well (1 looked at){said}"


@pytest.mark.parametrize(
    ("name", "image"),
    [
        *((name, "r/a:1") for name in ("patient-monitoring-agent", "call-monitor-agent", "backup-agent", "nomad-travel-agent")),
        ("agent", "ghcr.io/monitoring/agent:1"),
        ("agent", "r/log-agent:1"),
    ],
)
def test_what_an_agent_is_for_makes_it_none_of_another_kind(tmp_path: Path, name: str, image: str) -> None:
    files = read(tmp_path, {"compose.yaml": composed(f"{name}: {{image: '{image}', env_file: .env}}", "web: {image: 'r/w:1'}")})
    assert (judged(files), files.unsure, files.doubtful) == ({name}, [name], False)


def test_web_sites_beside_an_agent_are_not_said_with_each_verdict(tmp_path: Path) -> None:
    started = "agent-console: {build: ., env_file: .env, command: npm start"
    sites = ["agent-frontend: {image: 'r/f:1', env_file: .env}", f"{started}, ports: ['80:80']}}"]
    files = read(tmp_path, {"compose.yaml": composed(INBOUND, *sites)})
    assert (judged(files), files.left_out, len(files.passed_over)) == ({"inbound-agent"}, [], 2)
    files = read(tmp_path, {"compose.yaml": composed(INBOUND, f"{started}}}")})
    assert (judged(files), len(files.left_out)) == ({"inbound-agent"}, 1), "agents are started by npm, too"


def test_a_command_counts_where_not_all_that_is_deployed_replaces_it(tmp_path: Path) -> None:
    files = {"k.yaml": pods(("voice-agent", "command: [pnpm, dev]"), ("other-agent", "ports: []"))}
    found = rules.production_command(read(tmp_path, {**files, "Dockerfile": STARTED.replace("start", "dev")}), Needs())
    assert [finding.place.file for finding in found.findings] == ["Dockerfile"]


DEVELOPED = 'FROM python:3.12\nENTRYPOINT ["python", "agent.py"]\nCMD ["dev"]\n'
STAYS = 'FROM python:3.12\nENTRYPOINT ["python", "agent.py", "dev"]\nCMD ["--log-level", "info"]\n'


@pytest.mark.parametrize(
    ("image", "own", "more", "found"),
    [
        (DEVELOPED, "args: [start]", {}, []),
        (DEVELOPED, "command: [python, agent.py, start]", {}, []),
        (DEVELOPED, "args: [dev]", {}, ["k.yaml:4"]),
        (DEVELOPED, "ports: []", {}, ["Dockerfile:3"]),
        (DEVELOPED, "args: [start]", {"compose.yaml": composed("agent: {build: .}")}, ["Dockerfile:3"]),
        (DEVELOPED, "args: [start]", {"livekit.toml": "[agent]\nid = 'A_1'\n"}, ["Dockerfile:3"]),
        (STAYS, "args: [start]", {}, ["Dockerfile:2"]),
        (STAYS, "command: [python, agent.py, start]", {}, []),
    ],
)
def test_arguments_take_the_place_of_an_images_command(
    tmp_path: Path, image: str, own: str, more: dict[str, str], found: list[str]
) -> None:
    files = read(tmp_path, {"k.yaml": pods(("voice-agent", own)), "Dockerfile": image, **more})
    judgement = rules.production_command(files, Needs())
    assert [f"{one.place.file}:{one.place.line}" for one in judgement.findings] == found
    said = "all that is deployed has a command of its own instead of 'dev'; not judged"
    assert any(said in note for note in judgement.notes) == (found == [] or found == ["k.yaml:4"])


@pytest.mark.parametrize("shell", [["sh", "-c"], ["bash", "-lc"], []])
@pytest.mark.parametrize(
    ("line", "modes"),
    [
        ("python -m pytest test; python prepare.py dev; python agent.py start", {"start"}),
        ("npm run test && python prepare.py dev && python agent.py start", {"start"}),
        ("( test -f a && python agent.py dev ); python agent.py start", {"dev", "start"}),
        ("if true; then exec python agent.py start; fi; python agent.py dev", {"dev", "start"}),
        ("! test -f a && python agent.py dev; python agent.py start", {"dev", "start"}),
    ],
)
def test_a_word_among_arguments_is_no_condition(shell: list[str], line: str, modes: set[str]) -> None:
    assert modes_of([*shell, line]) == modes


@pytest.mark.parametrize(
    "words",
    [
        ["/usr/bin/tini", "--", "sh", "-c", "if [ $E = prod ]; then python agent.py start; else python agent.py dev; fi"],
        ["bash", "-eo", "pipefail", "-c", "if [ $E = prod ]; then python agent.py start; else python agent.py dev; fi"],
        ["tini", "--", "if [ $E = prod ]; then python agent.py start; else python agent.py dev; fi"],
    ],
)
def test_a_condition_is_known_behind_whatever_starts_the_shell(words: list[str]) -> None:
    assert modes_of(words) == {"start", "dev"}


@pytest.mark.parametrize(
    ("script", "modes"),
    [
        ("exec python agent.py start\n# on a laptop: python agent.py dev\n", {"start"}),
        ("python agent.py download-files\n# was: exec python agent.py start\nexec python agent.py dev\n", {"dev"}),
        ("# don't: python agent.py dev || true\npython agent.py start  # not python agent.py dev\n", {"start"}),
        ("python prepare.py start;# python agent.py start\nexec python agent.py dev;\n", {"dev"}),
        ("echo 'it is # 1'; python agent.py start", {"start"}),
        ('echo "a \\" # b"; echo $# ${#A} a#b; python agent.py dev', {"dev"}),
        ("[ -n $PROD ] && exec python agent.py start\npython agent.py dev\n", {"start", "dev"}),
    ],
)
def test_comments_and_empty_lines_of_a_script_are_no_commands(script: str, modes: set[str]) -> None:
    assert modes_of(["sh", "-c", script]) == modes


def test_a_comment_behind_a_command_is_none_in_a_line_that_was_taken_apart(tmp_path: Path) -> None:
    text = "FROM python:3.12\nCMD python agent.py start # on a laptop: python agent.py dev\n"
    found = rules.production_command(read(tmp_path, {"Dockerfile": text}), Needs())
    assert (found.findings, found.looked_at) == ([], 1)


def in_space(stage: str, env: str, url: str = "wss://acme-k2x91.livekit.cloud") -> str:
    """A workload and its ConfigMap."""
    metadata = f"metadata: {{name: voice-agent, namespace: voice-{stage}}}"
    container = f"{{name: agent, image: 'r/agent:1', command: [python, agent.py, start], {env}}}"
    workload = f"kind: Deployment\n{metadata}\nspec: {{template: {{spec: {{containers: [{container}]}}}}}}\n"
    data = f"metadata: {{name: lk, namespace: voice-{stage}}}\ndata: {{LIVEKIT_URL: '{url}', URL: '{url}'}}\n"
    return f"apiVersion: apps/v1\n{workload}---\napiVersion: v1\nkind: ConfigMap\n{data}---\n"


REFERENCE = "{name: LIVEKIT_URL, valueFrom: {configMapKeyRef: {name: lk, key: URL}}}"
OTHER = "wss://other.livekit.cloud"


@pytest.mark.parametrize(
    ("env", "looked_at"),
    [
        (f"env: [{REFERENCE}]", 1),
        ("envFrom: [{secretRef: {name: keys}}, {configMapRef: {name: lk}}]", 1),
        ("envFrom: [{configMapRef: {name: lk}, prefix: LIVEKIT_}]", 1),
        ("envFrom: [{configMapRef: {name: lk}}, {prefix: DB_, secretRef: {name: db}}]", 1),
        # A Secret's entry may take its place.
        ("envFrom: [{configMapRef: {name: lk}}, {secretRef: {name: keys}}]", 0),
        ("envFrom: [{configMapRef: {name: lk}}], env: [{name: LIVEKIT_URL, value: $(URL)}]", 0),
        ("envFrom: [{configMapRef: {name: other}}]", 0),
    ],
)
def test_environments_are_compared_by_what_they_take_from_config_maps(tmp_path: Path, env: str, looked_at: int) -> None:
    staging, production = in_space("staging", env), in_space("production", env)
    found = rules.separate_environments(read(tmp_path, {"a.yaml": staging, "b.yaml": production}), Needs())
    assert found.looked_at == looked_at
    assert [(one.found, one.place.file) for one in found.findings] == looked_at * [
        ("LIVEKIT_URL is the same as in b.yaml", "a.yaml")
    ]
    assert any("LIVEKIT_URL may come from elsewhere" in note for note in found.notes) is ("}, {secretRef: {name: keys" in env)
    other = {"a.yaml": in_space("staging", env, OTHER), "b.yaml": production}
    assert not rules.separate_environments(read(tmp_path, other), Needs()).findings


@pytest.mark.parametrize(("staging", "found"), [("wss://acme-k2x91.livekit.cloud", True), (OTHER, False)])
def test_environments_of_render_are_compared_by_their_groups(tmp_path: Path, staging: str, *, found: bool) -> None:
    def environment(name: str, url: str) -> str:
        service = f"{{type: worker, name: voice-agent, runtime: docker, envVars: [{{fromGroup: lk-{name}}}]}}"
        group = f"{{name: lk-{name}, envVars: [{{key: LIVEKIT_URL, value: '{url}'}}]}}"
        return f"{{name: {name}, services: [{service}], envVarGroups: [{group}]}}"

    both = f"{environment('staging', staging)}, {environment('production', 'wss://acme-k2x91.livekit.cloud')}"
    files = read(tmp_path, {"render.yaml": f"projects: [{{name: voice, environments: [{both}]}}]\n"})
    judgement = rules.separate_environments(files, Needs())
    assert judgement.looked_at == 1
    assert [one.found for one in judgement.findings] == ["LIVEKIT_URL is the same as in line 1"] * found


SCALED = """apiVersion: apps/v1
kind: Deployment
metadata: {name: voice-agent}
spec: {template: {spec: {containers: [{name: a, image: 'r/a:1', args: [start], ENV, resources: RESOURCES}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: voice-agent}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: voice-agent}
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 45}}}]
"""
REQUESTED = "requests: {cpu: '4', memory: 8Gi}, limits: {memory: 8Gi"
BY_KEY = "env: [{name: NUM_CPUS, valueFrom: {configMapKeyRef: {name: c, key: NUM_CPUS}}}]"


@pytest.mark.parametrize("env", ["envFrom: [{configMapRef: {name: c}}]", BY_KEY])
def test_a_worker_counts_the_cores_that_a_config_map_tells_it(tmp_path: Path, env: str) -> None:
    def scaled(limits: str, cores: str) -> Files:
        config = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{NUM_CPUS: '{cores}'}}\n"
        agent = SCALED.replace("ENV", env).replace("RESOURCES", f"{{{REQUESTED}{limits}}}}}")
        return read(tmp_path, {"agent.yaml": agent, "config.yaml": config})

    (finding,) = rules.scale_up_below_threshold(scaled(", cpu: '4'", "2"), Needs()).findings
    assert finding.found == "scales up at 45% of the request, a load of 0.90"
    told = scaled("", "4")
    assert not rules.resources(told, Needs()).findings
    assert rules.scale_up_below_threshold(told, Needs()) == Judgement(looked_at=1)
    # What is filled in when it is deployed is not known.
    unknown = rules.scale_up_below_threshold(scaled(", cpu: '4'", "${CORES}"), Needs())
    assert (unknown.looked_at, "NUM_CPUS" in unknown.notes[0]) == (0, True)


CORES = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {NUM_CPUS: '2', LIVEKIT_URL: 'wss://a.livekit.cloud'}\n"


def test_a_secret_tells_a_worker_no_other_cores_than_a_config_map_before_it(tmp_path: Path) -> None:
    env = "envFrom: [{configMapRef: {name: c}}, {secretRef: {name: keys}}]"
    agent = SCALED.replace("ENV", env).replace("RESOURCES", f"{{{REQUESTED}}}}}")
    files = read(tmp_path, {"agent.yaml": agent, "config.yaml": CORES})
    (finding,) = rules.scale_up_below_threshold(files, Needs()).findings
    assert finding.found == "scales up at 45% of the request, a load of 0.90"
    # Its own address may well be in it.
    (address,) = [one for one in files.deployments[0].referred if one.name == "LIVEKIT_URL"]
    assert (address.literal, address.doubted) == (None, True)


def test_cores_that_another_config_map_may_tell_a_worker_are_not_known(tmp_path: Path) -> None:
    env = "envFrom: [{configMapRef: {name: c}}, {configMapRef: {name: elsewhere}}]"
    agent = SCALED.replace("ENV", env).replace("RESOURCES", f"{{{REQUESTED}}}}}")
    files = read(tmp_path, {"agent.yaml": agent, "config.yaml": CORES})
    assert not rules.resources(files, Needs()).findings
    judgement = rules.scale_up_below_threshold(files, Needs())
    assert judgement.looked_at == 0
    assert judgement.notes[0].endswith(": NUM_CPUS may be set by a later source (envFrom); not judged")


@pytest.mark.parametrize("env", ["envFrom: [{configMapRef: {name: c}}]", "env: [{name: NUM_CPUS, value: '4'}]"])
def test_cores_of_another_variable_or_config_map_are_none_that_it_is_told(tmp_path: Path, env: str) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {NUM_CPUS: '2'}\n"
    agent = SCALED.replace("ENV", env).replace("RESOURCES", f"{{{REQUESTED}, cpu: '4'}}}}")
    assert not rules.scale_up_below_threshold(read(tmp_path, {"a.yaml": agent, "c.yaml": config}), Needs()).findings


@pytest.mark.parametrize(
    ("command", "line", "field"),
    [
        ("          command: [python, agent.py]\n          args:\n            - dev\n", 11, "args"),
        ("          command: [python, agent.py]\n          args: [dev]\n", 11, "args"),
        ("          command: [/tini, --]\n          args: [python, agent.py, dev]\n", 11, "args"),
        ("          command: [./start, start]\n          args: [agent.py, dev]\n", 11, "args"),
        ("          args: [dev]\n", 10, "args"),
        ("          args: [--verbose]\n          command: [python, agent.py, dev]\n", 11, "command"),
    ],
)
def test_a_command_for_development_is_named_where_it_stands(tmp_path: Path, command: str, line: int, field: str) -> None:
    agent = """apiVersion: apps/v1
kind: Deployment
metadata: {name: voice-agent}
spec:
  template:
    spec:
      containers:
        - name: agent
          image: r/agent:1
"""
    (finding,) = rules.production_command(read(tmp_path, {"agent.yaml": agent + command}), Needs()).findings
    assert finding.found == "the worker is started with 'dev'"
    assert (finding.place.line, finding.place.field) == (line, f"spec.template.spec.containers[0].{field}")


def test_what_a_word_in_the_arguments_starts_is_said_of_them(tmp_path: Path) -> None:
    agent = pods(("voice-agent", "command: [./run.sh], args: [dev]"))
    (note,) = rules.production_command(read(tmp_path, {"agent.yaml": agent}), Needs()).notes
    assert note.endswith("containers[0].args: what its 'dev' starts is not in the file; not judged")


TASK = """{
  "family": "voice",
  "requiresCompatibilities": ["LAUNCH"],
  "containerDefinitions": [
    {"name": "collector", "image": "r/otel:1", "stopTimeout": 120},
    {"name": "voice-agent", "image": "r/agent:1", "command": ["python", "agent.py", "start"]}
  ]
}
"""


def test_the_container_whose_default_is_too_short_is_named(tmp_path: Path) -> None:
    (finding,) = rules.grace_period(read(tmp_path, {"task.json": TASK.replace("LAUNCH", "FARGATE")}), Needs()).findings
    assert str(finding.place) == "task.json:6 containerDefinitions[1]"
    assert finding.found == "30 s, the default of ECS on Fargate, for voice-agent"
    (note,) = rules.grace_period(read(tmp_path, {"task.json": TASK.replace("LAUNCH", "EC2")}), Needs()).notes
    assert note.startswith("task.json:6 containerDefinitions[1]: no stopTimeout")


BESIDE = """apiVersion: apps/v1
kind: Deployment
metadata: {name: voice-agent}
spec: {template: {spec: {containers: [
  {name: a, args: [agent.py, start], resources: {requests: {cpu: 4}, limits: {cpu: 4}}}, {name: otel, args: [COMMAND]}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: voice-agent}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: voice-agent}, metrics: [METRICS]}
"""


def used(metric: str, container: str, per_cent: int) -> str:
    target = f"{{type: Utilization, averageUtilization: {per_cent}}}"
    return f"{{type: ContainerResource, containerResource: {{container: {container}, name: {metric}, target: {target}}}}}"


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        (used("cpu", "otel", 50), ["scales by cpu of otel"]),
        (f"{used('memory', 'a', 60)}, {used('cpu', 'otel', 50)}", ["scales by memory and cpu of otel only"]),
        (f"{used('cpu', 'a', 60)}, {used('cpu', 'otel', 50)}", []),
        (used("cpu", "'${NAME}'", 50), []),
    ],
)
def test_the_use_of_a_container_beside_the_worker_is_no_metric_of_its_own(
    tmp_path: Path, metrics: str, found: list[str]
) -> None:
    files = read(tmp_path, {"a.yaml": BESIDE.replace("METRICS", metrics).replace("COMMAND", "--config=otel.yaml")})
    assert [finding.found for finding in rules.scaling_metric(files, Needs()).findings] == found


def test_that_of_another_worker_in_its_pod_may_be_one(tmp_path: Path) -> None:
    files = read(tmp_path, {"a.yaml": BESIDE.replace("METRICS", used("cpu", "otel", 50)).replace("COMMAND", "b.py, start")})
    assert rules.scaling_metric(files, Needs()) == Judgement(looked_at=1)


def test_the_use_of_a_container_beside_the_worker_does_not_scale_it_up_in_time(tmp_path: Path) -> None:
    metrics = f"{used('cpu', 'a', 90)}, {used('cpu', 'otel', 50)}"
    files = read(tmp_path, {"a.yaml": BESIDE.replace("METRICS", metrics).replace("COMMAND", "--config=otel.yaml")})
    assert [finding.found for finding in rules.scale_up_below_threshold(files, Needs()).findings] == ["scales up at 90%"]


STACK = """Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      Family: voice-agent
      RequiresCompatibilities: [FARGATE]
      Cpu: !FindInMap [Sizes, agent, cpu]
      ContainerDefinitions: [{Name: agent, Image: 'r/agent:1', Command: [python, agent.py, start]}]
  Service:
    Type: AWS::ECS::Service
    Properties: {LaunchType: FARGATE, TaskDefinition: !Ref Task, DesiredCount: 2}
  Target:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties: {ScalableDimension: 'ecs:service:DesiredCount', MinCapacity: 2, MaxCapacity: 9}
  Policy:
    Type: AWS::ApplicationAutoScaling::ScalingPolicy
    Properties:
      TargetTrackingScalingPolicyConfiguration:
        TargetValue: SHARE
        PredefinedMetricSpecification: {PredefinedMetricType: ECSServiceAverageCPUUtilization}
"""


@pytest.mark.parametrize(("share", "found"), [("75", ["scales up at 75%"]), ("50", [])])
def test_a_target_of_ecs_is_judged_however_many_cores_there_are(tmp_path: Path, share: str, found: list[str]) -> None:
    judgement = rules.scale_up_below_threshold(read(tmp_path, {"stack.yml": STACK.replace("SHARE", share)}), Needs())
    assert (judgement.looked_at, [finding.found for finding in judgement.findings]) == (1, found)


def test_a_default_grace_period_is_named_where_another_one_would_stand(tmp_path: Path) -> None:
    agent = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: voice-agent}\nspec:\n  template:\n    spec:\n"
    agent += "      containers: [{name: main, args: [agent.py, start]}]\n"
    (finding,) = rules.grace_period(read(tmp_path, {"agent.yaml": agent}), Needs()).findings
    assert str(finding.place) == "agent.yaml:6 spec.template.spec"


@pytest.mark.parametrize(
    ("written", "found"), [("0x708", []), ("0o3410", []), ("0600", ["384 s"]), ("0900", []), ("'0600'", []), ("00", ["0 s"])]
)
def test_a_number_is_read_as_kubectl_reads_it(tmp_path: Path, written: str, found: list[str]) -> None:
    agent = pods(("voice-agent", "args: [agent.py, start]"), pod=f"terminationGracePeriodSeconds: {written}, ")
    files = read(tmp_path, {"agent.yaml": agent})
    assert [finding.found for finding in rules.grace_period(files, Needs()).findings] == found
    # A text is refused as one, whatever it says.
    assert bool(rules.readable(files, Needs()).findings) == written.startswith("'")


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("externalIPs: [203.0.113.7]", ["a Service with externalIPs opens the worker to others"]),
        ("externalIPs: []", []),
        ("clusterIP: None, externalIPs: [203.0.113.7]", []),
        ("type: ExternalName, externalIPs: [203.0.113.7]", []),
    ],
)
def test_addresses_of_a_service_open_the_worker(tmp_path: Path, spec: str, found: list[str]) -> None:
    agent = pods(("voice-agent", "args: [agent.py, start]")).replace("{metadata: {", "{metadata: {labels: {app: a}, ")
    service = f"apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}, selector: {{app: a}}}}\n"
    files = read(tmp_path, {"agent.yaml": agent, "service.yaml": service})
    assert [finding.found for finding in rules.no_inbound(files, Needs()).findings] == found


def test_parallelism_0_is_said_to_mean_all_at_once(tmp_path: Path) -> None:
    stack = (
        "services:\n  agent:\n    image: r\n    command: agent.py start\n    deploy:\n      replicas: 4\n      update_config:\n"
    )
    stack += "        parallelism: 0\n        order: stop-first\n"
    (finding,) = rules.rolling_update(read(tmp_path, {"stack.yaml": stack}), Needs()).findings
    said = "a rollout stops all 4 workers before others are there, as parallelism 0 means all at once"
    assert (finding.place.line, finding.found) == (8, said)


def test_another_tools_file_is_not_counted_as_read(tmp_path: Path) -> None:
    skaffold = "apiVersion: skaffold/v4beta6\nkind: Config\nmanifests: {rawYaml: [agent.yaml]}\n"
    agent = pods(("voice-agent", "args: [agent.py, start]"))
    files = read(tmp_path, {"agent.yaml": agent, "skaffold.yaml": skaffold, "app.yaml": agent.replace("apps/v1", "app/v1")})
    assert files.read == ["agent.yaml", "app.yaml"]
    assert load([str(tmp_path / "skaffold.yaml")]).strange == [str(tmp_path / "skaffold.yaml")]
