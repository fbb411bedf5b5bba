"""What a test may do: `@action` marks a method as callable over the control API too, so it takes and gives plain JSON.

Users, bots, channels and guilds are given by id or by name (a channel's with or without `#`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tests.standins.discord.changes import Changes
from tests.standins.discord.faults import GatewayFaults, RestFaults
from tests.standins.discord.gateway import Gateway
from tests.standins.discord.model import Application, Channel, Guild, Message, User
from tests.standins.discord.state import State

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def action(function: F) -> F:
    function.is_action = True  # type: ignore[attr-defined]
    return function


class Actions:
    """What the mixins share: the parts, and finding things by id or name. LookupError says what there is."""

    state: State
    changes: Changes
    gateway: Gateway
    faults: RestFaults
    gateway_faults: GatewayFaults

    def find_user(self, who: str) -> User:
        """A bot also by the name it was added with, whatever it calls itself now."""
        apps = [app.user_id for app in self.state.applications.values() if app.name == who]
        return _find("user", self.state.users, apps[0] if len(apps) == 1 else who, lambda user: user.username)

    def find_bot(self, who: str) -> Application:
        return _find("bot", self.state.applications, who, lambda app: app.name)

    def find_bots(self, who: str | None) -> list[Application]:
        """One, or with None all."""
        return list(self.state.applications.values()) if who is None else [self.find_bot(who)]

    def find_guild(self, which: str | None) -> Guild:
        """With None the first."""
        return _find("guild", self.state.guilds, which or next(iter(self.state.guilds), ""), lambda guild: guild.name)

    def find_channel(self, which: str) -> Channel:
        return _find("channel", self.state.channels, which.removeprefix("#"), lambda channel: channel.name)

    def find_message(self, id: str) -> Message:
        for channel in self.state.channels.values():
            if str(id) in channel.messages:
                return channel.messages[str(id)]
        raise LookupError(f"no message {id}")


def _find(kind: str, known: dict[str, T], wanted: str, name: Callable[[T], str]) -> T:
    wanted = str(wanted)
    if wanted in known:
        return known[wanted]
    found = [one for one in known.values() if name(one) == wanted]
    if len(found) != 1:
        names = sorted(filter(None, map(name, known.values())))
        raise LookupError(f"{len(found)} {kind}s are called {wanted!r}; there are {names}")
    return found[0]
