"""Small SVG drawings, coloured by the page's style sheet: curves over time, and the workers' lives side by side."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from pytest_lkagents.verdict import Lane

WIDTH, LEFT, RIGHT = 720, 56, 8
# Nearer to the right edge a label in the middle would not fit.
LABEL = 24
CHART_HEIGHT, LANE_HEIGHT, AXIS_HEIGHT = 120, 34, 22
# A curve of more points is not seen better on a screen.
MOST_POINTS = 400


def ticks(longest: float) -> list[float]:
    """Round numbers from 0 up to ``longest``, about six of them."""
    if not longest > 0:
        return [0.0]
    rough = longest / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * number for number in range(int(longest / step + 1e-9) + 1)]


def _axis(longest: float, height: int, left: int) -> str:
    """Seconds, with their unit at the last of them."""
    inner = WIDTH - left - RIGHT
    parts = []
    found = ticks(longest)
    for tick in found:
        x = left + (tick / longest * inner if longest else 0)
        unit = " s" if tick == found[-1] else ""
        anchor = "end" if x > WIDTH - LABEL else "middle"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height + 15}" text-anchor="{anchor}">{tick:g}{unit}</text>')
    return "".join(parts)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS of them, with the first, the last and all that stands out upwards: of several that follow each other
    the highest."""
    if len(points) <= MOST_POINTS:
        return list(points)
    inner = points[1:-1]
    size = math.ceil(len(inner) / (MOST_POINTS - 2))
    groups = (inner[start : start + size] for start in range(0, len(inner), size))
    return [points[0], *(max(group, key=lambda point: point[1]) for group in groups), points[-1]]


def curve(title: str, points: Sequence[tuple[float, float]]) -> str:
    """One quantity over time; points are (seconds, value)."""
    longest = max((x for x, _ in points), default=0.0)
    highest = max((y for _, y in points), default=0.0)
    inner = WIDTH - LEFT - RIGHT
    path = " ".join(
        f"{LEFT + (x / longest * inner if longest else 0):.1f},"
        f"{CHART_HEIGHT - 4 - (y / highest * (CHART_HEIGHT - 12) if highest > 0 else 0):.1f}"
        for x, y in thinned(points)
    )
    return (
        f"<figure><figcaption>{html.escape(title)}, at most {_amount(highest)}</figcaption>"
        f'<div class="wide" tabindex="0">'
        f'<svg viewBox="0 0 {WIDTH} {CHART_HEIGHT + AXIS_HEIGHT}" role="img" aria-label="{html.escape(title, quote=True)}">'
        f'{_axis(longest, CHART_HEIGHT, LEFT)}<text x="{LEFT - 6}" y="12" text-anchor="end">{_amount(highest)}</text>'
        f'<polyline class="curve" points="{path}"/></svg></div></figure>'
    )


def _amount(value: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def lanes(found: Sequence[Lane]) -> str:
    """One lane per worker: registered, full, its calls, its load, and what was done to it."""
    longest = max((lane.end for lane in found), default=0.0)
    height = LANE_HEIGHT * len(found)
    inner = WIDTH - LEFT * 2 - RIGHT
    left = LEFT * 2

    def x(seconds: float) -> float:
        return left + (seconds / longest * inner if longest else 0)

    def bar(kind: str, span: tuple[float, float], y: float, thick: int, title: str) -> str:
        wide = max(x(span[1]) - x(span[0]), 1.0)
        label = html.escape(f"{title}: {span[0]:.1f} to {span[1]:.1f} s")
        box = f'x="{x(span[0]):.1f}" y="{y}" width="{wide:.1f}" height="{thick}"'
        return f'<rect class="{kind}" {box}><title>{label}</title></rect>'

    parts = [_axis(longest, height, left)]
    for number, lane in enumerate(found):
        top = LANE_HEIGHT * number
        parts.append(f'<text x="{left - 6}" y="{top + 20}" text-anchor="end">{html.escape(lane.name)}</text>')
        parts += [bar("registered", span, top + 4, 12, "registered") for span in lane.registered]
        parts += [bar("full", span, top + 4, 12, "full") for span in lane.full]
        parts += [bar("call", span, top + 18, 6, "call") for span in lane.calls]
        # One who reports what is no number has no curve there.
        if loads := [(at, min(max(load, 0.0), 1.0)) for at, load in lane.loads if not math.isnan(load)]:
            points = " ".join(f"{x(at):.1f},{top + 32 - load * 28:.1f}" for at, load in thinned(loads))
            parts.append(f'<polyline class="load" points="{points}"/>')
        for at, words in lane.marks:
            parts.append(
                f'<line class="mark" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top + 2}" y2="{top + 32}">'
                f"<title>{html.escape(f'{words} at {at:.1f} s')}</title></line>"
            )
    box = f'viewBox="0 0 {WIDTH} {height + AXIS_HEIGHT}" role="img" aria-label="workers over time"'
    return f'<div class="wide" tabindex="0"><svg {box}>{"".join(parts)}</svg></div>'
