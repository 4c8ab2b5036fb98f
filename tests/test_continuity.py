"""What a caller notices of its agent, from presence, packets and sound."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_lkagents.busyness import History, Reading, Stillness, cores_between, filled_by_others, filled_by_the_past, too_busy
from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.continuity import AGENT_LEFT, Continuity
from pytest_lkagents.callers.habit import AgentsLeave, Habit, Stay
from pytest_lkagents.callers.reception import Heard, Missing, Received, Sample, Stalls
from pytest_lkagents.callers.undisturbed import usual_stay, wait_heard
from pytest_lkagents.checks import NotJudgeable, StageError
from pytest_lkagents.clock import Ledger

LOUD = 1000.0


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests compare moments: what a busy machine takes between two lines must not count. One that waits undoes it."""
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now)


def call_with_agent(*, talked: float, packets_until: float = 0.0, heard_until: float = 0.0) -> Call:
    """A call whose agent has talked for ``talked`` seconds; its last packet and sound came so many seconds ago."""
    now = time.monotonic()
    call = Call("room", None, Ledger(), now - talked - 1)  # type: ignore[arg-type]
    call.agents["agent"] = now - talked
    steps = int(talked * 10)
    for step in range(steps):
        at = now - talked + step / 10
        if at <= now - packets_until:
            call.received.add(Sample(at, step, step * 100, step * 25))
        if at <= now - heard_until:
            call.heard.add(LOUD, at)
    return call


def test_an_agent_that_vanished_is_noticed_although_it_never_left() -> None:
    call = call_with_agent(talked=5)
    watch = Continuity(call, Habit())
    assert watch.steady
    assert watch.trouble() is None
    call.received.last_packet = time.monotonic() - 1.6
    assert "no packet" in str(watch.trouble())


def test_an_agent_that_sends_nothing_in_its_pauses_is_judged_by_its_presence() -> None:
    """Go's SDK sends the samples that it is given; without any, there is no packet."""
    now = time.monotonic()
    call = call_with_agent(talked=20)
    call.received.samples[:] = [
        sample for sample in call.received.samples if not now - 10 < sample.at < now - 6 and sample.at < now - 0.5
    ]
    watch = Continuity(call, Habit())
    watch.steady = False
    call.received.last_packet = now - 9
    assert (watch.sending, watch.trouble(), watch.gap(), watch.lost_from_sight) == (False, None, 0.0, False)
    call.left["agent"] = now
    assert watch.trouble() == AGENT_LEFT


def test_packets_that_stop_prove_nothing_until_another_agent_sent_them_for_longer() -> None:
    """A muted track sends none; its last ones come some seconds after the last sound."""
    habit = Habit(silent_after=4.0)

    def muted(sent: float) -> Continuity:
        return Continuity(call_with_agent(talked=sent, heard_until=sent - 5), habit)

    watch = muted(9)
    assert (watch.steady, watch.sending) == (False, True)
    watch.call.received.last_packet = time.monotonic() - 2
    watch.note_silence()
    assert habit.quiet_after == pytest.approx(6.9, abs=0.2)
    assert "sent no packets after 7 s" in str(watch.unproven_silence)
    assert muted(14).unproven_silence is not None, "greetings differ in length"
    assert muted(18).unproven_silence is None, "it has sent for more than twice as long"


def test_an_agent_that_fell_silent_counts_only_if_it_talked_on_before() -> None:
    call = call_with_agent(talked=5)
    watch = Continuity(call, Habit())
    call.received.last_packet = time.monotonic()
    call.heard.last = time.monotonic() - 3
    assert "silent" in str(watch.trouble())
    listening = call_with_agent(talked=5)
    listening.heard.pauses.append((time.monotonic() - 3.0, time.monotonic() - 1.0))
    watch = Continuity(listening, Habit())
    listening.received.last_packet = time.monotonic()
    listening.heard.last = time.monotonic() - 60
    assert watch.trouble() is None


