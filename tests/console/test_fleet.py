"""The console driven by keys, against stand-in gateways on real sockets."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from textual.events import Paste
from textual.widgets import Input, TextArea

from console.app import ConsoleApp
from console.dialogs.confirm import ConfirmDialog, TypedConfirmDialog
from console.dialogs.delegate import DelegateDialog, Draft
from console.dialogs.pick import Choice, PickDialog, PickList
from console.rows import Link, WriteState
from console.screens.run import RunScreen
from console.screens.runs import RunList
from console.widgets.bars import Bar
from console.widgets.facts import agent_lines
from protocols.runs import RunState
from protocols.status import ChannelStatus, McpServerStatus, SkillStatus
from tests.console.conftest import Fleet, settle, until
from tests.console.looking import bar, key, page, table
from tests.console.standin import make_run


def _detail(app: ConsoleApp, name: str) -> list[str]:
    """The text of an agent's detail pane."""
    lines = agent_lines(app.store.agents[name], [], {}, app.store.clock(), 60, full=False)
    return ["".join(text for text, _ in line) for line in lines]


def _joined(lines: list[str], label: str) -> str:
    """The field `label` of a detail page on one line."""
    start = next(place for place, line in enumerate(lines) if line.startswith(f" {label} "))
    more = 1
    while lines[start + more].startswith(" " * 13) and ": " not in lines[start + more]:
        more += 1
    return " ".join([lines[start].rstrip(), *(line.strip() for line in lines[start + 1 : start + more])])


