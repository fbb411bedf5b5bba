"""Slash commands and buttons: humans start an interaction, the bot answers by callback and by the token's webhook."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web

from tests.standins.discord import permissions, wire
from tests.standins.discord.actions import Actions, action
from tests.standins.discord.call import API, CALL, Call, answer
from tests.standins.discord.changes import Changes
from tests.standins.discord.model import (
    EPHEMERAL,
    LOADING,
    Application,
    Attachment,
    Channel,
    Interaction,
    Message,
    Refused,
    invalid,
)
from tests.standins.discord.state import State

COMMAND, COMPONENT, MODAL_SUBMIT = 2, 3, 5
MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, MODAL = 4, 5, 6, 7, 9
ANSWERS_TO = {
    COMMAND: (MESSAGE, DEFERRED, MODAL),
    COMPONENT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, MODAL),
    MODAL_SUBMIT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE),
}
ANSWER_SECONDS = 3.0
TOKEN_SECONDS = 900.0
SUBCOMMAND, GROUP, OPTION_USER = 1, 2, 6


class Interactions:
    """The REST part; without the bot's token, since the interaction's token says who it is."""

    def __init__(self, state: State, changes: Changes) -> None:
        self.state = state
        self.changes = changes

    def add_to(self, app: web.Application) -> None:
        webhook = "/webhooks/{a}/{t}"
        routes: list[tuple[str, str, Callable[[Call], Awaitable[web.Response]]]] = [
            ("POST", "/interactions/{i}/{t}/callback", self.callback),
            ("POST", webhook, self.follow_up),
            ("GET", webhook + "/messages/{m}", self.get),
            ("PATCH", webhook + "/messages/{m}", self.edit),
            ("DELETE", webhook + "/messages/{m}", self.delete),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, API + path, _plain(handler))

    async def callback(self, call: Call) -> web.Response:
        one = self.state.interactions.get(call.part("i"))
        if one is None or one.token != call.part("t") or self.state.clock.now() - one.time > ANSWER_SECONDS:
            raise Refused(404, 10062, "Unknown interaction")
        if one.callback is not None:
            raise Refused(400, 40060, "Interaction has already been acknowledged.")
        kind, data = call.body["type"], call.body.get("data") or {}
        if kind not in ANSWERS_TO[one.type]:
            raise invalid("type", "BASE_TYPE_CHOICES", f"{kind} is no answer to an interaction of type {one.type}")
        app, where = self.state.application(one.application_id), self.state.channels[one.channel_id]
        files = self._files(call, data, where)
        if kind in (MESSAGE, DEFERRED):
            flags = (data.get("flags") or 0) | (LOADING if kind == DEFERRED else 0)
            one.response_id = self._send(one, app, where, data, files, flags).id
        elif kind == MODAL:
            one.modal = data
        else:
            one.response_id = one.message_id
            if kind == UPDATE:
                self.changes.edit(where.messages[str(one.message_id)], data, files)
        one.callback = kind
        self.state.record("answered", app.user_id, interaction=one.id, type=kind, message=one.response_id)
        if call.request.query.get("with_response") not in ("1", "true"):
            return answer(None)
        body: dict[str, Any] = {"interaction": {"id": one.id, "type": one.type}}
        if one.response_id is not None:
            made = where.messages[one.response_id]
            body["interaction"] |= {
                "response_message_id": made.id,
                "response_message_loading": bool(made.flags & LOADING),
                "response_message_ephemeral": bool(made.flags & EPHEMERAL),
            }
            shown = {"message": wire.message(self.state, made, app)} if kind in (MESSAGE, UPDATE) else {}
            body["resource"] = {"type": kind} | shown
        return answer(body)

    async def follow_up(self, call: Call) -> web.Response:
        """After a deferral the first one takes the place of the "thinking" message, as on Discord."""
        one, app, where = self._known(call)
        data = call.body or {}
        files = self._files(call, data, where)
        waiting = where.messages.get(one.response_id or "")
        if waiting is not None and waiting.flags & LOADING:
            waiting.flags &= ~LOADING
            made = self.changes.edit(waiting, data, files)
        else:
            made = self._send(one, app, where, data, files, data.get("flags") or 0)
            one.followups.append(made.id)
        return answer(wire.message(self.state, made, app))

    async def get(self, call: Call) -> web.Response:
        one, app, where = self._known(call)
        return answer(wire.message(self.state, self._message(call, one, where), app))

    async def edit(self, call: Call) -> web.Response:
        one, app, where = self._known(call)
        message = self._message(call, one, where)
        message.flags &= ~LOADING
        files = self._files(call, call.body or {}, where)
        return answer(wire.message(self.state, self.changes.edit(message, call.body or {}, files), app))

    async def delete(self, call: Call) -> web.Response:
        one, app, where = self._known(call)
        self.changes.delete(self._message(call, one, where), app.user_id)
        return answer(None)

    # --- inside

    def _known(self, call: Call) -> tuple[Interaction, Application, Channel]:
        """By its token: 50027 once that is too old, 10015 before the callback."""
        for one in self.state.interactions.values():
            if one.token == call.part("t") and one.application_id == call.part("a"):
                if self.state.clock.now() - one.time > TOKEN_SECONDS:
                    raise Refused(401, 50027, "Invalid Webhook Token")
                if one.callback is None:
                    break
                return one, self.state.application(one.application_id), self.state.channels[one.channel_id]
        raise Refused(404, 10015, "Unknown Webhook")

    def _message(self, call: Call, one: Interaction, where: Channel) -> Message:
        wanted = one.response_id if call.part("m") == "@original" else call.part("m")
        found = self.state.message(where.id, wanted or "")
        if found is None or found.id not in (one.response_id, *one.followups):
            raise Refused(404, 10008, "Unknown Message")
        return found

    def _files(self, call: Call, data: dict[str, Any], where: Channel) -> list[Attachment]:
        return Call(call.request, call.app, data, call.files).attachments(self.state, where.id)

    def _send(
        self,
        one: Interaction,
        app: Application,
        where: Channel,
        data: dict[str, Any],
        files: list[Attachment],
        flags: int,
    ) -> Message:
        asked = {
            "id": one.id,
            "type": one.type,
            "user": wire.user(self.state.users[one.user_id]),
            "authorizing_integration_owners": {"0": where.guild_id or "0"},
        }
        return self.changes.send(
            where,
            app.user_id,
            data.get("content") or "",
            files=files,
            embeds=data.get("embeds"),
            components=data.get("components"),
            allowed=data.get("allowed_mentions"),
            flags=flags,
            interaction=asked,
            webhook=app.id,
            type=20 if one.type == COMMAND else 0,
        )


def _plain(handler: Callable[[Call], Awaitable[web.Response]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return await handler(request[CALL])

    return handle


class Pressing(Actions):
    """What humans do with commands and buttons. LookupError for what Discord's client would not let them do."""

    @action
    def slash(
        self,
        channel: str,
        user: str,
        bot: str,
        command: str,
        options: dict[str, Any] = {},  # noqa: B006
    ) -> str:
        """Run a registered command, such as "status" or "heartbeat pause"; answers the interaction's id."""
        where, who, app = self.find_channel(channel), self.find_user(user).id, self.find_bot(bot)
        name, *path = command.split()
        known = [*app.commands.get(where.guild_id, []), *app.commands.get(None, [])]
        found = [row for row in known if row["name"] == name]
        if not found:
            raise LookupError(f"{bot} has no command /{name} there; it has {[row['name'] for row in known]}")
        needs = found[0]["default_member_permissions"]
        allowed = self.state.may(who, where)
        if not permissions.has(allowed, "use_application_commands"):
            raise LookupError(f"{user} may not use commands there")
        if needs is not None and where.guild_id and (allowed & int(needs)) != int(needs):
            raise LookupError(f"{user} lacks the permissions that /{name} wants: {needs}")
        resolved: dict[str, Any] = {}
        rows = self._options(found[0].get("options") or [], path, options, resolved)
        data = {"id": found[0]["id"], "name": name, "type": 1, "options": rows}
        if where.guild_id and found[0].get("guild_id"):
            data["guild_id"] = where.guild_id
        return self._start(COMMAND, app, where, who, data | ({"resolved": resolved} if resolved else {}))

    def _options(
        self, known: list[dict[str, Any]], path: list[str], given: dict[str, Any], resolved: dict[str, Any]
    ) -> list[dict[str, Any]]:
        if path:
            found = [row for row in known if row["name"] == path[0] and row["type"] in (SUBCOMMAND, GROUP)]
            if not found:
                raise LookupError(f"no subcommand {path[0]!r}; there are {[row['name'] for row in known]}")
            inner = self._options(found[0].get("options") or [], path[1:], given, resolved)
            return [{"name": path[0], "type": found[0]["type"], "options": inner}]
        if any(row["type"] in (SUBCOMMAND, GROUP) for row in known):
            raise LookupError(f"a subcommand is wanted: {[row['name'] for row in known]}")
        types = {row["name"]: row["type"] for row in known}
        missing = [row["name"] for row in known if row.get("required") and row["name"] not in given]
        if missing or set(given) - set(types):
            raise LookupError(f"options: missing {missing}, unknown {sorted(set(given) - set(types))}")
        for name, value in given.items():
            if types[name] == OPTION_USER:
                one = self.find_user(value)
                given = given | {name: one.id}
                resolved.setdefault("users", {})[one.id] = wire.user(one)
        return [{"name": name, "type": types[name], "value": value} for name, value in given.items()]

    @action
    def press(self, message: str, user: str, button: str, values: list[str] | None = None) -> str:
        """A button by custom_id or label, or with `values` a select menu; answers the interaction's id."""
        source, who = self.find_message(message), self.find_user(user).id
        if source.deleted is not None:
            raise LookupError("that message is deleted")
        where = self.state.channels[source.channel_id]
        hidden = source.flags & EPHEMERAL and (source.interaction or {}).get("user", {}).get("id") != who
        if hidden or not self.state.may(who, where):
            raise LookupError(f"{user} does not see that message")
        there = [part for part in _parts(source.components) if part.get("custom_id")]
        found = [part for part in there if button in (part["custom_id"], part.get("label"))]
        if not found:
            raise LookupError(f"no button {button!r}; there are {[part['custom_id'] for part in there]}")
        if found[0].get("disabled"):
            raise LookupError(f"the button {button!r} is disabled")
        data = {"custom_id": found[0]["custom_id"], "component_type": found[0]["type"], "id": found[0].get("id", 1)}
        app = self.find_bot(source.author_id)
        more = {"values": values} if values is not None else {}
        return self._start(COMPONENT, app, where, who, data | more, source.id)

    @action
    def submit(self, interaction: str, fields: dict[str, str]) -> str:
        """Send the modal that answered this interaction, with values by custom_id; answers the new interaction's id."""
        first = self.state.interactions[interaction]
        if first.modal is None:
            raise LookupError("no modal was shown")
        rows = [_filled(row, fields) for row in first.modal["components"]]
        data = {"custom_id": first.modal["custom_id"], "components": rows}
        where = self.state.channels[first.channel_id]
        app = self.state.application(first.application_id)
        return self._start(MODAL_SUBMIT, app, where, first.user_id, data, first.message_id)

    def _start(
        self,
        kind: int,
        app: Application,
        where: Channel,
        who: str,
        data: dict[str, Any],
        message: str | None = None,
    ) -> str:
        token = secrets.token_urlsafe(48)
        now = self.state.clock.now()
        one = Interaction(self.state.snowflake(), kind, token, app.id, where.id, who, now, data, message)
        self.state.interactions[one.id] = one
        self.state.record("interaction", who, interaction=one.id, type=kind, bot=app.name)
        self.gateway.tell(app, "INTERACTION_CREATE", wire.interaction(self.state, one))
        return one.id


def _parts(components: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All components, the nested too."""
    for part in components:
        yield part
        yield from _parts(part.get("components") or [])
        yield from _parts([part[key] for key in ("accessory", "component") if part.get(key)])


def _filled(part: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {"type": part["type"], "id": part.get("id", 1)}
    if "components" in part:
        return body | {"components": [_filled(one, fields) for one in part["components"]]}
    if "component" in part:
        return body | {"component": _filled(part["component"], fields)}
    return body | {"custom_id": part.get("custom_id"), "value": fields.get(part.get("custom_id", ""), "")}