def test_a_silence_proves_nothing_until_another_call_showed_that_the_agent_talks_on() -> None:
    habit = Habit()
    greeted = call_with_agent(talked=5)
    watch = Continuity(greeted, habit)
    # As if the watch had begun 4 s ago, and the silence 1 s later.
    watch.began, greeted.heard.last = time.monotonic() - 4, time.monotonic() - 3
    watch.note_silence()
    assert "may be its habit" in str(watch.unproven_silence)
    assert habit.silent_after == pytest.approx(6.0)
    again = Continuity(call_with_agent(talked=14), habit)
    assert not again.steady
    assert again.unproven_silence is None
    talks_on = Continuity(call_with_agent(talked=16), habit)
    assert talks_on.steady
    assert talks_on.unproven_silence is None


def test_an_agent_that_paused_in_this_call_may_do_so_again() -> None:
    """A greeting of 2 s, and sentences of 10 s; of the newest of several calls only the greeting is over."""
    habit = Habit()
    greeting, oldest = call_with_agent(talked=5, heard_until=3), call_with_agent(talked=14)
    oldest.room_name, now = "oldest", time.monotonic()
    oldest.heard.pauses.append((now - 12, now - 9))
    wait_heard([oldest, greeting], habit)
    watch = Continuity(oldest, habit)
    assert watch.talked > habit.talk_seconds
    assert (watch.steady, watch.controlled) == (False, False)
    # What comes after a disturbance is for it to explain.
    other = call_with_agent(talked=20)
    other.room_name = "other"
    wait_heard([other], habit)
    other.heard.pauses.append((now - 14, now - 11))
    assert Continuity(other, habit).steady


def test_a_silence_that_is_a_fault_is_no_habit() -> None:
    habit = Habit(silent_after=4.0)
    fault = call_with_agent(talked=12)
    watch = Continuity(fault, habit)
    watch.began, fault.heard.last = time.monotonic() - 4, time.monotonic() - 3
    assert watch.unproven_silence is None
    watch.note_silence()
    assert habit.silent_after == 4.0


def test_a_voice_is_awaited_for_as_long_as_is_known_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    habit = Habit(silent_after=1.0)
    call = call_with_agent(talked=4)
    call.received.last_packet = None
    began = time.monotonic()
    # Meanwhile the agent of another call is seen to fall silent after 2 s.
    learned = threading.Timer(0.5, habit.note_silence, [2.0])
    talking = threading.Thread(target=lambda: [call.heard.add(LOUD, time.monotonic()) or time.sleep(0.05) for _ in range(90)])
    learned.start()
    talking.start()
    wait_heard([call], habit)
    assert time.monotonic() - began > 2
    assert Continuity(call, habit).steady
    talking.join()


def test_a_leave_proves_nothing_until_another_agent_stayed_for_longer() -> None:
    habit = Habit()
    announced = call_with_agent(talked=5)
    watch = Continuity(announced, habit)
    announced.left["agent"] = time.monotonic()
    watch.note_leave()
    assert "may be its habit" in str(watch.unproven_leave)
    assert habit.stay_seconds == pytest.approx(10.5)
    assert Continuity(call_with_agent(talked=11), habit).unproven_leave is None
    with pytest.raises(NotJudgeable, match="leave their calls by themselves, this one after 5"):
        wait_heard([announced], habit)


def test_an_agent_that_left_and_one_that_took_over() -> None:
    call = call_with_agent(talked=5)
    watch = Continuity(call, Habit())
    call.left["agent"] = time.monotonic()
    call.agents["another"] = time.monotonic()
    assert watch.trouble() == "the agent left the call"


def test_the_callers_own_trouble_is_not_the_agents() -> None:
    call = call_with_agent(talked=5)
    watch = Continuity(call, Habit())
    call.interruptions.append(time.monotonic())
    with pytest.raises(StageError, match="the caller's own connection"):
        watch.trouble()


