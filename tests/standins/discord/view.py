"""What a test looks at: one moment of the stand-in as plain data, the same in the test's process and over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from tests.standins.discord.model import DM, EPHEMERAL, LOADING

if TYPE_CHECKING:
    from tests.standins.discord.gateway import Gateway
    from tests.standins.discord.model import Message
    from tests.standins.discord.state import State

Row = dict[str, Any]


class View:
    """Users, bots and channels are named by id or name; `None` means any."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.version: int = data["version"]

    def messages(self, channel: str | None = None, author: str | None = None, deleted: bool = False) -> list[Row]:
        """Oldest first. Without the deleted ones unless asked for; with the ephemeral ones, marked as such.

        Each: id channel_id channel author author_id bot content time edited deleted type flags ephemeral loading nonce
        reply_to mentions attachments[{id filename content_type size}] embeds components reactions{emoji: [names]}
        edits[[time, content]] interaction allowed_mentions.
        """
        return [
            row
            for row in self.data["messages"]
            if channel in (None, row["channel_id"], row["channel"] or None, f"#{row['channel']}")
            and author in (None, row["author_id"], row["author"])
            and (deleted or row["deleted"] is None)
        ]

    def dms(self, person: str, bot: str, author: str | None = None) -> list[Row]:
        """The messages between these two (both by name), as in `messages`."""
        both = {person, bot}
        return [
            row
            for channel in self.data["channels"]
            if channel["type"] == DM and set(channel["recipients"]) == both
            for row in self.messages(channel["id"], author)
        ]

    def texts(self, channel: str | None = None, author: str | None = None) -> list[str]:
        """Contents of plain messages and replies; no system messages."""
        return [row["content"] for row in self.messages(channel, author) if row["type"] in (0, 19, 20)]

    def message(self, id: str) -> Row:
        return next(row for row in self.data["messages"] if row["id"] == str(id))

    def replies(self, id: str) -> list[Row]:
        """What refers to this message."""
        return [row for row in self.messages() if row["reply_to"] == str(id)]

    def events(self, kind: str, author: str | None = None, **fields: Any) -> list[Row]:
        """What happened, oldest first: sent edited deleted reacted unreacted typed thread nonce_repeated identified
        ready resumed resume_refused refused disconnected presence commands identity interaction answered."""
        return [
            row
            for row in self.data["events"]
            if row["kind"] == kind
            and author in (None, row.get("author"), row.get("author_id"))
            and all(row.get(key) == value for key, value in fields.items())
        ]

    def requests(self, method: str = "*", path: str = "*", bot: str | None = None) -> list[Row]:
        """REST requests: time method path query bot status body fault; `path` is a pattern as in faults."""
        return [
            row
            for row in self.data["requests"]
            if method in ("*", row["method"]) and fnmatchcase(row["path"], path) and bot in (None, row["bot"])
        ]

    def bot(self, name: str) -> Row:
        """id name token connected sessions identifies resumes beats intents presence presences commands."""
        return next(row for row in self.data["bots"] if name in (row["id"], row["name"]))

    def connected(self, bot: str) -> bool:
        """Whether it has a session with a connection."""
        return bool(self.bot(bot)["connected"])

    def channels(self, parent: str | None = None) -> list[Row]:
        """id type name parent_id guild_id archived locked owner_id; `parent` by id, for the threads of a channel."""
        return [row for row in self.data["channels"] if parent in (None, row["parent_id"])]

    def interaction(self, id: str) -> Row:
        """id type token callback (answer's type or None) response (message row or None) followups modal data."""
        row: Row = next(row for row in self.data["interactions"] if row["id"] == str(id))
        answer = self.message(row["response_id"]) if row["response_id"] else None
        return row | {"response": answer, "followups": [self.message(one) for one in row["followups"]]}

    def tail(self, count: int = 12) -> str:
        """The last events and requests, for the message of a failed test."""
        events = [{k: v for k, v in row.items() if k not in ("time", "author_id")} for row in self.data["events"]]
        asked = [f"{r['method']} {r['path']} -> {r['status']} ({r['bot']})" for r in self.data["requests"]]
        return "\n".join(["last events:", *map(str, events[-count:]), "last requests:", *asked[-count:]])


def _row(state: State, m: Message, names: dict[str, str]) -> Row:
    """One message; made anew only when it has changed, since there are many and tests look often."""
    who = [names[m.author_id], *(names[id] for id in m.mentions)]
    marks = (len(m.edits), m.deleted, m.flags, who, [(emoji, list(by)) for emoji, by in m.reactions.items()])
    known = state.rows.get(m.id)
    if known is not None and known[0] == marks:
        return known[1]
    row = vars(m) | {
        "edits": list(m.edits),
        "channel": state.channels[m.channel_id].name,
        "author": who[0],
        "bot": state.users[m.author_id].bot,
        "ephemeral": bool(m.flags & EPHEMERAL),
        "loading": bool(m.flags & LOADING),
        "reply_to": m.reference["message_id"] if m.type == 19 and m.reference else None,
        "mentions": who[1:],
        "reactions": {emoji: [names[id] for id in by] for emoji, by in m.reactions.items()},
        "attachments": [
            {"id": a.id, "filename": a.filename, "content_type": a.content_type, "size": len(a.data)}
            for a in m.attachments
        ],
    }
    state.rows[m.id] = (marks, row)
    return row


def snapshot(state: State, gateway: Gateway) -> dict[str, Any]:
    """The data of a View, in JSON's types."""
    names = {user.id: user.username for user in state.users.values()}
    messages = [_row(state, m, names) for channel in state.channels.values() for m in channel.messages.values()]
    bots = []
    for app in state.applications.values():
        sessions = gateway.of(app)
        bots.append(
            {
                "id": app.user_id,
                "name": app.name,
                "username": names[app.user_id],
                "avatar": state.users[app.user_id].avatar,
                "token": app.token,
                "sessions": len(sessions),
                "connected": len(gateway.connected(app)),
                "beats": sum(c.beats for c in gateway.connected(app)),
                "intents": [s.intents for s in sessions],
                "identifies": app.identifies,
                "resumes": app.resumes,
                "presence": app.presences[-1] if app.presences else None,
                "presences": list(app.presences),
                "commands": {guild or "": rows for guild, rows in app.commands.items()},
            }
        )
    return {
        "version": state.version,
        "now": state.clock.now(),
        "messages": sorted(messages, key=lambda row: int(row["id"])),
        "events": list(state.events),
        "requests": list(state.requests),
        "bots": bots,
        "users": [asdict(user) for user in state.users.values()],
        "channels": [
            {
                "id": c.id,
                "type": c.type,
                "name": c.name,
                "parent_id": c.parent_id,
                "guild_id": c.guild_id,
                "archived": c.archived,
                "locked": c.locked,
                "owner_id": c.owner_id,
                "recipients": [names[id] for id in c.recipients],
            }
            for c in state.channels.values()
        ],
        "interactions": [asdict(one) for one in state.interactions.values()],
    }
