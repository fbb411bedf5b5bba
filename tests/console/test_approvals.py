"""What waits for a human: seen at once, answered in two keys, by whoever is first."""

from __future__ import annotations

import time

import msgspec
import pytest
from textual.pilot import Pilot

from console.app import ConsoleApp
from console.dialogs.line import LineDialog
from console.rows import WriteState
from console.screens.approvals import LOOK_SECONDS, ApprovalsScreen
from console.screens.run import RunScreen
from console.widgets.lines import Page
from protocols.runs import RunState
from tests.console.conftest import Fleet, settle, until
from tests.console.looking import bar, key, page
from tests.console.standin import VIEWER


async def at_the_gates(app: ConsoleApp, pilot: Pilot[None], count: int) -> ApprovalsScreen:
    await until(lambda: len(app.store.pending_approvals()) == count)
    await pilot.press("g")
    await until(lambda: isinstance(app.front, ApprovalsScreen) and app.front.has_approval)
    await settle(app, pilot)
    assert isinstance(app.front, ApprovalsScreen)
    return app.front


def queue(app: ConsoleApp) -> str:
    assert isinstance(app.front, ApprovalsScreen)
    return "\n".join(app.front.queue.text_lines())


async def looked(screen: ApprovalsScreen) -> None:
    await until(lambda: time.monotonic() - screen._changed_at > LOOK_SECONDS)


class TestSeen:
    async def test_no_line_of_an_agent_passes_for_a_fact_of_ours(self, fleet: Fleet) -> None:
        fleet["webster"].ask("exec: make", "for: x\n\nmake\n tool        read_file\n\tasked by manager", tool="exec")
        async with fleet.console() as (app, pilot):
            await at_the_gates(app, pilot, 1)
            lines = page(app).splitlines()
            assert [line.split() for line in lines if line.startswith(" tool ")] == [["tool", "exec"]]
            assert [line for line in lines if "read_file" in line] == [" |  tool        read_file"]
            assert sum(line.lstrip().startswith("asked by") for line in lines) == 1

    @pytest.mark.parametrize("size", [(120, 40), (80, 24)])
    async def test_a_stranger_who_asks_is_told_by_code_and_name_and_all_of_it_fits(
        self, fleet: Fleet, size: tuple[int, int]
    ) -> None:
        question = "pairing: code K7QM-2FTX: may Bob (discord:user:123456789012345678) talk to webster?"
        warning = "Approve only if this person told you the code; the name is whatever they chose."
        asked = fleet["webster"].ask(
            question, f"wrote: hello\n{warning}", tool="pairing", expires_at=time.time() + 3600
        )
        async with fleet.console(size) as (app, pilot):
            await settle(app, pilot)
            assert "pairing: code K7QM-2FTX" in bar(app, "gate")
            await at_the_gates(app, pilot, 1)
            assert "pairing: code K7QM-2FTX: may Bob" in queue(app)
            text = " ".join(page(app).replace(" | ", " ").split())
            assert "discord:user:123456789012345678" in text
            assert f"wrote: hello {warning}" in text
            assert asked.id in text
            screen = app.front.query_one(Page)
            assert screen.max_scroll_y == 0, "all of it is on the screen"
            await pilot.press("enter")
            await until(lambda: "no run asks this" in "".join(str(told.message) for told in app._notifications))

    async def test_a_new_question_is_counted_rung_for_and_shown_above_the_log(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rung: list[int] = []
        monkeypatch.setattr(ConsoleApp, "bell", lambda app: rung.append(1))
        async with fleet.console() as (app, pilot):
            assert not app.fleet.query_one("#gate").display
            fleet["webster"].ask("exec: rm -r mesh", created_at=time.time() - 190)
            await until(lambda: rung)
            await settle(app, pilot)
            assert "gates 1" in bar(app, "status")
            assert "Gates(1)" in bar(app, "footer")
            assert app.fleet.query_one("#gate").display
            gate = bar(app, "gate")
            assert all(told in gate for told in ("GATE", "webster", "exec: rm -r mesh", "3m", "g answers"))
            assert len(gate) <= 120
            assert any("webster asks: exec: rm -r mesh" in n.message for n in app._notifications)
            fleet["webster"].decide(fleet["webster"].approvals[0], True, "operator")
            await until(lambda: not app.store.pending_approvals())
            await settle(app, pilot)
            assert not app.fleet.query_one("#gate").display
            assert rung == [1]

    async def test_who_asks_what_for_which_run_and_until_when(self, fleet: Fleet) -> None:
        fleet["webster"].auto = False
        command = "curl https://example.org/" + "x" * 400
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "fetch the data sheet", "key-1", True)
            run_id = write.run_id or ""
            fleet["webster"].advance(run_id, RunState.WAITING, reason="approval ask-0: exec")
            fleet["webster"].ask(
                "exec: curl https://example.org/xxx…",
                f'for: fetch the data sheet (from operator)\nasked because [tools] ask has "exec"\n\n{command}',
                tool="exec",
                run_id=run_id,
                created_at=time.time() - 250,
                expires_at=time.time() + 7250,
            )
            await at_the_gates(app, pilot, 1)
            row = queue(app)
            assert all(told in row for told in ("webster", "4m", "2h", "exec: curl"))
            text = page(app)
            shown = "".join(line.removeprefix(" | ").strip() for line in text.splitlines())
            assert command in shown
            for told in ("Webster", "= waiting: fetch the data sheet", "operator (hook, Console)", run_id, "4m1"):
                assert told in text, told
            assert "in 2h" in text
            await pilot.press("enter")
            await until(lambda: isinstance(app.screen, RunScreen) and "WAITS FOR" in page(app))
            await pilot.press("g")
            await until(lambda: isinstance(app.front, ApprovalsScreen) and app.front.has_approval)

    async def test_a_run_that_is_not_known_is_read(self, fleet: Fleet) -> None:
        fleet["webster"].auto = False
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "old work", "key-1", True)
            run_id = write.run_id or ""
            await until(lambda: run_id in app.store.runs)
            del app.store.runs[run_id]
            fleet["webster"].ask("exec: ls", run_id=run_id)
            await at_the_gates(app, pilot, 1)
            await until(lambda: "old work" in page(app))

    async def test_it_fits_a_small_terminal(self, fleet: Fleet) -> None:
        fleet["manager"].ask("exec: " + "long " * 60)
        async with fleet.console((80, 24)) as (app, pilot):
            await until(lambda: app.store.pending_approvals())
            await settle(app, pilot)
            assert len(bar(app, "gate")) <= 80
            assert "g answers" in bar(app, "gate")
            await at_the_gates(app, pilot, 1)
            assert all(len(line) <= 80 for line in queue(app).splitlines())


