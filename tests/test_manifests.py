"""Deployment files: the corpus in fixtures/manifests, mutated files, and pytest run on them as a user does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lkagents.manifests import amounts, rules
from pytest_lkagents.manifests.commands import modes_of, runs_agent
from pytest_lkagents.manifests.findings import Judgement, Needs
from pytest_lkagents.manifests.load import is_dockerfile, load
from pytest_lkagents.manifests.model import Files, Problem
from pytest_lkagents.manifests.readers import dockerfile
from pytest_lkagents.manifests.readers.common import environment_of
from pytest_lkagents.manifests.readers.probes import of_command
from pytest_lkagents.manifests.toml_files import read_toml
from pytest_lkagents.manifests.tree import Place, Unreadable
from pytest_lkagents.manifests.yaml_files import read_yaml

from .conftest import ROOT

CORPUS = ROOT / "fixtures/manifests"
RULES = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        rules.readable,
        rules.grace_period,
        rules.scale_up_below_threshold,
        rules.stabilization,
        rules.scaling_metric,
        rules.health_probe,
        rules.no_inbound,
        rules.secrets,
        rules.separate_environments,
        rules.resources,
        rules.rolling_update,
        rules.replicas,
        rules.production_command,
        rules.image_pinned,
        rules.always_on,
    )
}
SECRET = "c2hvcnQtbGl2ZWQ5MXF6"


def cases(kind: str) -> list[Path]:
    """Files, and folders that are judged together."""
    depth = 2 if kind == "broken" else 1
    return sorted((CORPUS / kind).glob("/".join(["*"] * depth)))


def failed(path: Path, needs: Needs = Needs()) -> set[str]:  # noqa: B008 - it is frozen
    files = load([str(path)])
    return {name for name, rule in RULES.items() if rule(files, needs).findings}


@pytest.mark.parametrize("path", cases("good"), ids=lambda path: path.name)
def test_good_files_are_left_alone(path: Path) -> None:
    assert failed(path) == set()


@pytest.mark.parametrize("path", cases("broken"), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_broken_file_fails_its_rule_alone(path: Path) -> None:
    assert failed(path) == {path.parent.name}


def test_every_rule_has_a_broken_file() -> None:
    assert {path.parent.name for path in cases("broken")} == set(RULES)


@pytest.mark.parametrize("example", ["kubernetes", "render", "compose"])
def test_the_examples_pass(example: str) -> None:
    files = load([str(ROOT / "examples" / example)])
    assert files.deployments
    assert not [finding for rule in RULES.values() for finding in rule(files, Needs()).findings]


def test_a_finding_names_file_line_and_field() -> None:
    path = CORPUS / "broken/grace-period/short.yaml"
    (finding,) = rules.grace_period(load([str(path)]), Needs()).findings
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "terminationGrace" in text)
    assert (finding.place.line, finding.place.field) == (line, "spec.template.spec.terminationGracePeriodSeconds")
    assert finding.found == "60 s, of which the preStop hook takes 5 s"


@pytest.mark.parametrize(
    ("command", "port", "path", "over"),
    [
        ("curl -f http://localhost:8081/", 8081, "/", "http"),
        ("curl -f localhost:8081/worker || exit 1", 8081, "/worker", "http"),
        ("python -c \"import urllib.request as r; r.urlopen('http://127.0.0.1:8081')\"", 8081, "/", "http"),
        ("curl -kf https://localhost:8081/", 8081, "/", "https"),
        ("curl http://localhost/", 80, None, "http"),
        ("curl -sS -o /dev/null localhost:8081/health", 8081, None, "http"),
        ("/usr/bin/curl -sSo /dev/null http://localhost:8081/health", 8081, None, "http"),
        ("curl -X GET -sfo /dev/null http://localhost:8081/health", 8081, "/health", "http"),
        ("curl -fsS http://localhost:8081/health", 8081, "/health", "http"),
        ("curl --fail-with-body http://localhost:8081/health", 8081, "/health", "http"),
        ("curl -of http://localhost:8081/health", 8081, None, "http"),
        ("curl -k https://localhost:8081/health", 8081, None, "https"),
        ("wget -qO- localhost:8081/health", 8081, "/health", "http"),
        ("curl -s localhost:8081/health | grep -q ok", 8081, "/health", "http"),
        ("nc -z localhost 8081", 8081, None, "tcp"),
        ("curl http://localhost:$PORT/", None, None, "http"),
        ("curl http://localhost:8081/${PATH}", None, None, "http"),
        ("curl localhost:8081/ && curl localhost:9090/metrics", None, None, "http"),
        ("curl http://health.internal:8080/", None, None, "http"),
        ("curl http://localhost.internal:8080/", None, None, "http"),
        ("/app/alive.sh localhost", None, None, "http"),
        ("redis-cli -h localhost -p 6379 ping", None, None, "http"),
    ],
)
def test_what_a_command_asks(command: str, port: int | None, path: str | None, over: str) -> None:
    probe = of_command("health", command.split(), Place("compose.yaml", 1, ""))
    assert (probe.port, probe.path, probe.over) == (port, path, over)


def test_toml_lines_are_those_of_the_keys() -> None:
    path = CORPUS / "broken/health-probe/fly.toml"
    (finding,) = rules.health_probe(load([str(path)]), Needs()).findings
    assert path.read_text().splitlines()[finding.place.line - 1] == "port = 8080"


def test_what_a_platform_cannot_do_is_said() -> None:
    render = load([str(CORPUS / "good/render.yaml")])
    assert "Render cuts calls after 300 s" in rules.grace_period(render, Needs()).notes[0]
    (finding,) = rules.grace_period(render, Needs(drain_s=900)).findings
    assert "at most 300 s" in finding.why


def test_a_grace_period_is_too_short_whatever_its_hook_does(tmp_path: Path) -> None:
    hook = ('"sleep", "5"', '"sh", "-c", "kill -TERM 1; sleep 50"')
    (finding,) = judged("grace-period", tmp_path, "broken/grace-period/short.yaml", hook).findings
    assert (finding.found, finding.wanted) == ("60 s", "terminationGracePeriodSeconds of at least 600 s")
    long = [hook, ("Seconds: 60", "Seconds: 700")]
    assert judged("grace-period", tmp_path, "broken/grace-period/short.yaml", *long).looked_at == 1


@pytest.mark.parametrize("said", ["echo waiting for endpoints", "touch /tmp/kill", "logger -t stop until then"])
def test_a_hook_that_only_names_a_loop_takes_what_it_sleeps(tmp_path: Path, said: str) -> None:
    hook = ('"sleep", "5"', f'"sh", "-c", "{said}; sleep 590"')
    assert judged("grace-period", tmp_path, "good/kubernetes.yaml", hook).findings


@pytest.mark.parametrize("sent", ["pgrep -f agent.py | xargs -n 1 kill -TERM; sleep 590", "nohup kill 1; sleep 590"])
def test_what_a_hook_takes_that_sends_the_signal_is_not_known(tmp_path: Path, sent: str) -> None:
    judgement = judged("grace-period", tmp_path, "good/kubernetes.yaml", ('"sleep", "5"', f'"sh", "-c", "{sent}"'))
    assert (judgement.looked_at, judgement.findings) == (0, [])


def test_how_long_a_program_of_a_hook_sleeps_is_not_known_for_certain(tmp_path: Path) -> None:
    for told, looked_at in (("time.sleep(590)", 0), ("time.sleep(1)", 1)):
        hook = ('"sleep", "5"', f'"python", "-c", "import time; {told}"')
        judgement = judged("grace-period", tmp_path, "good/kubernetes.yaml", hook)
        assert (judgement.looked_at, judgement.findings) == (looked_at, [])
    said = ('"sleep", "5"', '"sh", "-c", "echo time.sleep(590)"')
    assert judged("grace-period", tmp_path, "good/kubernetes.yaml", said).looked_at == 1


def test_a_declared_drain_is_the_need() -> None:
    files = load([str(CORPUS / "broken/grace-period/short.yaml")])
    assert not rules.grace_period(files, Needs(drain_s=50)).findings


def judged(rule: str, tmp_path: Path, file: str, *changes: tuple[str, str], needs: Needs = Needs()) -> Judgement:  # noqa: B008
    """A file of the corpus with changes, judged by one rule."""
    return RULES[rule](load([changed(tmp_path, file, *changes)]), needs)


def changed(tmp_path: Path, file: str, *changes: tuple[str, str]) -> str:
    """The path of a file of the corpus with changes."""
    text = (CORPUS / file).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / Path(file).name
    path.write_text(text)
    return str(path)


FARGATE = "good/task-definition.json"
ANYWHERE = "good/task-definition-anywhere.json"
INSTANCES = "good/task-definition-instances.json"
AUTOSCALED = "good/kubernetes-hpa.yaml"
CLOUD_RUN, POOL = "broken/grace-period/cloud-run.yaml", "broken/grace-period/cloud-run-worker-pool.yaml"
INTERNAL = "run.googleapis.com/ingress: internal"
APP_PLATFORM, APP_SERVICE = "good/app-platform.yaml", "good/app-platform-internal.yaml"
START, PROBE = 'args: ["start"]', "\n          startupProbe: {tcpSocket: {port: "
ROUTED_TO_ANOTHER = "ingress: {rules: [{component: {name: web}}]}\nservices:"
CEREBRIUM = "good/cerebrium.toml"


@pytest.mark.parametrize("file", [ANYWHERE, INSTANCES, "good/task-definition-either.json"])
def test_a_limit_of_fargate_holds_on_fargate_only(file: str, tmp_path: Path) -> None:
    judgement = judged("grace-period", tmp_path, file, needs=Needs(drain_s=600))
    assert (judgement.looked_at, judgement.findings, judgement.notes) == (1, [], [])


def test_a_limit_of_fargate_holds_whatever_the_file_says(tmp_path: Path) -> None:
    more = ('"stopTimeout": 120', '"stopTimeout": 600')
    assert judged("grace-period", tmp_path, FARGATE, more, needs=Needs(drain_s=600)).findings
    assert "cuts calls after 120 s" in judged("grace-period", tmp_path, FARGATE, more).notes[0]


NOT_JUDGED = [
    ("grace-period", ANYWHERE, [("600", "120")], "enough on Fargate"),
    ("grace-period", ANYWHERE, [('"stopTimeout": 600,', "")], "no stopTimeout"),
    ("grace-period", INSTANCES, [('"stopTimeout": 600,', "")], "no stopTimeout"),
    ("grace-period", "good/compose-variables.yaml", [], "stop_grace_period: its value is not in the file"),
    *[
        ("grace-period", "good/kubernetes.yaml", [('"sleep", "5"', f'"sh", "-c", "{hook}"')], "its preStop hook takes")
        for hook in (
            "while curl -sf localhost:8081/busy; do sleep 120; done",
            *("kill -TERM 1; sleep 590", "cd /; until ./idle; do sleep 120; done"),
            *("if true; then kill 1; fi; sleep 590", "pgrep -f agent | xargs -r kill; sleep 590", "/bin/kill 1 && sleep 590"),
        )
    ],
    ("no-inbound", "good/task-definition-awsvpc.json", [], "security groups"),
    ("no-inbound", INSTANCES, [("awsvpc", "host")], "its host's network"),
    ("no-inbound", "good/compose.yaml", [("    deploy:", "    network_mode: host\n    deploy:")], "its host's network"),
    ("no-inbound", CLOUD_RUN, [(INTERNAL, f"{INTERNAL}-and-cloud-load-balancing")], "load balancer"),
    (
        "no-inbound",
        "broken/no-inbound/ingress-by-service.yaml",
        [("name: status", "name: voice-agent"), ("Service", "Other")],
        "in no file",
    ),
    ("always-on", FARGATE, [], ""),
    ("always-on", CLOUD_RUN, [('"2"', '"${LEAST}"')], 'minScale"]: its value'),
    ("health-probe", "broken/health-probe/swarm.yaml", [('["CMD", "curl", "-f", "http://localhost:8081/"]', '["NONE"]')], ""),
    (
        "always-on",
        "broken/always-on/fly.toml",
        [('"stop"', '"suspend"\nmin_machines_running = 1')],
        "all but 1; how many there are the file does not say (wanted: off); not judged",
    ),
    ("replicas", "good/daemon-set.yaml", [], ""),
    ("replicas", "good/variables.yaml", [], "minReplicas: its value"),
    ("rolling-update", "good/daemon-set.yaml", [], ""),
    (
        "rolling-update",
        AUTOSCALED,
        [("maxUnavailable: 0", "maxUnavailable: 1"), ("minReplicas: 2", "minReplicas: 1")],
        "not of 2",
    ),
    ("scale-up-below-threshold", AUTOSCALED, [("tion: 50", "tion: 70"), ('limits: {cpu: "4", ', "limits: {")], "its node"),
    ("scale-up-below-threshold", "good/cloudformation.yaml", [("FARGATE]", "EC2]"), (": FARGATE", ": EC2")], "its instance"),
    ("scale-up-below-threshold", "good/cloudformation.yaml", [(": 50", ": !Ref Target")], "TargetValue: its value"),
    (
        "scale-up-below-threshold",
        CEREBRIUM,
        [("scaling_target = 60", "scaling_target = '${SHARE}'")],
        "scaling_target: its value",
    ),
    ("resources", "good/pod-resources.yaml", [], "share what the pod has"),
    (
        "scale-up-below-threshold",
        "good/container-metric.yaml",
        [("containerR", "r"), ("ContainerR", "R"), ("tion: 50", "tion: 55")],
        "beside",
    ),
    (
        "scale-up-below-threshold",
        "good/container-metric.yaml",
        [("container: agent", "container: proxy"), ("tion: 50", "tion: 90")],
        "",
    ),
    ("resources", "good/fly.small.toml", [], ""),
    (
        "no-inbound",
        "broken/no-inbound/task-definition-default.json",
        [('"cpu"', '"requiresCompatibilities": ["MANAGED_INSTANCES"], "cpu"')],
        "security",
    ),
    ("scale-up-below-threshold", "good/cpu-beside-own-metric.yaml", [], "another metric"),
    ("stabilization", AUTOSCALED, [("Seconds: 600", "Seconds: ${DOWN}")], "stabilizationWindowSeconds: its value"),
    (
        "rolling-update",
        "good/kubernetes.yaml",
        [("replicas: 2", "replicas: .inf"), ("able: 0", "able: 1")],
        "'.inf' is no such value",
    ),
    (
        "grace-period",
        APP_PLATFORM,
        [("seconds: 600", 'seconds: "${GRACE}"')],
        "grace_period_seconds: its value is not in the file",
    ),
    ("grace-period", APP_PLATFORM, [("seconds: 600", "seconds: 601")], "601 is no such value"),
    ("replicas", APP_PLATFORM, [("instance_count: 2", "instance_count: 0")], "0 is no such value"),
    ("replicas", APP_PLATFORM, [("instance_count: 2", "autoscaling: {max_instance_count: 4}")], ""),
    (
        "no-inbound",
        APP_SERVICE,
        [("internal_ports: [8081]", "http_port: 8081"), ("services:", ROUTED_TO_ANOTHER)],
        "none of the",
    ),
    ("resources", "good/app-platform.json", [], ""),
    ("health-probe", APP_SERVICE, [("http_path: /worker, port: 8081", 'port: "${PORT}"')], ""),
    # ... and App Platform of a service, by default 8080.
    ("health-probe", APP_SERVICE, [(", port: 8081", ""), ("    internal_ports: [8081]\n", "")], "without lk_health_port"),
    ("health-probe", APP_SERVICE, [(", port: 8081", ""), ("internal_ports: [8081]", "http_port: 3000")], "on port 3000, which"),
    ("health-probe", CEREBRIUM, [("port = 8081", "port = 8600")], "on port 8600, which"),
    (
        "grace-period",
        CEREBRIUM,
        [("period = 900", 'period = "${GRACE}"')],
        "response_grace_period: its value is not in the file",
    ),
    ("no-inbound", CEREBRIUM, [("disable_auth = false", "")], "no disable_auth"),
    # Cloud Run itself wants to see a port open.
    ("health-probe", CLOUD_RUN, [(START, f"{START}\n          ports: [{{containerPort: 3000}}]{PROBE}3000}}}}")], "listen on"),
    ("health-probe", CLOUD_RUN, [(START, f"{START}{PROBE}8080}}}}")], "not judged without lk_health_port"),
    ("resources", CEREBRIUM, [("memory = 8.0", "")], ""),
    ("image-pinned", CEREBRIUM, [("disable_auth = false", 'docker_base_image_url = ""')], ""),
    ("health-probe", APP_SERVICE, [("{http_path: /worker, port: 8081}", '"${CHECK}"')], ""),
    ("scaling-metric", CEREBRIUM, [("cpu_utilization", "${METRIC}")], ""),
    ("always-on", CEREBRIUM, [("min_replicas = 2", "scaling_buffer = 2"), ("cpu_", "concurrency_")], "no requests"),
    ("always-on", CEREBRIUM, [("min_replicas = 2", 'min_replicas = "${LEAST}"')], "min_replicas: its value"),
]


@pytest.mark.parametrize(("rule", "file", "changes", "note"), NOT_JUDGED)
def test_what_a_file_does_not_say_is_not_judged(
    rule: str, file: str, changes: list[tuple[str, str]], note: str, tmp_path: Path
) -> None:
    judgement = judged(rule, tmp_path, file, *changes)
    assert (judgement.looked_at, judgement.findings) == (0, [])
    assert note in "; ".join(judgement.notes)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("good/cloudformation.yaml", [("DesiredCount: 2", "DesiredCount: !Ref Count")]),
        (AUTOSCALED, [("minReplicas: 2", "minReplicas: ${LEAST}")]),
        ("good/railway.json", [('"numReplicas": 2,', "")]),
    ],
)
def test_a_rollout_that_stops_none_first_is_safe_however_many_there_are(
    file: str, changes: list[tuple[str, str]], tmp_path: Path
) -> None:
    judgement = judged("rolling-update", tmp_path, file, *changes)
    assert (judgement.looked_at, judgement.findings, judgement.notes) == (1, [], [])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("{Fn::Sub: '${AWS::AccountId}.dkr.ecr/voice-agent:latest'}", ["is whatever was pushed last"]),
        ("{Fn::Sub: ['r/voice-agent:${Tag}', {Tag: '1'}]}", []),
        ("{Fn::Join: [':', [r/voice-agent, !Ref Tag]]}", []),
        ("{Ref: Image}", []),
    ],
)
def test_functions_of_cloudformation_are_read_as_json_writes_them(image: str, found: list[str], tmp_path: Path) -> None:
    short = '!Sub "${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com/voice-agent:${Tag}"'
    judgement = judged("image-pinned", tmp_path, "good/cloudformation.yaml", (short, image))
    assert [finding.found.partition(" ")[2] for finding in judgement.findings] == found
    assert judgement.nothing == ("" if found else "every image is named with a variable or a placeholder")


# What cannot stand in the corpus, as another rule finds something too.
FOUND = [
    ("no-inbound", CLOUD_RUN, [(INTERNAL, "run.googleapis.com/ingress: all")]),
    ("no-inbound", CLOUD_RUN, [(f"  annotations: {{{INTERNAL}}}\n", "")]),
    ("always-on", CLOUD_RUN, [('"2"', '"0"')]),
    ("always-on", POOL, [('"3"', '"0"')]),
    ("replicas", POOL, [('"3"', '"1"')]),
    ("always-on", "broken/always-on/fly.toml", [('"stop"', '"stop"\nmin_machines_running = 0')]),
    ("health-probe", CLOUD_RUN, [(START, f"{START}{PROBE}3000}}}}")]),
    ("rolling-update", "good/stateful-set.yaml", [("replicas: 2", "replicas: 1")]),
    (
        "rolling-update",
        "good/kubernetes.yaml",
        [("replicas: 2", "replicas: 1"), ("able: 0", "able: 25%"), ("maxSurge: 1", "maxSurge: 0")],
    ),
    (
        "rolling-update",
        "good/compose-list.yaml",
        [("replicas: 2", "replicas: 1"), ("update_config:\n        order: start-first", "labels: {}")],
    ),
    ("replicas", "good/compose-list.yaml", [("      replicas: 2\n", "")]),
    (
        "scale-up-below-threshold",
        "good/container-metric.yaml",
        [("containerR", "r"), ("ContainerR", "R"), ("tion: 50", "tion: 90")],
    ),
    ("grace-period", "good/kubernetes.yaml", [('"sleep", "5"', '"sleep 2m"')]),
    ("readable", APP_PLATFORM, [("instance_count: 2", "instance_count: 0")]),
    ("readable", APP_PLATFORM, [("instance_count: 2", "http_port: 8081")]),
    ("image-pinned", APP_PLATFORM, [("tag: 1.4.0", "tag: latest")]),
    ("no-inbound", APP_SERVICE, [("internal_ports: [8081]", "http_port: 8081")]),
    ("no-inbound", APP_SERVICE, [("    internal_ports: [8081]\n", "")]),
    ("no-inbound", APP_SERVICE, [("internal_ports: [8081]", "routes: [{path: /}]")]),
    ("always-on", APP_SERVICE, [("internal_ports: [8081]", "inactivity_sleep: {after_seconds: 600}")]),
    ("health-probe", APP_SERVICE, [("/worker", "/healthz")]),
    ("always-on", CEREBRIUM, [("min_replicas = 2", "min_replicas = 0")]),
    # The buffer is for what counts requests only.
    ("always-on", CEREBRIUM, [("min_replicas = 2", "scaling_buffer = 2")]),
    ("scale-up-below-threshold", CEREBRIUM, [("scaling_target = 60", "")]),
    ("health-probe", CEREBRIUM, [('healthcheck_endpoint = "/"', 'readycheck_endpoint = "/ready"')]),
    ("scaling-metric", CEREBRIUM, [("cpu_utilization", "requests_per_second")]),
    (
        "scaling-metric",
        APP_SERVICE,
        [("internal_ports: [8081]", "autoscaling: {max_instance_count: 4, metrics: {request_duration: {p95: 20}}}")],
    ),
]


@pytest.mark.parametrize(("rule", "file", "changes"), FOUND)
def test_found_beside_something_else(rule: str, file: str, changes: list[tuple[str, str]], tmp_path: Path) -> None:
    assert judged(rule, tmp_path, file, *changes).findings


@pytest.mark.parametrize(
    "annotations",
    [
        'run.googleapis.com/minScale: "2"',
        'run.googleapis.com/scalingMode: manual, run.googleapis.com/manualInstanceCount: "2"',
    ],
)
def test_instances_of_a_cloud_run_service(annotations: str, tmp_path: Path) -> None:
    changes = [(INTERNAL, annotations), ('        autoscaling.knative.dev/minScale: "2"\n', "")]
    for rule in ("always-on", "replicas"):
        judgement = judged(rule, tmp_path, CLOUD_RUN, *changes)
        assert (judgement.looked_at, judgement.findings) == (1, [])


def test_the_most_and_the_default_of_app_platform(tmp_path: Path) -> None:
    (finding,) = judged("grace-period", tmp_path, APP_PLATFORM, needs=Needs(drain_s=900)).findings
    assert (finding.found, finding.wanted) == ("600 s", "a platform that waits 900 s")
    assert "at most 600 s" in finding.why
    (finding,) = judged("grace-period", tmp_path, "broken/grace-period/app-platform.yaml").findings
    assert finding.found == "120 s, the default of DigitalOcean App Platform"
    file = "broken/readable/app-platform.yaml"
    (problem,) = judged("readable", tmp_path, file).findings
    assert problem.found == "900 is no value that the platform takes here; 1 to 600 are"


@pytest.mark.parametrize(
    ("default", "kind", "line"),
    [
        (SECRET, "String", [3]),
        ("", "String", []),
        ("change-me", "String", []),
        # The name of what lies in Systems Manager.
        ("LivekitApiSecret2024v12", "AWS::SSM::Parameter::Value<String>", []),
    ],
)
def test_the_default_of_a_parameter_is_what_a_variable_falls_back_to(
    default: str, kind: str, line: list[int], tmp_path: Path
) -> None:
    changes = [
        ("Parameters:\n", f"Parameters:\n  Key:\n    Default: '{default}'\n    Type: {kind}\n"),
        ("          Environment:\n", "          Environment:\n            - {Name: LIVEKIT_API_SECRET, Value: !Ref Key}\n"),
    ]
    findings = judged("secrets", tmp_path, "good/cloudformation.yaml", *changes).findings
    assert [finding.place.line for finding in findings] == line
    said = "what LIVEKIT_API_SECRET falls back to is a literal"
    assert {(finding.place.field, finding.found) for finding in findings} <= {("Parameters.Key.Default", said)}


def test_a_default_of_cloud_run_is_named_by_the_annotation_that_changes_it(tmp_path: Path) -> None:
    changes = [('autoscaling.knative.dev/minScale: "2"', "a: b"), ('run.googleapis.com/cpu-throttling: "false"', "c: d")]
    assert [finding.found for finding in judged("always-on", tmp_path, CLOUD_RUN, *changes).findings] == [
        "scales to zero instances, the default without autoscaling.knative.dev/minScale",
        "has CPU only while a request is served, the default without run.googleapis.com/cpu-throttling",
    ]
    changes = [('"2"', '"0"'), ('cpu-throttling: "false"', 'cpu-throttling: "true"')]
    assert [finding.found for finding in judged("always-on", tmp_path, CLOUD_RUN, *changes).findings] == [
        "scales to zero instances",
        "has CPU only while a request is served",
    ]


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("fly.toml", "kill_timeout of 300 s, the most there is"),
        ("render.yaml", "maxShutdownDelaySeconds of 300 s, the most there is"),
        ("task-definition.json", "stopTimeout of 120 s, the most there is"),
    ],
)
def test_a_grace_period_that_is_to_be_raised_is_named(file: str, wanted: str) -> None:
    (finding,) = rules.grace_period(load([str(CORPUS / "broken/grace-period" / file)]), Needs()).findings
    assert finding.wanted == wanted


@pytest.mark.parametrize(("file", "name"), [(CLOUD_RUN, "Cloud Run"), (POOL, "Cloud Run (worker pool)")])
def test_what_a_platform_does_not_let_anybody_set_is_no_default(file: str, name: str) -> None:
    (finding,) = rules.grace_period(load([str(CORPUS / file)]), Needs()).findings
    assert (finding.found, finding.wanted) == (f"10 s, fixed by {name}", "a platform that waits 600 s")


def test_who_never_scales_may_name_any_metric(tmp_path: Path) -> None:
    fixed = [("cpu_utilization", "requests_per_second"), ("max_replicas = 5", "max_replicas = 2")]
    judgement = judged("scaling-metric", tmp_path, CEREBRIUM, *fixed)
    assert (judgement.looked_at, judgement.findings) == (1, [])


def test_the_default_of_cerebrium(tmp_path: Path) -> None:
    without = ("response_grace_period = 900", "")
    assert judged("grace-period", tmp_path, CEREBRIUM, without).looked_at == 1
    (finding,) = judged("grace-period", tmp_path, CEREBRIUM, without, needs=Needs(drain_s=1200)).findings
    assert finding.found == "900 s, the default of Cerebrium"


@pytest.mark.parametrize(
    ("file", "changes", "cores", "size"),
    [
        (APP_PLATFORM, [], 4, 8 * 1024**3),
        (APP_PLATFORM, [("apps-d-4vcpu-8gb", "apps-s-1vcpu-1gb-fixed")], 1, 1024**3),
        (APP_PLATFORM, [("    instance_size_slug: apps-d-4vcpu-8gb\n", "")], 1, 2**29),
        (CEREBRIUM, [], 4, 8 * 10**9),
    ],
)
def test_sizes_of_instances(file: str, changes: list[tuple[str, str]], cores: float, size: int, tmp_path: Path) -> None:
    (deployment,) = load([changed(tmp_path, file, *changes)]).deployments
    assert deployment.resources is not None
    limits = deployment.resources.cpu_limit, deployment.resources.memory_limit
    assert [limit.value for limit in limits if limit is not None] == [cores, size]


def test_a_failed_liveness_check_is_told_in_its_platforms_words() -> None:
    file = "broken/health-probe/app-platform-one-failure.yaml"
    (finding,) = rules.health_probe(load([str(CORPUS / file)]), Needs()).findings
    assert finding.wanted == "failure_threshold of at least 3; the default is 18"


@pytest.mark.parametrize(
    ("folder", "workers", "others"),
    [
        ("app-platform", ["bot", "Dockerfile"], [".do/deploy.template.yaml: web looks like no worker"]),
        ("cerebrium", ["cerebrium", "Dockerfile"], ["speech/cerebrium.toml: speech looks like no worker"]),
    ],
)
def test_beside_the_worker_others_are_passed_over(folder: str, workers: list[str], others: list[str]) -> None:
    files = load([str(CORPUS / "good" / folder)])
    assert [deployment.name for deployment in files.deployments] == workers
    assert files.passed_over == others


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("values.yaml", "name: voice\nworkers:\n  - {name: agent, image: {repository: voice-agent, tag: latest}}\n"),
        ("wrangler.toml", 'name = "voice"\n[[services]]\nbinding = "AGENT"\nservice = "voice-agent"\n'),
        (".drone.yml", "kind: pipeline\nname: agent\nservices:\n  - {name: agent, image: 'voice-agent:latest'}\n"),
        ("ci.yml", "name: agent\non: push\njobs:\n  agent: {runs-on: ubuntu-24.04, services: {agent: {image: agent}}}\n"),
        ("own.toml", '[cerebrium]\nname = "agent"\n'),
    ],
)
def test_what_only_resembles_a_format_is_not_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    files = load([str(tmp_path)])
    assert (files.read, files.deployments, files.problems) == ([], [], [])


def test_variables_of_a_whole_app_are_those_of_each_component(tmp_path: Path) -> None:
    secret = f"envs:\n  - {{key: LIVEKIT_API_SECRET, value: {SECRET}}}\n  - {{key: API_TOKEN, value: {SECRET}}}\nworkers:"
    (finding,) = judged("secrets", tmp_path, APP_PLATFORM, ("workers:", secret)).findings
    assert finding.found == "API_TOKEN is a literal"


def test_environments_are_compared_by_the_same_variable(tmp_path: Path) -> None:
    """A URL of staging and a key of production say nothing of each other."""
    for stage, name in (("staging", "LIVEKIT_URL"), ("production", "LIVEKIT_API_KEY")):
        service = f"services: {{agent: {{image: 'r/agent:1', environment: {{{name}: APIx7Kd93jfQ}}}}}}\n"
        (tmp_path / f"compose.{stage}.yaml").write_text(service)
    judgement = rules.separate_environments(load([str(tmp_path)]), Needs())
    assert (judgement.looked_at, judgement.findings) == (0, [])


@pytest.mark.parametrize(
    ("host", "same"),
    [
        *[(f"{name}.livekit.cloud", True) for name in ("todo-app-ab12cd34", "todo-app", "fill-up", "fake-news", "replaced")],
        *[(f"{name}.livekit.cloud", False) for name in ("your-project", "your-project-123", "replace-me", "<project>")],
        *[(f"{name}.livekit.cloud", False) for name in ("REPLACE_WITH_YOUR_PROJECT", "put-your-url-here")],
        ("livekit.your-domain.com", False),
    ],
)
def test_the_same_project_in_both_environments_is_found_whatever_its_name(tmp_path: Path, host: str, same: bool) -> None:
    for stage in ("staging", "production"):
        service = f"services: {{agent: {{image: 'r/agent:1', environment: {{LIVEKIT_URL: 'wss://{host}'}}}}}}\n"
        (tmp_path / f"compose.{stage}.yaml").write_text(service)
    assert bool(rules.separate_environments(load([str(tmp_path)]), Needs()).findings) is same


def test_two_autoscalers_of_one_workload_are_said(tmp_path: Path) -> None:
    second = (CORPUS / AUTOSCALED).read_text().split("---\n")[1].replace("minReplicas: 2", "minReplicas: 1")
    judgement = judged(
        "replicas", tmp_path, AUTOSCALED, ("stabilizationWindowSeconds: 600\n", f"selectPolicy: Max\n---\n{second}")
    )
    assert judgement.looked_at == 0
    assert "beside the autoscaler" in judgement.notes[0]


def test_an_image_does_not_say_which_deployment_is_the_worker(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text((CORPUS / "good/Dockerfile").read_text())
    text = (
        (CORPUS / "good/kubernetes.yaml")
        .read_text()
        .replace("voice-agent", "reception")
        .replace('command: ["python", "agent.py", "start"]', "tty: false")
    )
    (tmp_path / "worker.yaml").write_text(text)
    assert len(load([str(tmp_path)]).deployments) == 2


def test_what_is_no_worker_is_named() -> None:
    files = load([str(CORPUS / "good/compose-beside-server.yaml")])
    assert [deployment.name for deployment in files.deployments] == ["agent"]
    (note,) = rules.readable(files, Needs()).notes
    assert "compose-beside-server.yaml: livekit looks like no worker; " in note
    assert "compose-beside-server.yaml: web looks like no worker" in note


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "compose.yaml",
            "services:\n  bot: {build: ., env_file: .env}\n  web: {build: ., command: serve}\n  cache: {image: redis:7}\n",
        ),
        ("deploy/compose.yaml", "services:\n  bot:\n    build: {context: .., dockerfile: Dockerfile}\n"),
        ("fly.toml", 'app = "bot"\n'),
        ("render.yaml", "services:\n  - {type: worker, name: bot, runtime: docker, dockerfilePath: ./Dockerfile}\n"),
        (
            "bot.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bot}\n"
            "spec: {template: {spec: {containers: [{name: bot, image: 'bot:1'}]}}}\n",
        ),
    ],
)
def test_what_is_built_from_a_workers_dockerfile_is_a_worker(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM python:3.12\nCMD ["python", "main.py", "start"]\n')
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert [deployment.name for deployment in load([str(tmp_path)]).deployments] == ["bot", "Dockerfile"]


@pytest.mark.parametrize(
    ("command", "mode"),
    [
        *[(f"{agent} start", "start") for agent in ("python agent.py", "uv run main.py", "python -m shop.voice", "node a.mjs")],
        *[(f"{runner} dev", "dev") for runner in ("pnpm start", "npm run agent --", "yarn start", "npx tsx src/agent.ts")],
        ("doppler run -c dev -- ./entry.sh", None),
        ("doppler run -c dev -- python agent.py start", "start"),
        ("python main.py --env dev", None),
        ("python main.py console --env dev", "console"),
        ("npm start", None),
        ("npm run dev", None),
        ("./run.sh start", None),
        ("start", "start"),
        ("dev", "dev"),
        ("dev --log-level debug", "dev"),
        ("dev server", None),
        ("python -m", None),
        ("npm", None),
        ("", None),
    ],
)
def test_what_a_command_tells_the_agent(command: str, mode: str | None) -> None:
    assert modes_of(command.split()) == ({mode} if mode else set())


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("service nginx start && exec python agent.py dev", "dev"),
        ("python agent.py download-files && python agent.py start", "start"),
        ("python prepare.py dev; python agent.py start", "start"),
        ("python agent.py dev & wait", "dev"),
        ("service nginx start", None),
    ],
)
def test_what_a_line_of_a_shell_tells_the_agent(line: str, mode: str | None) -> None:
    assert modes_of(["sh", "-c", line]) == ({mode} if mode else set())


@pytest.mark.parametrize(
    ("command", "is_it"),
    [
        ("python agent.py start", True),
        ("uv run src/agent.py start", True),
        ("python -m livekit.agents start main.py", True),
        ("python -m shop.voice_agent start", True),
        ("node dist/main.js start", True),
        ("python -m http.server 8000", False),
        ("uvicorn agents.web:app", False),
        ("npm start", False),
        ("python server.py --env dev", False),
    ],
)
def test_what_runs_an_agent(command: str, is_it: bool) -> None:
    assert runs_agent(command.split()) is is_it


def test_what_runs_beside_a_worker_while_it_is_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM python:3.12\nCMD ["python", "main.py", "start"]\n')
    (tmp_path / "compose.yaml").write_text("services:\n  cache: {image: redis:7}\n")
    assert [deployment.name for deployment in load([str(tmp_path)]).deployments] == ["Dockerfile"]


def test_a_template_is_not_judged_and_said_how_to_hand_it_over() -> None:
    files = load([str(CORPUS / "good/chart")])
    assert not files.deployments
    (note,) = rules.readable(files, Needs()).notes
    assert note.startswith("templates/deployment.yaml: a template, not judged")
    assert "helm template" in note


def test_what_is_no_yaml_stays_unreadable_though_braces_stand_in_it(tmp_path: Path) -> None:
    (tmp_path / "worker.yaml").write_text("kind: Deployment\nlabels: {{a: b}\n\t- c\n")
    assert rules.readable(load([str(tmp_path)]), Needs()).findings


def test_a_misplaced_field_is_told_where_it_belongs() -> None:
    (problem,) = load([str(CORPUS / "broken/readable/misplaced.yaml")]).problems
    assert str(problem.place).endswith("misplaced.yaml:7 spec.nodeSelector")
    assert problem.reason == "there is no field 'nodeSelector' here; it belongs to spec.template.spec"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("fly.toml", "[build]\ndockerfile = 'Dockerfile'\nkill_timeout = 300\n", "'kill_timeout'; the top of the file"),
        ("fly.toml", "[deploy]\nkill_timeout = '5m'\n", "'kill_timeout'; the top of the file"),
        ("fly.toml", "[[vm]]\nsize = 'shared-cpu-2x'\nkill_signal = 'SIGTERM'\n", "'kill_signal'; the top of the file"),
        ("fly.toml", "[vm]\nmemory = '4gb'\n[build.args]\nkill_timeout = '5'\n", ""),
        ("railway.toml", "drainingSeconds = 600\n[build]\nbuilder = 'RAILPACK'\n", "'drainingSeconds'; deploy"),
        ("railway.toml", "[build]\nstartCommand = 'python agent.py start'\n", "'startCommand'; deploy"),
        ("railway.json", '{"deploy": {}, "environments": {"pr": {"deploy": {"builder": "RAILPACK"}}}}', "'builder'; build"),
        ("railway.json", '{"$schema": "x", "build": {"watchPatterns": []}, "deploy": {"region": "eu"}}', ""),
    ],
)
def test_what_a_table_does_not_have_is_told_where_it_belongs(tmp_path: Path, file: str, text: str, said: str) -> None:
    top = 'app = "voice-agent"\n' if file == "fly.toml" else ""
    (tmp_path / file).write_text(top + text)
    problems = load([str(tmp_path)]).problems
    name, _, home = said.partition("; ")
    assert [problem.reason for problem in problems] == (
        [f"there is no field {name} here; it belongs to {home}"] if said else []
    )


def test_a_file_that_overrides_another_is_not_judged_alone(tmp_path: Path) -> None:
    (tmp_path / "compose.override.yaml").write_text("services:\n  agent:\n    ports: ['8081:8081']\n")
    files = load([str(tmp_path)])
    assert not files.deployments
    assert "merges it" in rules.readable(files, Needs()).notes[0]


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("/home/test/dev/project/deploy/worker.yaml", ""),
        ("overlays/staging/worker.yaml", "staging"),
        ("deploy/prod-test.yaml", ""),
    ],
)
def test_a_stage_is_told_by_the_last_parts_of_a_path(path: str, stage: str) -> None:
    assert environment_of(path) == stage
    assert environment_of("production", path) == "production"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1m30s", 90),
        ("10m", 600),
        ("300", 300),
        ("1h", 3600),
        ("500ms", 0.5),
        ("1d2h", 93600),
        ("15M", None),
        ("soon", None),
        ("", None),
    ],
)
def test_durations(text: str, value: float | None) -> None:
    assert amounts.seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("8Gi", 8 * 1024**3), ("8G", 8 * 10**9), ("512Mi", 512 * 1024**2), (".5g", 5 * 10**8), ("many", None), (".", None)],
)
def test_sizes(text: str, value: int | None) -> None:
    assert amounts.size(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("8Gi", 8 * 1024**3),
            ("8G", 8e9),
            ("500m", 0.5),
            ("512m", 0.512),
            ("2", 2),
            (".5", 0.5),
            ("1e3", 1000),
            ("2E", 2e18),
        ),
        *(("8GB", None), ("8g", None), ("512mi", None), ("8 Gi", None), ("1e999", None), ("", None)),
    ],
)
def test_quantities_of_kubernetes(text: str, value: float | None) -> None:
    assert amounts.quantity(text) == value


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("2", 2), (".5", 0.5), ("2.", 2), ("0.25", 0.25), (".", None)])
def test_cores(text: str, value: float | None) -> None:
    assert amounts.cores(text) == value


FILES = [path for path in CORPUS.rglob("*") if path.is_file()]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_never_crash_a_reader(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = data.draw(st.sampled_from(FILES))
    text = path.read_text()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(
            st.text(st.characters(blacklist_categories=["Cs"]), max_size=6) | st.sampled_from("{}[]:-&*!|>\"'\t\n=#%@")
        )
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 12)) :]
    if is_dockerfile(path.name, text):
        files = Files()
        dockerfile.read(path.name, text, files)
        problems: list[Problem] = files.problems
    else:
        mutated = tmp_path_factory.mktemp("mutated") / path.name
        mutated.write_bytes(text.encode())
        files = load([str(mutated)])
        problems = files.problems
    for rule in RULES.values():
        rule(files, Needs())
    assert all(problem.place.line >= 1 and problem.reason for problem in problems)


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: b: c", "\t- x", "? [a]\n: b", "x: \x07"])
def test_odd_yaml_is_unreadable_and_no_crash(text: str) -> None:
    with pytest.raises(Unreadable):
        list(read_yaml("odd.yaml", text))


def test_odd_toml_names_the_line() -> None:
    with pytest.raises(Unreadable) as caught:
        read_toml("fly.toml", 'app = "a"\nb = \n')
    assert caught.value.line == 2


# As a user does


def test_without_a_worker_only_the_files_are_judged(lk) -> None:
    file = str(CORPUS / "good/kubernetes-hpa.yaml")
    run = lk("--lk-manifests", file, "--lk-traces", "burst", "--lk-calls", "20", env={"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert run.code == 0, run.output
    assert run.verdict["verdict"] == "pass"
    assert {check["id"].partition(".")[0] for check in run.verdict["checks"]} == {"manifests", "autoscaling"}
    assert run.verdict["subject"]["kind"] == "manifests"
    assert "manifests.grace-period" in run.checks("pass")
    assert "manifests.separate-environments" in run.checks("skip")


def test_a_format_that_is_not_known_is_not_judged(lk, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[deployment]\nname = "agent"\n')
    run = lk("--lk-manifests", "own.toml")
    assert run.code == 4, run.output
    assert not run.checks("fail") | run.checks("pass")
    assert "own.toml: of no format that is known here" in run.output


def test_a_must_that_is_not_met_fails_and_no_secret_is_shown(lk) -> None:
    run = lk("--lk-manifests", str(CORPUS / "broken/secrets"))
    assert run.code == 1, run.output
    assert run.checks("fail", "MUST") == {"manifests.secrets"}
    assert SECRET not in run.output + str(run.verdict)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lk-manifests", "nowhere.yaml"], "there is no 'nowhere.yaml'"),
        (["--lk-manifests", "."], "holds no deployment file"),
        (["--lk-suite", "manifests"], "nothing to judge"),
        (["--lk-manifests", str(CORPUS / "good"), "--lk-suite", "rollout"], "'rollout' judges a worker"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, lk) -> None:
    run = lk(*arguments)
    assert run.code == 4
    assert message in run.output
    assert "Traceback" not in run.output


SETTINGS = """\
  script.py: |
    secret = base64.b64decode(data)
    token = get_token2(request)
    api_key = os.environ["API_KEY2"]
    password = settings_v2_password
    token_url = /oauth2/token
  settings.toml: |
    deepgram_api_key = "5f0c9e21b7a84d63a1f2"
  env: |
    export LIVEKIT_API_SECRET=c2hvcnQtbGl2ZWQ5MXF6
    LIVEKIT_API_KEY=$LIVEKIT_API_KEY2
