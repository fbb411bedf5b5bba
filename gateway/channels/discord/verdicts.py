"""Why a connection ended, and whether trying again can mend it.

Permanent faults are never tried again quickly: ten thousand refused requests in ten minutes ban the address of the
host, which all its gateways share. Source of the codes: Discord's documentation, "Gateway Close Event Codes".
"""

from __future__ import annotations

import aiohttp
import discord

from gateway.channels.channel import Unreachable
from gateway.channels.discord.client import ContentRefused, Hung, Poisoned
from gateway.channels.discord.errors import MALFORMED, ServerBroke, answered_by_discord, retry_after, say
from gateway.channels.discord.supervision import Verdict

BANNED_SECONDS = 300.0
"""Cloudflare's refusals last from minutes to an hour; asking on prolongs them."""
LOOK_AGAIN_SECONDS = 300.0
"""How often the portal's switches are looked at: two requests, no connection."""

_PORTAL = "https://discord.com/developers/applications"


def verdict(error: BaseException, agent: str) -> Verdict:
    """What to show and do about what ended a connection. What nobody foresaw is tried again, slower and slower."""
    renew = f"take a new token from {_PORTAL} (Bot, Reset Token) and store it: atomizer secrets set {agent} discord"
    switch = f"switch on Message Content Intent at {_PORTAL} (the application, Bot, Privileged Gateway Intents)"
    if isinstance(error, discord.LoginFailure):
        return Verdict("auth_failed", f"Discord does not know the token (401): {renew}", permanent=True)
    if isinstance(error, ContentRefused):
        detail = f"the bot may not read what people write: {switch}; it is looked at again every five minutes"
        return Verdict("intents_refused", detail, wait=LOOK_AGAIN_SECONDS)
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return _closed(4014, renew, switch)
    if isinstance(error, discord.ConnectionClosed):
        return _closed(error.code, renew, switch)
    if isinstance(error, discord.HTTPException):
        return _answered(error)
    if isinstance(error, Unreachable):
        return Verdict("degraded", str(error), wait=error.retry_after)
    if isinstance(error, (Poisoned, Hung)):
        return Verdict("degraded", f"{error}; a new connection is made")
    if isinstance(error, (aiohttp.ClientError, OSError)):
        what = "Discord gave no answer in time" if isinstance(error, TimeoutError) else "Discord cannot be reached"
        return Verdict("degraded", f"{what} ({say(error)}); look at the network of this host")
    if isinstance(error, ServerBroke):
        return Verdict("degraded", f"{error}; see https://discordstatus.com")
    if isinstance(error, (*MALFORMED, discord.DiscordException)):
        return Verdict("degraded", f"Discord's answer at login is not as expected ({type(error).__name__}: {error})")
    return Verdict("degraded", f"the connection failed ({type(error).__name__}: {error}); see the log")


def _closed(code: int | None, renew: str, switch: str) -> Verdict:
    """The close codes after which Discord refuses to go on; the others are resumed."""
    if code == 4004:
        return Verdict("auth_failed", f"Discord takes the token no longer (4004): {renew}", permanent=True)
    if code in (4013, 4014):
        detail = f"Discord refuses the bot's intents ({code}): {switch}, then: atomizer restart"
        return Verdict("intents_refused", detail, permanent=True)
    states: dict[int, str] = {
        4010: "the shard is invalid",
        4011: "the bot is in too many servers for one connection",
        4012: "the API version is not supported: a newer Atomizer is needed",
    }
    if code in states:
        return Verdict("auth_failed", f"Discord refuses the connection ({code}): {states[code]}", permanent=True)
    return Verdict("degraded", f"Discord closed the connection ({code})")


def _answered(error: discord.HTTPException) -> Verdict:
    if error.status == 429 or (error.status == 403 and not answered_by_discord(error)):
        wait = max(retry_after(error) or 0.0, BANNED_SECONDS)
        return Verdict("degraded", f"{say(error)}: this host's address is held back for a while", wait=wait)
    return Verdict("degraded", say(error))
