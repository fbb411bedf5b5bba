"""Looking at one agent's bot: token, application, servers, channels, name and picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import discord
import msgspec

from cluster.discord import permits
from cluster.discord.bot import PORTAL, SECONDS, Bot, explain
from cluster.discord.identity import bad_name, picture_state
from cluster.discord.needs import OPTIONAL, PERMISSIONS, Needs, Place
from cluster.discord.report import AgentReport, ChannelReport, GuildReport
from runtime.discord_token import TokenError, clean_token, looks_usual
from runtime.home import Home

AT_ONCE = 4
"""Agents that are looked at together."""
MOST_LOOKUPS = 5
"""Channels that are in none of the servers, asked for one by one."""
_NAMED = 6


class Subject(msgspec.Struct, kw_only=True):
    """One agent to look at."""

    needs: Needs
    token: str | None
    sharers: list[str]
    """Other agents with the same token."""
    expected: bool = False
    """Whether it is a problem that there is no token: without one an agent is simply not on Discord."""
    paired: list[str] = []
    """User ids of people whose direct messages it answers since somebody approved them, as far as is known."""
    gateway: str = ""
    """What its running gateway says is wrong with its connection."""


async def check_all(home: Home, api_base: str, subjects: Iterable[Subject]) -> list[AgentReport]:
    """A report each, in order. Raises nothing that Discord or the network may do."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(subject: Subject) -> AgentReport:
        async with gate:
            return await check(home, api_base, subject)

    return await asyncio.gather(*map(one, subjects))


async def check(home: Home, api_base: str, subject: Subject) -> AgentReport:
    """One agent's report."""
    needs = subject.needs
    report = AgentReport(agent=needs.agent, wanted_name=needs.title, permissions=needs.permissions)
    if (token := _token(subject, report)) is not None:
        async with Bot(api_base) as bot:
            try:
                async with asyncio.timeout(SECONDS):
                    await bot.login(token)
                    report.token = "valid"
                    await _look(home, bot, needs, report)
            except Exception as error:  # the edge of one agent: whatever Discord answered; `explain` raises the rest
                finding = explain(error, needs.agent).finding
                report.findings.append(finding)
                if report.token != "valid":
                    report.token = "refused" if finding.code == "token_refused" else "unknown"
            report.requests = bot.requests
    if report.token != "none":
        _privacy(subject, report)
        if subject.gateway:
            mend = f"atomizer reload {needs.agent}" if report.token == "valid" else "mend what is named here first"
            report.found("problem", "gateway", f"its gateway says: {subject.gateway}", mend)
    if report.token != "none" or subject.expected:
        report.judge()
    return report


def _token(subject: Subject, report: AgentReport) -> str | None:
    """The token, if it is worth showing it to Discord: ten thousand refusals in ten minutes ban the host's address."""
    store = f"atomizer secrets set {subject.needs.agent} discord"
    if subject.token is None:
        report.found(
            "problem" if subject.expected else "warning",
            "no_token",
            "has no bot",
            f"make one at {PORTAL}, then: {store}",
        )
        return None
    if subject.sharers:
        report.token = "shared"
        text = f"has the same token as {' and '.join(subject.sharers)}: both would answer every message"
        report.found("problem", "token_shared", text, f"make a bot of its own at {PORTAL}, then: {store}")
        return None
    try:
        token = clean_token(subject.token)
    except TokenError as error:
        report.token = "malformed"
        report.found("problem", "token_malformed", str(error), f"then: {store}")
        return None
    if not looks_usual(token):
        report.found("warning", "token_unusual", "its token has an unusual shape", "if it is refused, copy it again")
    return token