def test_a_caller_that_was_cut_off_does_not_say_that_nobody_came() -> None:
    call = call_with_agent(talked=5)
    call.agents.clear()
    call.heard.first = None
    assert call.wait_for_agent(0) is None
    assert call.wait_until_agent_talks(0) is None
    call.interruptions.append(time.monotonic())
    for wait in (call.wait_for_agent, call.wait_until_agent_talks):
        with pytest.raises(StageError, match="the caller's own connection"):
            wait(0)


def call_that_was_left(room: str, stayed: float) -> Call:
    call = call_with_agent(talked=stayed)
    call.room_name = room
    call.left["agent"] = call.agents["agent"] + stayed
    return call


def no_more() -> Call:
    raise AssertionError("two are enough")


def test_how_long_agents_stay_that_leave_by_themselves() -> None:
    habit = Habit()
    stay = usual_stay([call_that_was_left("a", 8.0)], lambda: call_that_was_left("b", 8.2), habit)
    assert (stay.least, stay.margin) == (pytest.approx(8.0), pytest.approx(1.2))
    assert stay.over(7.0)
    assert not stay.over(6.7)
    assert usual_stay([], no_more, habit) == stay


def leaves(habit: Habit, usual: Stay, stayed: float) -> Continuity:
    call = call_with_agent(talked=2)
    watch = Continuity(call, habit, usual)
    call.left["agent"] = call.agents["agent"] + stayed
    assert watch.trouble() == AGENT_LEFT
    return watch


def stays_of(habit: Habit, *stays: float) -> Stay:
    """As they are found when so many more are asked for as there are."""
    further = iter(stays)
    return usual_stay([], lambda: call_that_was_left(str(len(habit.stays)), next(further)), habit)


def test_an_agent_that_leaves_early_is_accused_when_a_second_one_does_so_too() -> None:
    habit = Habit()
    usual = stays_of(habit, 7.0, 7.2)
    assert leaves(habit, usual, 6.0).left_as_usual
    for proven in (False, True):
        watch = leaves(habit, usual, 2.0)
        assert not watch.left_as_usual
        watch.note_leave()
        assert (watch.unproven_leave is None) is proven
        if not proven:
            usual = stays_of(habit, 7.1, 7.4)


def test_stays_that_turn_out_to_differ_explain_early_leaves() -> None:
    """Two were much the same by chance."""
    habit = Habit()
    usual = stays_of(habit, 16.2, 16.5)
    leaves(habit, usual, 14.0).note_leave()
    usual = stays_of(habit, 15.0, 16.9)
    assert usual.over(14.0)
    watch = leaves(habit, usual, 11.0)
    watch.note_leave()
    assert watch.unproven_leave is not None, "the first one was none"
    with pytest.raises(AgentsLeave):
        stays_of(habit, 13.2, 14.0, 15.5, 16.0)


@pytest.mark.parametrize(("first", "second"), [(8.0, 12.0), (6.0, 6.0)])
def test_stays_that_differ_or_are_short_tell_nothing(first: float, second: float) -> None:
    with pytest.raises(AgentsLeave, match=f"after {first:.1f} to {second:.1f} s"):
        usual_stay([call_that_was_left("a", first), call_that_was_left("b", second)], no_more, Habit())


def test_what_the_caller_could_not_hear_is_no_silence() -> None:
    call = call_with_agent(talked=10)
    now = time.monotonic()
    watch = Continuity(call, Habit())
    watch.began = now - 9
    call.heard.pauses.append((now - 8, now - 4))
    assert watch.gap() == pytest.approx(4.0)
    call.received.stalls.over.append((now - 8, now - 4.5))
    assert watch.gap() < 1
    assert watch.stalled == pytest.approx(3.5)
    assert call.heard.talking == pytest.approx(10.0)
    call.received.stalls.over.clear()
    assert call.heard.talking == pytest.approx(4.0)


def test_the_longest_silence_and_the_concealed_share_since_a_moment() -> None:
    heard = Heard()
    for at in (0.0, 0.1, 5.1, 5.2):
        heard.add(LOUD, at + 100)
    assert heard.longest_since(100.0) > 5.0
    assert heard.longest_since(103.0) >= 2.1
    received = Received()
    for at, samples, concealed in ((1, 100, 0), (2, 200, 50), (3, 300, 50)):
        received.add(Sample(at, at, samples, concealed))
    assert received.concealed_share() == pytest.approx(0.25)
    assert received.concealed_share(2) == 0
    assert received.concealed_share(9) is None


