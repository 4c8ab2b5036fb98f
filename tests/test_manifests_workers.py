"""Deployment files: which of what they deploy is a worker, by more than its name, and what is said where a name is all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Files

from .deployment_files import judged, written


def composed(*services: str) -> dict[str, str]:
    return {"compose.yaml": "services:\n" + "".join(f"  {service}\n" for service in services)}


def deployed(name: str, image: str, more: str = "") -> str:
    pod = f"{{containers: [{{name: main, image: '{image}'{more}}}]}}"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{template: {{spec: {pod}}}}}\n"


AGENT_IMAGE = 'FROM python:3.12\nCMD ["python", "agent.py", "start"]\n'
LIVEKIT = "environment: {LIVEKIT_URL: $URL}"
VOICE = f"voicebot: {{image: 'r/voice:1', stop_grace_period: 5s, {LIVEKIT}}}"
STARTED = "voice: {image: 'r/voice:1', command: python main.py start}"


@pytest.mark.parametrize(
    ("services", "worker"),
    [
        ([VOICE, "beszel-agent: {image: 'henrygd/beszel-agent:0.12', stop_grace_period: 10m}"], "voicebot"),
        ([VOICE, "agent: {image: 'portainer/agent:2.19'}"], "voicebot"),
        ([VOICE, "watch-agent: {image: 'acme/watch:1', stop_grace_period: 10m}"], "voicebot"),
        ([STARTED, "consul-agent: {image: 'r/consul:1'}"], "voice"),
        ([STARTED, "portainer_agent: {image: 'r/p:1', env_file: .env}"], "voice"),
        ([STARTED, "agent-orchestrator: {image: 'r/orchestrator:1', env_file: .env}"], "voice"),
    ],
)
def test_a_name_does_not_outrank_what_works_with_livekit(tmp_path: Path, services: list[str], worker: str) -> None:
    files = written(tmp_path, composed(*services))
    assert judged(files) == {worker}
    (finding,) = rules.grace_period(files, Needs()).findings
    assert finding.place.field.startswith(f"services.{worker}")


def test_a_name_does_not_outrank_evidence_on_kubernetes(tmp_path: Path) -> None:
    livekit = ", env: [{name: LIVEKIT_URL, value: 'wss://voice.livekit.cloud'}]"
    files = written(
        tmp_path,
        {"a.yaml": deployed("research-agent", "r/langgraph:1"), "b.yaml": deployed("voice-worker", "r/voice:1", livekit)},
    )
    assert judged(files) == {"voice-worker"}
    assert files.passed_over == ["a.yaml: research-agent is named like a worker, and nothing else says that it is one"]


@pytest.mark.parametrize(
    "other",
    [
        "sales-agent: {image: 'r/voice:2', command: ./run sales}",
        "sales-agent: {image: 'r/sales:1', command: python sales.py start}",
        f"sales-agent: {{image: 'r/sales:1', {LIVEKIT}}}",
        "sales-agent: {build: ./sales}",
    ],
)
def test_more_than_a_name_makes_another_worker(tmp_path: Path, other: str) -> None:
    files = {**composed(STARTED, other), "sales/Dockerfile": AGENT_IMAGE}
    assert judged(written(tmp_path, files)) == {"voice", "sales-agent", "sales/Dockerfile"}


@pytest.mark.parametrize("command", ["uvicorn app:app", "fastapi run app/main.py"])
def test_a_web_server_is_no_worker_though_it_works_with_livekit(tmp_path: Path, command: str) -> None:
    backend = f"backend: {{image: 'r/backend:1', command: {command}, {LIVEKIT}}}"
    assert judged(written(tmp_path, composed(backend))) == set()
    assert judged(written(tmp_path, composed(backend, "agent: {image: 'r/agent:1'}"))) == {"agent"}


def said(files: Files) -> str:
    return "; ".join(rules.readable(files, Needs()).notes)


def test_where_a_name_is_all_this_is_said(tmp_path: Path) -> None:
    files = written(
        tmp_path, composed("agent: {build: ./agent, env_file: .env}", "backend: {build: ./backend, " + LIVEKIT + "}")
    )
    assert judged(files) == {"agent"}
    assert "workers by their names or variables alone: agent" in said(files)
    assert "compose.yaml: backend works with LiveKit, and nothing says that it is a worker" in said(files)
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent/Dockerfile").write_text(AGENT_IMAGE)
    assert "alone" not in said(load([str(tmp_path)]))


@pytest.mark.parametrize("image", [{}, {"agent/Dockerfile": AGENT_IMAGE}])
@pytest.mark.parametrize("site", ["{build: ./frontend, ports: ['3000:3000']}", f"{{build: ./frontend, {LIVEKIT}}}"])
def test_a_web_site_named_after_an_agent_is_none_beside_one(tmp_path: Path, image: dict[str, str], site: str) -> None:
    files = written(tmp_path, {**composed(f"agent-frontend: {site}", "agent: {build: ./agent}"), **image})
    assert {one.name for one in files.deployments if one.name != "agent/Dockerfile"} == {"agent"}
    started = {"frontend/Dockerfile": AGENT_IMAGE}
    assert "agent-frontend" in judged(written(tmp_path, started)), "its image starts an agent"


def test_what_is_built_from_another_image_than_the_agents_is_no_worker(tmp_path: Path) -> None:
    backend = f"backend: {{build: ./backend, {LIVEKIT}}}"
    server = "FROM golang:1.24\nCMD [/app/server]\n"
    files = written(
        tmp_path,
        {
            **composed(backend),
            "backend/Dockerfile": server,
            "agent/Dockerfile": AGENT_IMAGE,
            "agent/livekit.toml": '[agent]\nid = "CA_1"\n',
        },
    )
    assert judged(files) == {"agent/Dockerfile"}
    files = written(tmp_path / "alone", {**composed(backend), "backend/Dockerfile": server})
    assert judged(files) == {"backend", "backend/Dockerfile"}
    assert "nothing looks like a LiveKit worker; judged is backend" in said(files)
    files = written(
        tmp_path / "image", {**composed("backend: {image: 'r/backend:1', " + LIVEKIT + "}"), "Dockerfile": AGENT_IMAGE}
    )
    assert "workers by their names or variables alone: backend" in said(files)


def test_what_hands_out_tokens_is_no_worker(tmp_path: Path) -> None:
    services = [f"{name}: {{image: 'r/{name}:1', {LIVEKIT}}}" for name in ("tokens", "token-server", "livekit-token-service")]
    files = written(tmp_path, composed("livekit: {image: 'livekit/livekit-server:v1.9'}", *services))
    assert (files.deployments, len(files.passed_over)) == ([], 4)


def test_a_dockerfile_that_is_named_as_a_part_is_none_beside_what_starts_an_agent(tmp_path: Path) -> None:
    script = "FROM python:3.12\nCMD [./run.sh]\n"
    files = {**composed(STARTED), "agent/Dockerfile": script, "agent-ui/Dockerfile": script}
    assert judged(written(tmp_path, files)) == {"voice", "agent/Dockerfile"}


def test_what_is_built_from_a_server_of_files_may_be_no_worker(tmp_path: Path) -> None:
    portal = f"portal: {{build: ./portal, {LIVEKIT}}}"
    image = {"portal/Dockerfile": "FROM node:22 AS built\nRUN npm run build\nFROM nginx:1.27\nCOPY --from=built dist /srv\n"}
    assert judged(written(tmp_path, {**composed(portal), **image})) == set()
    assert judged(written(tmp_path, {**composed(portal, "assistant: {image: 'r/assistant:1'}"), **image})) == {"assistant"}


@pytest.mark.parametrize(
    ("more", "is_said"),
    [
        (LIVEKIT, True),
        (f"{LIVEKIT}, command: pnpm start, expose: [8081]", True),
        (f"{LIVEKIT}, ports: ['80:80']", False),
        (f"{LIVEKIT}, expose: [80]", False),
        (f"{LIVEKIT}, command: node server.js", False),
        (f"{LIVEKIT}, command: java -jar app.jar", False),
        ("env_file: .env", False),
    ],
)
def test_what_may_be_a_second_worker_is_said_with_each_verdict(tmp_path: Path, more: str, *, is_said: bool) -> None:
    files = written(tmp_path, composed(STARTED, f"reception: {{image: 'r/reception:1', {more}}}"))
    said = "compose.yaml: reception works with LiveKit, and nothing says that it is a worker"
    assert (judged(files), files.left_out) == ({"voice"}, [said] * is_said)
    part = written(tmp_path, composed(STARTED, f"agent-api: {{image: 'r/reception:1', {more}}}"))
    assert said.replace("reception", "agent-api") not in part.left_out


@pytest.mark.parametrize(
    ("port", "more", "is_said"), [("3000", "", False), ("8081", "", True), ("3000", ", command: ./interview", True)]
)
def test_what_its_image_exposes_tells_that_somebody_connects_to_it(
    tmp_path: Path, port: str, more: str, *, is_said: bool
) -> None:
    portal = f"portal: {{build: ./portal, {LIVEKIT}{more}}}"
    image = {"portal/Dockerfile": f'FROM node:22\nEXPOSE {port}\nCMD ["npm", "start"]\n'}
    files = written(tmp_path, {**composed(STARTED, portal), **image})
    said = "compose.yaml: portal works with LiveKit, and nothing says that it is a worker"
    assert (judged(files), files.left_out) == ({"voice"}, [said] * is_said)


@pytest.mark.parametrize("name", ["api", "acme-backend", "web", "admin", "webhooks", "db-migrate", "scheduler"])
def test_what_is_named_as_a_server_or_a_task_is_not_said_with_each_verdict(tmp_path: Path, name: str) -> None:
    service = f"{name}: {{image: 'r/{name}:1', {LIVEKIT}}}"
    files = written(tmp_path, composed(STARTED, service))
    assert (judged(files), files.left_out) == ({"voice"}, [])
    # Where a name is all that the worker has, it is.
    files = written(tmp_path, composed("agent: {image: 'r/agent:1', env_file: .env}", service))
    assert files.left_out == [f"compose.yaml: {name} works with LiveKit, and nothing says that it is a worker"]


@pytest.mark.parametrize(("kind", "is_said"), [("Service", False), ("WorkerPool", True)])
def test_nobody_connects_to_a_worker_pool(tmp_path: Path, kind: str, *, is_said: bool) -> None:
    container = "{image: 'r/reception:1', env: [{name: LIVEKIT_URL, value: 'wss://voice.livekit.cloud'}]}"
    text = f"kind: {kind}\nmetadata: {{name: reception}}\nspec: {{template: {{spec: {{containers: [{container}]}}}}}}\n"
    group = "run.googleapis.com" if kind == "WorkerPool" else "serving.knative.dev"
    files = written(tmp_path, {**composed(STARTED), "reception.yaml": f"apiVersion: {group}/v1\n{text}"})
    said = "reception.yaml: reception works with LiveKit, and nothing says that it is a worker"
    assert (judged(files), files.left_out) == ({"voice"}, [said] * is_said)


def test_a_module_with_the_command_of_the_sdk_in_an_image_is_said_with_each_verdict(tmp_path: Path) -> None:
    image = {"sales/Dockerfile": 'FROM python:3.12\nCMD ["python", "-m", "sales.main", "start"]\n'}
    files = written(tmp_path, {**composed(STARTED, f"sales: {{build: ./sales, {LIVEKIT}}}"), **image})
    assert files.left_out == ["compose.yaml: sales works with LiveKit, and nothing says that it is a worker"]


def test_the_port_of_the_health_server_makes_no_other_of_a_voicebot(tmp_path: Path) -> None:
    voice = f"voicebot: {{image: 'r/voice:1', expose: [8081], {LIVEKIT}}}"
    files = written(tmp_path, composed(voice, "sales-agent: {image: 'r/sales:1', env_file: .env}"))
    assert judged(files) == {"voicebot", "sales-agent"}


APP = """name: NAME
properties:
  configuration: {activeRevisionsMode: Single}
  template:
    terminationGracePeriodSeconds: 600
    containers: [{name: a, image: 'r/a:1', command: [python, agent.py, MODE], env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]}]
    scale: {minReplicas: 2}
