"""The REST API: channels, messages, reactions, threads, users, guilds, commands. Interactions are their own file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.standins.discord import permissions, wire
from tests.standins.discord.call import API, CALL, Call, answer
from tests.standins.discord.changes import Changes
from tests.standins.discord.gateway import Gateway
from tests.standins.discord.model import PUBLIC_THREAD, THREADS, Application, Channel, Message, Refused, invalid
from tests.standins.discord.state import State

Handler = Callable[[Call], Awaitable[web.Response]]


class Rest:
    def __init__(self, state: State, changes: Changes, gateway: Gateway) -> None:
        self.state = state
        self.changes = changes
        self.gateway = gateway

    def add_to(self, app: web.Application) -> None:
        message = "/channels/{c}/messages/{m}"
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/gateway", self.get_gateway),
            ("GET", "/gateway/bot", self.get_gateway),
            ("GET", "/channels/{c}", self.get_channel),
            ("PATCH", "/channels/{c}", self.patch_channel),
            ("DELETE", "/channels/{c}", self.delete_channel),
            ("GET", "/channels/{c}/messages", self.history),
            ("POST", "/channels/{c}/messages", self.send),
            ("GET", message, self.get_message),
            ("PATCH", message, self.edit),
            ("DELETE", message, self.delete),
            ("POST", "/channels/{c}/typing", self.typing),
            ("GET", message + "/reactions/{e}", self.reactors),
            ("PUT", message + "/reactions/{e}/@me", self.react),
            ("DELETE", message + "/reactions/{e}/{u}", self.unreact),
            ("DELETE", message + "/reactions/{e}", self.clear_reactions),
            ("DELETE", message + "/reactions", self.clear_reactions),
            ("POST", message + "/threads", self.thread_on_message),
            ("POST", "/channels/{c}/threads", self.thread),
            ("PUT", "/channels/{c}/thread-members/{u}", self.join_thread),
            ("DELETE", "/channels/{c}/thread-members/{u}", self.leave_thread),
        ]
        register(app, routes)

    async def get_gateway(self, call: Call) -> web.Response:
        limit = {"total": 1000, "remaining": 1000 - call.bot.identifies, "reset_after": 86400000, "max_concurrency": 1}
        return answer({"url": self.gateway.url, "shards": 1, "session_start_limit": limit})

    # --- channels

    def channel(self, call: Call, *needs: str) -> Channel:
        return self.state.allowed_channel(call.part("c"), call.me, *needs)

    def message(self, call: Call, channel: Channel) -> Message:
        return self.state.seen_message(channel, call.part("m"), call.me)

    async def get_channel(self, call: Call) -> web.Response:
        return answer(wire.channel(self.state, self.channel(call), call.me))

    async def patch_channel(self, call: Call) -> web.Response:
        channel = self.channel(call)
        own = channel.type in THREADS and channel.owner_id == call.me
        if not own:
            self.channel(call, "manage_threads" if channel.type in THREADS else "manage_channels")
        channel.name = call.body.get("name", channel.name)
        if channel.type in THREADS:
            channel.auto_archive_duration = call.body.get("auto_archive_duration", channel.auto_archive_duration)
            self.changes.archive(channel, call.body.get("archived", channel.archived), call.body.get("locked"))
        else:
            channel.topic = call.body.get("topic", channel.topic)
            self.changes.announce_channel("CHANNEL_UPDATE", channel)
        return answer(wire.channel(self.state, channel, call.me))

    async def delete_channel(self, call: Call) -> web.Response:
        channel = self.channel(call)
        if channel.guild_id is not None:
            self.channel(call, "manage_threads" if channel.type in THREADS else "manage_channels")
            drop_channel(self.state, self.changes, channel)
        return answer(wire.channel(self.state, channel, call.me))

    # --- messages

    async def history(self, call: Call) -> web.Response:
        """Newest first. Without the permission to read the history: an empty list, as Discord says it."""
        channel = self.channel(call)
        query = call.request.query
        limit = int(query.get("limit", 50))
        if not 1 <= limit <= 100:
            raise invalid("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
        rows = channel.live() if permissions.has(self.state.may(call.me, channel), "read_message_history") else []
        if "after" in query:
            rows = [m for m in rows if int(m.id) > int(query["after"])][:limit]
        elif "around" in query:
            around = int(query["around"])
            older = [m for m in rows if int(m.id) < around][-(limit // 2) :]
            rows = older + [m for m in rows if int(m.id) >= around][: limit - limit // 2]
        elif "before" in query:
            rows = [m for m in rows if int(m.id) < int(query["before"])]
        return answer([self.shown(call, message) for message in reversed(rows[-limit:])])

    def shown(self, call: Call, message: Message) -> dict[str, Any]:
        return wire.message(self.state, message, call.bot, wire.may_read(call.bot))

    async def send(self, call: Call) -> web.Response:
        channel = self.channel(call, "send_messages")
        state, body = self.state, call.body or {}
        files = call.attachments(state, channel.id)
        if files:
            self.channel(call, "attach_files")
        if body.get("embeds"):
            self.channel(call, "embed_links")
        refuse_closed_dm(state, channel, call.bot)
        reference = None
        if given := body.get("message_reference"):
            reference = self._reference(call, channel, given)
        nonce = body.get("nonce")
        made = self.changes.send(
            channel,
            call.me,
            body.get("content") or "",
            files=files,
            embeds=body.get("embeds"),
            components=body.get("components"),
            reference=reference,
            nonce=None if nonce is None else str(nonce),
            enforce_nonce=bool(body.get("enforce_nonce")),
            allowed=body.get("allowed_mentions"),
            flags=body.get("flags") or 0,
        )
        return answer(self.shown(call, made))

    def _reference(self, call: Call, channel: Channel, given: dict[str, Any]) -> dict[str, Any] | None:
        """What a reply refers to; None if it is gone and the sender does not mind."""
        if not permissions.has(self.state.may(call.me, channel), "read_message_history"):
            raise Refused(400, 160002, "Cannot reply without permission to read message history")
        where, which = str(given.get("channel_id") or channel.id), str(given["message_id"])
        source = self.state.message(where, which)
        if source is not None and where == channel.id:
            guild = {"guild_id": channel.guild_id} if channel.guild_id else {}
            return {"type": 0, "channel_id": where, "message_id": which} | guild
        if given.get("fail_if_not_exists", True):
            raise invalid("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
        return None

    async def get_message(self, call: Call) -> web.Response:
        return answer(self.shown(call, self.message(call, self.channel(call))))

    async def edit(self, call: Call) -> web.Response:
        channel = self.channel(call)
        message = self.message(call, channel)
        if message.author_id != call.me:
            raise Refused(403, 50005, "Cannot edit a message authored by another user")
        files = call.attachments(self.state, channel.id)
        return answer(self.shown(call, self.changes.edit(message, call.body or {}, files)))

    async def delete(self, call: Call) -> web.Response:
        channel = self.channel(call)
        message = self.message(call, channel)
        if message.author_id != call.me:
            if channel.guild_id is None:
                raise Refused(403, 50003, "Cannot execute action on a DM channel")
            self.channel(call, "manage_messages")
        self.changes.delete(message, call.me)
        return answer(None)

    async def typing(self, call: Call) -> web.Response:
        self.changes.typing(self.channel(call, "send_messages"), call.me)
        return answer(None)

    # --- reactions

    async def react(self, call: Call) -> web.Response:
        self.changes.react(self.message(call, self.channel(call)), call.me, call.part("e"), True)
        return answer(None)

    async def unreact(self, call: Call) -> web.Response:
        who = call.part("u")
        message = self.message(call, self.channel(call, *(["manage_messages"] if who != "@me" else [])))
        self.changes.react(message, call.me if who == "@me" else who, call.part("e"), False)
        return answer(None)

    async def clear_reactions(self, call: Call) -> web.Response:
        message = self.message(call, self.channel(call, "manage_messages"))
        only = call.part("e") if "e" in call.request.match_info else None
        for emoji, who in list(message.reactions.items()):
            for user in list(who) if only in (None, emoji) else []:
                self.changes.react(message, user, emoji, False)
        return answer(None)

    async def reactors(self, call: Call) -> web.Response:
        who = self.message(call, self.channel(call)).reactions.get(call.part("e"), [])
        return answer([wire.user(self.state.users[id]) for id in who])

    # --- threads

    async def thread_on_message(self, call: Call) -> web.Response:
        channel = self.channel(call, "create_public_threads")
        if channel.guild_id is None or channel.type in THREADS:
            raise Refused(400, 50024, "Cannot execute action on this channel type")
        message = self.message(call, channel)
        return self._started(call, channel, on=message, minutes=call.body.get("auto_archive_duration") or 1440)

    async def thread(self, call: Call) -> web.Response:
        kind = call.body.get("type", 12)
        need = "create_public_threads" if kind == PUBLIC_THREAD else "create_private_threads"
        channel = self.channel(call, need)
        if channel.guild_id is None or channel.type in THREADS:
            raise Refused(400, 50024, "Cannot execute action on this channel type")
        return self._started(call, channel, type=kind, minutes=call.body.get("auto_archive_duration") or 1440)

    def _started(self, call: Call, channel: Channel, **more: Any) -> web.Response:
        made = self.changes.start_thread(channel, call.me, call.body["name"], **more)
        return answer(wire.channel(self.state, made, call.me), 201)

    async def join_thread(self, call: Call) -> web.Response:
        who = call.part("u")
        self.channel(call).thread_members[call.me if who == "@me" else who] = self.state.clock.now()
        return answer(None)

    async def leave_thread(self, call: Call) -> web.Response:
        who = call.part("u")
        self.channel(call).thread_members.pop(call.me if who == "@me" else who, None)
        return answer(None)


def register(app: web.Application, routes: list[tuple[str, str, Handler]]) -> None:
    """All need a valid bot token: 401 otherwise."""

    def wrap(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call: Call = request[CALL]
            call.bot  # noqa: B018  raises 401
            for name, value in request.match_info.items():
                if name in "cmgia" and not value.isdecimal():
                    raise invalid(name, "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')
            return await handler(call)

        return handle

    for method, path, handler in routes:
        app.router.add_route(method, API + path, wrap(handler))


def refuse_closed_dm(state: State, channel: Channel, bot: Application) -> None:
    """50007 to people who take no DMs, to bots, and where no guild is shared."""
    if channel.guild_id is not None:
        return
    person = state.users[next(id for id in channel.recipients if id != bot.user_id)]
    shared = any(person.id in guild.members for guild in state.guilds_of(bot.user_id))
    if person.bot or not person.dms_open or not shared:
        raise Refused(403, 50007, "Cannot send messages to this user")


def drop_channel(state: State, changes: Changes, channel: Channel) -> None:
    """A guild's channel ceases to exist, its threads with it."""
    assert channel.guild_id is not None
    guild = state.guilds[channel.guild_id]
    for thread in [c for c in guild.channels.values() if c.parent_id == channel.id and c.type in THREADS]:
        drop_channel(state, changes, thread)
    changes.announce_channel("THREAD_DELETE" if channel.type in THREADS else "CHANNEL_DELETE", channel)
    del guild.channels[channel.id], state.channels[channel.id]


def store_avatar(state: State, owner: str, data_uri: str) -> str:
    """The hash under which the CDN serves the picture; 50035 for what is not a data URI of an image."""
    found = re.fullmatch(r"data:image/(png|jpeg|gif|webp);base64,(.+)", data_uri, re.DOTALL)
    if found is None:
        raise invalid("avatar", "BASE_TYPE_REQUIRED", "Not an image in a data URI")
    data = base64.b64decode(found[2])
    name = hashlib.md5(data, usedforsecurity=False).hexdigest()
    state.files[f"avatars/{owner}/{name}"] = data
    return name
