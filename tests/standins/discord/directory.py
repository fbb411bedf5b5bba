"""The REST API about people, applications and guilds, and the CDN."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from tests.standins.discord import permissions, wire
from tests.standins.discord.call import Call, answer
from tests.standins.discord.gateway import Gateway
from tests.standins.discord.model import THREADS, Refused, invalid
from tests.standins.discord.rest import Handler, register, store_avatar
from tests.standins.discord.state import State

COMMANDS_PER_SCOPE = 100


class Directory:
    def __init__(self, state: State, gateway: Gateway) -> None:
        self.state = state
        self.gateway = gateway

    def add_to(self, app: web.Application) -> None:
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/users/@me", self.me),
            ("PATCH", "/users/@me", self.patch_me),
            ("GET", "/users/@me/guilds", self.my_guilds),
            ("POST", "/users/@me/channels", self.open_dm),
            ("GET", "/users/{u}", self.user),
            ("GET", "/oauth2/applications/@me", self.application),
            ("GET", "/applications/@me", self.application),
            ("GET", "/guilds/{g}", self.guild),
            ("GET", "/guilds/{g}/channels", self.guild_channels),
            ("GET", "/guilds/{g}/roles", self.guild_roles),
            ("GET", "/guilds/{g}/threads/active", self.active_threads),
            ("GET", "/guilds/{g}/members", self.members),
            ("GET", "/guilds/{g}/members/{i}", self.member),
            ("PATCH", "/guilds/{g}/members/@me", self.patch_member),
        ]
        for scope in ("/applications/{a}", "/applications/{a}/guilds/{g}"):
            routes += [
                ("GET", f"{scope}/commands", self.commands),
                ("PUT", f"{scope}/commands", self.put_commands),
                ("POST", f"{scope}/commands", self.post_command),
                ("GET", f"{scope}/commands/{{i}}", self.get_command),
                ("PATCH", f"{scope}/commands/{{i}}", self.patch_command),
                ("DELETE", f"{scope}/commands/{{i}}", self.delete_command),
            ]
        register(app, routes)
        app.router.add_get("/cdn/attachments/{c}/{id}/{name}", self.cdn_attachment)
        app.router.add_get("/cdn/{path:.+}", self.cdn)

    # --- people

    async def me(self, call: Call) -> web.Response:
        return answer(wire.user(self.state.users[call.me]))

    async def patch_me(self, call: Call) -> web.Response:
        user = self.state.users[call.me]
        name = call.body.get("username")
        if name is not None:
            if not 2 <= len(name) <= 32:
                raise invalid("username", "BASE_TYPE_BAD_LENGTH", "Must be between 2 and 32 in length.")
            user.username = name
        if "avatar" in call.body:
            avatar = call.body["avatar"]
            user.avatar = None if avatar is None else store_avatar(self.state, user.id, avatar)
        self.gateway.tell(call.bot, "USER_UPDATE", wire.user(user))
        self.state.record("identity", call.me, name=user.username, avatar=user.avatar)
        return answer(wire.user(user))

    async def user(self, call: Call) -> web.Response:
        id = call.part("u")
        if not id.isdecimal():
            raise invalid("user_id", "NUMBER_TYPE_COERCE", f'Value "{id}" is not snowflake.')
        return answer(wire.user(self.state.user(id)))

    async def open_dm(self, call: Call) -> web.Response:
        id = str(call.body.get("recipient_id"))
        if id not in self.state.users or id == call.me:
            raise Refused(400, 50033, "Invalid Recipient(s)")
        return answer(wire.channel(self.state, self.state.dm_between(call.me, id), call.me))

    async def application(self, call: Call) -> web.Response:
        return answer(wire.application(self.state, call.bot))

    # --- guilds

    async def my_guilds(self, call: Call) -> web.Response:
        rows: list[dict[str, Any]] = []
        for guild in self.state.guilds_of(call.me):
            allowed = str(permissions.in_guild(guild, call.me))
            rows.append(
                {"id": guild.id, "name": guild.name, "icon": None, "owner": False, "permissions": allowed}
                | {"features": [], "approximate_member_count": len(guild.members)}
            )
        return answer(rows)

    async def guild(self, call: Call) -> web.Response:
        guild = self.state.member_guild(call.part("g"), call.me)
        count = {"approximate_member_count": len(guild.members), "approximate_presence_count": 0}
        return answer(wire.guild(guild) | (count if call.request.query.get("with_counts") else {}))

    async def guild_channels(self, call: Call) -> web.Response:
        """All of them, hidden ones too, as Discord does; no threads."""
        guild = self.state.member_guild(call.part("g"), call.me)
        rows = [c for c in guild.channels.values() if c.type not in THREADS]
        return answer([wire.channel(self.state, c, call.me) for c in rows])

    async def guild_roles(self, call: Call) -> web.Response:
        guild = self.state.member_guild(call.part("g"), call.me)
        return answer([wire.role(role) for role in guild.roles.values()])

    async def active_threads(self, call: Call) -> web.Response:
        guild = self.state.member_guild(call.part("g"), call.me)
        rows = [c for c in guild.channels.values() if c.type in THREADS and not c.archived]
        seen = [wire.channel(self.state, c, call.me) for c in rows if self.state.may(call.me, c)]
        return answer({"threads": seen, "members": []})

    async def members(self, call: Call) -> web.Response:
        """Needs the privileged members intent in the portal."""
        guild = self.state.member_guild(call.part("g"), call.me)
        if not call.bot.flags & (1 << 14 | 1 << 15):
            raise Refused(403, 50001, "Missing Access")
        limit = int(call.request.query.get("limit", 1))
        return answer([wire.member(self.state, m) for m in list(guild.members.values())[:limit]])

    async def member(self, call: Call) -> web.Response:
        guild = self.state.member_guild(call.part("g"), call.me)
        self.state.user(call.part("i"))
        if call.part("i") not in guild.members:
            raise Refused(404, 10007, "Unknown Member")
        return answer(wire.member(self.state, guild.members[call.part("i")]))

    async def patch_member(self, call: Call) -> web.Response:
        guild = self.state.member_guild(call.part("g"), call.me)
        if not permissions.has(permissions.in_guild(guild, call.me), "change_nickname"):
            raise Refused(403, 50013, "Missing Permissions")
        guild.members[call.me].nick = call.body.get("nick") or None
        return answer(wire.member(self.state, guild.members[call.me]))

    # --- commands

    def _scope(self, call: Call) -> str | None:
        if call.part("a") != call.bot.id:
            raise Refused(403, 20012, "You are not authorized to perform this action on this application")
        if "g" not in call.request.match_info:
            return None
        return self.state.member_guild(call.part("g"), call.me).id

    def _command(self, call: Call, scope: str | None, given: dict[str, Any]) -> dict[str, Any]:
        kind = given.get("type") or 1
        if not re.fullmatch(r"[-_'\w]{1,32}", given["name"]) or (kind == 1 and given["name"] != given["name"].lower()):
            raise invalid("name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
        if kind == 1 and not 1 <= len(given.get("description") or "") <= 100:
            raise invalid("description", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
        body = {
            "default_member_permissions": None,
            "nsfw": False,
            "options": [],
            "description": "",
        } | {key: value for key, value in given.items() if value is not None}
        fixed = {"id": self.state.snowflake(), "application_id": call.bot.id, "version": self.state.snowflake()}
        return body | fixed | {"type": kind} | ({"guild_id": scope} if scope else {})

    async def commands(self, call: Call) -> web.Response:
        return answer(call.bot.commands.get(self._scope(call), []))

    async def put_commands(self, call: Call) -> web.Response:
        scope = self._scope(call)
        if len(call.body) > COMMANDS_PER_SCOPE:
            raise Refused(400, 30032, "Maximum number of application commands reached (100)")
        known = {(row["name"], row["type"]): row["id"] for row in call.bot.commands.get(scope, [])}
        rows = [self._command(call, scope, given) for given in call.body]
        rows = [row | {"id": known.get((row["name"], row["type"]), row["id"])} for row in rows]
        call.bot.commands[scope] = rows
        self.state.record("commands", call.me, guild=scope, names=[row["name"] for row in rows])
        return answer(rows)

    async def post_command(self, call: Call) -> web.Response:
        scope = self._scope(call)
        made = self._command(call, scope, call.body)
        rows = [row for row in call.bot.commands.get(scope, []) if row["name"] != made["name"]]
        call.bot.commands[scope] = [*rows, made]
        self.state.record("commands", call.me, guild=scope, names=[row["name"] for row in call.bot.commands[scope]])
        return answer(made, 201)

    def _one(self, call: Call) -> dict[str, Any]:
        for row in call.bot.commands.get(self._scope(call), []):
            if row["id"] == call.part("i"):
                return row
        raise Refused(404, 10063, "Unknown application command")

    async def get_command(self, call: Call) -> web.Response:
        return answer(self._one(call))

    async def patch_command(self, call: Call) -> web.Response:
        row = self._one(call)
        row |= call.body | {"version": self.state.snowflake()}
        return answer(row)

    async def delete_command(self, call: Call) -> web.Response:
        call.bot.commands[self._scope(call)].remove(self._one(call))
        return answer(None)

    # --- the CDN

    async def cdn_attachment(self, request: web.Request) -> web.Response:
        """Bytes, until the URL expires: 404 from then on."""
        found = self.state.uploads.get(request.match_info["id"])
        try:
            until = int(request.query.get("ex", ""), 16)
        except ValueError:
            until = 0
        if found is None or found.channel_id != request.match_info["c"] or until < self.state.clock.now():
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=found.data, headers={"Content-Type": found.content_type})

    async def cdn(self, request: web.Request) -> web.Response:
        found = self.state.files.get(request.match_info["path"].rsplit(".", 1)[0])
        if found is None:
            return web.Response(status=404)
        return web.Response(body=found, headers={"Content-Type": "image/png"})
