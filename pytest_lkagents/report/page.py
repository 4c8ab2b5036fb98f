"""The verdict as one HTML page that needs nothing else: no network, no script, light and dark."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_lkagents.report import charts, words
from pytest_lkagents.verdict import ERROR, FAIL, MUST, PASS, WAIVED, CheckResult, Verdict

NAME = "report.html"
# In a drawing; larger ones cannot be multiplied.
LARGEST = 1e100

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #ffffff; --soft: #5b6577; --line: #d9dee7; --panel: #f5f7fa;
  --pass: #1a7f4b; --fail: #c0262d; --doubt: #9a6700; --blue: #2f6fd0; --pale: #b9d3f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --paper: #14171c; --soft: #9aa5b8; --line: #2f3743;
  --panel: #1c2129; --pass: #4cc38a; --fail: #ff6b6b; --doubt: #e3b341; --blue: #6ca4f5; --pale: #2b4a77; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .4rem solid var(--doubt); padding-left: 1rem; }
.verdict.pass { border-color: var(--pass); } .verdict.fail { border-color: var(--fail); }
.facts { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; background: var(--panel); }
summary { cursor: pointer; padding: .5rem .75rem; overflow-wrap: anywhere; }
details > div { padding: 0 .75rem .75rem; }
.status { font-weight: 600; display: inline-block; min-width: 3.6rem; }
.status.pass { color: var(--pass); } .status.fail { color: var(--fail); }
.status.error, .status.skip, .status.waived, .status.soft { color: var(--doubt); }
.id { font-family: ui-monospace, monospace; } .severity { color: var(--soft); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: inherit; text-align: left; width: 30%; }
pre { overflow-x: auto; font-size: .8rem; background: var(--paper); border: 1px solid var(--line); padding: .5rem; }
code { overflow-wrap: anywhere; } figure { margin: .75rem 0; } figcaption { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; } svg { width: 100%; min-width: 36rem; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); } .curve, .load { fill: none; stroke: var(--blue); stroke-width: 1.5; }
.load { stroke: var(--fail); stroke-width: 1; } .registered { fill: var(--pale); } .full { fill: var(--doubt); }
.call { fill: var(--pass); } .mark { stroke: var(--ink); stroke-dasharray: 2 2; }
.key { color: var(--soft); font-size: .85rem; }
"""


def render(verdict: Verdict, worse: Sequence[str] | None = None) -> str:
    """``worse``: what got worse since an earlier verdict; None: there was none to compare with."""
    failed = [check for check in verdict.checks if check.status in (FAIL, ERROR)]
    waived = [check for check in verdict.checks if check.status == WAIVED]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(verdict.subject.name)}: {verdict.verdict}</title><style>{STYLE}</style></head><body>",
        f'<header class="verdict {verdict.verdict}"><h1>{_text(words.decision(verdict))}</h1>',
        *(f"<p>{_text(line)}</p>" for line in words.unsaid(verdict)),
        f'<p class="facts">{_text(words.counts(verdict))}</p>',
        f'<p class="facts">{_text(_facts(verdict))}</p></header><main>',
    ]
    if failed:
        parts.append("<h2>What failed or could not be judged</h2>")
        parts += [_check(verdict, check, opened=True) for check in failed]
    if waived:
        parts.append("<h2>Failures that are accepted for now</h2>")
        parts += [_check(verdict, check, opened=False) for check in waived]
    if worse is not None:
        parts.append("<h2>Compared with the earlier verdict</h2>")
        lines = "".join(f"<li>{_text(line)}</li>" for line in worse)
        parts.append(f"<ul>{lines}</ul>" if worse else "<p>Nothing got worse.</p>")
    if verdict.lanes:
        parts.append("<h2>The workers over time</h2>")
        parts.append(
            '<p class="key">Pale: registered; ochre: full, takes nothing new; green: calls; red curve: load from 0 to 1; '
            "dashed: what this suite did to its connection.</p>"
        )
        parts.append(charts.lanes(verdict.lanes))
    for section, checks in words.by_section(verdict.checks).items():
        parts.append(f"<h2>{_text(section)}</h2>")
        parts += [_check(verdict, check, opened=False) for check in checks]
    return "\n".join([*parts, "</main></body></html>\n"])


def _facts(verdict: Verdict) -> str:
    subject, stage = verdict.subject, verdict.stage
    facts = [f"profile {verdict.profile}", f"{verdict.duration_s:.0f} s"]
    if subject.sdk:
        facts.append(f"{subject.sdk} SDK {subject.sdk_version or ''}".strip())
    if subject.size_bytes:
        facts.append(f"image {subject.size_bytes / 1e6:.0f} MB")
    if subject.digest:
        facts.append(subject.digest)
    if stage.get("server_version"):
        facts.append(f"livekit-server {stage['server_version']} ({stage.get('server')})")
    if stage.get("engine"):
        facts.append(str(stage["engine"]))
    return ", ".join(facts)


def _check(verdict: Verdict, check: CheckResult, *, opened: bool) -> str:
    style = "soft" if check.status == FAIL and check.severity != MUST else check.status
    rows, pictures = [], []
    for name, value in check.evidence.items():
        if name.startswith(words.SERIES) and isinstance(value, list):
            pictures += _curves(name, value)
        elif name in ("transcript", "card") and isinstance(value, list):
            pictures.append(f"<pre>{_text(chr(10).join(map(str, value)))}</pre>")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append(f'<tr><th scope="row">{_text(name)}</th><td>{_text(shown)}</td></tr>')
    below = [f"<p>{_text(check.summary)}</p>"] if "\n" in check.summary else []
    if rows:
        below.append(f"<table>{''.join(rows)}</table>")
    below += pictures
    if check.why and check.status not in (PASS, ERROR):
        below.append(f"<p>Why it matters: {_text(check.why)}</p>")
    if check.remedy and check.status not in (PASS, ERROR):
        below.append(f"<p>How to fix it: {_text(check.remedy)}</p>")
    doc = f' <a href="{html.escape(check.doc, quote=True)}">The guide</a>' if check.doc else ""
    below.append(f"<p>Again: <code>{_text(words.again(verdict.command, check))}</code>{doc}</p>")
    return (
        f"<details{' open' if opened else ''}><summary>"
        f'<span class="status {style}">{check.status}</span> <span class="id">{check.id}</span> '
        f'<span class="severity">{check.severity}, {check.seconds:.1f} s</span><br>{_text(check.summary)}</summary>'
        f"<div>{''.join(below)}</div></details>"
    )


def _curves(name: str, rows: list[Any]) -> list[str]:
    """A curve per value of ``series_s_cores_bytes`` and the like."""
    names = name.removeprefix(words.SERIES).split("_")
    found = []
    for column, title in enumerate(names, start=1):
        pairs = [(row[0], row[column]) for row in rows if isinstance(row, list) and len(row) > column]
        points = [(float(x), float(y)) for x, y in pairs if _can_be_drawn(x) and _can_be_drawn(y)]
        if len(points) > 1:
            found.append(charts.curve(title, points))
    return found


def _can_be_drawn(value: Any) -> bool:
    """A number, and a finite one: users' own checks may have others, or none where nothing was measured."""
    return isinstance(value, (int, float)) and abs(value) < LARGEST


def _text(text: str) -> str:
    return html.escape(words.readable(text))


def write(verdict: Verdict, folder: Path, worse: Sequence[str] | None) -> None:
    """Raises OSError."""
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(render(verdict, worse), encoding="utf-8", errors=words.NO_TEXT)
