"""The verdict's other forms: HTML, Markdown, JUnit, and the comparison with an earlier one."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_lkagents.outcomes import present, redacted
from pytest_lkagents.report import baseline, charts, json_file, markdown, page, terminal, words
from pytest_lkagents.secrets import Redactor, hidden_in
from pytest_lkagents.selection import FILES, packaged_checks, packaged_suites
from pytest_lkagents.verdict import ERROR, FAIL, INFO, MUST, PASS, SHOULD, SKIP, WAIVED, CheckResult, Lane, Subject, Verdict

from .conftest import ROOT

BROKEN_FILES = ROOT / "fixtures/manifests/broken/grace-period/short.yaml"
GUIDE = "https://docs.livekit.io/agents/ops/deployment/"
UNHASHABLE = {"version": 1, "checks": [{"id": "a.b", "status": [], "evidence": {}}]}
NASTY = '<script>alert(1)</script> | `x` & "y"'


def result(name: str, status: str = PASS, severity: str = MUST, **evidence: object) -> CheckResult:
    return CheckResult(name, severity, status, f"what {name} saw", 1.5, dict(evidence), "mend it", f"{GUIDE}#rollout")


def verdict(*checks: CheckResult, **more: object) -> Verdict:
    known = Verdict("core", Subject("image", "my agent:1"), {"server_version": "1.13.5"}, 70.0, 30.0, checks)
    return dataclasses.replace(known, **{"command": "pytest --lk-image 'my agent:1'", **more})


class Balanced(HTMLParser):
    """Fails on a tag that is not closed, and on anything that would be fetched or run."""

    VOID = ("meta", "line", "br", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not {"src", "onclick", "onload"} & {name for name, _ in attrs}
        if tag not in self.VOID or (tag == "line" and ("class", "mark") in attrs):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("checks", "sentence"),
    [
        ([result("a.b")], "my agent:1 may be rolled out."),
        ([result("a.b"), result("a.c", FAIL, SHOULD)], "my agent:1 may be rolled out; a.c should be mended."),
        (
            [result("a.b"), result("a.c", SKIP), result("a.d", SKIP, SHOULD)],
            "my agent:1 may be rolled out; a.c could not be judged.",
        ),
        ([result("a.b", FAIL)], "my agent:1 must not be rolled out: a.b failed."),
        ([result("a.b", ERROR)], "my agent:1 is neither cleared nor rejected: a.b could not be judged."),
        ([result("a.b", SKIP)], "my agent:1 is neither cleared nor rejected: nothing was judged."),
        ([result("a.b", WAIVED)], "my agent:1 may be rolled out; waived: a.b."),
    ],
)
def test_the_decision_is_one_sentence(checks: list[CheckResult], sentence: str) -> None:
    assert words.decision(verdict(*checks)) == sentence


def test_a_part_of_the_checks_is_said_to_be_one_in_every_form() -> None:
    part = verdict(result("a.b"), result("a.c", SKIP), left_out=7)
    sentence = "my agent:1 may be rolled out; a.c could not be judged; 7 checks were left out."
    assert words.decision(part) == sentence
    assert sentence in page.render(part)
    assert sentence in markdown.render(part)
    assert part.to_json()["stage"] == {"server_version": "1.13.5", "left_out": 7}


def test_that_a_run_which_rejects_was_stopped_is_said_in_every_form() -> None:
    stopped = verdict(result("a.b", FAIL), broken="the run was stopped: stopping after 1 failures", left_out=1)
    assert words.unsaid(stopped) == [f"not complete: {stopped.broken}", "1 check was left out"]
    for text in (page.render(stopped), markdown.render(stopped)):
        assert all(line in text for line in words.unsaid(stopped))
    unjudged = verdict(broken="--lk-waive: no check 'a.bb'; did you mean 'a.b'?")
    assert (words.unsaid(unjudged), words.decision(unjudged)[-2:]) == ([], "'?")


def test_what_is_waived_stands_apart_on_the_page() -> None:
    text = page.render(verdict(result("a.b", WAIVED), result("a.c")))
    assert text.index("Failures that are accepted for now") < text.index("a.b</span>") < text.index("<h2>Rollout</h2>")
    assert "What failed or could not be judged" not in text


def test_markdown_says_what_got_worse_and_where_it_was_cut() -> None:
    long = verdict(result("a.b", FAIL, found=[{"file": "worker.yaml"}] * 99), broken="__init__.py could not be collected")
    text = markdown.render(long, ["a.b: fail, was pass: *x*"])
    assert "### Compared with the earlier verdict\n\n- a.b: fail, was pass: \\*x\\*\n" in text
    assert re.search(r"- found: `.{297}\.\.\.`\n", text)
    assert "not complete: \\_\\_init\\_\\_.py could" in text
    assert "Nothing got worse." in markdown.render(long, [])
    assert "Compared" not in markdown.render(long)


def test_the_last_second_of_a_drawing_has_the_unit_and_stays_within() -> None:
    for longest, anchor in ((20.0, "end"), (20.4, "end"), (23.0, "middle")):
        labels = re.findall(r'y="135" text-anchor="(\w+)">([^<]+)<', charts.curve("cores", [(0, 1), (longest, 2)]))
        assert labels[-1] == (anchor, "20 s")
        assert [text for _, text in labels] == ["0", "5", "10", "15", "20 s"]


def test_strict_rejects_for_a_promise() -> None:
    found = verdict(result("a.figure", FAIL, INFO), result("a.should", FAIL, SHOULD), strict=True)
    assert words.decision(found) == "my agent:1 must not be rolled out: a.should failed."


def test_the_page_is_whole_and_escapes_what_it_shows() -> None:
    lane = Lane("shared <1>", [(0, 60)], [(50, 60)], [(5, 20)], [(1, 0.1), (3, 0.9)], [(30, "cut")])
    shown = verdict(
        result("a.bad", FAIL, transcript=[NASTY], seen=NASTY, series_s_cores_bytes=[[0, 0.1, 5], [1, 0.3, 9e6]]),
        result("a.good", INFO, INFO, figure=3),
        lanes=(lane,),
    )
    text = page.render(shown, ["a.good got worse <b>"])
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert "script" not in parser.seen
    assert {"svg", "details", "style"} <= parser.seen
    assert "&lt;script&gt;" in text
    assert "pytest --lk-image 'my agent:1' --lk-suite a.bad".replace("'", "&#x27;") in text
    assert text.count("<figure>") == 4  # two curves, once among the failures and once in their section
    assert "shared &lt;1&gt;" in text


def test_the_terminal_is_readable_in_80_columns() -> None:
    long = dataclasses.replace(
        result("registration.refuses-incomplete-configuration", FAIL, SHOULD), summary="word " * 40, why="it matters"
    )
    text = [line for line, _ in terminal.lines(verdict(result("a.b"), long, result("a.c", ERROR)), 80, whole=False)]
    assert max(len(line) for line in text if "again:" not in line) <= 80
    assert text[0] == "Rollout: 1 fail, 1 error, 1 pass"
    assert not any("a.b" in line for line in text)  # it was shown when it passed
    assert any(line.strip() == "why it matters: it matters" for line in text)
    assert "again: pytest --lk-image 'my agent:1' --lk-suite a.c" in "".join(text)
    assert any("a.b" in line for line, _ in terminal.lines(verdict(result("a.b")), 80, whole=True))
    beside = dataclasses.replace(result("a.b", FAIL), evidence={"seen_beside": "a.d"})
    assert words.again("pytest", beside) == "pytest --lk-suite a.b,a.d"


def test_a_check_is_one_line_while_it_runs() -> None:
    line, colour = terminal.progress(dataclasses.replace(result("a.b", FAIL), summary="x\n" * 100), 80, "3/38, 40 s left")
    assert len(line) == 79  # the last column makes some terminals break the line
    assert line.startswith("FAIL   a.b: x x")
    assert line.endswith("... 3/38, 40 s left")
    assert colour == "red"


def test_a_failure_says_what_to_know_and_to_do() -> None:
    bad = dataclasses.replace(result("a.b", FAIL, transcript=["x"] * 40, found="y" * 5000), why="calls are cut")
    text = terminal.explain(bad)
    assert text[0] == "a.b (MUST): what a.b saw"
    assert text[-3:] == ["why it matters: calls are cut", "how to fix it: mend it", f"see: {GUIDE}#rollout"]
    assert len(text) < 20
    assert max(map(len, text)) <= 400


def test_typed_again_without_values(pytester: pytest.Pytester) -> None:
    files = ["--lk-manifests", str(BROKEN_FILES), "--lk-env", "KEY=sdf98s7df", "--lk-strict", "--lk-json", "v.json"]
    shown = pytester.runpytest_subprocess(*files).stdout
    shown.fnmatch_lines(
        [f'*again: pytest --lk-manifests {BROKEN_FILES} --lk-env KEY="$KEY" --lk-strict --lk-suite manifests.grace-period']
    )
    shown.no_fnmatch_line("*sdf98s7df*")


def test_values_of_the_ini_file_that_were_typed_are_typed_again(pytester: pytest.Pytester) -> None:
    kept = f"lk_json={pytester.path / 'v.json'}"
    typed = ["-o", "lk_health_port=9000", "-o", "lk_env=KEY=sdf98s7df", "-o", kept, "-o", "lk_metadata=a b"]
    shown = pytester.runpytest_subprocess(
        "--lk-manifests", str(BROKEN_FILES), *typed, "-o", "console_output_style=classic"
    ).stdout
    shown.fnmatch_lines(
        [
            f"*again: pytest --lk-manifests {BROKEN_FILES} -o lk_health_port=9000 -o lk_env=KEY=\"$KEY\" -o 'lk_metadata=a b' "
            "--lk-suite manifests.grace-period"
        ]
    )
    shown.no_fnmatch_line("*sdf98s7df*")


def test_markdown_keeps_its_tables() -> None:
    bad = dataclasses.replace(result("a.bad", FAIL, limit_s=3, transcript=["line"]), summary=NASTY)
    text = markdown.render(verdict(bad, result("a.good")))
    assert "### `a.bad` (MUST): fail" in text
    assert "How to fix it: mend it" in text
    assert "<script" not in text
    row = next(line for line in text.splitlines() if line.startswith("| fail"))
    assert row.replace("\\|", "").count("|") == 5


def test_markdown_shows_what_a_worker_wrote_and_does_nothing_with_it() -> None:
    picture = "![x](http://example.com/a.png) [y](http://example.com) &lt; *z*"
    ticks = "``` <b>x</b> ` y"
    bad = result("a.bad", FAIL, seen=picture, pairs={ticks: [ticks]}, transcript=[ticks, "a\n```\nb"])
    text = markdown.render(verdict(dataclasses.replace(bad, summary=picture), command="pytest --lk-command 'a `b`'"))
    assert r"- seen: \!\[x](http://example.com/a.png) \[y](http://example.com) &amp;lt; \*z\*" in text
    assert "![" not in text.replace("\\!\\[", "")
    assert f"- pairs: ```` {json.dumps({ticks: [ticks]})} ````" in text
    assert f"\n````\n{ticks}\na ``` b\n````\n" in text
    assert "Again: `` pytest --lk-command 'a `b`' --lk-suite a.bad ``" in text


# Colours, a cleared screen, a title, another character set, bells; with a carriage return, and lines that are none.
OBEYED = "\x1b[2J\x1b[1;31mERROR\x1b[0m \x1b]0;Zork\x07\x1b(B\x9b31mbad\x07 \x00\x85\r\nnext"


def test_no_form_does_what_a_worker_wrote_to_a_terminal() -> None:
    assert words.readable(OBEYED) == "ERROR bad? ?? \nnext"
    known = result("a.b", FAIL, SHOULD, transcript=[OBEYED], seen=OBEYED, details=OBEYED, card=[OBEYED])
    bad = dataclasses.replace(known, summary=OBEYED, why=OBEYED, remedy=OBEYED)
    found = verdict(bad, subject=Subject("command", OBEYED))
    shown: list[str] = []
    terminal.show(found, lambda line, _colour: shown.append(line), 80, whole=True)
    shown += [terminal.progress(bad, 80, "1/1")[0], *terminal.explain(bad), *terminal.wrapped(OBEYED, "  ", 80)]
    shown += [page.render(found, [OBEYED]), markdown.render(found, [OBEYED])]
    for text in shown:
        assert all(sign.isprintable() or sign == "\n" for sign in text), text
        assert "Zork" not in text or "\\u001b" in text  # within a list it is told as JSON tells it
    assert all("ERROR bad" in text for text in shown[-2:])


def test_halves_of_signs_keep_nobody_from_the_report(tmp_path: Path) -> None:
    found = verdict(result("a.b", FAIL, **{"half \ud800": "\udcff"}))
    page.write(found, tmp_path, ["\ud800"])
    markdown.write(found, tmp_path / "summary.md", None)
    json_file.write(found, tmp_path / "v.json")
    assert "half \\ud800" in (tmp_path / "report.html").read_text()
    assert "half \\ud800" in (tmp_path / "summary.md").read_text()
    (check,) = json.loads((tmp_path / "v.json").read_text())["checks"]
    assert check["evidence"] == {"half \ud800": "\udcff"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# of calls", "\\# of calls"),
        ("> 3 s", "\\> 3 s"),
        ("- cut", "\\- cut"),
        ("2. cut", "2\\. cut"),
        ("2.5 s, #7", "2.5 s, #7"),
        ("-5 s", "-5 s"),
        ("$HOME and $PATH ~~x~~", "\\$HOME and \\$PATH \\~\\~x\\~\\~"),
    ],
)
def test_markdown_makes_neither_list_nor_formula_of_a_line(text: str, shown: str) -> None:
    bad = dataclasses.replace(result("a.bad", FAIL), summary=text, why=f"<b> {text}", remedy=text, doc=f"{GUIDE}#a-<b>-&")
    made = markdown.render(verdict(bad))
    assert f"fail\n\n{shown}\n" in made
    assert f"How to fix it: {shown}\n" in made
    assert "Why it matters: &lt;b> " in made
    assert "<summary>A &lt;b&gt; &amp;: 1</summary>" in made


@pytest.mark.parametrize(("longest", "last"), [(0, 0), (7, 6), (61.5, 60), (3600, 3000), (0.004, 0.004)])
def test_ticks_are_round_and_within(longest: float, last: float) -> None:
    found = charts.ticks(longest)
    assert found[-1] == pytest.approx(last)
    assert len(found) <= 8


@pytest.mark.parametrize("many", [0, 1, 399, 400, 401, 798, 799, 10_001])
def test_a_thinned_curve_keeps_its_ends_and_its_peak(many: int) -> None:
    for peak in {0, 1, many // 2, many - 2, many - 1}:
        points = [(float(at), 9.0 if at == peak else at % 3 / 3) for at in range(many)]
        kept = charts.thinned(points)
        assert len(kept) <= min(many, charts.MOST_POINTS)
        assert kept == sorted(kept)
        assert not points or (kept[0], kept[-1], max(kept, key=lambda point: point[1])) == (
            points[0],
            points[-1],
            max(points, key=lambda point: point[1]),
        )
    assert many < 2 or "at most 9" in charts.curve("load", points)


def test_a_lane_shows_all_of_a_workers_life() -> None:
    loads = [(float(at), 0.5) for at in range(2000)]
    drawn = charts.lanes([Lane("shared", [(0, 1999)], [], [], loads, [])])
    points = drawn.partition('class="load" points="')[2].partition('"')[0].split()
    assert len(points) <= charts.MOST_POINTS
    assert points[0].startswith(f"{charts.LEFT * 2}.0,")


def test_a_load_that_is_no_number_does_not_spoil_the_curve() -> None:
    loads = [(0.0, 0.5), (1.0, float("nan")), (2.0, float("inf")), (3.0, float("-inf"))]
    drawn = charts.lanes([Lane("shared", [(0, 3)], [], [], loads, [])])
    points = drawn.partition('class="load" points="')[2].partition('"')[0]
    assert [point.partition(",")[2] for point in points.split()] == ["18.0", "4.0", "32.0"]
    assert "points" not in charts.lanes([Lane("shared", [(0, 3)], [], [], loads[1:2], [])])


def test_what_got_worse() -> None:
    before = verdict(result("a.b", start_s=4.0, limit_s=1, size_bytes=700e6), result("a.c"), result("a.gone")).to_json()
    now = verdict(result("a.b", start_s=9.0, limit_s=9, size_bytes=705e6), result("a.c", FAIL), result("a.new", FAIL))
    assert baseline.worse(before, now) == [
        "a.b: start_s 9, was 4",
        "a.c: fail, was pass: what a.c saw",
        "a.new: fail, was not judged: what a.new saw",
        "not judged this time: a.gone",
    ]
    assert not baseline.worse(before, verdict(result("a.b", start_s=4.5), result("a.c"), result("a.gone")))


@pytest.mark.parametrize(
    ("status", "lines"),
    [(FAIL, ["a.new: fail, was not judged: what a.new saw"]), (ERROR, ["a.new: error, was not judged: what a.new saw"])]
    + [(status, []) for status in (PASS, WAIVED, SKIP)],
)
def test_a_check_that_is_new_and_not_well_is_said(status: str, lines: list[str]) -> None:
    before = verdict(result("a.b")).to_json()
    assert baseline.worse(before, verdict(result("a.b"), result("a.new", status))) == lines


def test_a_failure_that_binds_now_is_said() -> None:
    before = verdict(result("a.b", FAIL, SHOULD)).to_json()
    assert baseline.worse(before, verdict(result("a.b", FAIL))) == ["a.b: the failure of a MUST, was of a SHOULD: what a.b saw"]
    assert baseline.worse(before, verdict(result("a.b", FAIL, SHOULD))) == []


def test_nothing_is_no_baseline_than_which_nothing_got_worse() -> None:
    killed = verdict(broken="the run did not end by itself").to_json()
    assert baseline.worse(killed, verdict(result("a.b"))) == [
        "the earlier verdict judged nothing: the run did not end by itself"
    ]


@pytest.mark.parametrize(
    "name", ["start_s", "s", "memory_bytes", "memory_per_session_bytes", "bytes", "cores", "worker_cores", "cores_per_session"]
)
def test_figures_of_the_worker_are_compared(name: str) -> None:
    before = verdict(result("a.b", **{name: 1e8})).to_json()
    assert baseline.worse(before, verdict(result("a.b", **{name: 3e8}))) == [f"a.b: {name} 3e+08, was 1e+08"]


@pytest.mark.parametrize(
    ("old", "new"), [(10**400, 10**401), (1, 10**400), (10**400, 1.0), (True, 9.0), (None, 9.0), ("1", 9.0)]
)
def test_what_is_no_figure_is_not_compared(old: object, new: object) -> None:
    before = verdict(result("a.b", start_s=old)).to_json()
    assert baseline.worse(before, verdict(result("a.b", start_s=new))) == []


@pytest.mark.parametrize(
    "name",
    [
        "simulated_users_cores",
        "burnt_cores",
        "suggested_cores",
        "held_s",
        "hold_s",
        "watched_s",
        "waited_s",
        "agents_stay_s",
        "grace_s",
        "bytes_per_s",
        "tries_per_s",
        "cores_per_session_stderr",
        "calls",
        "scores",
        "limit_bytes_per_call",
    ],
)
def test_figures_that_are_not_the_workers_are_not_compared(name: str) -> None:
    before = verdict(result("a.b", **{name: 1e8})).to_json()
    assert baseline.worse(before, verdict(result("a.b", **{name: 3e8}))) == []


def test_a_secret_in_a_long_line_is_hidden_before_it_is_cut() -> None:
    redactor = Redactor()
    redactor.add("API_KEY", "k" * 68)
    line = "x" * 180 + "k" * 68 + "y" * 400
    shown = redacted(dataclasses.replace(result("a.b"), summary=line, evidence={"lines": [line, 1]}), redactor)
    assert (shown.id, shown.severity) == ("a.b", MUST)
    for text in (shown.summary, shown.evidence["lines"][0]):
        assert "kk" not in text
        assert text.startswith("x" * 180 + "[API_KEY]")
        assert " ... " in text


@pytest.mark.parametrize("status", [SKIP, FAIL])
def test_reasons_do_not_command_a_terminal(status: str) -> None:
    report = pytest.TestReport("a", ("a", 1, "a"), {}, "failed", None, "call")
    of = dataclasses.replace(result("a.b"), severity=SHOULD, status=status, summary="\x1b[2Jgone\x07")
    present(report, of, strict=False, where=("a", 1, "a"), command="pytest")
    said = report.wasxfail if status == FAIL else report.longrepr[2]
    assert said.endswith("gone?")
    assert "\x1b" not in said


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99, "checks": []}', json.dumps(UNHASHABLE)])
def test_what_is_no_verdict_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="no verdict of version 1"):
        baseline.read(path)


# As a user does


def test_all_forms_of_a_run(lk, tmp_path: Path) -> None:
    earlier = lk("--lk-manifests", str(ROOT / "examples/kubernetes"), "--lk-suite", "manifests")
    old = tmp_path / "old.json"
    old.write_text(json.dumps(earlier.verdict))
    summary = tmp_path / "step.md"
    summary.write_text("before\n")
    run = lk(
        "--lk-manifests",
        str(BROKEN_FILES),
        "--lk-suite",
        "manifests",
        "--lk-report",
        "report",
        "--lk-baseline",
        str(old),
        "--junit-xml=junit.xml",
        env={"GITHUB_STEP_SUMMARY": str(summary)},
    )
    assert run.code == 1, run.output
    assert "must not be rolled out: manifests.grace-period failed." in run.output
    assert f"again: pytest --lk-manifests {BROKEN_FILES} --lk-suite manifests.grace-period" in run.output
    assert "  manifests.grace-period: fail, was pass" in run.output
    assert "manifests.grace-period" in (tmp_path / "report/report.html").read_text()
    assert summary.read_text().startswith("before\n## LiveKit agent: fail")
    junit = ElementTree.parse(tmp_path / "junit.xml")
    assert {case.get("classname") for case in junit.iter("testcase")} == {"manifests"}
    properties = {(entry.get("name"), entry.get("value")) for entry in junit.iter("property")}
    assert ("lk_id", "manifests.grace-period") in properties
    assert ("lk_status", "fail") in properties


@pytest.mark.parametrize("processes", ["0", "2"])
def test_junits_classes_are_the_suites(processes: str, lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    run = lk(f"--lk-manifests={BROKEN_FILES}", "-n", processes, "--junit-xml=junit.xml", "test_own.py")
    assert run.code == 1, run.output
    cases = [(case.get("classname"), case.get("name")) for case in ElementTree.parse(tmp_path / "junit.xml").iter("testcase")]
    assert {suite for suite, _ in cases} == {"manifests", "autoscaling", "test_own"}
    assert len(cases) == 1 + sum(check.suite in FILES for check in packaged_checks())


def test_no_two_checks_are_test_functions_of_one_name() -> None:
    """Outside of a user's project they have no other name for pytest."""
    found = [name for path in packaged_suites().values() for name in re.findall(r"(?m)^def (test_\w+)", path.read_text())]
    assert sorted(found) == sorted(set(found))
    assert len(found) == len(packaged_checks())


