"""report.html in a real browser: it fits narrow and wide windows, and can be read light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_lkagents.report import page
from pytest_lkagents.verdict import ERROR, FAIL, SHOULD, SKIP, WAIVED, Lane

from .test_report import result, verdict

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LEGIBLE = 4.5  # WCAG 2.1, AA, for text of normal size

# A frame has the width of a window; the page itself must not need a script, and has none.
FRAME = """<!doctype html><iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe><pre id="seen"></pre>
<script>
function channels(colour) {{ return colour.match(/[\\d.]+/g).slice(0, 3).map(Number); }}
function light(colour) {{
  return channels(colour).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
}}
function behind(view, node) {{
  for (; node; node = node.parentElement) {{
    const colour = view.getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }}
  return "rgb(255, 255, 255)";
}}
window.onload = () => {{
  const view = document.querySelector("iframe").contentWindow, page = view.document, worst = {{}};
  for (const node of page.querySelectorAll("h1, h2, p, li, summary, td, th, pre, .status, .severity, .id")) {{
    const pair = [light(view.getComputedStyle(node).color), light(behind(view, node))].sort((a, b) => b - a);
    const name = node.className || node.tagName;
    worst[name] = Math.min(worst[name] || 99, (pair[0] + .05) / (pair[1] + .05));
  }}
  document.querySelector("#seen").textContent = JSON.stringify({{
    width: page.documentElement.clientWidth, needed: page.documentElement.scrollWidth,
    paper: view.getComputedStyle(page.body).backgroundColor, worst: worst,
    smallest: Math.min(...[...page.querySelectorAll("svg text")].map(text => text.getBoundingClientRect().height)
      .filter(height => height > 0)),
    open: page.querySelectorAll("details[open]").length, pictures: page.querySelectorAll("svg").length,
    first: page.querySelector("h1").textContent, top: page.querySelector("h1").getBoundingClientRect().top,
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all that one can have: long words, curves, lanes, every status."""
    made = tmp_path_factory.mktemp("page")
    lane = Lane("draining", [(0, 60)], [(50, 60)], [(5, 20), (8, 40)], [(1, 0.1), (3, 0.9)], [(30, "cut")])
    shown = verdict(
        result(
            "rollout.sigterm-drains", FAIL, transcript=["  25.425 s  #1 worker> status available load 0.02 jobs 0 " * 3] * 5
        ),
        result("image.non-root", FAIL, SHOULD, path="/usr/lib/" + "very-long-name-without-a-space" * 9),
        result("health.answers", ERROR, answers=[{"status": 200, "after_s": n} for n in range(40)]),
        result("jobs.joins", SKIP),
        result("storage.image-size", WAIVED),
        result("resources.within-ceilings", series_s_cores_bytes=[[n, n / 9, n * 1e6] for n in range(20)]),
        lanes=(lane,),
    )
    page.write(shown, made, ["image.non-root: fail, was pass"])
    return made


def look(folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    assert BROWSER is not None
    (folder / "frame.html").write_text(FRAME.format(width=width))
    # The folder of its profile is its own, so that nothing stays and no other one disturbs it.
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom"]
    command += [
        "--allow-file-access-from-files",
        "--window-size=1400,1000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    shown = subprocess.run([*command, f"file://{folder}/frame.html"], capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="seen">(.+?)</pre>', shown.stdout, re.S)
    assert found, shown.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: scripts/setup browser")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_the_page_fits_and_can_be_read(folder: Path, width: int, dark: bool) -> None:
    seen = look(folder, width, dark=dark)
    assert width - 20 < seen["width"] <= width  # a bar for scrolling downwards may take some
    assert seen["needed"] <= seen["width"], "one has to scroll sideways"
    assert sum(map(int, re.findall(r"\d+", seen["paper"])[:3])) < 200 if dark else seen["paper"] == "rgb(255, 255, 255)"
    assert not {name: ratio for name, ratio in seen["worst"].items() if ratio < LEGIBLE}
    assert seen["open"] == 3  # what failed or could not be judged
    assert seen["pictures"] >= 3
    assert seen["smallest"] > 9, "labels of drawings shrink with the window"
    assert "must not be rolled out" in seen["first"]
    assert 0 <= seen["top"] < 200
