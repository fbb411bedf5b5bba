"""`atomizer discord`: what is set up at Discord by hand, checked, named, and listed for cluster.toml."""

from __future__ import annotations

import asyncio
import textwrap
from typing import TYPE_CHECKING, Any

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options

if TYPE_CHECKING:
    from cluster.discord.checking import Subject
    from cluster.discord.listing import ListedChannel, Listing
    from cluster.discord.report import AgentReport, ChannelReport, Finding
    from runtime.config import Cluster

GLYPHS = {"ok": "+", "warning": "!", "problem": "x", "off": "-"}
PLACES = {"ok": "+", "missing": "x", "hidden": "-", "unknown": "?"}
IDENTITY = {"ok": "ok", "differs": "other", "none": "none", "unknown": "?"}
INVITING = ("not_member", "role_permission")
"""What opening the invite link mends."""
WIDTH = 79


@click.group()
@shared_options
def discord() -> None:
    """Check the agents' bots, set their names and pictures, list a server's channels.

    It asks Discord over its REST API alone: it works whether the agents run or not, and connects nothing.

    \b
    Examples:
      atomizer discord check
      atomizer discord identity
      atomizer discord channels
    """


@discord.command()
@click.argument("agents", nargs=-1, metavar="[AGENT...]")
@click.option("--invite", is_flag=True, help="Show the link that adds each bot to the server, needed or not.")
@shared_options
@pass_invocation
def check(call: Invocation, agents: tuple[str, ...], invite: bool) -> int:
    """Whether each agent's bot is what it has to be: token, intents, server, channels, permissions, name, picture.

    All enabled agents if none is named; a named agent's channels are listed too. Ends with 1 if there is a problem;
    warnings (!) do not count, nor does an agent without a bot, unless it is named.

    \b
    Examples:
      atomizer discord check
      atomizer discord check webster --invite
      atomizer discord check --json | jq '.agents[] | select(.state == "problem") | .findings'
    """
    from cluster.discord.bot import PORTAL
    from cluster.discord.checking import check_all

    cluster = call.cluster
    subjects = [_subject(call, cluster, name) for name in _names(call, agents)]
    for subject in subjects:
        subject.expected = bool(agents)
    _ask_gateways(call, subjects)
    reports = asyncio.run(check_all(call.home, _api_base(cluster), subjects))
    failed = any(report.state == "problem" for report in reports)
    text = "\n".join([*_fleet(reports), *_details(reports, bool(agents), invite)])
    call.answer({"ok": not failed, "agents": reports}, text)
    if not agents and all(report.token == "none" for report in reports):
        call.note(
            f"no agent has a bot yet: make one at {PORTAL} (docs/discord.md, step by step), then: atomizer secrets set"
            " AGENT discord"
        )
    return exits.FAILED if failed else exits.OK


@discord.command()
@click.argument("agents", nargs=-1, metavar="[AGENT...]")
@click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")
@shared_options
@pass_invocation
def identity(call: Invocation, agents: tuple[str, ...], dry_run: bool) -> int:
    """Give each bot the name of its agent ([agent] title of its instance.toml) and its picture.

    The picture is `avatar.png` in the agent's instance folder in the home, else the shipped one. What is right already
    is left alone. Discord lets a bot change its name twice an hour.

    \b
    Examples:
      atomizer discord identity --dry-run
      atomizer discord identity webster
    """
    from cluster.discord.naming import name_all

    cluster = call.cluster
    subjects = [_subject(call, cluster, name) for name in _names(call, agents)]
    having = [subject for subject in subjects if subject.token is not None]
    missing = [subject.needs.agent for subject in subjects if subject.token is None]
    if not having or (agents and missing):
        raise CommandFailure(
            f"{', '.join(missing)}: no bot yet; store its token: atomizer secrets set {missing[0]} discord",
            exits.CONFIG,
            "no_token",
        )
    named = asyncio.run(name_all(call.home, _api_base(cluster), having, dry_run))
    lines = [f"{row.agent}: {'; '.join([*row.done, *row.failed])}" for row in named]
    failed = any(row.failed for row in named)
    call.answer({"ok": not failed, "dry_run": dry_run, "agents": named}, "\n".join(lines))
    return exits.FAILED if failed else exits.OK


