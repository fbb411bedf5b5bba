"""Make the pictures of this folder: `python screenshots/make.py`.

A real cluster is made in a temporary home, started by the `atomizer` command on free ports with the offline profile,
given real work, and stopped again. The console in the pictures is the real one, driven by keys.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from textual.pilot import Pilot  # noqa: E402

from console.app import ConsoleApp  # noqa: E402
from console.screens.approvals import ApprovalsScreen  # noqa: E402
from console.screens.run import RunScreen  # noqa: E402
from console.screens.runs import RunList  # noqa: E402
from runtime.config import load_cluster  # noqa: E402
from runtime.home import Home  # noqa: E402
from runtime.secrets import Secrets  # noqa: E402
from tests.ports import Lease  # noqa: E402

ASKING, ASKS = "secretary", "remember the review of the mirror study is on Friday at ten"
"""Who must ask before it writes into its memory, and what it is given."""
WORK = {
    "webster": "Find the CTE of Zerodur Class 0 between 20 and 40 C",
    "auditor": "Which checks belong in a mesh convergence study?",
    "tech-lead": "delegate to webster: Compare the density of Zerodur and of silicon carbide",
    "study-builder": "remember the mirror study uses 12 design variables",
}


def atomizer(home: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "cluster.cli", *words, "--home", str(home)], check=True, cwd=HERE.parent)


async def until(true: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110 - what is awaited is another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise SystemExit(f"no picture: {what} did not happen in 30 s") from None


async def take(app: ConsoleApp, pilot: Pilot[None], name: str) -> None:
    """Save what is on screen."""
    app.clear_notifications()
    await pilot.pause(1.3)
    app.flush()
    await pilot.pause(0.4)
    svg = app.export_screenshot(title="atomizer-console")
    # Each picture has its own ids, so that a page may hold several; a fixed one keeps it the same when nothing changed.
    svg = re.sub(r"terminal-\d+", f"terminal-{name}", svg)
    (HERE / f"{name}.svg").write_text(svg)
    print(f"screenshots/{name}.svg")


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


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="atomizer-pictures-") as folder, Lease(13) as lease:
        root = Path(folder) / "home"
        atomizer(root, "init")
        ports = iter(lease.ports)
        toml = root / "cluster.toml"
        toml.write_text(re.sub(r"(?m)^port = \d+", lambda _: f"port = {next(ports)}", toml.read_text()))
        instance = Home(root).instance(ASKING) / "instance.toml"
        instance.write_text(instance.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
        try:
            atomizer(root, "up", "--no-console")
            asyncio.run(drive(Home(root)))
        finally:
            atomizer(root, "stop")


if __name__ == "__main__":
    main()