def test_packets_of_one_track_do_not_hide_that_both_stopped() -> None:
    received = Received()
    for at, voice, music in ((1, 50, 20), (2, 100, 70), (3, 100, 70)):
        received.add(Sample(at, voice, voice * 10, voice), "voice")
        received.add(Sample(at, music, music * 10, 0), "music")
    assert received.last_packet == 2
    assert [sample.packets for sample in received.since(2)] == [120, 170, 170, 170]


def test_a_stall_counts_once_although_both_tracks_saw_it() -> None:
    stalls = Stalls()
    for due, now in ((1.0, 4.0), (1.1, 4.1), (1.2, 4.0), (9.0, 9.6), (9.7, 9.8)):
        stalls.due["track"] = due
        stalls.looked("track", now)
    assert stalls.over == [(1.0, 4.0), (9.0, 9.6)]
    assert stalls.lasted(0.0, 10.0) == pytest.approx(6.4)


def test_a_stall_counts_while_it_lasts() -> None:
    call = call_with_agent(talked=10, packets_until=6, heard_until=6)
    assert call.silence == pytest.approx(6.0)
    assert call.packet_gap == pytest.approx(6.0)
    call.received.stalls.due["track"] = time.monotonic() - 5
    assert call.silence == pytest.approx(1.0)
    assert call.packet_gap == pytest.approx(1.0)
    assert call.longest_silence < 1.3


def received(*steps: tuple[float, int]) -> Received:
    """Looks at a voice of 50 packets a second, 4 a second, until 10 s; then at these moments, with so many packets more."""
    made = Received()
    at = [(look / 4, round(look * 12.5)) for look in range(41)]
    for second, packets in [*at, *((second, 500 + more) for second, more in steps)]:
        made.add(Sample(second, packets, 0, 0))
    return made


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ([(15.0, 5), (15.5, 260), (16.0, 300)], 0.0),
        ([(15.0, 5), (15.5, 60), (16.0, 100)], 4.0),
        ([(15.0, 5), (15.5, 60)], 0.0),
    ],
    ids=["caught up", "a pause", "not yet told"],
)
def test_a_pause_while_the_caller_stood_still_is_told_by_the_packets_after_it(
    more: list[tuple[float, int]], missing: float
) -> None:
    sound = received(*more)
    sound.stalls.over.append((10.25, 15.0))
    assert sound.missing(9.0).seconds == pytest.approx(missing, abs=0.3)
    assert sound.missing(9.0).since in (9.0, 10.25 - 0.25)
    assert sound.missing(20.0) == (0.0, 20.0)


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        # It falls silent 1.5 s before the caller stands still, and talks again as that is over.
        ([(10.75, 2), (11.25, 3), (11.75, 4), (14.75, 10), (15.75, 60), (16.0, 72)], 4.6),
        # It falls silent while the caller stands still, and talks again 2 s after that.
        ([(10.75, 25), (11.25, 50), (11.75, 75), (14.75, 145), (15.75, 148), (16.25, 149), (16.75, 150), (17.25, 175)], 3.5),
        # It talks on; a look comes too early for half of its packets.
        ([(10.75, 25), (11.25, 50), (11.75, 55), (14.75, 220), (15.75, 275), (16.0, 287)], 0.0),
    ],
    ids=["began in its sight", "ended in its sight", "none"],
)
def test_a_pause_counts_whole_of_which_the_caller_saw_a_part(more: list[tuple[float, int]], missing: float) -> None:
    sound = received(*more)
    sound.stalls.over.append((11.75, 14.75))
    assert sound.missing(9.0).seconds == pytest.approx(missing, abs=0.3)