@discord.command()
@click.option("--guild", metavar="ID", help="The server; default: [discord] guild, or the only one a bot is in.")
@shared_options
@pass_invocation
def channels(call: Invocation, guild: str | None) -> None:
    """The server's categories and channels with their ids, as lines for cluster.toml.

    What cluster.toml says of a channel already (`agents`, `mention`) is kept. Nothing is written.

    \b
    Examples:
      atomizer discord channels
      atomizer discord channels --guild 123456789012345678
    """
    from cluster.discord.bot import Trouble
    from cluster.discord.listing import list_channels
    from runtime.config import load_cluster
    from runtime.discord_token import SECRET
    from runtime.secrets import Secrets

    cluster = load_cluster(call.home, places=False)
    if guild is not None and not guild.isdecimal():
        raise click.BadParameter("a server's id is a number", click.get_current_context(), param_hint="--guild")
    secrets = Secrets(call.home)
    tokens = [(name, token) for name in cluster.agents if (token := secrets.get(name, SECRET))]
    try:
        listing = asyncio.run(list_channels(_api_base(cluster), tokens, guild or cluster.file.discord.guild))
    except Trouble as trouble:
        raise CommandFailure(str(trouble), exits.FAILED, trouble.finding.code) from None
    call.answer({"ok": True, **_builtins(listing)}, lambda: _toml(cluster, listing))


# -- what is asked ---------------------------------------------------------------------------------------------------


def _names(call: Invocation, agents: tuple[str, ...]) -> list[str]:
    if agents:
        return list(dict.fromkeys(call.agent(name).name for name in agents))
    return [spec.name for spec in call.cluster.enabled]


def _api_base(cluster: Cluster) -> str:
    from runtime.config_discord import API_BASE

    return cluster.file.discord.api_base or API_BASE


def _subject(call: Invocation, cluster: Cluster, name: str) -> Subject:
    from cluster.discord.checking import Subject
    from cluster.discord.needs import needs
    from cluster.discord.tokens import holders
    from runtime.config import load_instance
    from runtime.discord_token import SECRET
    from runtime.secrets import Secrets

    secrets = Secrets(call.home)
    token = secrets.get(name, SECRET)
    sharers = [other for other in holders(secrets, token, cluster.agents) if other != name] if token else []
    return Subject(needs=needs(cluster, load_instance(cluster, name)), token=token, sharers=sharers)


def _ask_gateways(call: Invocation, subjects: list[Subject]) -> None:
    """What running gateways know: who is paired, and what they say of their connection."""
    from cluster.cli.access import running_agents
    from protocols.errors import AtomizerError
    from protocols.pairings import PairingList
    from protocols.status import AgentStatus

    running = set(running_agents(call))
    for subject in subjects:
        name = subject.needs.agent
        if name not in running or subject.token is None:
            continue
        try:
            ask = call.ask(name, timeout=2.0)
            people = ask.get("/pairings", PairingList).pairings
            subject.paired = [ident for _, ident in (row.target.split(":user:") for row in people)]
            status = ask.get("/status", AgentStatus)
        except AtomizerError:
            continue  # `atomizer status` tells
        for channel in status.channels:
            if channel.provider == "discord" and channel.state in ("degraded", "auth_failed", "intents_refused"):
                subject.gateway = f"{channel.state}: {channel.detail}"


# -- what is shown ---------------------------------------------------------------------------------------------------