async def _look(home: Home, bot: Bot, needs: Needs, report: AgentReport) -> None:
    _application(bot, report)
    _identity(home, bot, needs, report)
    report.invite = bot.invite(needs.permissions, needs.guilds[0] if needs.guilds else None)
    channels: dict[str, permits.Channel] = {}
    members: dict[int, discord.Member] = {}
    for ident in needs.guilds:
        guild = await _guild(bot, ident, report)
        if guild is not None:
            members[guild.id] = await guild.fetch_member(bot.me.id)
            if members[guild.id].guild_permissions.administrator:
                text = f"is Administrator of {guild.name}: a fooled model or a stolen token could do anything there"
                mend = (
                    "Server Settings > Roles: take Administrator from its role; the invite link asks for what it needs"
                )
                report.found("warning", "administrator", text, mend)
            channels |= {str(channel.id): channel for channel in await guild.fetch_channels()}
    if members:
        await _Channels(bot, channels, members, report).look(needs)
    if not needs.guilds and not any("hears" in place.uses for place in needs.places):
        there = [guild async for guild in bot.fetch_guilds(limit=5)]
        known = ", ".join(f'"{guild.id}" ({guild.name})' for guild in there) or "none: open the invite link first"
        mend = f"write guild = ... under [discord] in cluster.toml; its bot is in {known}"
        report.found("problem", "no_guild", "no server is named, so nothing is heard in channels", mend)


def _application(bot: Bot, report: AgentReport) -> None:
    app, flags = bot.app, bot.app.flags
    report.bot, report.bot_id, report.application_id = str(bot.me), str(bot.me.id), str(app.id)
    report.message_content = flags.gateway_message_content or flags.gateway_message_content_limited
    report.public = app.bot_public
    page = f"{PORTAL}/{app.id}"
    if not report.message_content:
        report.found(
            "problem",
            "message_content",
            "may not read what people write",
            f"switch on Message Content Intent at {page}/bot (Privileged Gateway Intents)",
        )
    if app.bot_require_code_grant:
        text = "cannot be invited by a link: Requires OAuth2 Code Grant is on"
        report.found("problem", "code_grant", text, f"switch it off at {page}/bot")
    if app.interactions_endpoint_url:
        text = "its slash commands and buttons go to a web address, not here"
        report.found("problem", "interactions_endpoint", text, f"empty Interactions Endpoint URL at {page}/information")
    if app.bot_public:
        mend = f"at {page}: Installation, Install Link None; then Bot, Public Bot off"
        report.found("warning", "public", "anybody may invite it to a server of theirs", mend)


def _identity(home: Home, bot: Bot, needs: Needs, report: AgentReport) -> None:
    report.name = "ok" if bot.me.name == needs.title else "differs"
    report.picture = picture_state(home, needs.agent, bot.me)
    mend = f"atomizer discord identity {needs.agent}"
    if report.name == "differs":
        text = f"is called {bot.me.name} on Discord, and {needs.title} here"
        if problem := bad_name(needs.title):
            mend = f"change [agent] title in its instance.toml: {problem}"
        report.found("warning", "name", text, mend)
    if report.picture != "ok":
        text = {
            "none": "has no picture",
            "differs": "shows another picture than its own",
            "unknown": "shows a picture that was not set from here",
        }[report.picture]
        report.found("warning", "picture", text, f"atomizer discord identity {needs.agent}")


async def _guild(bot: Bot, ident: str, report: AgentReport) -> discord.Guild | None:
    """The server, None if the bot is no member."""
    try:
        guild = await bot.fetch_guild(int(ident), with_counts=False)
    except (discord.NotFound, discord.Forbidden):
        report.guilds.append(GuildReport(id=ident))
        mend = "open the invite link below; adding it takes Manage Server there"
        report.found("problem", "not_member", f"is not in the server {ident}", mend)
        return None
    report.guilds.append(GuildReport(id=ident, name=guild.name, member=True))
    return guild


