"""What the users' own backend asks of the server."""

from __future__ import annotations

import asyncio

from pytest_lkagents.checks import StageError
from pytest_lkagents.server.base import Server

ANSWER_SECONDS = 10


def delete_room(server: Server, room: str) -> None:
    """End a room for all who are in it, as backends hang up (https://docs.livekit.io/home/server/managing-rooms). Raises
    StageError if the server does not do it."""
    try:
        asyncio.run(asyncio.wait_for(_delete_room(server, room), ANSWER_SECONDS))
    except asyncio.TimeoutError as error:
        raise StageError(f"the server did not delete a room within {ANSWER_SECONDS} s") from error


async def _delete_room(server: Server, room: str) -> None:
    import aiohttp
    from livekit import api

    async with api.LiveKitAPI(server.api_url, server.api_key, server.api_secret) as client:
        try:
            await client.room.delete_room(api.DeleteRoomRequest(room=room))
        except (api.TwirpError, aiohttp.ClientError) as error:
            raise StageError(f"the server did not delete a room: {error}") from error
