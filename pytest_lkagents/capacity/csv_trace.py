"""Call traces from files. Standard library only, so that a wrong file is found before anything is simulated."""

from __future__ import annotations

import csv
import math
from array import array
from pathlib import Path

COLUMNS = ["start_s", "duration_s"]
# Seconds since 1970 are below it, and the milliseconds that other exports have are not.
MOST_SECONDS = 1e10
# A month is played in a minute; a day in milliseconds would be three years, and not be over within a check's limit.
LONGEST_DAYS = 31
DAY = 86400.0


def read_rows(path: Path) -> tuple[array[float], array[float]]:
    """A CSV file with the columns ``start_s,duration_s``: when each call comes and how long it takes, in seconds.

    The times may be those of any clock, such as seconds since 1970: they count from the first call. Returns both columns in the
    file's order. Raises ValueError with file, line and what is wanted.
    """
    starts, durations = array("d"), array("d")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, None)
            if header is None or [cell.strip() for cell in header] != COLUMNS:
                raise ValueError(f"{path}:1: the first line is not {','.join(COLUMNS)}")
            for cells in lines:
                if not cells:
                    continue
                where = f"{path}:{lines.line_num}"
                if len(cells) != len(COLUMNS):
                    raise ValueError(f"{where}: {len(cells)} values, wanted are two: {','.join(COLUMNS)}")
                starts.append(_seconds(cells[0], f"{where}: start_s", "a number of seconds, at least 0", 0))
                durations.append(_seconds(cells[1], f"{where}: duration_s", "a number of seconds above 0", 1e-6))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a CSV file in UTF-8"
        raise ValueError(f"{path}: cannot be read: {reason}") from None
    if not starts:
        raise ValueError(f"{path}: no call; wanted is a line {','.join(COLUMNS)} and then one line per call")
    days = (max(map(sum, zip(starts, durations, strict=True))) - min(starts)) / DAY
    if days > LONGEST_DAYS:
        raise ValueError(
            f"{path}: its calls last over {days:.0f} days, and both columns are seconds; at most {LONGEST_DAYS} days are played"
        )
    return starts, durations


def _seconds(text: str, where: str, wanted: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value >= MOST_SECONDS:
        wanted += f" and below {MOST_SECONDS:.0e} (milliseconds?)"
    if not least <= value < MOST_SECONDS:
        raise ValueError(f"{where}: {text.strip()[:40]!r} is not {wanted}")
    return value
