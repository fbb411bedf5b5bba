"""State as Discord's JSON: exactly the keys that discord.py's parsers want, absent where null would break them."""

from __future__ import annotations

import datetime
import hashlib
import struct
from typing import Any

from tests.standins.discord import permissions
from tests.standins.discord.model import (
    DM,
    HAS_THREAD,
    MESSAGE_CONTENT,
    MESSAGE_CONTENT_LIMITED,
    THREADS,
    Application,
    Attachment,
    Channel,
    Guild,
    Interaction,
    Member,
    Message,
    Role,
    User,
)
from tests.standins.discord.state import State

URL_LIVES_SECONDS = 86400
SIZE_LIMIT = 10 * 1024 * 1024


def iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="microseconds")


def user(who: User) -> dict[str, Any]:
    return {
        "id": who.id,
        "username": who.username,
        "global_name": who.global_name,
        "discriminator": "0" if not who.bot else f"{int(who.id) % 9999 + 1:04}",
        "avatar": who.avatar,
        "bot": who.bot,
        "public_flags": 0,
        "flags": 0,
        "primary_guild": None,
    }


def member(state: State, one: Member, with_user: bool = True) -> dict[str, Any]:
    body = {
        "roles": list(one.roles),
        "flags": 0,
        "joined_at": iso(one.joined_at),
        "nick": one.nick,
        "avatar": None,
        "banner": None,
        "deaf": False,
        "mute": False,
        "pending": False,
        "premium_since": None,
        "communication_disabled_until": None,
    }
    return body | ({"user": user(state.users[one.user_id])} if with_user else {})


def role(one: Role) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "permissions": str(one.permissions),
        "position": one.position,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "icon": None,
        "unicode_emoji": None,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }


def channel(state: State, one: Channel, for_user: str) -> dict[str, Any]:
    """A channel of any kind, as `for_user` sees it."""
    last = one.live()
    body: dict[str, Any] = {
        "id": one.id,
        "type": one.type,
        "flags": 0,
        "last_message_id": last[-1].id if last else None,
    }
    if one.type == DM:
        return body | {"recipients": [user(state.users[who]) for who in one.recipients if who != for_user]}
    body |= {"guild_id": one.guild_id, "name": one.name, "parent_id": one.parent_id, "rate_limit_per_user": 0}
    if one.type in THREADS:
        return body | {
            "owner_id": one.owner_id,
            "message_count": len([m for m in last if m.type != 21]),
            "total_message_sent": len(one.messages),
            "member_count": len(one.thread_members),
            "thread_metadata": {
                "archived": one.archived,
                "locked": one.locked,
                "auto_archive_duration": one.auto_archive_duration,
                "archive_timestamp": iso(one.archive_changed),
                "create_timestamp": iso(one.archive_changed),
            },
        }
    return body | {
        "position": one.position,
        "topic": one.topic,
        "nsfw": False,
        "permission_overwrites": [
            {"id": o.id, "type": o.type, "allow": str(o.allow), "deny": str(o.deny)} for o in one.overwrites.values()
        ],
    }


def guild(one: Guild) -> dict[str, Any]:
    """GET /guilds/{id}: without channels, threads and members."""
    return {
        "id": one.id,
        "name": one.name,
        "owner_id": one.owner_id,
        "roles": [role(r) for r in one.roles.values()],
        "emojis": [],
        "stickers": [],
        "features": [],
        "icon": None,
        "splash": None,
        "discovery_splash": None,
        "description": None,
        "banner": None,
        "vanity_url_code": None,
        "afk_channel_id": None,
        "afk_timeout": 300,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "rules_channel_id": None,
        "public_updates_channel_id": None,
        "safety_alerts_channel_id": None,
        "application_id": None,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "mfa_level": 0,
        "nsfw_level": 0,
        "premium_tier": 0,
        "premium_progress_bar_enabled": False,
        "preferred_locale": "en-US",
    }


