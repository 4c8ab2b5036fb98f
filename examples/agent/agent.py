"""A voice agent without any AI service: it listens with Silero VAD and answers with a tone."""

import asyncio
import math
from array import array

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobProcess, cli, vad
from livekit.plugins import silero

RATE = 24000
server = AgentServer(num_idle_processes=1)


def prewarm(process: JobProcess) -> None:
    process.userdata["vad"] = silero.VAD.load()


server.setup_fnc = prewarm


async def listen(detector: vad.VAD, track: rtc.Track) -> None:
    stream = detector.stream()

    async def feed() -> None:
        async for event in rtc.AudioStream(track):
            stream.push_frame(event.frame)
        stream.end_input()

    feeding = asyncio.create_task(feed())
    async for _event in stream:
        pass  # a real agent would transcribe what was said
    await feeding


async def hum(source: rtc.AudioSource) -> None:
    size = RATE // 50
    tone = array("h", (int(8000 * math.sin(2 * math.pi * 450 * n / RATE)) for n in range(size)))
    while True:
        await source.capture_frame(rtc.AudioFrame(tone.tobytes(), RATE, 1, size))


@server.rtc_session()
async def entry(ctx: JobContext) -> None:
    tasks: list[asyncio.Task] = []

    @ctx.room.on("track_subscribed")
    def on_track(track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            tasks.append(asyncio.create_task(listen(ctx.proc.userdata["vad"], track)))

    @ctx.room.on("participant_disconnected")
    def on_leave(_participant: rtc.RemoteParticipant) -> None:
        if not ctx.room.remote_participants:
            ctx.shutdown()

    async def stop() -> None:
        for task in tasks:
            task.cancel()

    ctx.add_shutdown_callback(stop)
    await ctx.connect()
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("tone", source)
    await ctx.room.local_participant.publish_track(track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))
    tasks.append(asyncio.create_task(hum(source)))


# The processes that run jobs import this file again: only the first one may start the worker.
if __name__ == "__main__":
    cli.run_app(server)
