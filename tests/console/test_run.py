"""One run on its screen: every step while it goes on, long ones cut, and no toast over the answer."""

from __future__ import annotations

import asyncio
import time

from console.dialogs.confirm import ConfirmDialog
from console.screens.run import RunScreen
from console.widgets.run_page import arguments
from protocols.runs import ChildRun, RunState, Step, Usage
from tests.console.conftest import Fleet, until
from tests.console.looking import page
from tests.console.standin import make_run

TOOL = Step(index=1, kind="tool", state="started", name="exec", input={"command": "ls -l"}, started_at=1.0)


def asked(output: str) -> Step:
    return Step(
        index=0,
        kind="model",
        state="done",
        name="anthropic/claude-opus-4-6",
        output=output,
        started_at=1.0,
        finished_at=3.5,
        usage=Usage(input_tokens=1200, output_tokens=80, cache_read_tokens=1000),
        cost_usd=0.0123,
    )


class TestWhileItGoesOn:
    async def test_steps_children_and_text_appear_as_they_come(self, fleet: Fleet) -> None:
        gateway = fleet["webster"]
        gateway.auto = False
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "a long task", "key-1", True)
            run_id = write.run_id or ""
            await until(lambda: run_id in app.store.runs)
            app.push_screen(RunScreen(False, app.store.runs[run_id]))
            await until(lambda: isinstance(app.screen, RunScreen) and "STEPS (0)" in page(app))
            gateway.advance(run_id, RunState.RUNNING, started_at=time.time(), steps=[asked("I look first."), TOOL])
            await until(lambda: "exec started" in page(app))
            text = page(app)
            for told in (
                "anthropic/claude-opus-4-6 done 2.5s  1.2k tokens in (1.0k cached), 80 out, $0.01",
                "I look first.",
                "command: ls -l",
            ):
                assert told in text, text
            child = make_run("manager", "sub-task", state=RunState.RUNNING)
            gateway.runs[run_id].children.append(
                ChildRun(run_id=child.run_id, agent="manager", task="sub-task", state="running")
            )
            gateway.step(run_id)
            async with asyncio.timeout(1.5):  # sooner than the page would have read it by itself
                await until(lambda: "DELEGATED (1)" in page(app))
            app.store.add_run(child)
            app.store._keep_text(child.run_id, "the child says this")
            await until(lambda: "the child says this" in page(app))
            gateway.delta(run_id, "and now the answer comes")
            await until(lambda: "ANSWER (so far)" in page(app) and "and now the answer comes" in page(app))
            assert page(app).index("STEPS") < page(app).index("ANSWER")
            gateway.finish(run_id, "all of it")
            await until(lambda: "+ succeeded" in page(app))
            assert page(app).index("ANSWER") < page(app).index("STEPS")
            await pilot.pause()
            assert not app._notifications

    async def test_what_it_waits_for_is_told_and_c_cancels_it(self, fleet: Fleet) -> None:
        fleet["webster"].auto = False
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "a long task", "key-1", True)
            run_id = write.run_id or ""
            await until(lambda: run_id in app.store.runs)
            fleet["webster"].advance(run_id, RunState.WAITING, reason="approval ap-1: exec: ls")
            app.push_screen(RunScreen(False, app.store.runs[run_id]))
            await until(lambda: isinstance(app.screen, RunScreen) and "WAITS FOR" in page(app))
            assert "approval ap-1: exec: ls" in page(app)
            assert "g answers it" in page(app)
            await pilot.press("c")
            await until(lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press("y")
            await until(lambda: "- cancelled" in page(app))

    async def test_it_follows_its_end_until_somebody_scrolls_up(self, fleet: Fleet) -> None:
        gateway = fleet["webster"]
        gateway.auto = False
        async with fleet.console((80, 24)) as (app, pilot):
            write = await app.operations.delegate("webster", "a long task", "key-1", True)
            run_id = write.run_id or ""
            await until(lambda: run_id in app.store.runs)
            gateway.advance(run_id, RunState.RUNNING, started_at=time.time())
            app.push_screen(RunScreen(False, app.store.runs[run_id]))
            await until(lambda: isinstance(app.screen, RunScreen) and "STEPS (0)" in page(app))
            screen = app.screen
            assert isinstance(screen, RunScreen)
            await pilot.press("G")
            gateway.runs[run_id].steps.extend([asked("line\n" * 8) for _ in range(4)])
            await until(lambda: "STEPS (4)" in page(app) and screen.page.scroll_y >= screen.page.max_scroll_y > 0)
            await pilot.press("home")
            gateway.runs[run_id].steps.append(TOOL)
            await until(lambda: "STEPS (5)" in page(app))
            assert screen.page.scroll_y == 0


class TestLongOnes:
    async def test_a_long_result_is_cut_until_e_is_pressed(self, fleet: Fleet) -> None:
        gateway = fleet["webster"]
        gateway.auto = False
        result = "\n".join(f"line {number}" for number in range(200))
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "a long task", "key-1", True)
            run_id = write.run_id or ""
            await until(lambda: run_id in app.store.runs)
            gateway.advance(run_id, RunState.RUNNING, steps=[asked(result)])
            app.push_screen(RunScreen(False, app.store.runs[run_id]))
            await until(lambda: isinstance(app.screen, RunScreen) and "188 more lines; e shows all" in page(app))
            assert "line 11\n" in page(app)
            assert "line 12\n" not in page(app)
            await pilot.press("e")
            await until(lambda: "line 199" in page(app))
            await pilot.press("e")
            await until(lambda: "line 199" not in page(app))

    def test_arguments_are_read_as_text(self) -> None:
        assert arguments({"path": "a.txt", "text": "two\nlines", "n": 3}) == "path: a.txt\ntext:\ntwo\nlines\nn: 3"
        assert arguments(["a"]) == '["a"]'