"""


def test_only_keys_count_in_files_of_a_config_map(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata:\n" + SETTINGS)
    assert [stored.name for stored in load([str(path)]).secrets] == ["deepgram_api_key", "LIVEKIT_API_SECRET"]


def test_what_a_kustomization_changes_is_not_judged_but_for_secrets(tmp_path: Path) -> None:
    base, overlay = tmp_path / "base", tmp_path / "overlays/production"
    base.mkdir()
    overlay.mkdir(parents=True)
    patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: agent}\nspec:\n  template:\n    spec:\n      containers: "
    (base / "agent.yaml").write_text(
        patch + "[{name: agent, image: registry.internal/agent, command: [python, agent.py, start]}]\n"
    )
    (base / "keys.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {KEY: " + SECRET + "}\n")
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    (base / "kustomization.yaml").write_text(head + "resources: [agent.yaml, keys.yaml]\n")
    assert len(load([str(tmp_path)]).deployments) == 1, "what only gathers files changes nothing"
    (overlay / "kustomization.yaml").write_text(head + "resources: [../../base]\npatches: [{path: more.yaml}]\n")
    (overlay / "more.yaml").write_text(patch + "[{name: agent, env: [{name: NUM_CPUS, value: '4'}]}]\n")
    files = load([str(tmp_path)])
    assert files.deployments == []
    assert files.changed == ["base/agent.yaml", "base/keys.yaml", "overlays/production/more.yaml"]
    assert [stored.name for stored in files.secrets] == ["KEY"]
    assert any("kustomize build" in note for note in rules.readable(files, Needs()).notes)


@pytest.mark.parametrize(
    "head", ["", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"], ids=["without kind", "component"]
)
@pytest.mark.parametrize("name", ["kustomization.yml", "Kustomization"])
def test_kustomizations_are_known_by_their_file_too(tmp_path: Path, name: str, head: str) -> None:
    head_of_patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: agent}\n"
    deployment = head_of_patch + "spec: {template: {spec: {containers: [{name: agent}]}}}\n"
    (tmp_path / "patch.yaml").write_text(deployment)
    (tmp_path / name).write_text(head + "patches: [{path: patch.yaml}]\n")
    files = load([str(tmp_path)])
    assert (files.deployments, files.changed) == ([], ["patch.yaml"])
    (tmp_path / name).write_text(head + "commonLabels: {app: agent}\n")
    assert len(load([str(tmp_path)]).deployments) == 1


def test_secrets_in_a_generator_of_a_kustomization_are_found(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        f"secretGenerator: [{{name: keys, literals: [KEY={SECRET}, LIVEKIT_URL=wss://x.livekit.cloud, A=$(B)]}}]\n"
        f"configMapGenerator: [{{name: settings, literals: [API_KEY={SECRET}, LEVEL=information, B_TOKEN=<token>]}}]\n"
    )
    assert [stored.name for stored in load([str(tmp_path)]).secrets] == ["KEY", "API_KEY"]


def test_no_current_kubernetes_takes_a_document_without_version(tmp_path: Path) -> None:
    (tmp_path / "scaler.yaml").write_text("kind: HorizontalPodAutoscaler\nmetadata: {name: agent}\nspec: {maxReplicas: 9}\n")
    (problem,) = load([str(tmp_path)]).problems
    assert problem.reason == "HorizontalPodAutoscaler without apiVersion"