class TestFirstLook:
    async def test_every_agent_is_a_row_with_state_port_and_model(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, _):
            text = table(app)
            for name in ("manager", "optimizer", "webster"):
                row = next(x for x in text.splitlines() if name in x)
                assert "+ up" in row
                assert "offline/retrieval" in row
            assert "- off      it" in text
            assert "4 agents: 3 up 1 off" in bar(app, "status")
            assert "offline" in bar(app, "status")

    async def test_the_next_console_begins_with_the_last_snapshot_marked_stale(self, fleet: Fleet) -> None:
        async with fleet.console():
            pass
        for gateway in fleet.gateways.values():
            await gateway.stop()
        app = fleet.app()
        assert app.store.agents["webster"].word == "stale"
        assert app.store.agents["webster"].status is not None

    async def test_the_detail_names_mcp_servers_and_skills_and_what_is_wrong_with_them(self, fleet: Fleet) -> None:
        fleet.gateways["manager"].set(
            tools=["read_file", "mcp__nx__solve", "mcp__nx__mesh", "mcp__tickets__list"],
            mcp=[
                McpServerStatus(name="nx", transport="stdio", state="ready", tools=["solve", "mesh"]),
                McpServerStatus(name="tickets", transport="http", state="ready", tools=["list", "create"]),
                McpServerStatus(name="cad", transport="stdio", state="failed", reason="no licence\x1b[2J found"),
            ],
            skills=[
                SkillStatus(name="mesh-check", source="workspace", available=True),
                SkillStatus(name="review", source="shared", available=True),
                SkillStatus(name="pdf", source="shared", available=False, reason="it needs the program pdftotext"),
            ],
        )
        async with fleet.console() as (app, _):
            await until(lambda: "mesh-check" in "\n".join(app.fleet.detail.text_lines()))
            lines = app.fleet.detail.text_lines()
            text = "\n".join(lines)
            assert " mcp         nx 2 tools, tickets 1 of 2 tools, cad failed" in _joined(lines, "mcp")
            assert "cad: no licence␛[2J found" in text
            assert _joined(lines, "skills").startswith(" skills      2, 1 unusable: mes")
            assert "pdftotext" not in text
            app.perform("detail")
            await until(lambda: "pdf: it needs the program pdftotext" in page(app))

    async def test_how_it_is_connected_to_discord_is_a_glyph_and_a_word_and_a_fault_stands_in_its_row(
        self, fleet: Fleet
    ) -> None:
        manager = fleet.gateways["manager"]
        manager.set(channels=[ChannelStatus(provider="discord", state="ready", name="Manager", guilds=1)])
        async with fleet.console() as (app, _):
            detail = app.fleet.detail
            await until(lambda: _joined(detail.text_lines(), "discord") == " discord     + ready as Manager, 1 server")
            why = "Discord does not know the token (401): take a new token"
            lost = ChannelStatus(provider="discord", state="auth_failed", detail=why, since=time.time() - 190)
            manager.set(state="degraded", failing=[f"discord auth_failed: {why}"], channels=[lost])
            await until(lambda: "x auth_failed for 3m, waits for you" in _joined(detail.text_lines(), "discord"))
            row = next(line for line in table(app).splitlines() if "manager" in line)
            assert "~ degraded" in row
            assert "discord auth_fa" in row
            assert "1 degraded" in bar(app, "status")
            assert "\n".join(detail.text_lines()).count("auth_failed") == 2, "the reason stands there once"
            manager.set(state="up", failing=[], channels=[ChannelStatus(provider="discord", state="off")])
            await until(lambda: not any(line.startswith(" discord") for line in detail.text_lines()))
            app.perform("detail")
            await until(lambda: " discord     - off" in page(app))

    async def test_an_agent_without_them_has_no_line_for_them(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, _):
            assert not any(line.startswith((" mcp ", " skills ")) for line in app.fleet.detail.text_lines())

    @pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)])
    async def test_it_fits(self, fleet: Fleet, size: tuple[int, int]) -> None:
        async with fleet.console(size) as (app, _):
            assert app.fleet.table.is_on_screen
            assert app.fleet.detail.is_on_screen is (size[0] >= 108)
            assert "? Help" in bar(app, "footer")
            assert len(bar(app, "footer")) <= size[0]
            assert all(name in table(app) for name in ("manager", "webster"))

    async def test_below_60x15_there_is_one_message(self, fleet: Fleet) -> None:
        async with fleet.console((50, 12)) as (app, _):
            assert not app.fleet.table.is_on_screen
            assert "needs 60x15" in bar(app, "too-small")
            assert "3 up" in bar(app, "too-small")

    async def test_without_colours_the_cursor_and_the_states_are_still_told(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        async with fleet.console() as (app, _):
            rows = table(app).splitlines()
            assert rows[2].startswith(">  + up")
            assert app.palette.cursor.reverse

    async def test_in_ascii_no_other_character_is_drawn(self, fleet: Fleet) -> None:
        fleet["webster"].runs.clear()
        async with fleet.console((80, 24), ascii=True) as (app, pilot):
            fleet["webster"].set(current=[make_run("webster", "a very long task " * 20)])
            await until(lambda: "a very" in table(app))
            await pilot.pause()
            drawn = "".join(s.text for y in range(24) for s in app.screen._compositor.render_strips()[y])
            assert drawn.isascii(), [c for c in drawn if not c.isascii()]


class TestDelegating:
    async def test_the_run_goes_to_succeeded_and_its_answer_can_be_read(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("apostrophe", *"web", "enter")
            assert app.fleet.current == "webster"
            await pilot.press("d")
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            await pilot.press(*"find zerodur", "enter")
            await until(lambda: any(w.state is WriteState.DONE for w in app.store.writes.values()))
            await settle(app, pilot)
            assert fleet["webster"].hooks[0].message == "find zerodur"
            assert "done" in bar(app, "writes")
            assert "materials.md:12" in "\n".join(app.fleet.detail.text_lines())
            await pilot.press("t")
            await until(lambda: app.screen.query(RunList) and app.screen.query_one(RunList).current)
            await pilot.press("enter")
            await until(lambda: isinstance(app.screen, RunScreen) and "FACTS" in page(app))
            text = page(app)
            for told in ("succeeded", "find zerodur", "materials.md:12", "1.2k tokens", "skipped: no channel", "STEPS"):
                assert told in text

    async def test_states_and_text_are_seen_as_they_come(self, fleet: Fleet) -> None:
        fleet["webster"].auto = False
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "slow work", "key-1", True)
            assert write.state is WriteState.ACCEPTED
            run_id = write.run_id or ""
            await until(lambda: run_id in app.store.runs)
            app.fleet.table.go_to("webster")
            await settle(app, pilot)
            assert ". queued" in "\n".join(app.fleet.detail.text_lines())
            fleet["webster"].advance(run_id, RunState.RUNNING)
            fleet["webster"].delta(run_id, "first words")
            await until(lambda: "* busy" in table(app))
            await until(lambda: "first words" in "\n".join(app.fleet.detail.text_lines()))
            assert "slow work" in table(app)
            fleet["webster"].finish(run_id, "all of it")
            await until(lambda: "+ succeeded" in "\n".join(app.fleet.detail.text_lines()))

    async def test_marked_agents_all_get_it(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("space", "space", "d")
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            await pilot.press("x", "enter")
            await until(lambda: fleet["manager"].hooks and fleet["optimizer"].hooks)
            assert not fleet["webster"].hooks

    async def test_those_that_are_switched_off_are_left_out_and_that_is_said(self, fleet: Fleet) -> None:
        async with fleet.console((80, 24)) as (app, pilot):
            await pilot.press("asterisk", "d")
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            await settle(app, pilot)
            assert "1 marked and switched off: left out" in page(app)
            assert "no model is asked" in page(app)
            await pilot.press("x", "enter")
            await until(lambda: all(fleet[name].hooks for name in ("manager", "optimizer", "webster")))
            await until(lambda: "3 agents delegate: x" in bar(app, "writes"))
            assert "it" not in [write.agent for write in app.store.writes.values()]

    @pytest.mark.parametrize("size", [(120, 40), (80, 24)])
    async def test_who_gets_it_and_every_key_of_the_dialog_can_be_read(
        self, fleet: Fleet, size: tuple[int, int]
    ) -> None:
        everybody = [f"an-agent-with-a-rather-long-{n}" for n in range(5)]
        async with fleet.console(size) as (app, pilot):
            app.push_screen(DelegateDialog(Draft(), everybody, []))
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            await settle(app, pilot)
            assert all(name in page(app) for name in everybody)
            for _ in ("to its channel too", "only here"):
                keys = app.screen.query_one("#dialog-help", Bar)
                assert keys.text.endswith("esc keep")
                assert len(keys.text) <= keys.size.width
                await pilot.press("ctrl+d")

    async def test_unsent_text_survives_closing_the_dialog(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("d")
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            await pilot.press(*"half", "escape", "d")
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            assert app.screen.query_one(TextArea).text == "half"

    async def test_fast_typing_goes_to_the_dialog_and_never_to_the_agents(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            for pressed in ("d", *"xrsx"):
                app.post_message(key(pressed))
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.early is None)
            await pilot.pause()
            assert app.screen.query_one(TextArea).text == "xrsx"
            assert not fleet.supervisor.done

    async def test_what_is_pasted_cannot_steer_the_terminal(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("d")
            await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
            app.post_message(Paste("two\nlines \x1b]0;PWNED\x07"))
            await until(lambda: app.screen.query_one(TextArea).text)
            assert app.screen.query_one(TextArea).text == "two\nlines ␛]0;PWNED␇"

    async def test_no_answer_is_unknown_and_sending_again_keeps_the_key(self, fleet: Fleet) -> None:
        fleet["manager"].silent = True
        async with fleet.console() as (app, pilot):
            for outcome in (WriteState.UNKNOWN, WriteState.DONE):
                await pilot.press("d")
                await until(lambda: isinstance(app.screen, DelegateDialog) and app.screen.focused)
                if not app.screen.query_one(TextArea).text:
                    await pilot.press(*"once")
                await pilot.press("enter")
                await until(lambda o=outcome: [w.state for w in app.store.writes.values()] == [o])
                fleet["manager"].silent = False
            keys = {hook.idempotency_key for hook in fleet["manager"].hooks}
            assert len(fleet["manager"].hooks) == 2
            assert len(keys) == 1
            assert len(fleet["manager"].runs) == 1

    async def test_cancelling_a_run_asks_first(self, fleet: Fleet) -> None:
        fleet["webster"].auto = False
        async with fleet.console() as (app, pilot):
            write = await app.operations.delegate("webster", "slow work", "key-1", True)
            await until(lambda: write.run_id in app.store.runs)
            await pilot.press("t")
            await until(lambda: app.screen.query(RunList) and app.screen.query_one(RunList).current)
            await pilot.press("c")
            await until(lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press("y")
            await until(lambda: app.store.runs[write.run_id or ""].state is RunState.CANCELLED)


class TestProcesses:
    async def test_restart_asks_and_shows_the_work_that_is_interrupted(self, fleet: Fleet) -> None:
        fleet["manager"].set(state="busy", current=[make_run("manager", "mirror plan", state=RunState.RUNNING)])
        async with fleet.console() as (app, pilot):
            await pilot.press("r")
            await until(lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.pause()
            assert "mirror plan" in page(app)
            assert not app.screen.on_cancel  # type: ignore[attr-defined]
            await pilot.press("n")
            assert not fleet.supervisor.done
            await pilot.press("r")
            await until(lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press("y")
            await until(lambda: fleet.supervisor.done == [("restart", ["manager"])])

    async def test_for_several_cancel_is_focused(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("space", "space", "r")
            await until(lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press("enter")
            await pilot.pause()
            assert app.screen is app.fleet
            assert not fleet.supervisor.done

    async def test_stopping_the_whole_cluster_needs_its_name(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("asterisk", "x")
            await until(lambda: isinstance(app.screen, TypedConfirmDialog) and app.screen.focused)
            await pilot.press("y", "enter")
            await pilot.pause()
            assert not fleet.supervisor.done
            app.screen.query_one(Input).value = "testbed"
            await pilot.press("enter")
            await until(lambda: fleet.supervisor.done == [("stop", ["manager", "optimizer", "webster"])])

    async def test_a_switched_off_agent_says_how_to_switch_it_on(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            app.fleet.table.go_to("it")
            await pilot.press("s")
            await pilot.pause()
            assert not fleet.supervisor.done
            assert any("atomizer agent enable it" in n.message for n in app._notifications)

    async def test_a_dead_supervisor_is_said_and_s_revives_it(self, fleet: Fleet) -> None:
        fleet.supervisor.down = True
        async with fleet.console() as (app, pilot):
            await until(lambda: app.store.supervisor is False)
            await settle(app, pilot)
            assert "no supervisor" in bar(app, "status")
            assert "any atomizer command or `s` revives it" in bar(app, "writes")
            await pilot.press("s")
            await until(lambda: fleet.supervisor.done == [("start", ["manager"])])
            assert fleet.supervisor.revived == 1
            await until(lambda: "no supervisor" not in bar(app, "status"))

    async def test_a_dead_gateway_keeps_its_row_and_comes_back_alone(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            fleet["webster"].log("before")
            await until(lambda: "webster" in app.feed._last_ids)
            await fleet["webster"].stop()
            await until(lambda: app.store.agents["webster"].word == "down")
            fleet.supervisor.children = [SimpleNamespace(agent="webster", state="backoff", detail="it ended: exit 1")]
            await app.supervision.poll()
            await settle(app, pilot)
            row = next(x for x in table(app).splitlines() if "webster" in x)
            assert "x down" in row
            assert "offline/retrieval" in row
            assert "down 0s: connection ref" in row
            await fleet["webster"].start()
            await until(lambda: app.store.agents["webster"].live)
            assert fleet["webster"].resumed_from[-1] is not None

    async def test_an_agent_stopped_on_purpose_is_no_trouble_and_one_that_died_is(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            fleet.supervisor.children = [
                SimpleNamespace(agent="webster", state="stopped", detail=""),
                SimpleNamespace(agent="manager", state="backoff", detail="ended by SIGKILL"),
            ]
            fleet["webster"].set(failing=["draining: no run starts until this gateway is restarted"])
            await until(lambda: any("failing" in line for line in _detail(app, "webster")))
            for name in ("webster", "manager"):
                await fleet[name].stop()
            await until(lambda: all(app.store.agents[n].link is Link.DOWN for n in ("webster", "manager")))
            await app.supervision.poll()
            await settle(app, pilot)
            said = [f"{line.level} {line.agent} {line.text}" for line in app.store.log.lines]
            assert "info webster stopped" in said
            assert not any("failing" in line for line in _detail(app, "webster"))
            assert not any("webster connection lost" in text or "webster down" in text for text in said)
            assert any(text.startswith("error manager down: ") for text in said)

    async def test_a_restart_asked_for_here_is_no_trouble_unless_it_fails(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await app.operations.supervise("restart", ["webster", "manager"])
            for name in ("webster", "manager"):
                await fleet[name].stop()
            await until(lambda: all(app.store.agents[n].link is Link.DOWN for n in ("webster", "manager")))
            assert app.store.agents["webster"].word == "draining"
            fleet.supervisor.children = [
                SimpleNamespace(agent="webster", state="starting", detail=""),
                SimpleNamespace(agent="manager", state="config-error", detail="its configuration is wrong"),
            ]
            await app.supervision.poll()
            await fleet["webster"].start()
            await until(lambda: app.store.agents["webster"].live)
            await settle(app, pilot)
            said = [f"{line.level} {line.agent} {line.text}" for line in app.store.log.lines]
            assert "info webster restarted" in said
            assert not any(text.startswith(("warning webster", "error webster")) for text in said), said
            assert any(text.startswith("error manager down: ") for text in said)

    async def test_the_last_error_stands_apart_from_its_label(self, fleet: Fleet) -> None:
        fleet["manager"].set(last_error="the model did not answer", dead_letters=2)
        async with fleet.console() as (app, _):
            text = "\n".join(app.fleet.detail.text_lines())
            assert " last error  the model did" in text
            assert " undelivered 2 dead letters" in text


class TestSteering:
    async def test_a_model_is_chosen_by_typing_and_undone(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("m")
            await until(lambda: isinstance(app.screen, PickDialog) and app.screen.focused)
            await pilot.press(*"echo", "enter")
            await until(lambda: fleet["manager"].status.model.active == "offline/echo")
            await until(lambda: app.operations.undos)
            await pilot.press("u")
            await until(lambda: fleet["manager"].status.model.active == "offline/retrieval")
            await until(lambda: not app.operations.undos)

    async def test_a_model_without_a_key_is_listed_with_the_reason_and_cannot_be_chosen(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            await pilot.press("m")
            await until(lambda: isinstance(app.screen, PickDialog) and app.screen.focused)
            await pilot.press(*"opus")
            await pilot.pause()
            assert "no key" in "\n".join(app.screen.query_one(PickList).text_lines())
            app.screen.query_one(PickList).go_to("anthropic/claude-opus-4-6")
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(app.screen, PickDialog)
            assert "cannot be chosen" in app.screen.query_one("#dialog-help", Bar).text

    async def test_what_mends_a_choice_is_read_whole_under_the_list(self, fleet: Fleet) -> None:
        mend = "no key: run `atomizer secrets set somebody`, or `atomizer login them`"
        choices = [Choice("a", "anthropic/claude-with-a-long-name", blocked=mend), Choice("b", "b", "fits")]
        async with fleet.console((80, 24)) as (app, pilot):
            app.push_screen(PickDialog("Model", lambda _: choices, "", at="a"))
            await until(lambda: isinstance(app.screen, PickDialog) and app.screen.focused)
            await until(lambda: app.screen.query_one(PickList).keys)
            await settle(app, pilot)
            under = app.screen.query_one("#dialog-help", Bar)
            assert mend not in "\n".join(app.screen.query_one(PickList).text_lines())
            assert mend in under.text
            await pilot.press("enter")
            assert mend in under.text
            assert len(under.text) <= under.size.width
            await pilot.press("down")
            await until(lambda: under.text == " enter chooses, esc leaves")
            assert not fleet["manager"].calls

    async def test_the_heartbeat_is_changed_and_undone_and_beats_now(self, fleet: Fleet) -> None:
        async with fleet.console() as (app, pilot):
            beat = fleet["manager"].status.heartbeat
            await pilot.press("h")
            await until(lambda: isinstance(app.screen, PickDialog) and app.screen.focused)
            await pilot.press(*"20m", "enter")
            await until(lambda: fleet["manager"].status.heartbeat.every_seconds == 1200)
            await until(lambda: app.operations.undos)
            await pilot.press("u")
            await until(lambda: fleet["manager"].status.heartbeat.every_seconds == beat.every_seconds)
            await pilot.press("h")
            await until(lambda: isinstance(app.screen, PickDialog) and app.screen.focused)
            await pilot.press(*"beat", "enter")
            await until(lambda: (fleet["manager"].status.heartbeat.last_at or 0) > time.time() - 60)
