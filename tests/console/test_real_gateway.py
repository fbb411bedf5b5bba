"""The console against real gateways: hostile text on a real terminal, an approval, the steps of a run."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from bench.terminal import Terminal
from bench.terminal import console as terminal_console
from console.app import ConsoleApp
from console.screens.approvals import ApprovalsScreen
from console.screens.run import RunScreen
from console.screens.runs import RunList
from protocols.runs import RunState
from runtime.config import load_cluster
from tests.conftest import ClusterHome
from tests.console.conftest import FakeSupervisor, settle, until
from tests.console.looking import bar, page
from tests.gateway.process import GatewayProcess, running

HOSTILE = "\x1b]0;PWNED\x07 \x1b[2J \x9b31m \x7f \u202egpj.exe\u202c over\rwritten \x00nul"
SHOWN = "␛]0;PWNED␇ ␛[2J <U+009B>31m ␡ <U+202E>gpj.exe<U+202C> over␍written ␀nul"
RAW = ("\x1b]0;PWNED", "PWNED\x07", "\x9b31m", "\u202e", "over\rwritten")


@asynccontextmanager
async def console(home: ClusterHome) -> AsyncIterator[tuple[ConsoleApp, Pilot[None]]]:
    app = ConsoleApp(load_cluster(home.home), home.token(), connect=FakeSupervisor().connect)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: all(a.live and a.status for a in app.store.agents.values()), 20)
        await settle(app, pilot)
        yield app, pilot


@pytest.fixture
def webster(make_home: Callable[..., ClusterHome]) -> Iterator[GatewayProcess]:
    """One that asks before it writes into its memory."""
    home = make_home("webster")
    path = home.home.instance("webster") / "instance.toml"
    path.write_text(path.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
    with running(home, "webster") as (gateway,):
        yield gateway


def paint(terminal: Terminal, seconds: float, wanted: str) -> str:
    """What was written to the terminal until `wanted` was among it."""
    assert terminal.read_for(seconds, wanted.encode()), f"{wanted!r} was not painted: {terminal._recent[-3000:]!r}"
    return terminal._recent.decode("utf-8", "replace")


def test_nothing_that_a_task_or_an_answer_holds_reaches_the_terminal_raw(
    make_home: Callable[..., ClusterHome],
) -> None:
    home = make_home("webster")
    path = home.home.instance("webster") / "instance.toml"
    path.write_text(path.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
    with running(home, "webster") as (gateway,):
        gateway.result(gateway.delegate(f"read {HOSTILE}"))
        waiting = gateway.delegate(f"remember {HOSTILE}")
        with terminal_console(home.root) as terminal:
            painted = paint(terminal, 30, "GATE")
            terminal.read_for(2)
            terminal.type("g")
            painted += paint(terminal, 10, "asked by")
            terminal.type("\r")
            painted += paint(terminal, 10, "WAITS FOR")
            for keys in ("\x1b", "\x1b", "L"):
                terminal.type(keys)
                terminal.read_for(0.7)
            terminal.type("S")
            painted += paint(terminal, 10, "saved to")
            painted += terminal._recent.decode("utf-8", "replace")
            terminal.type("q")
            terminal.read_for(3)
        assert gateway.ask.run(waiting).state is RunState.WAITING
    for raw in RAW:
        assert raw not in painted, repr(raw)
    assert "␛]0;PWNED␇" in painted
    assert "<U+202E>gpj.exe" in painted
    saved = next((home.home.run).glob("console-log-*.txt"))
    kept = [saved, home.home.run / "console-snapshot.json"]
    for file in kept:
        text = file.read_bytes().decode()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not any(c in text for c in "\x1b\x07\x7f\x9b\u202e\r\x00")
        assert "PWNED" in text, file


def test_the_commands_show_it_as_well(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        run_id = gateway.delegate(f"remember {HOSTILE}")
        gateway.result(run_id)
        for words in (("run", "show", run_id), ("runs",), ("logs", "--level", "debug"), ("run", "show", "\x1b[31mx")):
            done = home.run(*words)
            said = done.stdout + done.stderr
            assert not any(c in said for c in "\x1b\x07\x7f\x9b\u202e\r\x00"), words
        assert SHOWN in home.cli("run", "show", run_id)
        assert home.json("run", "show", run_id)["message"] == f"remember {HOSTILE}"
        assert not any(c in home.cli("run", "show", run_id, "--json") for c in "\x1b\x07\x7f\x9b\u202e\r\x00")


async def test_an_approval_is_asked_shown_and_given_in_two_keys(webster: GatewayProcess) -> None:
    async with console(webster.home) as (app, pilot):
        run_id = webster.delegate("remember the mirror is 1.2 m")
        await until(lambda: app.store.pending_approvals(), 20)
        await settle(app, pilot)
        assert "the mirror is 1.2 m" in bar(app, "gate")
        assert "gates 1" in bar(app, "status")
        await pilot.press("g")
        await until(lambda: isinstance(app.screen, ApprovalsScreen) and "given by" in page(app))
        assert "operator" in page(app)
        assert not webster.notes()
        await pilot.press("a")
        await until(lambda: not app.store.pending_approvals())
        await until(lambda: app.store.runs[run_id].state is RunState.SUCCEEDED, 20)
        assert "the mirror is 1.2 m" in webster.notes()


async def test_an_answer_from_elsewhere_is_named(webster: GatewayProcess) -> None:
    async with console(webster.home) as (app, _):
        webster.delegate("remember the mirror is 1.2 m")
        await until(lambda: app.store.pending_approvals(), 20)
        asked = app.store.pending_approvals()[0]
        said = webster.home.cli("approvals", "reject", asked.id, "--reason", "not now")
        assert said.startswith("webster: rejected: memory_write")
        write = await app.operations.answer(asked, True, "")
        assert write.detail == "answered by operator meanwhile: rejected: not now"


async def test_a_run_shows_each_step_as_it_happens(webster: GatewayProcess) -> None:
    async with console(webster.home) as (app, pilot):
        run_id = webster.delegate("remember the mirror is 1.2 m")
        await until(lambda: run_id in app.store.runs, 20)
        await pilot.press("t")
        await until(lambda: app.screen.query(RunList) and app.screen.query_one(RunList).current)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, RunScreen) and "WAITS FOR" in page(app), 20)
        text = page(app)
        assert "0 model offline/retrieval done" in text or "1 model offline/retrieval done" in text
        assert "tokens in" in text
        assert "ANSWER" not in text
        asked = app.store.pending_approvals()[0]
        await app.operations.answer(asked, True, "")
        await until(lambda: "+ succeeded" in page(app) and "tool memory_write done" in page(app), 20)
        text = page(app)
        assert "text: the mirror is 1.2 m" in text
        assert text.index("ANSWER") < text.index("STEPS")
        assert "the answer above" in text


def test_the_snapshot_of_an_older_console_is_made_safe_as_well(make_home: Callable[..., ClusterHome]) -> None:
    from console import snapshot
    from tests.console.standin import make_status

    home = make_home("webster")
    path = home.home.run / snapshot.NAME
    snapshot.save(home.home, [make_status("webster", 1, last_error=f"{HOSTILE} at {time.time():.0f}")])
    assert snapshot.load(home.home)[0].last_error.startswith(SHOWN)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert Path(path).exists()
