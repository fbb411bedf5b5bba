"""Where an answer goes: from what a run was asked, its session's route and the agent's home channel, to one target.

A target is parsed here, once, and is typed from then on (`provider:kind:id`). A bare id is never taken for a user: an
earlier system let the heartbeat store one over a typed route, and could deliver nothing after that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import msgspec

from gateway.ledger.records import RunOptions
from protocols.targets import KINDS, Target, TargetError, parse_target

LAST = "last"
"""As `channel` or as a heartbeat's target: where a person last wrote from."""


def is_target(text: str) -> bool:
    """Is it typed already?"""
    try:
        parse_target(text)
    except TargetError:
        return False
    return True


class Destination(msgspec.Struct, frozen=True):
    """Where to, or why nowhere."""

    state: Literal["pending", "skipped", "dead"]
    """As an effect's: `pending` goes out, `skipped` had nowhere to go, `dead` named a place that there is not."""
    target: str | None = None
    detail: str = ""


class Router:
    """Finds the way of each answer. Channels plug in by being named in `connected`."""

    def __init__(
        self,
        *,
        session_route: Callable[[str], str | None],
        main_session: str,
        home: Callable[[], str | None],
        connected: Callable[[], Collection[str]],
    ) -> None:
        """`connected()`: the providers that can carry a message now; `home()`: the agent's home channel, a target."""
        self._session_route = session_route
        self._main = main_session
        self._home = home
        self._connected = connected

    def destination(self, options: RunOptions, session_key: str) -> Destination:
        """Of a run's answer: `to`, else `channel`, else its session's route, else the agent's home channel."""
        if not options.deliver:
            return Destination("skipped", detail="not asked for")
        if options.to is not None:
            return self._deliver(options.to)
        match options.channel:
            case None:
                return self._usual(session_key)
            case "last":
                return self._usual(session_key) if self._session_route(session_key) else self._usual(self._main)
            case provider if provider in KINDS:
                return self._usual(session_key, provider)
            case id:
                return self._by_id(id)

    def beat_target(self, configured: str | None) -> tuple[str | None, str]:
        """(where an alert goes, why it cannot go there) for `[heartbeat] target`; neither if none is set.

        `last` is resolved now, to the typed target from which a person last wrote to the main session.
        """
        if configured is None:
            return None, ""
        target = self._session_route(self._main) if configured == LAST else configured
        if target is None:
            return None, 'nobody has written yet ([heartbeat] target = "last")'
        found = self._deliver(target)
        return target, "" if found.state == "pending" else found.detail

    def _usual(self, session_key: str, provider: str | None = None) -> Destination:
        """The session's route, else the home channel; of `provider`, if one is named."""
        for text in (self._session_route(session_key), self._home()):
            if text is not None and (provider is None or text.startswith(f"{provider}:")):
                found = self._deliver(text)
                return found if found.state == "pending" else Destination("skipped", text, found.detail)
        return Destination("skipped", detail="no channel")

    def _deliver(self, text: str) -> Destination:
        try:
            target = parse_target(text)
        except TargetError as error:
            return Destination("dead", text, f"cannot be resolved: {error}")
        if target.provider not in self._connected():
            return Destination("dead", text, f"no {target.provider} channel is connected to this agent")
        return Destination("pending", str(target))

    def _by_id(self, id: str) -> Destination:
        """A bare id, of whichever connected provider has such ids; the outbox asks the provider whose it is, once."""
        connected = self._connected()
        if not connected:
            return Destination("dead", id, f"channel {id!r} cannot be resolved: no channel is connected")
        found = [target for provider in sorted(connected) if (target := _channel(provider, id)) is not None]
        if len(found) != 1:
            return Destination("dead", id, f"channel {id!r} cannot be resolved: write provider:kind:id into `to`")
        return Destination("pending", id)


def _channel(provider: str, id: str) -> Target | None:
    try:
        return parse_target(f"{provider}:channel:{id}")
    except TargetError:
        return None