class _Channels:
    """The channels of one agent."""

    def __init__(
        self, bot: Bot, channels: dict[str, permits.Channel], members: dict[int, discord.Member], report: AgentReport
    ) -> None:
        self._bot = bot
        self._channels = channels
        self._members = members
        self._report = report
        self._lookups = 0
        self._lacking: dict[tuple[str, permits.Denial], list[str]] = {}
        self._mute: list[str] = []
        """Channels in which people may use no slash commands."""

    async def look(self, needs: Needs) -> None:
        for place in needs.places:
            wanted = place.needs(needs.permissions)
            channel = self._channels.get(place.id)
            if channel is None:
                await self._elsewhere(place, wanted)
            else:
                self._judge(place, channel, wanted)
        self._tell()
        seen = [row for row in self._report.channels if row.state in ("ok", "missing") and "hears" in row.uses]
        if not seen and any("hears" in place.uses for place in needs.places):
            mend = "let its role see one of them (Edit Channel > Permissions), or name others in cluster.toml"
            self._report.found("problem", "sees_none", "sees none of the channels it is to hear", mend)

    def _judge(self, place: Place, channel: permits.Channel, wanted: list[str]) -> None:
        category = self._channels.get(str(channel.category_id))
        lacking = permits.missing(channel, category, self._members[channel.guild.id], wanted)
        row = self._row(place, channel.name, "missing" if lacking else "ok")
        row.missing = [name for name, _ in lacking]
        if row.missing == ["view_channel"] and not place.required:
            row.state = "hidden"
            return
        for name, denial in lacking:
            self._lacking.setdefault((name, denial), []).append(f"#{channel.name}")
        if "hears" in place.uses and not permits.people_may(channel, "use_application_commands"):
            self._mute.append(f"#{channel.name}")

    async def _elsewhere(self, place: Place, wanted: list[str]) -> None:
        """A thread, a direct conversation, or nothing."""
        found = None
        if self._lookups < MOST_LOOKUPS:
            self._lookups += 1
            try:
                found = await self._bot.fetch_channel(int(place.id))
            except (discord.NotFound, discord.Forbidden):
                found = None
        if isinstance(found, discord.Thread) and (parent := self._channels.get(str(found.parent_id))) is not None:
            inside = ["send_messages_in_threads" if name == "send_messages" else name for name in wanted]
            self._judge(place, parent, list(dict.fromkeys(inside)))
            return
        if isinstance(found, discord.DMChannel):
            self._row(place, "", "ok")
            return
        named = f"#{place.name} ({place.id})" if place.name else f"the channel {place.id}"
        self._row(place, place.name, "unknown")
        text = f"finds no {named} in its servers" if place.name else f"does not find {named} in its servers"
        self._report.found("problem", "no_channel", text, "atomizer discord channels lists the ids that there are")

    def _row(self, place: Place, name: str, state: str) -> ChannelReport:
        row = ChannelReport(id=place.id, name=name, uses=list(place.uses), state=state)  # type: ignore[arg-type]
        self._report.channels.append(row)
        return row

    def _tell(self) -> None:
        """One finding for what has one cause, however many channels have it."""
        grouped: dict[tuple[permits.Denial, tuple[str, ...]], list[str]] = {}
        for (name, denial), where in self._lacking.items():
            grouped.setdefault((denial, tuple(where)), []).append(name)
        for (denial, places), names in grouped.items():
            severity = "warning" if set(names) <= OPTIONAL else "problem"
            shown = ", ".join(PERMISSIONS[name] for name in names)
            why, mend = _denial_words(denial, len(places))
            text = f"may not {shown} in {_listed(places)}: {why}"
            code = "role_permission" if denial.where == "role" else "permission"
            self._report.found(severity, code, text, mend)  # type: ignore[arg-type]
        if self._mute:
            text = f"its slash commands are closed to people in {_listed(self._mute)}"
            mend = "allow @everyone Use Application Commands there, if they are to be used"
            self._report.found("warning", "people_commands", text, mend)


def _denial_words(denial: permits.Denial, channels: int) -> tuple[str, str]:
    """(why, mend)."""
    if denial.where == "timeout":
        return "it is timed out", "remove the timeout: right-click it in the server's list of members"
    if denial.where == "role":
        return "none of its roles may", "allow it to its role in Server Settings > Roles, or open the invite link again"
    if denial.where == "category":
        why = f"taken from {denial.whom} in the category {denial.category}"
        return why, "Edit Category > Permissions: allow it to the bot's role"
    their = "their" if channels > 1 else "its"
    return f"taken from {denial.whom} in {their} settings", "Edit Channel > Permissions: allow it to the bot's role"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _privacy(subject: Subject, report: AgentReport) -> None:
    needs = subject.needs
    people = {*needs.people, *subject.paired}
    if needs.dm != "off" and needs.dm_session == "main" and len(people) > 1:
        report.found(
            "warning",
            "one_session",
            f"{len(people)} people share one conversation in direct messages, and can ask about each other's",
            'set dm_session = "person" under [discord] in its instance.toml',
        )
