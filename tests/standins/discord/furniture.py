"""Setting up: guilds, channels, roles, people, bots. Whoever is connected already hears of it."""

from __future__ import annotations

from typing import Any

from tests.standins.discord import permissions, wire
from tests.standins.discord.actions import Actions, action
from tests.standins.discord.model import (
    CATEGORY,
    MESSAGE_CONTENT_LIMITED,
    TEXT,
    THREADS,
    Overwrite,
    Role,
)
from tests.standins.discord.rest import drop_channel

LAYOUT = {
    "command": ["command-center", "agent-logs", "inter-agent"],
    "engineering": ["engineering"],
    "operations": ["operations"],
    "research": ["research"],
    "projects": ["projects"],
    "knowledge": ["knowledge"],
    "system": ["system"],
}
"""Category -> channels, for `furnish`."""


class Furniture(Actions):
    @action
    def furnish(self, bots: list[str], people: list[str] = ["antoine"], guild: str = "Atomizer") -> dict[str, Any]:  # noqa: B006
        """A guild with LAYOUT's channels, one channel per bot, these bots and people in it.

        Answers {"guild": id, "channels": {name: id}, "people": {name: id}, "bots": {name: {id, token}}}.
        """
        home = self.add_guild(guild)
        channels = {}
        for category, names in LAYOUT.items():
            for name in names:
                channels[name] = self.add_channel(name, category=category, guild=home)
        for bot in bots:
            channels[bot] = self.add_channel(bot, category="agents", guild=home)
        found = {name: self.add_user(name, guild=home) for name in people}
        made = {name: self.add_bot(name, guild=home) for name in bots}
        return {"guild": home, "channels": channels, "people": found, "bots": made}

    @action
    def add_guild(self, name: str, id: str | None = None) -> str:
        """Its owner is a person called `<name>-owner`."""
        made = self.state.new_guild(name, self.state.new_user(f"{name}-owner"), id)
        self.state.changed()
        return made.id

    @action
    def add_user(self, name: str, guild: str | None = None, dms_open: bool = True, id: str | None = None) -> str:
        """A human, member of this guild; None: of the first, if there is one; "": of none."""
        user = self.state.new_user(name, id)
        user.dms_open = dms_open
        if guild != "" and self.state.guilds:
            self.state.join(self.find_guild(guild), user)
        self.state.changed()
        return user.id

    @action
    def add_bot(
        self,
        name: str,
        guild: str | None = None,
        message_content: bool = True,
        token: str | None = None,
        id: str | None = None,
    ) -> dict[str, str]:
        """A bot with what @everyone may. Answers {"id", "name", "token", "application_id"}; `guild` as for users."""
        owner = self.state.users.get("0") or self.state.new_user("developer", "0")
        app = self.state.new_application(name, owner, token, id)
        app.flags = MESSAGE_CONTENT_LIMITED if message_content else 0
        if guild != "" and self.state.guilds:
            self.state.join(self.find_guild(guild), self.state.users[app.user_id])
        self.state.changed()
        return {"id": app.user_id, "name": name, "token": app.token, "application_id": app.id}

    @action
    def join_guild(self, user: str, guild: str | None = None) -> None:
        one, home = self.find_user(user), self.find_guild(guild)
        self.state.join(home, one)
        if one.bot:
            self.gateway.tell(self.find_bot(one.id), "GUILD_CREATE", wire.guild_create(self.state, home, one.id))
        self.state.changed()

    @action
    def leave_guild(self, user: str, guild: str | None = None) -> None:
        """Gone, or thrown out: a bot hears GUILD_DELETE."""
        one, home = self.find_user(user), self.find_guild(guild)
        del home.members[one.id]
        if one.bot:
            self.gateway.tell(self.find_bot(one.id), "GUILD_DELETE", {"id": home.id})
        self.state.changed()

    @action
    def add_channel(
        self,
        name: str,
        guild: str | None = None,
        category: str | None = None,
        type: int = TEXT,
        id: str | None = None,
    ) -> str:
        """A channel, in a category that is made if there is none of that name."""
        home = self.find_guild(guild)
        parent = None
        if category is not None:
            known = [c for c in home.channels.values() if c.type == CATEGORY and c.name == category.upper()]
            parent = (known or [self.state.new_channel(home, category.upper(), CATEGORY)])[0].id
        made = self.state.new_channel(home, name, type, parent, id)
        self.changes.announce_channel("CHANNEL_CREATE", made)
        return made.id

    @action
    def delete_channel(self, channel: str) -> None:
        drop_channel(self.state, self.changes, self.find_channel(channel))

    @action
    def archive(self, thread: str, archived: bool = True, locked: bool = False) -> None:
        """Archived and locked, it refuses messages with 50083; only archived, a message opens it again."""
        found = self.find_channel(thread)
        assert found.type in THREADS, f"{thread} is no thread"
        self.changes.archive(found, archived, locked)

    @action
    def add_role(self, name: str, permissions_: list[str], guild: str | None = None) -> str:
        """A role with these permissions, by name as in `permissions.BITS`."""
        home = self.find_guild(guild)
        made = Role(self.state.snowflake(), name, permissions.bits(*permissions_), len(home.roles))
        home.roles[made.id] = made
        self.gateway.tell_guild(home.id, "GUILD_ROLE_CREATE", {"guild_id": home.id, "role": wire.role(made)})
        self.state.changed()
        return made.id

    @action
    def set_role(self, role: str, permissions_: list[str], guild: str | None = None) -> None:
        """Change what a role allows; `@everyone` is a role too."""
        home = self.find_guild(guild)
        found = next(r for r in home.roles.values() if role in (r.id, r.name))
        found.permissions = permissions.bits(*permissions_)
        self.gateway.tell_guild(home.id, "GUILD_ROLE_UPDATE", {"guild_id": home.id, "role": wire.role(found)})
        self.state.changed()

    @action
    def give_role(self, user: str, role: str, guild: str | None = None) -> None:
        home, one = self.find_guild(guild), self.find_user(user)
        home.members[one.id].roles.append(next(r.id for r in home.roles.values() if role in (r.id, r.name)))
        if one.bot:
            event = wire.member(self.state, home.members[one.id]) | {"guild_id": home.id}
            self.gateway.tell(self.find_bot(one.id), "GUILD_MEMBER_UPDATE", event)
        self.state.changed()

    @action
    def overwrite(
        self,
        channel: str,
        whom: str,
        allow: list[str] = [],  # noqa: B006
        deny: list[str] = [],  # noqa: B006
    ) -> None:
        """Set what a user, bot or role (or `@everyone`) may in one channel, such as deny=["view_channel"]."""
        found = self.find_channel(channel)
        assert found.guild_id is not None
        roles = self.state.guilds[found.guild_id].roles.values()
        role = [r.id for r in roles if whom in (r.id, r.name)]
        id = role[0] if role else self.find_user(whom).id
        found.overwrites[id] = Overwrite(id, 0 if role else 1, permissions.bits(*allow), permissions.bits(*deny))
        self.changes.announce_channel("CHANNEL_UPDATE", found)

    @action
    def set_dms(self, user: str, open: bool) -> None:
        """Whether this person takes DMs from bots; if not: 50007."""
        self.find_user(user).dms_open = open
        self.state.changed()

    @action
    def set_message_content(self, bot: str, allowed: bool) -> None:
        """The switch in the developer portal; off, the intent is refused with 4014 at the next IDENTIFY."""
        self.find_bot(bot).flags = MESSAGE_CONTENT_LIMITED if allowed else 0
        self.state.changed()

    @action
    def advance(self, seconds: float) -> None:
        """Move this Discord's clock on: nonces, sessions, interactions and URLs grow old."""
        self.state.clock.advance(seconds)
        self.state.changed()

    @action
    def forget_nonces(self) -> None:
        self.state.nonces.clear()
        self.state.changed()
