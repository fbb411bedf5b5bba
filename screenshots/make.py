"""Make the pictures of this folder: `python screenshots/make.py [fleet] [discord]`, all without a word.

A real cluster is made in a temporary home, started by the `atomizer` command on free ports with the offline profile,
given real work, and stopped again; for Discord's pictures its bots talk to a local stand-in. The console in the
pictures is the real one, driven by keys.
"""

from __future__ import annotations

import asyncio
import sys

from taking import ASKING, atomizer, cluster, take, until  # first: it makes the packages importable
from with_discord import pictures as discord_pictures

from console.app import ConsoleApp
from console.screens.approvals import ApprovalsScreen
from console.screens.run import RunScreen
from console.screens.runs import RunList
from runtime.config import load_cluster
from runtime.home import Home
from runtime.secrets import Secrets

ASKS = "remember the review of the mirror study is on Friday at ten"
WORK = {
    "webster": "Find the CTE of Zerodur Class 0 between 20 and 40 C",
    "auditor": "Which checks belong in a mesh convergence study?",
    "tech-lead": "delegate to webster: Compare the density of Zerodur and of silicon carbide",
    "study-builder": "remember the mirror study uses 12 design variables",
}


async def drive(home: Home) -> None:
    token = Secrets(home).token("operator")
    app = ConsoleApp(load_cluster(home), token)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: sum(a.live and a.status is not None for a in app.store.agents.values()) >= 8, "eight up")
        for place, (agent, task) in enumerate(WORK.items()):
            await app.operations.delegate(agent, task, f"picture-{place}", True)
        await until(lambda: all(w.state.value == "done" for w in app.store.writes.values()), "the work")
        await app.operations.delegate(ASKING, ASKS, "picture-asking", True)
        await until(app.store.pending_approvals, "the question")
        app.fleet.table.go_to("webster")
        await take(app, pilot, "fleet")
        await pilot.press("g")
        await until(lambda: isinstance(app.screen, ApprovalsScreen) and app.screen.has_approval, "the question's page")
        await take(app, pilot, "approvals")
        await pilot.press("escape")
        await pilot.press("m")
        await pilot.pause(0.5)
        await take(app, pilot, "model")
        await pilot.press("escape", "t")
        await until(lambda: app.screen.query(RunList) and app.screen.query_one(RunList).keys, "the list of runs")
        await take(app, pilot, "runs")
        mine = next(w.run_id for w in app.store.writes.values() if w.agent == "tech-lead")
        app.screen.query_one(RunList).go_to(mine or "")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, RunScreen) and app.screen._run, "the run in full")
        await take(app, pilot, "run")
        await pilot.press("escape", "escape", "L")
        await take(app, pilot, "logs")
        await pilot.press("escape", "question_mark")
        await take(app, pilot, "help")
        await pilot.press("escape")
    small = ConsoleApp(load_cluster(home), token)
    async with small.run_test(size=(80, 24)) as pilot:
        await until(lambda: sum(a.live for a in small.store.agents.values()) >= 8, "eight up")
        await take(small, pilot, "small")


def fleet_pictures() -> None:
    with cluster() as home:
        atomizer(home.root, "up", "--no-console")
        asyncio.run(drive(home))


def main() -> None:
    kinds = {"fleet": fleet_pictures, "discord": discord_pictures}
    for word in sys.argv[1:] or kinds:
        kinds[word]()


if __name__ == "__main__":
    main()
