"""What goes wrong on request: see `faults.py` for how."""

from __future__ import annotations

from typing import Any

from tests.standins.discord.actions import Actions, action
from tests.standins.discord.call import Limits
from tests.standins.discord.faults import Fault

CREATE = "/channels/*/messages"


class Mischief(Actions):
    limits: Limits

    # --- REST

    @action
    def fault(self, method: str = "*", path: str = "*", bot: str | None = None, **what: Any) -> int:
        """For the next requests that match: any field of `faults.Fault`. Answers the rule's id, for `clear_faults`."""
        user = self.find_bot(bot).user_id if bot is not None else None
        id = self.faults.add(Fault(method, path, user, **what))
        self.state.changed()
        return id

    @action
    def clear_faults(self, id: int | None = None) -> None:
        self.faults.clear(id)
        self.state.changed()

    @action
    def lose_reply(
        self, method: str = "POST", path: str = CREATE, bot: str | None = None, times: int = 1, how: str = "reset"
    ) -> int:
        """The next such requests are carried out, but their answers never arrive."""
        return self.fault(method, path, bot, times=times, cut=how, after=True)

    @action
    def limit(self, method: str, path: str, count: int, seconds: float) -> None:
        """A rate-limit bucket more: so many requests in so many seconds per bot and channel."""
        self.limits.rules.insert(0, (method, path, count, seconds))

    @action
    def no_limits(self) -> None:
        """Without any bucket, also without that for edits."""
        self.limits.clear()

    @action
    def revoke(self, bot: str) -> None:
        """The token is no longer valid: 401, and connections are closed with 4004."""
        app = self.find_bot(bot)
        app.revoked = True
        self.close(bot, 4004)

    @action
    def restore(self, bot: str, token: str | None = None) -> str:
        """The token is valid again, or another one is; answers it."""
        app = self.find_bot(bot)
        app.revoked = False
        app.token = token or app.token
        self.state.changed()
        return app.token

    # --- the gateway; without a bot: all of them

    @action
    def close(self, bot: str | None = None, code: int = 4000) -> int:
        """Close connections with this code; how many there were."""
        connections = [c for app in self.find_bots(bot) for c in self.gateway.connected(app)]
        for connection in connections:
            connection.close(code)
        return len(connections)

    @action
    def drop(self, bot: str | None = None) -> int:
        """Cut connections without a close frame."""
        connections = [c for app in self.find_bots(bot) for c in self.gateway.connected(app)]
        for connection in connections:
            connection.abort()
        return len(connections)

    @action
    def reconnect(self, bot: str | None = None) -> int:
        """Op 7."""
        connections = [c for app in self.find_bots(bot) for c in self.gateway.connected(app)]
        for connection in connections:
            connection.send({"op": 7, "d": None})
        return len(connections)

    @action
    def invalidate(self, bot: str | None = None, resumable: bool = False) -> int:
        """Op 9. Not resumable: the session is gone, and what is said until the next IDENTIFY is not dispatched."""
        connections = [c for app in self.find_bots(bot) for c in self.gateway.connected(app)]
        for connection in connections:
            if not resumable and connection.session is not None:
                self.gateway.forget(connection.session)
                connection.session = None
            connection.send({"op": 9, "d": resumable})
        return len(connections)

    @action
    def forget_sessions(self, bot: str | None = None) -> int:
        """The next RESUME is refused with op 9 false; connections that stand hear nothing any more."""
        sessions = [s for app in self.find_bots(bot) for s in self.gateway.of(app)]
        for session in sessions:
            self.gateway.forget(session)
        return len(sessions)

    @action
    def withhold_acks(self, bot: str, on: bool = True) -> None:
        """Leave heartbeats without an answer."""
        self.gateway_faults.withhold(self.find_bot(bot), on)

    @action
    def set_heartbeat(self, seconds: float) -> None:
        """The interval told to those who connect from now on; 41.25 unless set."""
        self.gateway.heartbeat_seconds = seconds

    @action
    def refuse_identify(self, bot: str, code: int, times: int = 1) -> None:
        """Close its next IDENTIFYs with this code, such as 4013 or 4014."""
        self.gateway_faults.refuse(self.find_bot(bot), code, times)

    @action
    def dispatch(self, bot: str, event: str, data: Any) -> int:
        """Any dispatch as it is, a malformed one too; to how many sessions."""
        return self.gateway.tell(self.find_bot(bot), event, data)

    @action
    def repeat_on_resume(self, bot: str, count: int) -> None:
        """Have the next RESUME replay so many dispatches that the bot has had already."""
        self.gateway_faults.repeat(self.find_bot(bot), count)

    @action
    def repeat(self, bot: str, event: str = "MESSAGE_CREATE") -> int:
        """Dispatch the last event of this kind once more, with a new number; to how many sessions."""
        done = 0
        for session in self.gateway.of(self.find_bot(bot)):
            last = [frame for frame in session.sent if frame["t"] == event][-1:]
            for frame in last:
                session.dispatch(event, frame["d"])
                done += 1
        return done
