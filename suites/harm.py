"""The ways in which the process of one job comes to harm: it is killed, frozen, or out of memory."""

from __future__ import annotations

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.habit import STEADY_SECONDS
from pytest_lkagents.checks import NotJudgeable, WorkerFault
from pytest_lkagents.stage import Stage

from .harmed import Harm
from .scene import Scene

# A process without memory fails at its next large allocation; one that has all it needs may never make one.
STARVE_SECONDS = 5.0


def crash(stage: Stage) -> Harm:
    """SIGKILL, as the kernel and a fault of a native library end a process."""

    def act(scene: Scene) -> None:
        scene.act_now()
        scene.kill()

    return Scene(stage, "crashing").observe(act, both=True)


def freeze(stage: Stage) -> Harm:
    """SIGSTOP: a process that is there and answers nobody, like one whose event loop is blocked. It keeps its place, so that
    a worker which takes one call at a time rightly takes no other."""

    def act(scene: Scene) -> None:
        scene.act_now()
        scene.signal("SIGSTOP", lambda process: process is None or process.state.startswith("T"))

    def undo(scene: Scene) -> None:
        scene.harm.evidence["frozen_for_s"] = round(scene.passed, 1)
        scene.worker.signal_process(scene.pid, "SIGCONT")
        scene.worker.signal_process(scene.pid, "SIGKILL")

    return Scene(stage, "frozen", alone=False).observe(act, undo)


def starve(stage: Stage) -> Harm:
    """The address space of one job's process is limited to what it has; if that does not end it, SIGKILL does, as the
    kernel's OOM killer would."""

    def act(scene: Scene) -> None:
        evidence = scene.harm.evidence
        scene.act_now()
        size = scene.worker.limit_memory(scene.pid)
        if size is None:
            raise NotJudgeable("the engine does not let the memory of a job's process be limited")
        evidence["address_space_limit_bytes"] = size

        def ended() -> bool:
            try:
                return scene.pid not in scene.worker.snapshot().living()
            except WorkerFault:
                return True

        if scene.watch(STARVE_SECONDS, ended):
            evidence["ended_by"] = "itself, when an allocation failed"
            evidence["ended_after_s"] = round(scene.passed, 1)
            return
        evidence["call_of_the_limited_job"] = _state(scene.call)
        evidence["ended_by"] = f"SIGKILL, as by the kernel's OOM killer, since it lived {scene.passed:.0f} s with the limit"
        scene.kill()

    return Scene(stage, "limited").observe(act)


def _state(call: Call) -> str:
    if not call.agents_present:
        return "the agent left"
    return "the agent fell silent" if call.heard.first is not None and call.silence > STEADY_SECONDS else "went on"
