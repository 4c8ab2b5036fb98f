"""What a caller asks for when it enters a room."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_lkagents.checks import StageError
from pytest_lkagents.server.base import Server


@dataclass(frozen=True)
class CallRequest:
    """``agent_name``: whom to dispatch explicitly, empty for whoever joins every room; ``metadata``: what its job is told;
    ``attributes``: what the caller says of itself; with ``sip.`` ones it comes by telephone; ``deployment``: which one of the
    agents of this name, empty for those that register without."""

    agent_name: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    deployment: str = ""


# Only LiveKit's SIP service sets these, on participants of kind SIP (https://docs.livekit.io/sip/sip-participant/): agents
# that serve telephone calls wait for such a caller.
BY_TELEPHONE = "sip."

ANY_AGENT = CallRequest()


def token(server: Server, room: str, request: CallRequest) -> str:
    """A new caller's token for this room. Raises StageError for a deployment that the installed protocol does not know of."""
    from livekit import api

    made = (
        api.AccessToken(server.api_key, server.api_secret)
        .with_identity(f"caller-{uuid.uuid4().hex[:8]}")
        .with_grants(api.VideoGrants(room_join=True, room=room))
    )
    if request.attributes:
        made = made.with_attributes(dict(request.attributes))
    if any(name.startswith(BY_TELEPHONE) for name in request.attributes):
        made = made.with_kind("sip")
    if request.agent_name or request.metadata or request.deployment:
        # It counts only in the token that creates the room, which this one does. With an empty name it stands for the
        # dispatch that every room gets.
        dispatch = api.RoomAgentDispatch(agent_name=request.agent_name, metadata=request.metadata)
        if request.deployment:
            if "deployment" not in dispatch.DESCRIPTOR.fields_by_name:
                raise StageError(
                    f"the worker registers in deployment {request.deployment!r}, which the installed livekit-protocol cannot "
                    "name: pip install --upgrade livekit-protocol"
                )
            dispatch.deployment = request.deployment
        made = made.with_room_config(api.RoomConfiguration(agents=[dispatch]))
    return made.to_jwt()