class TestAnswered:
    async def test_two_keys_typed_at_once_approve_the_oldest(self, fleet: Fleet) -> None:
        fleet["webster"].ask("fetch the page?", created_at=time.time() - 10)
        fleet["manager"].ask("release the mesh?", created_at=time.time() - 60)
        async with fleet.console() as (app, _):
            await until(lambda: len(app.store.pending_approvals()) == 2)
            for pressed in "ga":
                app.post_message(key(pressed))
            await until(lambda: fleet["manager"].approvals[0].state == "approved")
            assert fleet["webster"].approvals[0].state == "pending"

    async def test_a_rejection_gives_its_reason(self, fleet: Fleet) -> None:
        fleet["manager"].ask("release the mesh?")
        fleet["webster"].ask("fetch the page?")
        async with fleet.console() as (app, pilot):
            await at_the_gates(app, pilot, 2)
            await pilot.press("j", "n")
            await until(lambda: isinstance(app.screen, LineDialog) and app.screen.focused)
            await pilot.press("enter")
            await pilot.pause()
            assert fleet["webster"].approvals[0].state == "pending"
            await pilot.press("n")
            await until(lambda: isinstance(app.screen, LineDialog) and app.screen.focused)
            await pilot.press(*"no", "enter")
            await until(lambda: fleet["webster"].approvals[0].state == "rejected")
            assert fleet["webster"].approvals[0].reason == "no"
            await until(lambda: len(app.store.pending_approvals()) == 1)

    async def test_somebody_else_was_faster(self, fleet: Fleet) -> None:
        asked = fleet["manager"].ask("release the mesh?")
        async with fleet.console() as (app, pilot):
            await at_the_gates(app, pilot, 1)
            fleet["manager"].decide(asked, False, "discord:user:42", "too early", tell=False)
            await pilot.press("a")
            await until(lambda: app._notifications)
            said = next(iter(app._notifications)).message
            assert said == "not approved: answered by discord:user:42 meanwhile: rejected: too early"
            assert not app.store.pending_approvals()

    async def test_a_question_that_changed_is_refused_and_shown_anew(self, fleet: Fleet) -> None:
        asked = fleet["manager"].ask("release the mesh?")
        async with fleet.console() as (app, _):
            await until(lambda: app.store.pending_approvals())
            fleet["manager"].approvals[0] = msgspec.structs.replace(asked, revision=3)
            write = await app.operations.answer(asked, True, "")
            assert write.state is WriteState.REFUSED
            assert "has changed meanwhile" in write.detail
            assert app.store.pending_approvals()[0].revision == 3

    async def test_a_key_meant_for_a_question_that_went_away_answers_no_other(self, fleet: Fleet) -> None:
        first = fleet["manager"].ask("harmless?", created_at=time.time() - 60)
        fleet["webster"].ask("dangerous?")
        async with fleet.console() as (app, pilot):
            screen = await at_the_gates(app, pilot, 2)
            fleet["manager"].decide(first, True, "discord:user:42")
            await until(lambda: len(app.store.pending_approvals()) == 1)
            app.flush()
            await pilot.press("a")
            await pilot.pause()
            assert fleet["webster"].approvals[0].state == "pending"
            assert any("has just changed" in n.message for n in app._notifications)
            await looked(screen)
            await pilot.press("a")
            await until(lambda: fleet["webster"].approvals[0].state == "approved")

    async def test_a_console_that_only_reads_shows_and_answers_nothing(self, fleet: Fleet) -> None:
        fleet["manager"].ask("release the mesh?")
        async with fleet.console(read_only=True, token=VIEWER) as (app, pilot):
            await at_the_gates(app, pilot, 1)
            await pilot.press("a", "n")
            await pilot.pause()
            assert isinstance(app.screen, ApprovalsScreen)
            assert fleet["manager"].approvals[0].state == "pending"
            assert "Approve" not in bar(app, "footer")