def test_what_got_worse_fits_80_columns_and_is_in_every_form(lk, tmp_path: Path) -> None:
    known = verdict(result("manifests.grace-period"), *(result(f"rollout.number-{n}") for n in range(9))).to_json()
    (tmp_path / "before.json").write_text(json.dumps(known))
    files = (f"--lk-manifests={BROKEN_FILES}", "--lk-suite=manifests.grace-period", "--lk-baseline=before.json")
    run = lk(*files, "--lk-report=report", env={"COLUMNS": "80", "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md")})
    told = run.output.partition("before.json:\n")[2].splitlines()
    told = told[: next(n for n, line in enumerate(told) if not line.startswith("  "))]
    assert len(told) > 4, run.output
    assert max(map(len, told)) <= 80
    for name in ("report/report.html", "report/summary.md", "step.md"):
        text = (tmp_path / name).read_text()
        assert "manifests.grace-period: fail, was pass" in text, name
        assert "rollout.number-8" in text, name


def test_a_baseline_that_is_none_is_one_line(lk) -> None:
    run = lk("--lk-manifests", str(BROKEN_FILES), "--lk-baseline", "nowhere.json")
    assert run.code == 4
    assert "--lk-baseline: cannot read" in run.output
    assert "Traceback" not in run.output


def test_a_key_is_hidden_whatever_its_name() -> None:
    key = "sk-proj-Zb7Qm2Xv9Kd4Tn8Lw1Rp6Hy3F5g8J2"
    assert hidden_in("OPENAI_KEY", key) == [("OPENAI_KEY", key)]
    assert hidden_in("OPENAI_KEY", "sk-proj-your-key-here") == []
    key = "9f86d081884c7d659a2feaa0c55ad015"
    assert hidden_in("N8N_ENCRYPTION_KEY", key) == [("N8N_ENCRYPTION_KEY", key)]
    assert hidden_in("ENCRYPTION_KEY", "alias/voice-calls-2024") == []


def test_a_long_line_is_cut_between_words() -> None:
    line = " ".join(f"word{number:04}" for number in range(100))
    shown = redacted(dataclasses.replace(result("a.b"), summary=line), Redactor()).summary
    assert shown.startswith("word0000 ")
    assert set(shown.split()) <= {*line.split(), "..."}
