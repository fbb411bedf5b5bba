"""One bot, asked over REST: never connected, so no gateway of it is disturbed and no IDENTIFY spent (1000 a day).

Importing this imports discord.py.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import aiohttp
import discord

from cluster.discord.report import Finding
from protocols.errors import AtomizerError

PORTAL = "https://discord.com/developers/applications"
MOST_REQUESTS = 20
"""For one agent in one command."""
SECONDS = 30.0
"""The same."""
_HIDDEN = frozenset({500, 502, 504, 524})
"""The library repeats these by itself, for half a minute."""


class Trouble(AtomizerError):
    """Asking went no further."""

    def __init__(self, code: str, text: str, mend: str) -> None:
        super().__init__(f"{text}; {mend}")
        self.finding = Finding("problem", code, text, mend)


class _Broke(Exception):
    """An answer 5xx."""


class _TooMany(Exception):
    """MOST_REQUESTS were made."""


class Bot(discord.Client):
    """`async with Bot(...) as bot: await bot.login(token)`. Raises what `explain` understands."""

    def __init__(self, api_base: str) -> None:
        # The library has one address for all its clients; a cluster has one too.
        discord.http.Route.BASE = api_base.rstrip("/")
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        logging.getLogger("discord").setLevel(logging.CRITICAL)
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._count)
        trace.on_request_end.append(_look)
        super().__init__(intents=discord.Intents.none(), http_trace=trace, max_ratelimit_timeout=30.0)
        self.requests = 0
        self._changed: discord.ClientUser | None = None

    async def _count(self, session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
        if self.requests >= MOST_REQUESTS:
            raise _TooMany
        self.requests += 1

    @property
    def me(self) -> discord.ClientUser:
        """After the login. The library keeps a change of its own profile only while it is connected."""
        assert self.user is not None
        return self._changed or self.user

    def take(self, changed: discord.ClientUser) -> None:
        """What a change of the profile answered."""
        self._changed = changed

    @property
    def app(self) -> discord.AppInfo:
        """After the login."""
        assert self.application is not None
        return self.application

    def invite(self, permissions: list[str], guild: str | None) -> str:
        """The link that adds it to a server with these permissions, and no others."""
        return discord.utils.oauth_url(
            self.app.id,
            permissions=discord.Permissions(**dict.fromkeys(permissions, True)),
            guild=discord.Object(int(guild)) if guild else discord.utils.MISSING,
            scopes=("bot", "applications.commands"),
        )


async def _look(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
) -> None:
    if params.response.status in _HIDDEN:
        params.response.close()
        raise _Broke(params.response.status)


def explain(error: Exception, agent: str) -> Trouble:
    """What an error of the library or the wire means; raises `error` itself where it is a fault of ours."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, discord.LoginFailure):
        return Trouble(
            "token_refused",
            "Discord does not know its token (401)",
            f"take a new one at {PORTAL} (Bot, Reset Token), then: atomizer secrets set {agent} discord",
        )
    if isinstance(error, _TooMany):
        return Trouble("too_many", f"stopped after {MOST_REQUESTS} requests", "name fewer channels and servers for it")
    if isinstance(error, discord.RateLimited):
        return Trouble(
            "rate_limited", "Discord asks to wait (429)", f"try again in {error.retry_after:.0f} s, and not before"
        )
    if isinstance(error, discord.HTTPException) and error.status == 429:
        return Trouble(
            "rate_limited", "Discord refuses requests from this host (429)", "try again in an hour, and not before"
        )
    if isinstance(error, discord.HTTPException) and error.status < 500:
        said = " ".join(error.text.split())[:120]
        return Trouble("refused", f"Discord answered {error.status}: {said}", "see what it says, then try again")
    if isinstance(error, (discord.DiscordServerError, _Broke)):
        status = error.status if isinstance(error, discord.DiscordServerError) else error
        return Trouble("discord_down", f"Discord answered {status}", "see https://discordstatus.com, then try again")
    if isinstance(error, (aiohttp.ClientError, OSError)):
        words = "no answer in time" if isinstance(error, TimeoutError) else " ".join(str(error).split())[:120]
        return Trouble(
            "unreachable",
            f"Discord cannot be reached at {discord.http.Route.BASE} ({words})",
            "look at this host's network",
        )
    if isinstance(error, (KeyError, TypeError, ValueError, AttributeError, discord.DiscordException)):
        return Trouble(
            "malformed",
            f"{discord.http.Route.BASE} does not answer as Discord does ({type(error).__name__}: {error})",
            "is [discord] api_base right?",
        )
    raise error