def guild_create(state: State, one: Guild, for_user: str) -> dict[str, Any]:
    """The dispatch: channels (hidden ones too, as Discord does), the threads that may be seen, the bot as a member."""
    threads = [c for c in one.channels.values() if c.type in THREADS and not c.archived]
    return guild(one) | {
        "unavailable": False,
        "large": False,
        "joined_at": iso(one.members[for_user].joined_at),
        "member_count": len(one.members),
        "members": [member(state, one.members[for_user])],
        "channels": [channel(state, c, for_user) for c in one.channels.values() if c.type not in THREADS],
        "threads": [channel(state, c, for_user) for c in threads if permissions.in_channel(one, c, for_user)],
        "voice_states": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def attachment(state: State, one: Attachment) -> dict[str, Any]:
    until = int(state.clock.now()) + URL_LIVES_SECONDS
    sign = hashlib.sha256(f"{one.id}{until}".encode()).hexdigest()
    url = f"{state.cdn}/attachments/{one.channel_id}/{one.id}/{one.filename}?ex={until:x}&is=0&hm={sign}"
    body: dict[str, Any] = {
        "id": one.id,
        "filename": one.filename,
        "size": len(one.data),
        "url": url,
        "proxy_url": url,
        "content_type": one.content_type,
    }
    if one.description is not None:
        body["description"] = one.description
    if one.data[:8] == b"\x89PNG\r\n\x1a\n" and len(one.data) >= 24:
        body["width"], body["height"] = struct.unpack(">II", one.data[16:24])
    return body


def emoji(text: str) -> dict[str, Any]:
    name, _, id = text.partition(":")
    return {"id": id or None, "name": name}


def message(state: State, one: Message, for_app: Application | None, reads: bool = True) -> dict[str, Any]:
    """A message as REST gives it. `reads`: whether the reader may see contents of messages that are not for it."""
    shown = for_app is None or reads or visible(state, one, for_app)
    body: dict[str, Any] = {
        "id": one.id,
        "type": one.type,
        "channel_id": one.channel_id,
        "author": user(state.users[one.author_id]),
        "content": one.content if shown else "",
        "timestamp": iso(one.time),
        "edited_timestamp": iso(one.edited) if one.edited else None,
        "tts": one.tts,
        "mention_everyone": one.mention_everyone,
        "mentions": [user(state.users[who]) for who in one.mentions],
        "mention_roles": list(one.mention_roles),
        "attachments": [attachment(state, a) for a in one.attachments] if shown else [],
        "embeds": one.embeds if shown else [],
        "components": one.components if shown else [],
        "pinned": False,
        "flags": one.flags,
    }
    if one.reactions:
        me = for_app.user_id if for_app else ""
        body["reactions"] = [
            {
                "emoji": emoji(text),
                "count": len(who),
                "count_details": {"burst": 0, "normal": len(who)},
                "me": me in who,
                "me_burst": False,
                "burst_colors": [],
            }
            for text, who in one.reactions.items()
        ]
    if one.nonce is not None:
        body["nonce"] = one.nonce
    if one.webhook_id is not None:
        body["webhook_id"] = one.webhook_id
    if one.interaction is not None:
        body["interaction_metadata"] = one.interaction
    if one.flags & HAS_THREAD and one.id in state.channels:
        body["thread"] = channel(state, state.channels[one.id], "")
    if one.reference is not None:
        body["message_reference"] = one.reference
        if one.type in (19, 21):
            source = state.message(one.reference["channel_id"], one.reference["message_id"])
            bare = None if source is None else message(state, source, for_app, reads)
            if bare is not None:
                bare.pop("referenced_message", None)
            body["referenced_message"] = bare
    return body


def message_event(state: State, one: Message, for_app: Application, reads: bool) -> dict[str, Any]:
    """A message as the gateway gives it: with guild_id and member in guilds, without both in DMs."""
    body = message(state, one, for_app, reads)
    where = state.channels[one.channel_id]
    body["channel_type"] = where.type
    if where.guild_id is None:
        return body
    members = state.guilds[where.guild_id].members
    body["guild_id"] = where.guild_id
    if one.author_id in members and one.webhook_id is None:
        body["member"] = member(state, members[one.author_id], with_user=False)
    for mention in body["mentions"]:
        if mention["id"] in members:
            mention["member"] = member(state, members[mention["id"]], with_user=False)
    return body


def visible(state: State, one: Message, app: Application) -> bool:
    """Whether a bot without the message content intent still sees this content."""
    own = one.author_id == app.user_id or app.user_id in one.mentions
    return own or state.channels[one.channel_id].guild_id is None or one.webhook_id == app.id


def may_read(app: Application) -> bool:
    """Whether the portal lets this application see contents at all (which is what REST goes by)."""
    return bool(app.flags & (MESSAGE_CONTENT | MESSAGE_CONTENT_LIMITED))


def application(state: State, app: Application) -> dict[str, Any]:
    return {
        "id": app.id,
        "name": app.name,
        "icon": None,
        "description": "",
        "bot_public": False,
        "bot_require_code_grant": False,
        "verify_key": hashlib.sha256(app.id.encode()).hexdigest(),
        "owner": user(state.users[app.owner_id]),
        "team": None,
        "flags": app.flags,
        "approximate_guild_count": len(state.guilds_of(app.user_id)),
        "bot": user(state.users[app.user_id]),
    }


def interaction(state: State, one: Interaction) -> dict[str, Any]:
    """INTERACTION_CREATE."""
    app = state.application(one.application_id)
    where = state.channels[one.channel_id]
    body: dict[str, Any] = {
        "id": one.id,
        "type": one.type,
        "token": one.token,
        "version": 1,
        "application_id": one.application_id,
        "channel_id": one.channel_id,
        "channel": channel(state, where, app.user_id),
        "data": one.data,
        "entitlements": [],
        "authorizing_integration_owners": {"0": where.guild_id or "0"},
        "attachment_size_limit": SIZE_LIMIT,
        "app_permissions": str(state.may(app.user_id, where)),
        "locale": "en-US",
        "context": 0 if where.guild_id else 1,
    }
    if where.guild_id is not None:
        home = state.guilds[where.guild_id]
        allowed = str(state.may(one.user_id, where))
        body["guild_id"] = home.id
        body["guild"] = {"id": home.id, "locale": "en-US", "features": []}
        body["guild_locale"] = "en-US"
        body["member"] = member(state, home.members[one.user_id]) | {"permissions": allowed}
        body["channel"]["permissions"] = allowed
    else:
        body["user"] = user(state.users[one.user_id])
    if one.message_id is not None:
        source = where.messages[one.message_id]
        body["message"] = message(state, source, app)
    return body
