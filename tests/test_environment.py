"""What the checks of the environment take for evidence, shown with workers that only are what was seen of them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable, StageError, TooBusy, WorkerFault
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.stage import Stage
from pytest_lkagents.workshop import Workshop
from suites import test_environment as checks
from suites.observations import FirstCall
from tests.test_tokens import HERE, token

SERVER = "172.30.0.1:7880"


class Seen(SimpleNamespace):
    """A worker, as far as these checks look at one."""

    def __init__(self, name: str = "shared", log: str = "", **facts: Any) -> None:
        questions = [SimpleNamespace(assigned=1.0)]
        transcript = SimpleNamespace(registrations=lambda: self.registered, questions=lambda: questions)
        super().__init__(
            name=name,
            started=1.0,
            logs=lambda: log,
            snapshot=lambda: None,
            command_lines=set(),
            environment={"LIVEKIT_API_SECRET": HERE.api_secret},
            server=HERE,
            server_peer=SERVER,
            registered=[object()],
            wire=SimpleNamespace(transcript=transcript),
            is_running=True,
        )
        self.__dict__.update(facts)

    __hash__ = object.__hash__


def stage(*workers: Seen, env: dict[str, str] | None = None, from_image: str | None = None) -> Stage:
    """Workers by the name of their role."""
    made = object.__new__(Stage)
    made.settings = SimpleNamespace(env=env or {}, from_image=from_image)
    workshop = made._workshop = object.__new__(Workshop)
    workshop._settings, workshop.made = made.settings, list(workers)
    workshop._by_role = {worker.name: [worker] for worker in workers}

    def worker(role: str = "shared") -> Seen:
        found = workshop._by_role[role][0]
        if not found.registered:
            raise WorkerFault("it did not register")
        return found

    made.worker = worker
    return made


@pytest.mark.parametrize("check", [checks.test_secrets_not_logged, checks.test_tokens_not_logged])
@pytest.mark.parametrize("kind", ["shared", "old"])
@pytest.mark.parametrize("from_image", [None, "myagent:old"])
def test_the_image_does_not_answer_for_what_the_old_one_prints(check: Any, kind: str, from_image: str | None) -> None:
    printed = f"secret {HERE.api_secret} token {token()}"
    seen = stage(*(Seen(role, printed if role == kind else "") for role in ("shared", "old", "new")), from_image=from_image)
    if kind == "old" and from_image:
        check(seen, evidence := Evidence())
        assert evidence["found"] == []
    else:
        with pytest.raises(AssertionError, match="in the worker's output"):
            check(seen, Evidence())


def test_the_secret_of_a_development_server_is_a_word_of_any_log() -> None:
    environment = {"LIVEKIT_API_SECRET": "secret"}
    log = "no client secret configured"
    with pytest.raises(NotJudgeable, match="is a plain word"):
        checks.test_secrets_not_logged(stage(Seen(log=log, environment=environment)), evidence := Evidence())
    assert evidence["not_looked_for"] == "LIVEKIT_API_SECRET: it is short, or a plain word"
    given = {"OPENAI_API_KEY": "sk-9f3kq0v7Zp2w"}
    checks.test_secrets_not_logged(stage(Seen(log=log, environment=environment), env=given), evidence := Evidence())
    assert (evidence["secrets_looked_for"], evidence["found"]) == (["OPENAI_API_KEY"], [])


@pytest.mark.parametrize("secret", ["s3cr3tOf12", "correct-horse-battery-staple-and-more"])
def test_any_other_secret_is_looked_for(secret: str) -> None:
    worker = Seen(log=f"secret is {secret}", environment={"LIVEKIT_API_SECRET": secret})
    with pytest.raises(AssertionError, match="LIVEKIT_API_SECRET in the worker's output"):
        checks.test_secrets_not_logged(stage(worker), Evidence())


def test_words_that_everybody_knows_are_not_hidden() -> None:
    redactor = Redactor()
    redactor.add("LIVEKIT_API_KEY", "devkey")
    redactor.add("LIVEKIT_API_SECRET", "secret")
    redactor.add("PASSWORD", "postgres")
    assert redactor.text("secrets-not-logged devkey postgres") == "secrets-not-logged devkey [PASSWORD]"


@pytest.mark.parametrize(
    ("contacted", "runs", "refused", "says"),
    [
        (["203.0.113.9:7880/tcp"], True, AssertionError, "never contacted the given LIVEKIT_URL, but 203.0.113.9:7880/tcp$"),
        (["1.1.1.1:53/udp", "203.0.113.9:7880/tcp"], True, AssertionError, "URL, but 203.0.113.9:7880/tcp$"),
        (["1.1.1.1:53/udp", "9.9.9.9:853/tcp"], True, WorkerFault, "it did not register"),
        (["1.1.1.1:53/udp"], False, WorkerFault, "it did not register"),
        (["203.0.113.9:443/tcp"], False, NotJudgeable, "it ended before it came to its server"),
        (["203.0.113.9:443/tcp", f"{SERVER}/tcp"], False, WorkerFault, "it did not register"),
        ([], True, WorkerFault, "it did not register"),
    ],
)
def test_a_worker_that_never_comes_to_its_server(contacted: list[str], runs: bool, refused: type, says: str) -> None:
    worker = Seen(registered=[], contacted=lambda: contacted, is_running=runs)
    with pytest.raises(refused, match=says):
        checks.test_configured_by_variables(stage(worker), Evidence())


def registered(name: str, variable: str | None, *names: str) -> Seen:
    live = [SimpleNamespace(agent_name=known) for known in names]
    transcript = SimpleNamespace(live=lambda: live, registrations=lambda: live)
    transcript.wait = lambda predicate, seconds: predicate(transcript)
    return Seen(
        name,
        environment={} if variable is None else {"LIVEKIT_AGENT_NAME": variable},
        wire=SimpleNamespace(transcript=transcript),
        registration=lambda: live[-1],
        wait_registered=lambda: live[0],
    )


@pytest.mark.parametrize(
    ("variable", "own", "renamed", "outcome"),
    [
        (None, [""], ["lk-renamed"], None),
        (None, [""], [""], "is ignored: it registered as ''"),
        (None, ["mine"], ["mine"], NotJudgeable),
        # In the user's env file.
        ("mine", ["mine"], ["lk-renamed"], None),
        ("mine", ["mine"], ["mine"], NotJudgeable),
        ("mine", ["mine"], [""], "is ignored"),
        ("mine", ["other"], ["other"], NotJudgeable),
        # Two agents in one process, of which one has a name of its own; whichever registers first.
        (None, ["", "mine"], ["mine", "lk-renamed"], None),
        (None, ["mine", ""], ["lk-renamed", "mine"], None),
        (None, ["mine", ""], ["", "mine"], "is ignored: it registered as '', 'mine'"),
    ],
)
def test_a_name_from_outside(variable: str | None, own: list[str], renamed: list[str], outcome: Any) -> None:
    seen = stage(registered("shared", variable, *own), registered("renamed", "lk-renamed", *renamed))
    if outcome is None:
        checks.test_agent_name(seen, evidence := Evidence(), unserved)
        assert "'lk-renamed'" in str(evidence.summary)
        return
    raised, says = (AssertionError, outcome) if isinstance(outcome, str) else (outcome, "sets its name itself")
    with pytest.raises(raised, match=says):
        checks.test_agent_name(seen, Evidence(), unserved)


def unserved() -> FirstCall:
    raise WorkerFault("no agent came")


@pytest.mark.parametrize(
    ("served", "answers", "accused"),
    [
        (True, [True], False),
        (False, [False] * 3, True),
        (False, [False, None], False),
        (False, [], False),
        (False, [True], False),
    ],
)
def test_a_name_is_called(served: bool, answers: list[bool | None], accused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_is_served_by_name", lambda *_: served)
    renamed = registered("renamed", "lk-renamed", "lk-renamed")
    renamed.wire.transcript.answers = lambda _since: answers
    renamed.wire.transcript.lines = lambda _since, kinds: []
    seen, evidence = stage(registered("shared", None, ""), renamed), Evidence()
    with pytest.raises(AssertionError, match="refuses every call") if accused else contextlib.nullcontext():
        checks.test_agent_name(seen, evidence, lambda: FirstCall(1.0, None))
    assert evidence["served"] is served


@pytest.mark.parametrize(
    ("error", "raised"), [(StageError("agents that are hidden from callers"), None), (TooBusy("too busy"), TooBusy)]
)
def test_where_no_call_can_tell_the_registration_counts(error: Exception, raised: type[Exception] | None) -> None:
    def first_call() -> FirstCall:
        raise error

    seen = stage(registered("shared", None, ""), registered("renamed", "lk-renamed", "lk-renamed"))
    with pytest.raises(raised) if raised is not None else contextlib.nullcontext():
        checks.test_agent_name(seen, Evidence(), first_call)


def test_tokens_are_looked_for_where_nobody_knows_how_the_shared_worker_does() -> None:
    seen = stage(Seen(), Seen("loaded", f"token {token()}"))

    def busy(_role: str = "shared") -> Seen:
        raise StageError("this machine is too busy to judge")

    seen.worker = busy
    with pytest.raises(AssertionError, match="a token for a call in the worker's output"):
        checks.test_tokens_not_logged(seen, Evidence())
