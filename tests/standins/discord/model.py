"""What a Discord is made of. Ids are snowflakes as decimal strings, times are Unix seconds of the stand-in's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

DISCORD_EPOCH_MS = 1420070400000
TEXT, DM, VOICE, CATEGORY, ANNOUNCEMENT = 0, 1, 2, 4, 5
PUBLIC_THREAD, PRIVATE_THREAD = 11, 12
THREADS = (10, PUBLIC_THREAD, PRIVATE_THREAD)
EPHEMERAL, LOADING, HAS_THREAD = 1 << 6, 1 << 7, 1 << 5
MESSAGE_CONTENT = 1 << 18
MESSAGE_CONTENT_LIMITED = 1 << 19


class Clock:
    """Real time plus what a test has added to it."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


class Refused(Exception):
    """An answer of the REST API that is not a success: HTTP status, Discord's error code, its words."""

    def __init__(self, status: int, code: int, message: str, errors: dict[str, Any] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.errors = errors

    @property
    def body(self) -> dict[str, Any]:
        return {"message": self.message, "code": self.code} | ({"errors": self.errors} if self.errors else {})


def invalid(where: str, code: str, message: str) -> Refused:
    """400 50035, with the field at fault, such as `content`."""
    return Refused(400, 50035, "Invalid Form Body", {where: {"_errors": [{"code": code, "message": message}]}})


@dataclass
class User:
    id: str
    username: str
    bot: bool = False
    global_name: str | None = None
    avatar: str | None = None
    dms_open: bool = True
    """False: a bot's message to this person is refused with 50007."""


@dataclass
class Role:
    id: str
    name: str
    permissions: int
    position: int = 0


@dataclass
class Member:
    user_id: str
    joined_at: float
    roles: list[str] = field(default_factory=list)
    nick: str | None = None


@dataclass
class Overwrite:
    """Of a role (type 0) or a member (type 1)."""

    id: str
    type: int
    allow: int = 0
    deny: int = 0


@dataclass
class Channel:
    id: str
    type: int
    name: str = ""
    guild_id: str | None = None
    parent_id: str | None = None
    position: int = 0
    topic: str | None = None
    overwrites: dict[str, Overwrite] = field(default_factory=dict)
    recipients: list[str] = field(default_factory=list)
    owner_id: str | None = None
    archived: bool = False
    locked: bool = False
    auto_archive_duration: int = 1440
    archive_changed: float = 0.0
    thread_members: dict[str, float] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    """All of them, the deleted too, oldest first."""

    def live(self) -> list[Message]:
        """What the history shows: not the deleted, not the ephemeral."""
        return [m for m in self.messages.values() if m.deleted is None and not m.flags & EPHEMERAL]


@dataclass
class Guild:
    id: str
    name: str
    owner_id: str
    roles: dict[str, Role] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    """Threads too."""


@dataclass
class Attachment:
    id: str
    channel_id: str
    filename: str
    content_type: str
    data: bytes
    description: str | None = None


@dataclass
class Message:
    id: str
    channel_id: str
    author_id: str
    content: str
    time: float
    type: int = 0
    flags: int = 0
    nonce: str | None = None
    tts: bool = False
    edited: float | None = None
    deleted: float | None = None
    attachments: list[Attachment] = field(default_factory=list)
    embeds: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)
    reference: dict[str, Any] | None = None
    mentions: list[str] = field(default_factory=list)
    mention_roles: list[str] = field(default_factory=list)
    mention_everyone: bool = False
    reactions: dict[str, list[str]] = field(default_factory=dict)
    """Emoji -> who, in the order they came."""
    edits: list[tuple[float, str]] = field(default_factory=list)
    """When, and the content from then on."""
    interaction: dict[str, Any] | None = None
    webhook_id: str | None = None
    allowed_mentions: dict[str, Any] | None = None


@dataclass
class Application:
    """One bot: its token, its user and what the portal allows it."""

    id: str
    name: str
    token: str
    user_id: str
    owner_id: str
    flags: int = MESSAGE_CONTENT_LIMITED
    revoked: bool = False
    commands: dict[str | None, list[dict[str, Any]]] = field(default_factory=dict)
    """By guild id; None holds the global ones."""
    identifies: int = 0
    resumes: int = 0
    presences: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Interaction:
    id: str
    type: int
    token: str
    application_id: str
    channel_id: str
    user_id: str
    time: float
    data: dict[str, Any]
    message_id: str | None = None
    callback: int | None = None
    """The type of the answer, once there is one."""
    response_id: str | None = None
    modal: dict[str, Any] | None = None
    followups: list[str] = field(default_factory=list)
