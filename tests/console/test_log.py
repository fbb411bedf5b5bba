"""The log pane, what is painted, and what a flood costs."""

from __future__ import annotations

import asyncio
import time

from textual.pilot import Pilot

from console.app import ConsoleApp
from console.dialogs.line import LineDialog
from console.logring import CAPACITY, LogLine
from console.screens.logs import LogsScreen
from protocols.events import LogEvent
from tests.console.conftest import Fleet, settle, until


async def pour(app: ConsoleApp, pilot: Pilot[None], count: int, text: str = "line", level: str = "info") -> None:
    """Put `count` lines of webster's into the store and show them."""
    now = app.store.clock()
    for number in range(count):
        app.store.apply(
            LogEvent(at=now, agent="webster", level=level, logger="x", message=f"{text} {number}", run_id=None)
        )
    await settle(app, pilot)


class TestFollowing:
    async def test_scrolling_up_stops_it_and_new_lines_are_counted(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            view = app.fleet.log_view
            await pour(app, pilot, 100)
            assert view.scroll_y == view.max_scroll_y > 0
            view.focus()
            await pilot.press("k", "k", "k")
            top = view.scroll_y
            await pour(app, pilot, 37)
            assert not view.following
            assert view.scroll_y == top
            assert "+37 new" in view.text_lines()[0]
            await pilot.press("f")
            await settle(app, pilot)
            assert view.following
            assert view.scroll_y == view.max_scroll_y
            assert "new" not in view.text_lines()[0]

    async def test_what_is_read_stays_in_place_while_the_ring_drops_lines_above(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            view = app.fleet.log_view
            await pour(app, pilot, CAPACITY, "old")
            view.focus()
            await pilot.press("pageup", "pageup")
            await pilot.pause()
            shown = view.body(round(view.scroll_y))
            await pour(app, pilot, 1000, "new")
            assert view.body(round(view.scroll_y)) == shown
            assert view.body_count == CAPACITY


class TestChoosing:
    async def test_level_source_and_time(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            view = app.fleet.log_view
            now = app.store.clock()
            for agent, level, at in (
                ("webster", "error", now),
                ("manager", "info", now),
                ("manager", "debug", now - 90),
            ):
                app.store.log.add(LogLine(at, agent, level, f"{agent} {level}"))
            app.store.apply(LogEvent(at=now, agent="webster", level="warning", logger="x", message="last"))
            await settle(app, pilot)
            texts = {line.text for line in view.lines_shown()}
            assert "manager info" in texts
            assert "manager debug" not in texts
            await pilot.press("e", "e")
            assert {line.level for line in view.lines_shown()} == {"error"}
            await pilot.press("e")
            assert "manager debug" in {line.text for line in view.lines_shown()}
            await pilot.press("a")
            assert {line.agent for line in view.lines_shown()} == {"manager"}
            await pilot.press("1")
            assert "manager debug" not in {line.text for line in view.lines_shown()}
            await pilot.press("5")
            assert "manager debug" in {line.text for line in view.lines_shown()}

    async def test_filter_then_hits_among_the_other_lines(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("L")
            await until(lambda: isinstance(app.screen, LogsScreen))
            view = app.screen.log_view  # type: ignore[attr-defined]
            await pour(app, pilot, 50, "quiet")
            await pour(app, pilot, 1, "a timeout")
            await pour(app, pilot, 50, "quiet")
            await pilot.press("slash")
            await until(lambda: isinstance(app.screen, LineDialog) and app.screen.focused)
            await pilot.press(*"timeout", "enter")
            await until(lambda: isinstance(app.screen, LogsScreen))
            assert [line.text for line in view.lines_shown()] == ["a timeout 0"]
            await pilot.press("n")
            assert len(view.lines_shown()) > 100
            assert not view.following
            assert any(style == "hit" for row in range(view.body_count) for _, style in view.body(row))
            await pilot.press("escape")
            assert not view.filter

    async def test_wrapping_shows_all_of_a_long_line(self, fleet: Fleet) -> None:
        async with fleet.console((80, 24)) as (app, pilot):
            view = app.fleet.log_view
            await pour(app, pilot, 1, "long words " * 20 + "end")
            assert "end" not in "\n".join(view.text_lines())
            await pilot.press("W")
            assert "end 0" in "\n".join(view.text_lines())
            assert max(len(text) for text in view.text_lines()) <= 80

    async def test_saving_writes_what_is_shown(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pour(app, pilot, 3, "keep")
            await pilot.press("S")
            await pilot.pause()
        (saved,) = fleet.home.run.glob("console-log-*.txt")
        assert "keep 2" in saved.read_text()


class TestPainting:
    async def test_a_changed_agent_paints_its_row_and_no_other(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            table = app.fleet.table
            await settle(app, pilot)
            before = table.painted
            fleet["webster"].set(runs_today=5, state="degraded", failing=["x"])
            await until(lambda: app.store.agents["webster"].word == "degraded")
            await settle(app, pilot)
            assert table.painted - before == 1

    async def test_nothing_is_painted_when_nothing_changed(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await settle(app, pilot)
            panes = [app.fleet.table, app.fleet.log_view, app.fleet.detail]
            before = [pane.painted for pane in panes]
            for _ in range(3):
                app.fleet.tick()
                await settle(app, pilot)
            assert [pane.painted for pane in panes] == before

    async def test_a_flush_costs_the_same_for_ten_lines_and_for_ten_thousand(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            view = app.fleet.log_view

            async def cost(count: int) -> float:
                now = app.store.clock()
                for number in range(count):
                    app.store.log.add(LogLine(now, "webster", "info", f"line {number}"))
                start = time.process_time()
                app.store.log.merge()
                view.catch_up()
                await pilot.pause()
                return time.process_time() - start

            await cost(CAPACITY)
            few = min([await cost(10) for _ in range(5)])
            many = min([await cost(10_000) for _ in range(5)])
            print(f"flush: 10 lines {few * 1000:.1f} ms, 10,000 lines {many * 1000:.1f} ms")
            assert many < few + 0.05
            assert view.body_count == CAPACITY

    async def test_a_flood_on_the_wire_keeps_memory_bounded_and_shows_the_gap(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            gateway = fleet["webster"]
            for number in range(30_000):
                gateway.log(f"flood {number}")
            await until(lambda: any("were dropped" in line.text for line in app.store.log.lines), 20)
            await settle(app, pilot)
            assert len(app.store.log) <= CAPACITY
            assert app.store.agents["webster"].live
            gateway.log("after the flood")
            await until(lambda: any("after the flood" in line.text for line in app.store.log.lines))
            await asyncio.sleep(0)
