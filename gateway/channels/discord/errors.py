"""What the library and the wire raise, as the errors of the channel port; and what became of each request.

Whether a failed request may have been carried out is known by where it failed: before it went out nothing was done,
after that it may have been. The library does not say, so a trace on its HTTP session keeps a record for each call.
"""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Literal

import aiohttp
import discord

from gateway.channels.channel import ChannelError, NotConnected, Refusal, Uncertain, Unreachable
from gateway.channels.discord.supervision import Brake

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What the library raises on an answer that is not as it expects."""

Reason = Literal["no_access", "direct_refused", "unknown_target", "unknown_message", "too_old", "other"]

_REASONS: dict[int, Reason] = {
    10003: "unknown_target",  # unknown channel
    10004: "unknown_target",  # unknown guild
    10008: "unknown_message",
    10013: "unknown_target",  # unknown user
    30046: "too_old",  # too many edits of a message older than an hour
    50001: "no_access",
    50007: "direct_refused",
    50013: "no_access",
    50033: "unknown_target",  # invalid recipient
}
_HIDDEN = frozenset({500, 502, 504, 524})
"""The library repeats these by itself, up to five times in 25 seconds; see `trace`."""


class ServerBroke(Exception):
    """An answer 5xx that the library would have hidden."""

    def __init__(self, status: int) -> None:
        super().__init__(f"Discord answered {status}")
        self.status = status


class Flight:
    """One call's requests. `open`: one went out and has not been answered so that we know it was not carried out."""

    def __init__(self) -> None:
        self.open = False


_flight: contextvars.ContextVar[Flight | None] = contextvars.ContextVar("flight", default=None)


def trace(brake: Brake) -> aiohttp.TraceConfig:
    """Notes what became of each request, and ends the library's own retries of 5xx: one part retries, the outbox.

    While `brake` holds, no request is made; the gateway's handshake is none.
    """

    async def begins(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        if params.url.scheme not in ("ws", "wss"):
            brake.check()

    async def ended(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        if params.response.headers.get("X-RateLimit-Scope") != "shared":  # Discord counts those not either
            brake.answered(params.response.status)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begins)
    config.on_request_end.append(ended)
    config.on_request_headers_sent.append(_went_out)
    config.on_request_end.append(_answered)
    return config


async def _went_out(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    if (flight := _flight.get()) is not None:
        flight.open = True


async def _answered(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
) -> None:
    status = params.response.status
    if (flight := _flight.get()) is not None and (400 <= status < 500 or status == 503):
        flight.open = False
    if status in _HIDDEN:
        params.response.close()
        raise ServerBroke(status)


class Asking:
    """`async with Asking("sending", seconds=15):` lets out ChannelErrors only.

    `once`: doing it twice would show, so an outcome that is not known is Uncertain; otherwise it is Unreachable.
    """

    def __init__(self, what: str, seconds: float, *, once: bool = False) -> None:
        self._what = what
        self._once = once
        self._limit = asyncio.timeout(seconds)
        self._flight = Flight()

    async def __aenter__(self) -> None:
        self._token = _flight.set(self._flight)
        await self._limit.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        _flight.reset(self._token)
        try:
            await self._limit.__aexit__(kind, error, at)  # type: ignore[arg-type]
        except TimeoutError as timeout:
            error = timeout
        if isinstance(error, Exception) and not isinstance(error, ChannelError):
            raise translated(error, self._what, maybe_done=self._once and self._flight.open) from error


def translated(error: Exception, what: str, *, maybe_done: bool) -> ChannelError:
    """The port's error for one of the library's or the wire's; `error` itself if it is none of these: a fault of ours.

    `what`: what was tried, as in "sending". `maybe_done`: a request is out that would show if made again.
    """
    if isinstance(error, discord.RateLimited):
        return Unreachable(f"{what}: Discord's rate limit", retry_after=error.retry_after)
    if isinstance(error, discord.HTTPException):
        return _by_status(error, what, maybe_done)
    if isinstance(error, RuntimeError) and "closed" in str(error).lower():
        return NotConnected(f"{what}: the connection to Discord was closed")
    if isinstance(error, TimeoutError):
        words = "no answer from Discord in time"
    elif isinstance(error, MALFORMED):
        words = f"Discord's answer is malformed ({type(error).__name__}: {error})"
    elif isinstance(error, (ServerBroke, aiohttp.ClientError, OSError, discord.DiscordException)):
        words = say(error)
    else:
        raise error
    return Uncertain(f"{what}: {words}; it may have been done") if maybe_done else Unreachable(f"{what}: {words}")


def _by_status(error: discord.HTTPException, what: str, maybe_done: bool) -> ChannelError:
    status, words = error.status, f"{what}: {say(error)}"
    if status == 429:
        return Unreachable(words, retry_after=retry_after(error))
    if status >= 500:
        return Uncertain(f"{words}; it may have been done") if maybe_done and status != 503 else Unreachable(words)
    if status == 401:
        return NotConnected(f"{words}: the token is not valid any more")
    if status in (403, 404) and not answered_by_discord(error):
        return Unreachable(f"{words}; something between here and Discord answered")
    return Refusal(_REASONS.get(error.code, "no_access" if status == 403 else "other"), words)


def answered_by_discord(error: discord.HTTPException) -> bool:
    """Discord's own errors are JSON; those of a proxy or of Cloudflare are pages."""
    headers = getattr(error.response, "headers", {})
    return str(headers.get("Content-Type", "")).startswith("application/json")


def retry_after(error: discord.HTTPException) -> float | None:
    """Seconds that a 429 asks for."""
    try:
        return max(0.0, float(error.response.headers["Retry-After"]))
    except (KeyError, ValueError, AttributeError):
        return None


def say(error: BaseException) -> str:
    """One line about an error of the library or the wire."""
    if isinstance(error, discord.HTTPException):
        text = " ".join(error.text.split())[:200] if answered_by_discord(error) else ""
        code = f", {error.code}" if error.code else ""
        return f"Discord answered {error.status}{code}" + (f" ({text})" if text else "")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    words = " ".join(str(error).split())[:200]
    return words if isinstance(error, ServerBroke) else f"{type(error).__name__}: {words}".removesuffix(": ")
