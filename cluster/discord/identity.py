"""A bot's name and picture: what they are to be, whether they are, and setting them.

Discord stores pictures in a form of its own, so what was set is remembered beside the agent's state: the picture's
hash and the one that Discord answered. Whoever changes it elsewhere changes Discord's, and it shows.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import discord
import msgspec

from cluster.discord.bot import Bot
from runtime.home import Home, shipped_instances, write_atomic

PICTURE = "avatar.png"
RECORD = "discord-identity.json"
SHORTEST, LONGEST = 2, 32
"""Of a name, in characters. Source: Discord's documentation, "Usernames and Nicknames"."""
FORBIDDEN_PARTS, FORBIDDEN_NAMES = ("@", "#", ":", "```", "discord"), ("everyone", "here")
"""Source: the same page."""
_KINDS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8")

PictureState = Literal["ok", "differs", "none", "unknown"]


class Record(msgspec.Struct, kw_only=True):
    """What `atomizer discord identity` set last."""

    bot_id: str
    avatar: str
    """Discord's hash of the picture it then showed."""
    picture: str
    """SHA-256 of the file."""


def picture_of(home: Home, agent: str) -> bytes | None:
    """The agent's own `avatar.png` in its instance folder, else the shipped one, else None."""
    for path in (home.instance(agent) / PICTURE, shipped_instances() / agent / PICTURE):
        if path.is_file():
            return path.read_bytes()
    return None


def picture_state(home: Home, agent: str, user: discord.ClientUser) -> PictureState:
    """`ok` (also if none is wanted), `differs`, `none`, or `unknown`: one that was not set from here."""
    wanted = picture_of(home, agent)
    if wanted is None:
        return "ok"
    if user.avatar is None:
        return "none"
    known = _recall(home, agent)
    if known is None or known.bot_id != str(user.id):
        return "unknown"
    same = known.avatar == user.avatar.key and known.picture == _digest(wanted)
    return "ok" if same else "differs"


def bad_name(name: str) -> str:
    """Why Discord would not take it; empty if it may."""
    low = name.lower()
    if not SHORTEST <= len(name) <= LONGEST:
        return f"{name!r} has {len(name)} characters, and Discord takes {SHORTEST} to {LONGEST}"
    if low in FORBIDDEN_NAMES:
        return f"Discord takes nobody called {name!r}"
    part = next((part for part in FORBIDDEN_PARTS if part in low), None)
    return f"{name!r} contains {part!r}, and Discord takes no name that does" if part else ""


async def set_name(bot: Bot, name: str) -> str:
    """Sets it; the reason in words if Discord refuses. Raises what `explain` understands."""
    return await _edit(bot, username=name)


async def set_picture(bot: Bot, home: Home, agent: str) -> str:
    """Sets and remembers it; the reason in words if it cannot be. Raises what `explain` understands, and OSError."""
    picture = picture_of(home, agent)
    if picture is None or not picture.startswith(_KINDS):
        return f"{home.instance(agent) / PICTURE} is no PNG, JPEG or GIF"
    if reason := await _edit(bot, avatar=picture):
        return reason
    user = bot.me
    record = Record(bot_id=str(user.id), avatar=user.avatar.key if user.avatar else "", picture=_digest(picture))
    write_atomic(home.instance(agent) / RECORD, msgspec.json.encode(record))
    return ""


async def _edit(bot: Bot, **what: Any) -> str:
    try:
        user = await bot.me.edit(**what)
    except discord.RateLimited as error:
        return f"Discord asks to wait {_span(error.retry_after)} before another change; run this again then"
    except discord.HTTPException as error:
        if error.status != 400:
            raise
        return _refusal(error)
    bot.take(user)
    return ""


def _refusal(error: discord.HTTPException) -> str:
    """Why a change of the profile was not taken, by Discord's own words for it."""
    said = error.text.lower()
    if "too fast" in said:
        which = "name can be changed twice" if "username" in said else "picture can be changed a few times"
        return f"a bot's {which} an hour, and that is used up; run this again in an hour"
    if "too many users" in said:
        return "too many users of Discord have this name: choose another, [agent] title in its instance.toml"
    return f"Discord answered 400: {' '.join(error.text.split())[:200]}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _recall(home: Home, agent: str) -> Record | None:
    """None if nothing was set from here; a damaged record counts as none."""
    try:
        return msgspec.json.decode((home.instance(agent) / RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _digest(picture: bytes) -> str:
    return hashlib.sha256(picture).hexdigest()