@pytest.mark.parametrize(("seconds", "missed"), [(2.7, 0.0), (3.9, 3.9)])
def test_a_few_packets_are_missing_of_one_that_talks_on_too(
    seconds: float, missed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = call_with_agent(talked=10)
    continuity = Continuity(call, Habit())
    monkeypatch.setattr(call.received, "missing", lambda since: Missing(seconds, since))
    assert continuity.steady
    assert continuity.missed().seconds == missed


def test_a_rate_of_packets_is_that_of_both_tracks() -> None:
    sound = Received()
    for look in range(41):
        for track, later in (("voice", 0.0), ("music", 0.001)):
            sound.add(Sample(look / 4 + later, round(look * 12.5), 0, 0), track)
    sound.stalls.over.append((10.25, 15.0))
    for track in ("voice", "music"):
        sound.add(Sample(16.0, 800, 0, 0), track)
    assert sound.missing(9.0).seconds == pytest.approx(0.0, abs=0.3)


def test_the_pauses_of_speech_before_and_after_a_stall_are_no_single_one() -> None:
    # It pauses for 0.8 s before the caller stands still, and for 1 s after that; of 4 s in between it talks for 3.4.
    sound = received(
        (10.25, 12), (10.5, 13), (10.75, 13), (11.0, 14), (14.0, 150), (15.0, 185), (15.5, 186), (16.0, 187), (16.5, 212)
    )
    sound.stalls.over.append((11.25, 14.0))
    assert sound.missing(9.0).seconds == pytest.approx(1.7, abs=0.2)


@pytest.mark.parametrize("quiet", [0.0, 4.0], ids=["no packets", "DTX"])
def test_a_pause_of_both_tracks_counts_whole_whatever_they_send_in_it(quiet: float) -> None:
    sound = Received()
    # Silent from 10 s to 14.75 s, of which the caller does not see 3 s.
    for at in [*(look / 4 for look in range(46)), 14.5, 15.5, 15.75, 16.0]:
        paused = min(max(at - 10.0, 0.0), 4.75)
        packets = round(50 * (at - paused) + quiet * paused)
        for track, later in (("voice", 0.0), ("music", 0.001)):
            sound.add(Sample(at + later, packets, 0, 0), track)
    sound.stalls.over.append((11.5, 14.5))
    assert sound.missing(9.0).seconds == pytest.approx(4.4, abs=0.4)


def test_stalls_without_time_to_catch_up_between_them_are_one() -> None:
    sound = received((13.0, 5), (13.5, 20), (17.0, 30), (18.0, 400))
    sound.stalls.over += [(10.25, 13.0), (13.75, 17.0)]
    assert sound.stalls.apart(0.0) == [(10.25, 17.0)]
    assert sound.missing(9.0).seconds == pytest.approx(0.0, abs=0.3)


def test_a_machine_is_too_busy_when_others_use_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (1.0, 1.0, 1.0))
    before = Reading(0.0, 0.0, 0.0)
    assert "others than the worker used 1.9 of 2 cores" in str(too_busy(before, Reading(10.0, 19.5, 0.5)))
    assert too_busy(before, Reading(40.0, 5.0, 0.5, 29.6)) == "this run did not get the CPU for 30 s"
    assert too_busy(before, Reading(40.0, 5.0, 0.5, 3.9)) is None, "a tenth of the wait"
    assert too_busy(before, Reading(10.0, 19.5, 15.0)) is None, "it used the cores itself"
    assert too_busy(before, Reading(10.0, 12.0, 0.5)) is None, "there was a core for it"
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 1.0, 1.0))
    assert "load 9.0 on 2 cores" in str(too_busy())


def test_a_worker_may_refuse_for_what_others_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before = Reading(0.0, 0.0, 0.0)
    busy = Reading(10.0, 15.0, 0.5)  # 1.5 cores, nearly all of it others'
    assert "a load of 0.76, and others used 1.4 of 2 cores" in str(filled_by_others(0.76, before, busy))
    assert filled_by_others(0.1, before, busy) is None, "nobody refuses for so little"
    assert filled_by_others(1.0, before, Reading(10.0, 15.0, 8.0)) is None, "most of it is its own"
    assert filled_by_others(1.0, before, Reading(10.0, 3.0, 0.5)) is None, "the machine is idle"
    assert filled_by_others(1.0, before, before) is None


