"""A worker that is started without one of the variables that it needs: whether it ends, and says which."""

from __future__ import annotations

import re
import time
from collections import Counter

from pytest_lkagents.checks import Evidence
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

# For how long one is watched at least, however long ago it was started: how busy the machine is shows in some seconds only.
SETTLED_SECONDS = 15
KEY = "LIVEKIT_API_KEY"
# By variable the role whose worker lacks it, and what names it in the worker's output.
REQUIRED = {
    "LIVEKIT_URL": ("without-url", r"(?<![a-z])url(?![a-z])|(?-i:[a-z](Url|URL)(?![a-z]))"),
    KEY: ("without-key", r"api[\s_-]?key"),
    "LIVEKIT_API_SECRET": ("without-secret", r"secret"),
}
# Times, pids, identifiers.
NUMBERS = re.compile(r"\b[0-9a-f-]*[0-9][0-9a-f-]*\b", re.IGNORECASE)


def own_words(worker: Worker, usual: Worker) -> str:
    """The lines of a worker's output that one with every value does not write, or not so often, whatever their numbers and the
    values of its own LiveKit variables."""

    def kinds(which: Worker) -> Counter[str]:
        text = which.logs()
        for name in REQUIRED:
            if value := which.environment.get(name):
                text = text.replace(value, "#")
        return Counter(NUMBERS.sub("#", line.strip()) for line in text.splitlines())

    return "\n".join(kinds(worker) - kinds(usual))


def problem_without(stage: Stage, variable: str, usual: Worker, evidence: Evidence) -> str | None:
    """What is wrong with how a worker without this variable behaves, in words; ``usual``: one that has all. Raises TooBusy."""
    role, says = REQUIRED[variable]
    worker = stage.untouched(role)
    before = worker.reading()
    limit = max(stage.settings.start_timeout - (time.monotonic() - worker.started), SETTLED_SECONDS)
    code = worker.wait_exit(limit, probed=True)
    named = re.search(says, own_words(worker, usual), re.IGNORECASE) is not None
    # A token cannot be made without a key, unless another one takes its place.
    instead = any(entry.data.get("names_key") for entry in worker.wire.transcript.entries("request"))
    evidence[f"without_{variable}"] = {"exit_code": code, "names_it": named}
    problem = None
    if code is None:
        stage.raise_if_too_busy(worker, before)
        problem = f"without {variable} it keeps running"
    elif variable == KEY and instead:
        problem = f"without {variable} it goes to the server all the same, with another key"
    elif not named:
        problem = f"without {variable} it does not say what is missing"
    worker.kill()
    return problem
