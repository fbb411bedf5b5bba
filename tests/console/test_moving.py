"""Moving around: filters, marks, screens, the palette; and what a console that only reads leaves out."""

from __future__ import annotations

import pytest

from console.dialogs.line import LineDialog
from console.dialogs.pick import PickDialog
from console.screens.agent import AgentScreen
from console.screens.help import HelpScreen
from console.screens.logs import LogsScreen
from console.screens.runs import RunList, RunsScreen
from tests.console.conftest import Fleet, settle, until
from tests.console.looking import bar, page
from tests.console.standin import VIEWER


class TestMovingAround:
    async def test_filter_marks_sort_and_escape_in_that_order(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("space", "slash")
            await until(lambda: isinstance(app.screen, LineDialog) and app.screen.focused)
            await pilot.press(*"!web @up", "enter")
            await pilot.pause()
            assert app.fleet.table.keys == ["manager", "optimizer"]
            await pilot.press("escape")
            assert len(app.fleet.table.keys) == 4
            assert app.fleet.table.marks == {"manager"}
            await pilot.press("escape")
            assert not app.fleet.table.marks
            await pilot.press("o", "o")
            assert app.fleet.table.keys == ["manager", "optimizer", "webster", "it"]

    async def test_a_range_is_marked(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("V", "j", "j", "V")
            assert app.fleet.table.marks == {"manager", "optimizer", "webster"}

    async def test_every_screen_opens_and_escape_goes_back(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            for key, kind in (
                ("question_mark", HelpScreen),
                ("L", LogsScreen),
                ("l", LogsScreen),
                ("t", RunsScreen),
                ("enter", AgentScreen),
            ):
                await pilot.press(key)
                await until(lambda kind=kind: isinstance(app.screen, kind))
                await pilot.pause()
                await pilot.press("escape")
                await until(lambda: app.screen is app.fleet)

    async def test_the_palette_finds_any_action(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("colon")
            await until(lambda: isinstance(app.screen, PickDialog) and app.screen.focused)
            await pilot.press(*"all logs", "enter")
            await until(lambda: isinstance(app.screen, LogsScreen))

    async def test_zoom_and_back(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("z")
            await pilot.pause()
            assert not app.fleet.log_view.is_on_screen
            await pilot.press("z")
            await pilot.pause()
            assert app.fleet.log_view.is_on_screen

    async def test_quit_leaves_the_agents_alone(self, fleet: Fleet) -> None:
        async with fleet.console() as (_, pilot):
            await pilot.press("q")
        assert not any(gateway.calls for gateway in fleet.gateways.values())
        assert not fleet.supervisor.done


class TestReadOnly:
    async def test_no_writing_key_does_anything_and_none_is_shown(self, fleet: Fleet) -> None:
        async with fleet.console(read_only=True, token=VIEWER) as (app, pilot):
            for key in ("d", "r", "s", "x", "m", "h", "u"):
                await pilot.press(key)
            await pilot.pause()
            assert app.screen is app.fleet
            assert "read-only" in bar(app, "status")
            assert "Delegate" not in bar(app, "footer")
            assert bar(app, "writes") == " `?` shows every key"
            app.perform("restart")
            await pilot.press("question_mark")
            await until(lambda: isinstance(app.screen, HelpScreen))
            await pilot.pause()
            assert "Restart" not in page(app)
        assert not any(gateway.calls for gateway in fleet.gateways.values())
        assert not fleet.supervisor.done

    async def test_what_is_empty_or_stopped_recommends_no_key_that_is_not_there(self, fleet: Fleet) -> None:
        async with fleet.console(read_only=True, token=VIEWER) as (app, pilot):
            assert "none yet" in page(app)
            assert "`d`" not in page(app)
            await fleet["manager"].stop()
            app.store.lost("manager", "connection lost")
            app.store.supervised("manager", "stopped", "")
            await settle(app, pilot)
            assert "`atomizer start manager`" in page(app)
            app.store.set_supervisor(False)
            assert "`s`" not in app.trouble()
            await pilot.press("t")
            await until(lambda: bool(app.screen.query(RunList)))
            assert [text for text, _ in app.screen.query_one(RunList).body(0)] == ["   no runs"]

    async def test_even_the_operations_refuse(self, fleet: Fleet) -> None:
        async with fleet.console(read_only=True, token=VIEWER) as (app, _):
            for writing in (
                app.operations.delegate("webster", "x", "k", True),
                app.operations.set_model("webster", None),
                app.operations.supervise("stop", ["webster"]),
            ):
                with pytest.raises(Exception, match="only reads"):
                    await writing
