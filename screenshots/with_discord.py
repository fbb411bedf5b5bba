"""The pictures for docs/discord.md: agents whose bots are in a server of the stand-in, and people who write there."""

from __future__ import annotations

import asyncio
from typing import Any

from taking import ASKING, atomizer, cluster, take, until  # first: it makes the packages importable

from console.app import ConsoleApp
from console.screens.approvals import ApprovalsScreen
from console.screens.run import RunScreen
from console.screens.runs import RunList
from runtime.config import load_cluster, load_instance
from runtime.home import Home
from runtime.secrets import Secrets
from tests.standins.discord import DiscordThread

ASKED = "what is the thermal expansion of zerodur?"
REVOKED, BLIND, SLOW = "auditor", "optimizer", "nx-expert"
"""Whose token is revoked, whose Message Content Intent is off, and to whom Discord answers late."""


def pictures() -> None:
    with cluster() as home, DiscordThread() as discord:
        made, titles = furnish(home, discord)
        discord.revoke(titles[REVOKED])
        discord.set_message_content(titles[BLIND], False)
        atomizer(home.root, "up", "--no-console")
        asyncio.run(drive(home, discord, made, titles))


def furnish(home: Home, discord: DiscordThread) -> tuple[dict[str, Any], dict[str, str]]:
    """A server with a bot for each agent, and a home that knows it: (what was made, agent -> title)."""
    agents = load_cluster(home)
    titles = {str(spec.name): load_instance(agents, spec.name).file.agent.title for spec in agents.enabled}
    made: dict[str, Any] = discord.furnish(list(titles.values()), ["ada", "bob"])
    channels = {name.lower().replace(" ", "-"): ident for name, ident in made["channels"].items()}
    lines = [f'guild = "{made["guild"]}"', f'operators = ["{made["people"]["ada"]}"]']
    lines += [f'api_base = "{discord.api_base}"', f'gateway_url = "{discord.gateway_url}"', "[discord.channels.all]"]
    lines += [f'{name} = "{ident}"' for name, ident in channels.items()]
    home.cluster_toml.write_text(home.cluster_toml.read_text() + "\n[discord]\n" + "\n".join(lines) + "\n")
    for agent, title in titles.items():
        Secrets(home).set(agent, "discord", made["bots"][title]["token"])
    return made, titles


async def drive(home: Home, discord: DiscordThread, made: dict[str, Any], titles: dict[str, str]) -> None:
    app = ConsoleApp(load_cluster(home), Secrets(home).token("operator"))

    def states(agent: str) -> list[str]:
        status = app.store.agents[agent].status
        return [channel.state for channel in status.channels] if status else []

    async with app.run_test(size=(120, 40)) as pilot:
        well = [agent for agent in titles if agent not in (REVOKED, BLIND)]
        await until(lambda: all(states(agent) == ["ready"] for agent in well), "connecting")
        await until(lambda: states(REVOKED) == ["auth_failed"], "the refusal of a token")
        await until(lambda: states(BLIND) == ["intents_refused"], "the refusal of an intent")
        discord.fault("GET", "/users/@me", titles[SLOW], times=0, delay=25.0)
        await asyncio.to_thread(atomizer, home.root, "restart", SLOW)
        await until(lambda: states(SLOW) == ["connecting"], "a slow Discord")
        app.fleet.table.go_to("webster")
        await take(app, pilot, "discord-fleet")
        app.fleet.table.go_to(REVOKED)
        await pilot.press("enter")
        await take(app, pilot, "discord-refused")
        await pilot.press("escape")
        discord.clear_faults()

        said = discord.say(made["channels"][titles["webster"]], "ada", ASKED, mentions=[titles["webster"]])
        await until(lambda: discord.view.replies(said), "the answer")
        await pilot.press("t")
        await until(lambda: app.screen.query(RunList) and app.screen.query_one(RunList).keys, "the list of runs")
        run = next(run for run in app.store.runs.values() if run.agent == "webster")
        app.screen.query_one(RunList).go_to(run.run_id)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, RunScreen) and app.screen._run, "the run in full")
        await take(app, pilot, "discord-mention")
        await pilot.press("escape", "escape")

        discord.dm("bob", titles["webster"], "Hello, can you look up the density of silicon carbide for me?")
        await until(app.store.pending_approvals, "the stranger's question")
        await pilot.press("g")
        await until(lambda: isinstance(app.screen, ApprovalsScreen) and app.screen.has_approval, "the question's page")
        await take(app, pilot, "discord-pairing")
        await pilot.pause(0.7)
        await pilot.press("a")
        await until(lambda: not app.store.pending_approvals(), "the pairing")
        secretary = titles[ASKING]
        text = "remember the review of the mirror study is on Friday at ten"
        discord.say(made["channels"][secretary], "ada", text, mentions=[secretary])
        await until(app.store.pending_approvals, "the secretary's question")
        await until(lambda: isinstance(app.screen, ApprovalsScreen) and app.screen.has_approval, "the question's page")
        await take(app, pilot, "discord-approval")
        await pilot.press("escape")