def test_a_worker_may_refuse_for_what_others_used_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before = Reading(0.0, 0.0, 0.0)
    now = Reading(10.0, 1.0, 0.5, average=1.7)  # idle by now
    assert "a load of 0.80, and the machine's load average is 1.7 on 2" in str(filled_by_the_past(0.8, before, now))
    assert "average is 3.4" in str(filled_by_the_past(1.0, before, Reading(10.0, 1.0, 0.5, average=3.4))), "no load is above 1"
    assert filled_by_the_past(1.0, before, now) is None, "it is not the average"
    assert filled_by_the_past(0.3, before, Reading(10.0, 1.0, 0.5, average=0.6)) is None, "nobody refuses for so little"
    assert filled_by_the_past(0.8, before, Reading(10.0, 12.0, 9.0, average=1.7)) is None, "most of it is its own"
    assert filled_by_the_past(0.8, now, now) is None


def test_how_busy_the_machine_was_meanwhile() -> None:
    readings = [Reading(float(at), busy) for at, busy in enumerate((0.0, 2.0, 4.0, 4.5, 5.0))]
    assert cores_between(readings, 0.2, 1.8) == 2.0
    assert cores_between(readings, 2.5, 2.6) == 0.5
    assert cores_between(readings, -5, 99) == 1.25
    assert cores_between(readings[:1], 0, 1) == 0.0


def test_a_load_that_is_not_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    history = History()
    now = time.monotonic()
    # A core is in use all the time, and both for the last half minute.
    history._readings = [Reading(now - ago, 100 - ago - min(ago, 30)) for ago in range(90, -1, -1)]
    assert history.belies(0.1, now)
    assert not history.belies(0.4, now), "an average over a minute may be so low"
    assert not history.belies(0.1, now - 40), "nobody knows what was a minute before"
    assert history.had_no_time(now - 10, now)
    assert not history.had_no_time(now - 60, now - 50)


def test_a_load_that_is_not_the_kernels_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    history = History()
    # It falls from 4 to 0.2 in half a minute.
    history._readings = [Reading(float(at), 0.0, average=max(4 - at * 0.2, 0.2)) for at in range(31)]
    assert history.belies_average(0.1, 12.0)
    assert not history.belies_average(0.75, 12.0)
    assert not history.belies_average(0.1, 25.0), "it was as low a few seconds before"
    assert not history.belies_average(1.0, 25.0), "a worker may share it among fewer cores"
    assert not history.belies_average(0.0, 99.0)
    assert history.is_average(0.95, 15.0), "half of it for each of two cores, some seconds before"
    assert not history.is_average(0.1, 30.0), "all of a machine at rest are"
    assert not history.is_average(0.95, 22.0)
    assert history.average_rose(5.0, 15.0) == -1.0


def test_a_run_that_stood_still_is_noticed() -> None:
    seen = Stillness()
    assert seen.seconds(1000.0) == 0.0, "nobody looks yet"
    seen.looked(1000.0, 0.5)
    seen.looked(1000.9, 0.5)
    assert seen.seconds(1001.0) == 0.0, "a look that is a little late is no pause"
    assert seen.seconds(1021.4) == pytest.approx(20.0), "before anybody looks again"
    seen.looked(1021.4, 0.5)
    assert seen.seconds(1021.5) == pytest.approx(20.0)
    seen.ended(1021.9)
    assert seen.seconds(2000.0) == pytest.approx(20.0)


def test_when_a_run_stood_still_is_known() -> None:
    history = History()
    history._readings = [Reading(float(at), 0.0, still=20.0 if at >= 30 else 0.0) for at in (0, 5, 10, 30, 35, 40)]
    assert history.stood_still(5.0, 10.0) == 0.0
    assert history.stood_still(8.0, 33.0) == 20.0
    assert history.had_no_time(8.0, 33.0)
    assert not history.had_no_time(30.0, 40.0)
