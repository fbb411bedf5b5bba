"""How facts are written for a person: ages, sizes, money, and each state as a word with its glyph. Pure."""

from __future__ import annotations

import time

from protocols.runs import RunState

Segments = tuple[tuple[str, str], ...]
"""One line: (text, style name) pairs; the names are those of `console.widgets.palette`."""

STATE_STYLES = {
    "up": "ok",
    "busy": "busy",
    "late": "warn",
    "down": "bad",
    "stale": "dim",
    "paused": "warn",
    "degraded": "warn",
    "draining": "warn",
    "starting": "busy",
    "denied": "bad",
    "stopped": "dim",
    "off": "dim",
}

CHANNEL_GLYPHS = {
    "ready": "+",
    "connecting": "^",
    "resuming": "^",
    "degraded": "~",
    "auth_failed": "x",
    "intents_refused": "x",
    "off": "-",
}
"""Every state of the connection to a provider of conversations."""
CHANNEL_STYLES = {
    "ready": "ok",
    "connecting": "busy",
    "resuming": "busy",
    "degraded": "warn",
    "auth_failed": "bad",
    "intents_refused": "bad",
    "off": "dim",
}

URGENCY = {
    word: place
    for place, word in enumerate(
        [
            "down",
            "denied",
            "late",
            "degraded",
            "stale",
            "paused",
            "draining",
            "starting",
            "busy",
            "up",
            "stopped",
            "off",
        ]
    )
}
"""Order of `sort: state`: what needs a person first."""

RUN_GLYPHS = {
    RunState.QUEUED: ".",
    RunState.RUNNING: "*",
    RunState.WAITING: "=",
    RunState.SUCCEEDED: "+",
    RunState.FAILED: "x",
    RunState.CANCELLED: "-",
    RunState.LOST: "?",
}
RUN_STYLES = {
    RunState.QUEUED: "dim",
    RunState.RUNNING: "busy",
    RunState.WAITING: "warn",
    RunState.SUCCEEDED: "ok",
    RunState.FAILED: "bad",
    RunState.CANCELLED: "dim",
    RunState.LOST: "bad",
}

LEVELS = ("debug", "info", "warning", "error")


def age(seconds: float) -> str:
    """A coarse age that changes rarely: tens of seconds, then minutes, hours, days."""
    if seconds < 10:
        return "now"
    if seconds < 60:
        return f"{int(seconds // 10) * 10}s"
    return span(seconds, coarse=True)


def span(seconds: float, coarse: bool = False) -> str:
    """A duration: `42s`, `4m10s`, `2h05m`, `3d2h`; `coarse` gives one unit only."""
    total = max(0, int(seconds))
    if total < 60:
        return f"{total}s"
    minutes, sec = divmod(total, 60)
    if minutes < 60:
        return f"{minutes}m" if coarse or not sec else f"{minutes}m{sec:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h" if coarse or not minutes else f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d" if coarse or not hours else f"{days}d{hours}h"


def size(count: int) -> str:
    """Bytes as `52M`."""
    value = float(count)
    for unit in ("B", "K", "M", "G"):
        if value < 1024 or unit == "G":
            return f"{value:.0f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def tokens(count: int) -> str:
    """A count of tokens as `812k`."""
    if count < 1000:
        return str(count)
    if count < 1_000_000:
        return f"{count / 1000:.0f}k" if count >= 10_000 else f"{count / 1000:.1f}k"
    return f"{count / 1_000_000:.1f}M"


def money(usd: float | None) -> str:
    """US dollars; `$?` where the price is unknown."""
    if usd is None:
        return "$?"
    return f"${usd:.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.4f}"


def clock(at: float, seconds: bool = True) -> str:
    """A moment as local time of day."""
    return time.strftime("%H:%M:%S" if seconds else "%H:%M", time.localtime(at))


def moment(at: float, now: float) -> str:
    """A moment as local time, with its day if that is not today."""
    here = time.localtime(at)
    return time.strftime("%H:%M" if here[:3] == time.localtime(now)[:3] else "%b %d %H:%M", here)


def short_model(model: str) -> str:
    """A model's id without its provider, and without `claude-`: what fits in a column."""
    if model.startswith("offline/"):
        return model
    return model.rpartition("/")[2].removeprefix("claude-")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
