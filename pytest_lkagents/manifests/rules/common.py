"""What several rules share."""

from __future__ import annotations

from pytest_lkagents.manifests.findings import Judgement
from pytest_lkagents.manifests.model import Deployment

# Tells livekit-agents how many cores it has, where no limit does.
CORES_VARIABLE = "NUM_CPUS"


def tells_cores(deployment: Deployment) -> bool:
    """Whether a variable says how many cores it has, in the file or from elsewhere."""
    return any(variable.name == CORES_VARIABLE for variable in deployment.variables)


def seconds(value: float) -> str:
    return f"{value:g} s"


def unclear(made: Judgement, deployment: Deployment, *fields: str) -> bool:
    """Whether one of these cannot be judged; then it is said."""
    reasons = [deployment.unclear[name] for name in fields if name in deployment.unclear]
    made.notes += [f"{reason.place}: {reason.value}; not judged" for reason in reasons]
    return bool(reasons)