"""


@pytest.mark.parametrize(
    ("of", "trigger"),
    [
        ("type: Microsoft.App/jobs\n", "{triggerType: Schedule, replicaTimeout: 1800}"),
        ("", "{triggerType: Manual}"),
        ("", "{replicaTimeout: 1800}"),
    ],
)
def test_a_job_of_container_apps_is_no_worker(tmp_path: Path, of: str, trigger: str) -> None:
    job = of + APP.replace("NAME", "agent-nightly").replace("MODE", "console").replace("600", "30")
    job = job.replace("{activeRevisionsMode: Single}", trigger)
    files = written(tmp_path, {"agent.yaml": APP.replace("NAME", "agent").replace("MODE", "start"), "nightly.yaml": job})
    assert judged(files) == {"agent"}
    assert "nightly.yaml: agent-nightly is a job" in files.passed_over
    (tmp_path / "agent.yaml").unlink()
    files = load([str(tmp_path)])
    assert judged(files) == set()
    assert rules.readable(files, Needs()).looked_at == 0


def test_an_app_with_a_jobs_field_is_an_app(tmp_path: Path) -> None:
    app = "type: Microsoft.App/containerApps\n" + APP.replace("NAME", "agent").replace(
        "{active", "{triggerType: Manual, active"
    )
    assert judged(written(tmp_path, {"agent.yaml": app})) == {"agent"}


def test_a_secret_in_a_job_is_found(tmp_path: Path) -> None:
    secret = "{name: LIVEKIT_API_SECRET, value: c2hvcnQtbGl2ZWQ5MXF6c2hvcnQtbGl2}"
    job = "type: Microsoft.App/jobs\n" + APP.replace("{name: LIVEKIT_URL, value: 'wss://a.b'}", secret)
    (finding,) = rules.secrets(written(tmp_path, {"nightly.yaml": job}), Needs()).findings
    assert finding.place.file == "nightly.yaml"


MORE = ", envFrom: [{secretRef: {name: keys}}]"


@pytest.mark.parametrize("kept", ["r/voice-agents/", "r/livekit-agent/", "agents-prod/images/", "r/voice-agent-"])
def test_an_image_kept_where_an_agents_is_does_not_make_a_worker_beside_one(tmp_path: Path, kept: str) -> None:
    others = {
        f"{name}.yaml": deployed(name, f"{kept}{name}:1", MORE) for name in ("api", "voice-web", "token-server", "dashboard")
    }
    for started in ("", ", args: [start]", ", command: [python, agent.py, start]"):
        agent = {"agent.yaml": deployed("agent", "r/voice-agent:1", MORE + started)}
        assert judged(written(tmp_path, {**agent, **others})) == {"agent"}


def test_where_nothing_is_called_an_agent_where_an_image_is_kept_tells(tmp_path: Path) -> None:
    admin = {"admin.yaml": deployed("admin", "r/admin:1", ", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]")}
    files = written(tmp_path, {"app.yaml": deployed("app", "r/voice-agent/app:1", MORE), **admin})
    assert (judged(files), files.doubtful) == ({"app"}, True)
    livekit = ", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]"
    mailer = {"mailer.yaml": deployed("mailer", "r/voice-agent/mailer:1", MORE)}
    files = written(tmp_path, {"app.yaml": deployed("app", "r/voice-agent/app:1", livekit), **mailer})
    assert (judged(files), files.doubtful) == ({"app"}, True)
    assert judged(written(tmp_path / "own", {"api.yaml": deployed("api", "r/voice-agent:1", MORE)})) == {"api"}, "all there is"


@pytest.mark.parametrize("name", ["api", "web", "voice-backend", "webhooks"])
@pytest.mark.parametrize("livekit", [", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]", MORE])
def test_where_nothing_is_called_a_worker_a_server_is_none_beside_another(tmp_path: Path, name: str, livekit: str) -> None:
    server = {"server.yaml": deployed(name, f"r/{name}:1", livekit)}
    files = written(tmp_path, {"a.yaml": deployed("receptionist", "r/receptionist:1", livekit), **server})
    assert (judged(files), files.doubtful) == ({"receptionist"}, True)
    assert files.left_out, "it is said with each verdict"
    assert judged(written(tmp_path / "alone", server)) == {name}


def test_what_another_platform_runs_makes_a_server_no_less_of_a_worker(tmp_path: Path) -> None:
    beside = composed(f"voice: {{image: 'r/voice:1', {LIVEKIT}}}", f"api: {{image: 'r/api:1', {LIVEKIT}}}")
    backend = deployed("backend", "r/backend:1", ", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]")
    assert judged(written(tmp_path, {**beside, "backend.yaml": backend})) == {"backend", "voice"}


def test_of_several_things_that_may_be_a_worker_none_is_judged_but_for_secrets(tmp_path: Path) -> None:
    secret = ", env: [{name: MAIL_TOKEN, value: h7Jd2kP0xQ9v}]"
    several = {name: deployed(name[:-5], f"r/{name[:-5]}:1", secret) for name in ("mailer.yaml", "receptionist.yaml")}
    files = written(tmp_path, several)
    assert judged(files) == set()
    said = "mailer.yaml: mailer and 1 more: neither a name, a command nor LIVEKIT_... says which is the worker"
    assert files.left_out == [said]
    assert len(rules.secrets(files, Needs()).findings) == 2
    assert judged(load([str(tmp_path / "receptionist.yaml")])) == {"receptionist"}


def test_a_server_beside_what_an_images_place_tells_is_said(tmp_path: Path) -> None:
    kept = {f"{name}.yaml": deployed(name, f"r/voice-agents/{name}:1", MORE) for name in ("main", "api")}
    files = written(tmp_path / "a", kept)
    assert (judged(files), files.left_out) == ({"main"}, ["api.yaml: api may be a worker by all but its name"])
    livekit = {"main.yaml": deployed("main", "r/main:1", ", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]")}
    files = written(tmp_path / "b", {**kept, **livekit})
    assert (judged(files), files.left_out) == ({"main"}, []), "which has LiveKit's variables"


def test_what_serves_somebody_beside_what_may_be_a_worker_is_worth_no_word(tmp_path: Path) -> None:
    server = {"server.yaml": deployed("api", "r/api:1", f"{MORE}, ports: [{{containerPort: 8000}}]")}
    files = written(tmp_path, {"a.yaml": deployed("receptionist", "r/receptionist:1", MORE), **server})
    assert (judged(files), files.left_out) == ({"receptionist"}, [])


@pytest.mark.parametrize("livekit", [", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]", MORE])
def test_an_image_of_an_agent_counts_more_than_the_name_of_a_server(tmp_path: Path, livekit: str) -> None:
    others = {"mailer.yaml": deployed("mailer", "r/mailer:1", livekit), "web.yaml": deployed("web", "r/web:1", livekit)}
    assert judged(written(tmp_path, {"api.yaml": deployed("api", "r/voice-agent:1", livekit), **others})) == {"api"}


def test_of_several_things_that_are_kept_in_an_agents_place_none_is_judged(tmp_path: Path) -> None:
    several = {f"{name}.yaml": deployed(name, f"ghcr.io/acme-agents/{name}:1", MORE) for name in ("mailer", "reception")}
    files = written(tmp_path, several)
    assert (judged(files), len(files.left_out)) == (set(), 1)
    livekit = ", env: [{name: LIVEKIT_URL, value: 'wss://a.b'}]"
    hall = {"hall.yaml": deployed("hall", "r/hall:1", livekit)}
    assert judged(written(tmp_path, {**several, **hall})) == {"hall"}


def test_a_place_that_is_named_after_livekit_tells_where_nothing_else_does(tmp_path: Path) -> None:
    kept = {"bot.yaml": deployed("bot", "r/livekit/bot:1", MORE), "mailer.yaml": deployed("mailer", "r/mailer:1", MORE)}
    assert judged(written(tmp_path, kept)) == {"bot"}


def test_one_thing_of_two_environments_is_one_thing(tmp_path: Path) -> None:
    both = {f"{stage}/a.yaml": deployed("receptionist", f"r/receptionist-{stage}:1", MORE) for stage in ("staging", "prod")}
    files = written(tmp_path / "a", both)
    assert (judged(files), len(files.deployments), files.left_out) == ({"receptionist"}, 2, [])
    both = {"compose.yaml": "services: {bot: {build: .}}\n", "compose.prod.yaml": "services: {bot: {image: r/bot}}\n"}
    assert judged(written(tmp_path / "b", both)) == {"bot"}
    both = {f"{project}/compose.yaml": "services: {app: {build: .}}\n" for project in ("mailer", "receptionist")}
    assert judged(written(tmp_path / "c", both)) == set(), "two projects' own"
    image = "FROM python:3.12\nCMD python main.py\n"
    both = {f"{project}/Dockerfile": image for project in ("mailer", "receptionist")}
    assert judged(written(tmp_path / "d", both)) == set(), "of one base image"
    both = dict.fromkeys(("Dockerfile", "Dockerfile.gpu"), image)
    assert judged(written(tmp_path / "e", both)) == {*both}


def test_what_is_for_development_does_not_say_what_is_deployed(tmp_path: Path) -> None:
    own = {"a.yaml": deployed("receptionist", "r/receptionist:1", MORE)}
    apart = {"dev/b.yaml": deployed("reception-dev", "r/reception-dev:1", MORE)}
    files = written(tmp_path / "a", {**own, **apart})
    assert (judged(files), files.for_development, files.left_out) == ({"receptionist", "reception-dev"}, ["dev/b.yaml"], [])
    agent = {"dev/agent.yaml": deployed("agent", "r/agent:1", MORE)}
    files = written(tmp_path / "b", {**agent, "api.yaml": deployed("api", "r/api:1", MORE)})
    assert judged(files) == {"agent"}
    assert files.left_out == ["api.yaml: api may be a worker by all but its name"]
    others = {f"{name}.yaml": deployed(name, f"r/{name}:1", MORE) for name in ("mailer", "receptionist")}
    files = written(tmp_path / "c", {**agent, **others})
    assert (judged(files), files.for_development, len(files.left_out)) == ({"agent"}, ["dev/agent.yaml"], 1)


def test_variables_of_a_config_map_tell_what_works_with_livekit(tmp_path: Path) -> None:
    settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {LIVEKIT_URL: 'wss://a.b'}\n"
    taken = deployed("receptionist", "r/receptionist:1", ", envFrom: [{configMapRef: {name: settings}}]")
    files = {"a.yaml": taken, "mailer.yaml": deployed("mailer", "r/mailer:1", MORE), "settings.yaml": settings}
    assert judged(written(tmp_path / "a", files)) == {"receptionist"}
    # All of a project may take its variables from one.
    files |= {"worker.yaml": taken.replace("receptionist", "worker")}
    files |= {"agent.yaml": deployed("agent", "r/agent:1", ", args: [python, agent.py, start]")}
    assert judged(written(tmp_path / "b", files)) == {"agent"}


def test_what_is_deployed_of_one_image_or_alone_on_its_platform_is_judged(tmp_path: Path) -> None:
    same = {f"{name}.yaml": deployed(name, "r/reception:1", MORE) for name in ("reception-a", "reception-b")}
    files = written(tmp_path, {**same, **composed("hall: {image: 'r/hall:1'}")})
    assert (judged(files), files.doubtful, files.left_out) == ({"reception-a", "reception-b", "hall"}, True, [])


@pytest.mark.parametrize("command", ["echo test", "[sleep, infinity]", "tail -f /dev/null", "sh -c 'sleep infinity'"])
def test_what_starts_no_program_is_no_worker_and_may_hold_secrets(tmp_path: Path, command: str) -> None:
    idle = f"test-agent: {{image: 'r/livekit-agent:1', command: {command}, environment: {{OPENAI_API_KEY: h7Jd2kP0xQ9v4Lm8}}}}"
    files = written(tmp_path, composed(STARTED, idle))
    assert judged(files) == {"voice"}
    assert "compose.yaml: test-agent starts no program by its command" in files.passed_over
    assert [finding.place.field for finding in rules.secrets(files, Needs()).findings] == [
        "services.test-agent.environment.OPENAI_API_KEY"
    ]


@pytest.mark.parametrize("command", ["sh -c 'sleep 5; python agent.py start'", "sh -c 'echo on && exec ./run'", "./echo"])
def test_what_starts_a_program_after_a_word_may_be_a_worker(tmp_path: Path, command: str) -> None:
    assert judged(written(tmp_path, composed(f'voice-agent: {{image: "r/voice:1", command: "{command}"}}'))) == {"voice-agent"}


SCANNER = "scanner: {image: 'acme/scanner:community', ports: ['9000:9000'], environment: {SONAR_TOKEN: h7Jd2kP0xQ9v4Lm8}}"
SITE = "frontend: {build: ./frontend, ports: ['3000:3000']}"


@pytest.mark.parametrize(
    "others",
    [
        composed(SCANNER, SITE),
        # What is pulled may be set up by itself.
        {**composed(SCANNER), "livekit.toml": "[agent]\nid = 'CA_1'\n"},
        composed(SCANNER, "rules: {image: 'acme/scanner:community', command: ./setup}"),
        composed(SCANNER, "backend: {build: ., command: uvicorn app:app}"),
        {**composed(SCANNER), "agent/railway.json": '{"deploy": {"startCommand": "pnpm build && node dist/index.js"}}'},
        {
            **composed(SCANNER),
            "k8s/kustomization.yaml": "resources: [agent.yaml]\nimages: [{name: r/agent, newTag: '2'}]\n",
            "k8s/agent.yaml": deployed("agent", "r/agent:1"),
        },
    ],
)
def test_in_doubt_what_serves_others_is_no_worker_beside_something_else(tmp_path: Path, others: dict[str, str]) -> None:
    files = written(tmp_path, others)
    assert "scanner" not in judged(files)
    assert "compose.yaml: scanner serves others, and nothing says that it is a worker" in files.left_out
    assert [finding.place.field for finding in rules.secrets(files, Needs()).findings] == [
        "services.scanner.environment.SONAR_TOKEN"
    ], "it is judged for secrets"


@pytest.mark.parametrize(
    "services",
    [
        [SCANNER],
        [SCANNER, "db: {image: 'postgres:16', ports: ['5432:5432']}", "livekit: {image: 'livekit/livekit-server:v1.9'}"],
        [SCANNER.replace("environment: {", "environment: {LIVEKIT_URL: $URL, "), SITE],
        # Whoever opens it is to ask for its health.
        [SCANNER.replace("9000:9000", "8081:8081"), SITE],
    ],
)
def test_in_doubt_what_may_be_a_worker_is_judged_where_nothing_else_is_or_it_works_with_livekit(
    tmp_path: Path, services: list[str]
) -> None:
    files = written(tmp_path, composed(*services))
    assert (judged(files), files.doubtful) == ({"scanner"}, True)


def test_in_doubt_a_server_of_another_program_is_no_worker_though_it_works_with_livekit(tmp_path: Path) -> None:
    orchestrator = f"orchestrator: {{build: ., ports: ['8002:8002'], {LIVEKIT}}}"
    image = {"Dockerfile": 'FROM node:22\nENTRYPOINT ["tini", "--", "node", "dist/server.js"]\n'}
    behind = {
        "compose.production.yaml": composed(orchestrator.replace("8002:8002", ""), SITE)["compose.yaml"].replace("['']", "[]")
    }
    files = written(tmp_path, {**composed(orchestrator, SITE), **behind, **image})
    assert judged(files) == set()
    assert len(files.left_out) == 2
    started = {"Dockerfile": 'FROM node:22\nENTRYPOINT ["tini", "--", "node", "dist/main.js", "start"]\n'}
    assert "orchestrator" in judged(written(tmp_path, started)), "its image starts an agent"


DOWNLOADED = "FROM node:22 AS build\nRUN {fetch}\nFROM node:22\nCOPY --from=build /app /app\n{start}\n"


@pytest.mark.parametrize(
    ("fetch", "start", "is_one"),
    [
        ("pnpm download-files", 'CMD ["pnpm", "start"]', True),
        ("python -m voice.main download-files", 'CMD ["python", "-m", "voice.main", "start"]', True),
        ("<<EOF\nuv run main.py download-files\nEOF", "CMD /app/start.sh", True),
        # One image may be of an API, too.
        ("python -m voice.main download-files", 'CMD ["python", "server.py"]', False),
        ("python -m voice.main download-files", "CMD uvicorn voice.api:app", False),
        ("pnpm download-files", 'EXPOSE 3000\nCMD ["pnpm", "start"]', False),
        ("pnpm install download-files-cli", 'CMD ["pnpm", "start"]', False),
        # What others are built from starts nothing.
        ("pnpm download-files", "", False),
        ("pnpm download-files", "FROM build AS api\nCMD ./api.sh\nFROM build\nCMD ./worker.sh", False),
        ("pnpm download-files", "FROM build AS api\nCMD ./api.sh\nFROM build\nCMD python -m voice.main start", True),
    ],
)
def test_what_fetches_the_files_of_an_agents_plugins_is_an_agents(
    tmp_path: Path, fetch: str, start: str, *, is_one: bool
) -> None:
    image = {"apps/voice/Dockerfile": DOWNLOADED.format(fetch=fetch, start=start)}
    files = written(tmp_path, {**image, "apps/web/Dockerfile": 'FROM node:22\nCMD ["node", "server.js"]\n'})
    assert (judged(files) == {"apps/voice/Dockerfile"} and not files.doubtful) is is_one


@pytest.mark.parametrize("more", ["", f", {LIVEKIT}"])
def test_what_ends_before_others_start_is_a_task(tmp_path: Path, more: str) -> None:
    waits = "assistant: {image: 'r/assistant:1', depends_on: {setup: {condition: service_completed_successfully}}}"
    files = written(tmp_path, composed(waits, f"setup: {{image: 'r/setup:1'{more}}}"))
    assert judged(files) == {"assistant"}
    assert "compose.yaml: setup is a task, for whose end others wait" in files.passed_over
    healthy = waits.replace("completed_successfully", "healthy")
    assert "assistant" not in judged(written(tmp_path / "up", composed(healthy, "setup: {image: 'r/setup:1'}")))


@pytest.mark.parametrize(("name", "is_one"), [("asterisk", False), ("redis", False), ("assistant", True)])
def test_what_is_built_and_named_as_what_applications_stand_on_is_no_worker(tmp_path: Path, name: str, *, is_one: bool) -> None:
    image = {f"{name}/Dockerfile": "FROM debian:12\nCMD [/start.sh]\n"}
    assert (name in judged(written(tmp_path, {**composed(f"{name}: {{build: ./{name}}}"), **image}))) is is_one
    assert name in judged(written(tmp_path / "told", composed(f"{name}: {{build: ./{name}, {LIVEKIT}}}")))


def test_in_doubt_what_is_called_a_server_and_serves_is_none_though_it_works_with_livekit(tmp_path: Path) -> None:
    backend = f"backend: {{image: 'r/backend:1', expose: ['8090'], {LIVEKIT}}}"
    assert judged(written(tmp_path, composed(backend, "proxy: {image: 'r/caddy-proxy:1', ports: ['80:80']}"))) == set()
    assert judged(written(tmp_path / "alone", composed(backend))) == {"backend"}


@pytest.mark.parametrize(
    ("image", "is_one"),
    [
        *[("support-agent-scoring", False), ("support-agent", True), ("agent-main", True)],
        *[("agent-scoring", True), ("livekit-agent-scoring", True), ("agent-rescoring", True)],
    ],
)
def test_an_image_that_ends_in_what_it_makes_is_named_after_its_project(tmp_path: Path, image: str, *, is_one: bool) -> None:
    scoring = deployed("scoring", f"r/{image}:1", MORE)
    site = deployed("site-frontend", "r/support-agent-site-frontend:1", MORE)
    files = written(tmp_path, {"scoring.yaml": scoring, "site.yaml": site})
    assert ("scoring" in files.unsure or "livekit" in image) is is_one
    assert files.doubtful is not is_one
    worker = {"worker.yaml": deployed("worker", "r/support-agent-worker:1", MORE), "scoring.yaml": scoring, "site.yaml": site}
    assert "worker" in judged(written(tmp_path / "worker", worker)), "a worker is one of the project's agent"


def test_a_server_that_is_built_in_an_agents_folder_is_none_beside_the_agent(tmp_path: Path) -> None:
    api = f"sip_api: {{build: {{context: ./livekit_agent, dockerfile: Dockerfile.sip}}, {LIVEKIT}, ports: ['8089:8089']}}"
    server = {"livekit_agent/Dockerfile.sip": 'FROM python:3.12\nEXPOSE 8089\nCMD ["python", "sip_api_server.py"]\n'}
    agent = {"livekit_agent/Dockerfile": 'FROM python:3.12\nCMD ["python", "main.py"]\n'}
    worker = f"livekit_agent: {{build: ./livekit_agent, {LIVEKIT}}}"
    files = written(tmp_path, {**composed(api, worker), **server, **agent})
    assert judged(files) == {"livekit_agent", "livekit_agent/Dockerfile"}
    # What LiveKit Cloud builds is one whatever it starts.
    cloud = {"livekit_agent/livekit.toml": "[agent]\n", "livekit_agent/Dockerfile.voice": "FROM python:3.12\nCMD ./run\n"}
    cloud["livekit_agent/Dockerfile"] = server["livekit_agent/Dockerfile.sip"]
    assert "livekit_agent/Dockerfile" in judged(written(tmp_path / "cloud", cloud))
    # A script may start an agent, too.
    both = {"livekit_agent/Dockerfile.both": "FROM python:3.12\nEXPOSE 8765\nCMD [/app/entrypoint.sh]\n"}
    assert "livekit_agent/Dockerfile.both" in judged(written(tmp_path / "both", {**both, **agent}))
    # The same for other machines is the same, and what the SDK's command starts an agent.
    for start in ('["python", "main.py"]', '["python", "-m", "voice", "start"]'):
        other = {"livekit_agent/Dockerfile.gpu": f"FROM nvidia/cuda:12\nEXPOSE 9090\nCMD {start}\n"}
        assert "livekit_agent/Dockerfile.gpu" in judged(written(tmp_path / str(len(start)), {**other, **agent}))
    # What lies in an agent's folder may hold its keys.
    key = {"livekit_agent/Dockerfile.sip": server["livekit_agent/Dockerfile.sip"] + "ENV OPENAI_API_KEY=h7Jd2kP0xQ9v4Lm8\n"}
    assert len(rules.secrets(written(tmp_path / "key", {**key, **agent}), Needs()).findings) == 1
    # Alone it may be the agent, whatever it exposes.
    assert "livekit_agent/Dockerfile.sip" in judged(written(tmp_path / "alone", server))


SERVED = {"Dockerfile": 'FROM node:22\nEXPOSE 8080\nCMD ["node", "dist/app.js"]\n'}


@pytest.mark.parametrize(
    "files",
    [
        {"render.yaml": "services: [{type: worker, name: main, runtime: docker}, {type: web, name: web, runtime: docker}]\n"},
        {
            ".do/app.yaml": "name: a\nworkers: [{name: main, dockerfile_path: Dockerfile}]\n"
            "services: [{name: web, image: {registry_type: GHCR, repository: web}, http_port: 80}]\n"
        },
    ],
)
def test_a_platforms_background_worker_serves_nobody_whatever_its_image_exposes(tmp_path: Path, files: dict[str, str]) -> None:
    found = written(tmp_path, {**SERVED, **files})
    assert "main" in judged(found)
    assert "serves others" not in str(found.left_out)


def test_one_image_on_two_platforms_is_one_thing_in_doubt(tmp_path: Path) -> None:
    fly = "app = 'voice'\n[build]\ndockerfile = 'Dockerfile'\n[http_service]\ninternal_port = 8080\n"
    both = {**SERVED, **composed("app: {build: ., ports: ['8080:8080']}"), "fly.toml": fly}
    assert judged(written(tmp_path, both)) == {"Dockerfile", "app", "voice"}
    other = {**both, **composed("app: {build: ., ports: ['8080:8080'], command: node dist/site.js}")}
    assert judged(written(tmp_path / "other", other)) == set()
