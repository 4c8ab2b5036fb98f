"""Promises of our own reception agent, judged beside the packaged ones:

pytest --lk-image myagent:latest --lk-suite rollout,image test_reception.py
"""

from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, check
from pytest_lkagents.wire.tap import Tap

GREETING_SECONDS = 4.0
ANSWER_SECONDS = 0.5


@check(
    "reception.greets-first",
    MUST,
    why="A caller who hears nothing hangs up after a few seconds.",
    remedy="say the greeting before anything that takes time",
)
def test_greets_first(lk_caller: Caller, lk_evidence: Evidence) -> None:
    """The agent speaks within 4 s of the caller's arrival."""
    with lk_caller.join() as call:
        lk_evidence["agent_s"] = call.wait_for_agent(15)
        lk_evidence["first_sound_s"] = sound = call.wait_until_agent_talks(15)
        assert sound is not None, "the caller heard nothing for 15 s"
        assert sound <= GREETING_SECONDS, f"the first sound came after {sound:.1f} s, at most {GREETING_SECONDS:g}"
        lk_evidence.summary = f"heard after {sound:.1f} s"


@check(
    "reception.answers-the-offer-at-once",
    SHOULD,
    why="The server waits 3 s for an answer; what a worker thinks over is time in which the caller hears nothing.",
    remedy="accept in the request function, think in the job",
)
def test_answers_the_offer_at_once(lk_wire: Tap, lk_evidence: Evidence) -> None:
    """Asked for one more job, the worker answers within half a second."""
    answer = lk_wire.ask(5)
    if answer.after_s is None:
        raise NotJudgeable("the worker did not answer at all, which availability.answers-in-time judges")
    lk_evidence["answered_after_s"], lk_evidence["accepts"] = round(answer.after_s, 3), answer.available
    assert answer.after_s <= ANSWER_SECONDS, f"answered after {answer.after_s:.2f} s, at most {ANSWER_SECONDS:g}"
