"""What is sent to an agent: `POST /hooks/agent` and `POST /hooks/wake`, and what comes back."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Thinking = Literal["off", "low", "medium", "high"]
WakeMode = Literal["now", "next-heartbeat"]

MAX_BODY_BYTES = 256 * 1024
"""A larger body gets 413."""
MAX_DEPTH = 5
"""A delegation may pass through at most this many agents."""

NonEmpty = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\S")]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
RunId = Annotated[str, msgspec.Meta(pattern=r"^run-[0-9a-z]{4,40}$(?!\n)")]  # Python's `$` alone lets a newline pass


class Wire(msgspec.Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=False, kw_only=True):
    """Base of everything strict on the wire: camelCase names, unknown fields refused."""


class AgentHook(Wire):
    """A piece of work for the agent. Body of `POST /hooks/agent`."""

    message: NonEmpty
    """What to do, in plain words."""
    name: Annotated[str, msgspec.Meta(max_length=80)] = "Hook"
    """Who or what sends it, for people to read; not an identity (the token is)."""
    agent_id: str | None = None
    """If given it must be this agent's own name; another's gets 400."""
    session_key: Key | None = None
    """The conversation to continue; a fresh `hook:<uuid>` if absent."""
    wake_mode: WakeMode = "now"
    """`next-heartbeat` leaves the run queued until the next beat."""
    deliver: bool = True
    """Send the answer to the target as well."""
    channel: str | None = None
    """`discord`, `slack`, `last`, or a channel's id."""
    to: str | None = None
    """A target, `provider:kind:id`; wins over `channel`."""
    model: str | None = None
    """A model for this run only (operator only)."""
    thinking: Thinking | None = None
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=86400)] | None = None
    """Seconds the run may take once started."""
    idempotency_key: Key | None = None
    """A repeat with the same key and caller returns the first run, for as long as the run is kept."""
    parent_run_id: RunId | None = None
    depth: Annotated[int, msgspec.Meta(ge=0, le=MAX_DEPTH)] = 0
    deadline: float | None = None
    """Unix seconds after which the run is cancelled, whatever its state."""


class AgentAccepted(Wire):
    """202: the run is on disk."""

    ok: bool
    run_id: str
    status: str
    status_url: str


class WakeHook(Wire):
    """Body of `POST /hooks/wake`: a note for the agent's next, or an immediate, heartbeat."""

    text: NonEmpty
    mode: WakeMode = "now"


class WakeAccepted(Wire):
    ok: bool
    mode: WakeMode
    outcome: str


REQUEST_HEAD = "Request for a delegation"
"""The message of a run that decides on one begins so."""


class DelegationRequest(Wire):
    """Body of `POST /hooks/request`: an agent without authority asks one that has it to delegate."""

    agent: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    """Who should do it."""
    task: NonEmpty
    reason: NonEmpty
    idempotency_key: Key | None = None
    parent_run_id: RunId | None = None
    depth: Annotated[int, msgspec.Meta(ge=0, le=MAX_DEPTH)] = 0
    deadline: float | None = None


class ChildReport(Wire):
    """Body of `POST /hooks/report`: a delegated run tells its delegator how it ended. Repeats are harmless."""

    run_id: RunId
    parent_run_id: RunId
    state: str
    text: str = ""
    error: str | None = None
