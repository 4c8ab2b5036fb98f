"""Kustomizations that change workloads: what is written out in the files of both, and that nothing else of them is judged."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Files

from .deployment_files import judged, written

SECRET = "c2hvcnQtbGl2ZWQ5MXF6"
LITERAL = f"{{name: DEEPGRAM_API_KEY, value: {SECRET}}}"
HEAD = "apiVersion: apps/v1\nkind: Deployment\n"


def workload(name: str, env: str = "", more: str = "") -> str:
    container = f"{{name: main, image: 'r/x:1', env: [{env}]{more}}}"
    return HEAD + f"metadata: {{name: {name}}}\nspec: {{template: {{spec: {{containers: [{container}]}}}}}}\n"


def patch(env: str, name: str = "voice-agent") -> str:
    return HEAD + f"metadata: {{name: {name}}}\nspec:\n  template:\n    spec: {{containers: [{{name: main, env: [{env}]}}]}}\n"


def overlaid(folder: Path, kustomization: str, base: str = "", **more: str) -> Files:
    """``more``: the texts of files beside the Kustomization, by their names without the ending."""
    files = {"base/agent.yaml": base or workload("voice-agent"), "base/kustomization.yaml": "resources: [agent.yaml]\n"}
    files["prod/kustomization.yaml"] = f"resources: [../base]\n{kustomization}"
    return written(folder, files | {f"prod/{name}.yaml": text for name, text in more.items()})


def secrets(files: Files) -> list[tuple[str, int, str]]:
    return [(found.place.file, found.place.line, found.found) for found in rules.secrets(files, Needs()).findings]


OPERATION = f"- {{op: add, path: /spec/template/spec/containers/0/env/-, value: {LITERAL}}}\n"
WHOLE = f"- {{op: add, path: /spec/template/spec/containers/0/env, value: [{LITERAL}]}}\n"
CONTAINER = f"- {{op: add, path: /spec/template/spec/containers/-, value: {{name: more, env: [{LITERAL}]}}}}\n"
BY_NUMBER = f"""\
- {{op: test, path: /spec/template/spec/containers/0/env/2/name, value: DEEPGRAM_API_KEY}}
- {{op: replace, path: /spec/template/spec/containers/0/env/2/value, value: {SECRET}}}
"""


def block(text: str, spaces: int) -> str:
    return "|-\n" + "".join(f"{' ' * spaces}{line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("kustomization", "more", "place"),
    [
        ("patches: [{path: p.yaml}]\n", {"p": patch(LITERAL)}, ("prod/p.yaml", 6)),
        ("patchesStrategicMerge: [p.yaml]\n", {"p": patch(LITERAL)}, ("prod/p.yaml", 6)),
        ("patches: [{path: p.yaml, target: {kind: Deployment}}]\n", {"p": OPERATION}, ("prod/p.yaml", 1)),
        ("patchesJson6902: [{path: p.yaml, target: {name: voice-.*}}]\n", {"p": WHOLE}, ("prod/p.yaml", 1)),
        ("patches: [{path: p.yaml, target: {kind: Deployment}}]\n", {"p": CONTAINER}, ("prod/p.yaml", 1)),
        ("patches: [{path: p.yaml, target: {kind: Deployment}}]\n", {"p": BY_NUMBER}, ("prod/p.yaml", 2)),
        (f"patches:\n- patch: {block(patch(LITERAL), 4)}", {}, ("prod/kustomization.yaml", 9)),
        (f"patchesStrategicMerge:\n- {block(patch(LITERAL), 4)}", {}, ("prod/kustomization.yaml", 9)),
        (
            f"patches:\n- target: {{kind: Deployment}}\n  patch: {block(OPERATION, 4)}",
            {},
            ("prod/kustomization.yaml", 5),
        ),
    ],
)
def test_a_secret_in_a_patch_is_found(tmp_path: Path, kustomization: str, more: dict[str, str], place: tuple[str, int]) -> None:
    files = overlaid(tmp_path, kustomization, **more)
    assert secrets(files) == [(*place, "DEEPGRAM_API_KEY is a literal")]
    assert (judged(files), files.problems) == (set(), [])


def test_a_secret_in_what_a_kustomization_changes_is_found(tmp_path: Path) -> None:
    """Also where the patch takes it away: it stands in the repository all the same."""
    base = workload("voice-agent", LITERAL)
    from_store = "{name: DEEPGRAM_API_KEY, value: null, valueFrom: {secretKeyRef: {name: keys, key: deepgram}}}"
    for taken in (from_store, "{name: DEEPGRAM_API_KEY, $patch: delete}", "{$patch: replace}"):
        files = overlaid(tmp_path, "patches: [{path: p.yaml}]\n", base, p=patch(taken))
        assert secrets(files) == [("base/agent.yaml", 4, "DEEPGRAM_API_KEY is a literal")]
        assert not judged(files), "what holds in the end these files do not say"


def test_what_a_patch_leaves_to_a_store_is_no_secret(tmp_path: Path) -> None:
    from_store = "{name: DEEPGRAM_API_KEY, valueFrom: {secretKeyRef: {name: keys, key: deepgram}}}"
    files = overlaid(tmp_path, "patches: [{path: p.yaml}]\n", p=patch(f"{from_store}, {{name: A_TOKEN, value: $(B)}}"))
    found = rules.secrets(files, Needs())
    assert (found.looked_at, found.findings) == (0, [])


@pytest.mark.parametrize(
    ("base", "target", "found"),
    [
        # Of what its workload is, whatever the patch says.
        (workload("reception", more=", command: [python, agent.py, start]"), "{kind: Deployment}", True),
        (workload("reception", "{name: LIVEKIT_URL, value: 'wss://x.livekit.cloud'}"), "{name: reception}", True),
        (workload("web-site"), "{kind: Deployment}", False),
        (workload("voice-agent"), "{kind: CronJob}", False),
        # Kinds are regular expressions, as names are.
        (workload("reception", more=", command: [python, agent.py, start]"), "{kind: Deployment|StatefulSet}", True),
    ],
)
def test_whose_a_patch_is_tells_the_workload_that_it_changes(tmp_path: Path, base: str, target: str, *, found: bool) -> None:
    files = overlaid(tmp_path, f"patches: [{{path: p.yaml, target: {target}}}]\n", base, p=OPERATION)
    assert bool(secrets(files)) is found


def test_a_patch_of_what_lies_elsewhere_is_a_workers_by_its_name(tmp_path: Path) -> None:
    kustomization = "resources: [github.com/acme/base]\npatches: [{path: a.yaml}, {path: b.yaml}]\n"
    texts = {"kustomization.yaml": kustomization, "a.yaml": patch(LITERAL), "b.yaml": patch(LITERAL, "billing")}
    assert [file for file, _, _ in secrets(written(tmp_path, texts))] == ["a.yaml"]


REPLACED = f"- {{op: replace, path: /spec/template/spec/containers/0/env/1/value, value: {SECRET}}}\n"
BY_FILE = "patches:\n- {path: p.yaml, target: {kind: Deployment}}\n"
TWO = workload("voice-agent", "{name: MODEL, value: nova-3}, {name: DEEPGRAM_API_KEY, value: $(KEY)}")


@pytest.mark.parametrize(
    ("before", "more", "found"),
    [
        ("", "", True),
        # What names none of its entries, or adds one behind them, leaves them where they are.
        (OPERATION.replace(LITERAL, "{name: A, value: b}"), "", True),
        ("- {op: add, path: /metadata/annotations/a, value: b}\n", "", True),
        # Then the workload's file does not say which one stands there.
        ("- {op: remove, path: /spec/template/spec/containers/0/env/0}\n", "", False),
        ("- {op: add, path: /spec/template/spec/containers/0, value: {name: first}}\n", "", False),
        ("- {op: move, from: /spec/template/spec/containers/0/env/0, path: /metadata/annotations/a}\n", "", False),
        ("", "- {path: q.yaml}\n", False),
    ],
)
def test_an_entry_by_its_number_has_the_name_that_stands_there_in_the_workloads_file(
    tmp_path: Path, before: str, more: str, *, found: bool
) -> None:
    files = overlaid(tmp_path, f"{BY_FILE}{more}", TWO, p=before + REPLACED, q=patch("{name: A, value: b}"))
    line = 1 + before.count("\n")
    assert secrets(files) == [("prod/p.yaml", line, "DEEPGRAM_API_KEY is a literal")] * found


def test_an_entry_by_its_number_has_no_name_where_labels_tell_which_workload_is_meant(tmp_path: Path) -> None:
    selected = BY_FILE.replace("Deployment", "Deployment, labelSelector: app=x")
    assert not secrets(overlaid(tmp_path, selected, TWO, p=REPLACED))


def test_what_another_overlay_moves_is_left_where_it_is_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "stg").mkdir()
    (tmp_path / "stg/kustomization.yaml").write_text("resources: [../base]\npatches: [{path: q.yaml}]\n")
    (tmp_path / "stg/q.yaml").write_text(patch("{name: A, value: b}"))
    assert len(secrets(overlaid(tmp_path, BY_FILE, TWO, p=REPLACED))) == 1
    (tmp_path / "base/kustomization.yaml").write_text("resources: [agent.yaml]\npatches: [{path: ../stg/q.yaml}]\n")
    assert not secrets(load([str(tmp_path)])), "what this one gathers is changed before"


STORED = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {DEEPGRAM_API_KEY: ''}\n"


@pytest.mark.parametrize(
    ("target", "operation", "found"),
    [
        ("kind: Secret", f"{{op: add, path: /stringData/DEEPGRAM_API_KEY, value: {SECRET}}}", ["DEEPGRAM_API_KEY"]),
        ("kind: Secret", f"{{op: add, path: /stringData, value: {{A_TOKEN: {SECRET}, REGION: eu}}}}", ["A_TOKEN"]),
        ("kind: Secret, name: keys", "{op: replace, path: /data/own~1key, value: YzJodmNuUXRiR2wyWldRNU1YRjY=}", ["own/key"]),
        ("kind: ConfigMap", f"{{op: add, path: /data/DEEPGRAM_API_KEY, value: {SECRET}}}", ["DEEPGRAM_API_KEY"]),
        ("name: keys", f"{{op: add, path: /stringData/DEEPGRAM_API_KEY, value: {SECRET}}}", ["DEEPGRAM_API_KEY"]),
        ("kind: ConfigMap", "{op: add, path: /data/LEVEL, value: info}", []),
        ("kind: Secret", "{op: add, path: /stringData/DEEPGRAM_API_KEY, value: '${KEY}'}", []),
        ("kind: Secret", "{op: remove, path: /stringData/DEEPGRAM_API_KEY}", []),
        ("kind: Service", f"{{op: add, path: /data/DEEPGRAM_API_KEY, value: {SECRET}}}", []),
        ("name: other", f"{{op: add, path: /data/DEEPGRAM_API_KEY, value: {SECRET}}}", []),
    ],
)
def test_a_secret_that_a_patch_puts_into_a_secret_or_config_map_is_found(
    tmp_path: Path, target: str, operation: str, found: list[str]
) -> None:
    kustomization = f"patches: [{{path: p.yaml, target: {{{target}}}}}]\n"
    files = overlaid(tmp_path, kustomization, f"{workload('voice-agent')}---\n{STORED}", p=f"- {operation}\n")
    assert [(stored.name, stored.place.file) for stored in files.secrets] == [(name, "prod/p.yaml") for name in found]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("kind: Deployment", True),
        ("kind: Deployment|StatefulSet, name: .*", True),
        ("labelSelector: app=agent", True),
        ("kind: Deployment, name: .*-agent", True),
        ("kind: Deployment, name: billing-.*", False),
        ("kind: CronJob", False),
        ("kind: CronJob, name: voice-agent", False),
    ],
)
def test_a_patch_of_whatever_lies_elsewhere_is_searched_beside_a_worker(tmp_path: Path, target: str, *, found: bool) -> None:
    kustomization = f"resources: [github.com/acme/base]\npatches: [{{path: p.yaml, target: {{{target}}}}}]\n"
    worker = workload("voice-agent", more=", command: [python, agent.py, start]")
    texts = {"worker/agent.yaml": worker, "prod/kustomization.yaml": kustomization, "prod/p.yaml": OPERATION}
    files = written(tmp_path, texts)
    assert secrets(files) == [("prod/p.yaml", 1, "DEEPGRAM_API_KEY is a literal")] * found
    assert judged(files) == {"voice-agent"}


def test_a_task_or_workload_that_lies_there_hides_no_patch_of_what_lies_elsewhere(tmp_path: Path) -> None:
    worker = workload("voice-agent", more=", command: [python, agent.py, start]")
    task = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\nspec: {}\n"
    named = patch(LITERAL, "not-used")
    for beside, target, body in (
        (task, "labelSelector: app=agent", OPERATION),
        (task, "kind: Job|Deployment", OPERATION),
        (workload("web"), "kind: Deployment", OPERATION),
        (workload("web"), "kind: Deployment", named),
    ):
        kustomization = f"resources: [github.com/acme/base, job.yaml]\npatches: [{{path: p.yaml, target: {{{target}}}}}]\n"
        texts = {"worker/agent.yaml": worker, "prod/kustomization.yaml": kustomization, "prod/p.yaml": body}
        assert secrets(written(tmp_path, texts | {"prod/job.yaml": beside})), (target, body)


def test_a_patch_is_held_against_workloads_of_its_targets_namespace_and_group(tmp_path: Path) -> None:
    entry = "{name: AGENT_TOKEN, valueFrom: {secretKeyRef: {name: a, key: b}}}"
    live = workload("voice-agent", entry).replace("{name: voice-agent}", "{name: voice-agent, namespace: live}")
    demo = workload("voice-agent", "{name: GREETING, value: hello}").replace(
        "{name: voice-agent}", "{name: voice-agent, namespace: demo}"
    )
    operation = "- {op: replace, path: /spec/template/spec/containers/0/env/0/value, value: Welcome2our9hotline}\n"
    for target, found in (("namespace: demo", False), ("namespace: live", True), ("group: argoproj.io", False)):
        kustomization = f"resources: [a.yaml, b.yaml]\npatches: [{{path: p.yaml, target: {{name: voice-agent, {target}}}}}]\n"
        texts = {"prod/kustomization.yaml": kustomization, "prod/p.yaml": operation, "prod/a.yaml": live, "prod/b.yaml": demo}
        assert bool(secrets(written(tmp_path, texts))) is found, target


@pytest.mark.parametrize("target", ["name: 'a{99999999999}'", "name: '[[:alpha:]]+'", "name: '('"])
def test_a_target_that_cannot_be_read_here_fits_nothing(tmp_path: Path, target: str) -> None:
    kustomization = f"patches: [{{path: p.yaml, target: {{kind: Deployment, {target}}}}}]\n"
    operation = f"- {{op: replace, path: /spec/template/spec/containers/0/env/{'9' * 5000}/value, value: {SECRET}}}\n"
    assert judged(overlaid(tmp_path, kustomization, p=operation)) == set()


def test_a_patch_of_a_task_that_lies_there_is_no_workers(tmp_path: Path) -> None:
    """Also where its target names no kind."""
    task = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: report}\nspec: {}\n"
    kustomization = "patches: [{path: p.yaml, target: {name: '.*'}}]\n"
    assert not secrets(overlaid(tmp_path, kustomization, task, p=OPERATION))


def test_a_server_of_livekits_that_a_kustomization_changes_is_not_judged(tmp_path: Path) -> None:
    """Also beside a worker, whose variables have the same names."""
    server = workload("livekit", f"{{name: LIVEKIT_API_SECRET, value: {SECRET}}}").replace("r/x:1", "livekit/livekit-server:v1")
    files = overlaid(tmp_path, "replicas: [{name: livekit, count: 2}]\n", server, worker=workload("voice-agent"))
    assert (secrets(files), judged(files)) == ([], {"voice-agent"})


@pytest.mark.parametrize(
    ("inline", "place"),
    [
        (block(OPERATION, 4), "prod/kustomization.yaml:5 patches[0].patch[0].value.value"),
        (f'"{OPERATION.strip()}"\n', "prod/kustomization.yaml:4 patches[0].patch[0].value.value"),
        (
            block(patch(LITERAL), 4),
            "prod/kustomization.yaml:10 patches[0].patch.spec.template.spec.containers[0].env[0].value",
        ),
    ],
)
def test_a_finding_in_a_patch_within_a_kustomization_has_its_line_and_field_there(
    tmp_path: Path, inline: str, place: str
) -> None:
    files = overlaid(tmp_path, f"patches:\n- target: {{kind: Deployment}}\n  patch: {inline}")
    assert [str(finding.place) for finding in rules.secrets(files, Needs()).findings] == [place]


def test_where_nothing_is_called_a_worker_what_may_be_one_is_searched(tmp_path: Path) -> None:
    files = overlaid(tmp_path, "images: [{name: r/x, newTag: '2'}]\n", workload("reception", LITERAL))
    assert secrets(files) == [("base/agent.yaml", 4, "DEEPGRAM_API_KEY is a literal")]


def test_a_patch_that_is_named_itself_is_not_strange_beside_its_kustomization(tmp_path: Path) -> None:
    overlaid(tmp_path, "patches: [{path: p.yaml, target: {kind: Deployment}}]\n", p=OPERATION)
    paths = [str(tmp_path / name) for name in ("base/agent.yaml", "base/kustomization.yaml", "prod/kustomization.yaml")]
    assert load([*paths, str(tmp_path / "prod/p.yaml")]).strange == []
    assert load([str(tmp_path / "prod/p.yaml")]).strange == [str(tmp_path / "prod/p.yaml")]


def test_a_patch_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    files = overlaid(tmp_path, "patches: [{patch: 'a: {b', target: {name: '('}}]\npatchesStrategicMerge: [none.yaml]\n")
    assert (secrets(files), files.problems) == ([], [])


def test_hundreds_of_kustomizations_are_read_in_a_time_that_grows_with_their_number(tmp_path: Path) -> None:
    """Each with every other one compared would be millions of paths."""
    texts = {"kustomization.yaml": f"resources: [{', '.join(f'app-{n}' for n in range(400))}]\npatches: []\n"}
    for number in range(400):
        texts[f"app-{number}/kustomization.yaml"] = "resources: [agent.yaml]\npatches: [{path: p.yaml}]\n"
    begun = time.process_time()
    files = written(tmp_path, {**texts, "app-7/agent.yaml": workload("voice-agent"), "app-7/p.yaml": patch(LITERAL)})
    assert time.process_time() - begun < 5
    assert [file for file, _, _ in secrets(files)] == ["app-7/p.yaml"]