def _fleet(reports: list[AgentReport]) -> list[str]:
    rows = [["", "AGENT", "BOT", "INTENT", "CHANNELS", "NAME", "PICTURE"]]
    for report in reports:
        row = [f"{GLYPHS[report.state]} {report.state}", report.agent]
        if report.token != "valid" or report.message_content is None:
            rows.append([*row, "no token" if report.token == "none" else f"token {report.token}", *"----"])
            continue
        useful = [place for place in report.channels if place.state != "hidden"]
        good = f"{sum(place.state == 'ok' for place in useful)} of {len(useful)}" if report.channels else "-"
        bot = report.bot if len(report.bot) <= 17 else report.bot[:16] + "~"
        intent = "on" if report.message_content else "off"
        rows.append([*row, bot, intent, good, IDENTITY[report.name], IDENTITY[report.picture]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _details(reports: list[AgentReport], with_channels: bool, with_invite: bool) -> list[str]:
    lines: list[str] = []
    for report in reports:
        told = [] if report.state == "off" else sorted(report.findings, key=lambda f: f.severity != "problem")
        shown = report.channels if with_channels else []
        invite = report.invite if with_invite or any(f.code in INVITING for f in told) else ""
        if not (told or shown or invite):
            continue
        lines += ["", report.agent]
        lines += [_channel_line(row) for row in shown]
        for glyph, text, mend in _joined(told):
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {glyph} ", subsequent_indent="    ")
            lines += _wrapped(mend, "    -> ", "       ")
        lines += ["    invite link:", invite] if invite else []
    without = [report.agent for report in reports if report.state == "off"]
    if without:
        text = f"without a bot: {', '.join(without)}"
        lines += ["", *_wrapped(text, "", "  ")]
    return lines


def _wrapped(text: str, first: str, then: str) -> list[str]:
    """Lines in which no address, name or command word is broken."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )


def _joined(findings: list[Finding]) -> list[tuple[str, str, str]]:
    """(glyph, text, mend); what one thing mends is told together."""
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        glyph = GLYPHS[finding.severity]
        if rows and (rows[-1][0], rows[-1][2]) == (glyph, finding.mend):
            rows[-1] = (glyph, f"{rows[-1][1]}; {finding.text}", finding.mend)
        else:
            rows.append((glyph, finding.text, finding.mend))
    return rows


def _channel_line(row: ChannelReport) -> str:
    from cluster.discord.needs import PERMISSIONS

    words = {
        "ok": "all it needs",
        "hidden": "not for it",
        "unknown": "not found",
        "missing": "may not " + ", ".join(PERMISSIONS[name] for name in row.missing),
    }[row.state]
    name = f"#{row.name}" if row.name else row.id
    line = f"  {PLACES[row.state]} {name:24} {','.join(row.uses):16} {words}"
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "~"


def _toml(cluster: Cluster, listing: Listing) -> str:
    """Lines to paste under or in place of what cluster.toml has."""
    import tomli_w

    from protocols.runs import one_line
    from runtime.config_discord import channel_map

    known = {table.id: (name, table) for name, table in channel_map(cluster.file.discord)}
    taken: set[str] = set()
    categories: dict[str, dict[str, Any]] = {}
    others: list[ListedChannel] = []
    for channel in listing.channels:
        if channel.kind not in ("text", "news"):
            others.append(channel)
            continue
        name, table = known.get(channel.id, (channel.name, None))
        while name in taken:  # Discord lets two channels have one name
            name = f"{name}-{channel.id[-4:]}"
        taken.add(name)
        entry: Any = channel.id
        if table is not None and (table.agents or not table.mention):
            entry = {"id": channel.id, "agents": table.agents}
            entry |= {} if table.mention else {"mention": False}
        category = channel.category.lower().replace(" ", "-") or "none"
        categories.setdefault(category, {})[name] = entry
    # A name is what somebody on Discord chose: in a comment it must not end the line.
    lines = [f"# The channels of {one_line(listing.name)}, for {cluster.home.cluster_toml}"]
    if cluster.file.discord.guild is None:
        lines += ["[discord]", f'guild = "{listing.guild}"', ""]
    lines.append(tomli_w.dumps({"discord": {"channels": categories}}).rstrip())
    lines += [f"# not heard: {one_line(channel.name)} ({channel.kind}) {channel.id}" for channel in others]
    return "\n".join(lines)


def _builtins(listing: Listing) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(listing))
