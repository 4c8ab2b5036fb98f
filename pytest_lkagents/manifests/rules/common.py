"""What several rules share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from pytest_lkagents.manifests.findings import Judgement, Needs
from pytest_lkagents.manifests.model import CORES_VARIABLE, Deployment, Files, Variable

Rule = Callable[[Files, Needs], Judgement]

# Of several names so many are shown.
SHOWN = 5


def of_production(rule: Rule) -> Rule:
    """The rule without what stands in files that are for development by their names; if it applies to that, this is said."""

    @functools.wraps(rule)
    def judged(files: Files, needs: Needs) -> Judgement:
        apart = [one for one in files.deployments if one.place.file in files.for_development]
        if not apart:
            return rule(files, needs)
        rest = [one for one in files.deployments if one not in apart]
        made = rule(dataclasses.replace(files, deployments=rest), needs)
        applies = [one for one in apart if rule(dataclasses.replace(files, deployments=[one]), needs).looked_at]
        made.notes += [
            f"{file}: for development by its name, not judged" for file in sorted({one.place.file for one in applies})
        ]
        return made

    return judged


def cores_variable(deployment: Deployment) -> Variable | None:
    """What says how many cores it has, with its value where these files have it, be it in a ConfigMap. None: no variable."""
    every = [*deployment.referred, *deployment.variables]
    return next((variable for variable in every if variable.name == CORES_VARIABLE), None)


def seconds(value: float) -> str:
    return f"{value:g} s"


def unclear(made: Judgement, deployment: Deployment, *fields: str) -> bool:
    """Whether one of these cannot be judged; then it is said."""
    reasons = [deployment.unclear[name] for name in fields if name in deployment.unclear]
    made.notes += [f"{reason.place}: {reason.value}; not judged" for reason in reasons]
    return bool(reasons)


def some(names: list[str], between: str = ", ") -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more
