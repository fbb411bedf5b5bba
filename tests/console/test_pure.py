"""The parts without Textual: store, log ring, filter grammar, registry, words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cli.status import row
from cluster.supervisors.supervisor import ChildState, State
from console import clipboard
from console.actions import ACTIONS, BY_ID, Danger, Scope, allowed, markdown_table
from console.filters import Filter
from console.logring import TOLERANCE, LogLine, LogRing
from console.rows import Write, WriteState
from console.show import STATE_STYLES, URGENCY, age, money, span
from console.store import Store
from console.widgets.bars import write_segments
from protocols.events import DeltaEvent, GapEvent, HelloEvent, LogEvent, RunEvent, StatusEvent
from protocols.registry import parse_agent_name
from protocols.runs import RunState
from protocols.states import GLYPHS
from protocols.status import BudgetStatus, HeartbeatStatus
from runtime.config import AgentSpec
from tests.console.standin import make_run, make_status

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    made = Store(clock)
    for place, name in enumerate(("manager", "webster")):
        made.place(name, 18800 + 4 * place, "127.0.0.1", True)
    return made


def hello(agent: str) -> HelloEvent:
    return HelloEvent(at=0, agent=agent, instance="i", version="0")


class TestAgents:
    def test_an_agent_never_heard_is_stale(self, store: Store) -> None:
        assert store.agents["webster"].word == "stale"

    def test_hello_makes_it_live_and_its_status_names_the_state(self, store: Store) -> None:
        store.apply(hello("webster"))
        assert store.agents["webster"].word == "up"
        store.apply(StatusEvent(at=0, agent="webster", status=make_status("webster", 1, state="busy")))
        assert store.agents["webster"].word == "busy"

    def test_an_overdue_heartbeat_reads_late_but_degraded_wins(self, store: Store) -> None:
        store.apply(hello("webster"))
        beat = HeartbeatStatus(enabled=True, every_seconds=60, state="overdue")
        store.heard(make_status("webster", 1, heartbeat=beat))
        assert store.agents["webster"].word == "late"
        store.heard(make_status("webster", 1, heartbeat=beat, state="degraded"))
        assert store.agents["webster"].word == "degraded"

    def test_a_lost_one_keeps_its_last_status_and_says_since_when_and_why(self, store: Store, clock: Clock) -> None:
        store.apply(hello("webster"))
        status = make_status("webster", 1)
        store.heard(status)
        store.lost("webster", "the event stream ended")
        assert store.agents["webster"].word == "stale"
        clock.now += 42
        store.lost("webster", "connection refused")
        agent = store.agents["webster"]
        assert (agent.word, agent.reason, agent.status) == ("down", "connection refused", status)
        assert clock.now - agent.since == 42

    def test_it_comes_back_alone(self, store: Store) -> None:
        store.lost("webster", "connection refused")
        store.apply(hello("webster"))
        assert store.agents["webster"].live
        assert any("back" in line.text for line in merged(store))

    def test_a_wrong_token_is_denied_not_down(self, store: Store) -> None:
        store.denied("webster", "HTTP 401: no")
        assert store.agents["webster"].word == "denied"

    def test_a_snapshot_is_shown_as_stale_and_never_over_fresh_news(self, store: Store) -> None:
        old, new = make_status("webster", 1, runs_today=1), make_status("webster", 1, runs_today=2)
        store.remember(old)
        assert (store.agents["webster"].word, store.agents["webster"].status) == ("stale", old)
        store.heard(new)
        store.remember(old)
        assert store.agents["webster"].status == new

    def test_the_supervisor_explains_an_absent_agent(self, store: Store) -> None:
        store.lost("webster", "connection refused")
        store.supervised("webster", "starting", "")
        assert store.agents["webster"].word == "starting"
        store.supervised("webster", "crash-loop", "5 crashes in 60 s")
        assert (store.agents["webster"].word, store.agents["webster"].detail) == ("down", "5 crashes in 60 s")

    @pytest.mark.parametrize(
        ("process", "enabled", "word"),
        [
            ("up", True, "stale"),
            ("starting", True, "starting"),
            ("stopping", True, "draining"),
            ("stopped", True, "stopped"),
            ("stopped", False, "off"),
            ("backoff", True, "down"),
            ("port-taken", True, "down"),
            ("config-error", False, "down"),
        ],
    )
    def test_one_that_does_not_answer_has_the_word_of_the_status_command(
        self, store: Store, process: State, enabled: bool, word: str
    ) -> None:
        store.place("webster", 1, "127.0.0.1", enabled)
        store.lost("webster", "connection refused")
        store.supervised("webster", process, "")
        child = ChildState(agent="webster", state=process, port=1)
        told = row(AgentSpec(name=parse_agent_name("webster"), port=1, host="", enabled=enabled), child, None)
        assert store.agents["webster"].word == told.state == word

    @pytest.mark.parametrize("state", ["up", "busy", "paused", "degraded", "draining"])
    @pytest.mark.parametrize("over", ["none", "over"])
    def test_one_that_answers_too(self, store: Store, state: str, over: str) -> None:
        status = make_status("webster", 1, state=state, budget=BudgetStatus(state=over))
        store.apply(hello("webster"))
        store.heard(status)
        child = ChildState(agent="webster", state="up", port=1)
        told = row(AgentSpec(name=parse_agent_name("webster"), port=1, host="", enabled=True), child, status)
        assert store.agents["webster"].word == told.state
        assert told.state == ("late" if over == "over" and state in ("up", "busy") else state)

    def test_every_word_has_a_glyph_a_style_and_a_place(self) -> None:
        assert set(GLYPHS) == set(STATE_STYLES) == set(URGENCY)
        assert len(set(GLYPHS.values())) == len(GLYPHS)
        assert {"up": "+", "busy": "*", "late": "!", "down": "x", "stale": "?"}.items() <= GLYPHS.items()


class TestChanges:
    def test_only_what_changed_is_told_and_only_once(self, store: Store) -> None:
        store.take()
        told: list[int] = []
        store.on_change = lambda: told.append(1)
        status = make_status("webster", 1)
        store.heard(status)
        store.heard(status)
        assert store.take().agents == {"webster"}
        assert len(told) == 1
        store.heard(status)
        assert store.take().agents == set()
        assert len(told) == 1

    def test_the_same_run_again_is_no_change(self, store: Store) -> None:
        run = make_run("webster")
        store.add_run(run)
        assert store.take().runs == {run.run_id}
        store.add_run(run)
        assert store.take().runs == set()


class TestRunsAndWrites:
    def test_deltas_gather_and_a_reset_forgets(self, store: Store) -> None:
        for text, reset in (("a", False), ("b", False)):
            store.apply(DeltaEvent(at=0, agent="webster", run_id="run-1", text=text, reset=reset))
        assert store.deltas["run-1"] == "ab"
        store.apply(DeltaEvent(at=0, agent="webster", run_id="run-1", text="c", reset=True))
        assert store.deltas["run-1"] == "c"

    def test_a_write_is_done_when_its_run_has_ended(self, store: Store) -> None:
        run = make_run("webster")
        store.write(Write("k", "webster", "delegate", WriteState.ACCEPTED, 0.0, run_id=run.run_id))
        store.apply(RunEvent(at=0, agent="webster", run=msgspec.structs.replace(run, state=RunState.RUNNING)))
        assert store.writes["k"].state is WriteState.ACCEPTED
        store.apply(RunEvent(at=0, agent="webster", run=msgspec.structs.replace(run, state=RunState.SUCCEEDED)))
        assert store.writes["k"].state is WriteState.DONE

    def test_it_is_done_as_well_if_the_run_ended_before_the_answer_came(self, store: Store) -> None:
        run = make_run("webster", state=RunState.SUCCEEDED)
        store.apply(RunEvent(at=0, agent="webster", run=run))
        store.take()
        store.write(Write("k", "webster", "delegate", WriteState.ACCEPTED, 0.0, run_id=run.run_id))
        assert store.writes["k"].state is WriteState.DONE
        assert run.run_id in store.take().runs

    def test_ended_runs_are_forgotten_first_and_their_number_is_bounded(self, store: Store) -> None:
        living = make_run("webster", created_at=0.0, state=RunState.RUNNING)
        store.add_run(living)
        for place in range(1500):
            store.add_run(make_run("webster", run_id=f"run-{place:06}", created_at=1.0 + place, state=RunState.FAILED))
        assert len(store.runs) <= 1000
        assert living.run_id in store.runs

    def test_what_went_to_several_agents_is_told_in_numbers_failures_first(self) -> None:
        sent = [
            Write("k3", "webster", "delegate: look", WriteState.DONE, 10.2, "run-3"),
            Write("k2", "it", "delegate: look", WriteState.UNKNOWN, 10.1, "refused"),
            Write("k1", "manager", "delegate: look", WriteState.DONE, 10.0, "run-1"),
            Write("k0", "manager", "restart", WriteState.DONE, 9.9, "restarted"),
        ]
        text = "".join(text for text, _ in write_segments(sent, ""))
        assert text == " 3 agents delegate: look: 1 unknown (it) 2 done   manager restart: done restarted  "
        later = [sent[0], Write("k9", "manager", "delegate: look", WriteState.DONE, 5.0, "run-9")]
        assert "agents" not in "".join(text for text, _ in write_segments(later, ""))

    def test_a_gap_is_a_line_of_the_log(self, store: Store) -> None:
        store.apply(GapEvent(at=5.0, agent="webster", missed=83412))
        assert "83,412 events were dropped" in merged(store)[-1].text

    def test_history_leaves_out_what_is_there(self, store: Store) -> None:
        events = [LogEvent(at=10.0 * i, agent="webster", level="info", logger="x", message=f"m{i}") for i in range(3)]
        store.apply(events[2])
        store.history("webster", events)
        assert [line.text for line in merged(store)] == ["m0", "m1", "m2"]


def merged(store: Store) -> list[LogLine]:
    store.take()
    return store.log.lines


def line(at: float, text: str = "x") -> LogLine:
    return LogLine(at, "webster", "info", text)


class TestLogRing:
    @given(st.lists(st.lists(st.floats(0, 1000), max_size=30), max_size=12))
    @settings(max_examples=60, deadline=None)
    def test_it_is_bounded_and_in_order_within_the_tolerance(self, batches: list[list[float]]) -> None:
        ring = LogRing(capacity=50)
        total = 0
        for batch in batches:
            for at in batch:
                ring.add(line(at))
            total += len(batch)
            ring.merge()
        assert len(ring) == min(50, total)
        newest = 0.0
        for kept in ring.lines:
            assert kept.at >= newest - TOLERANCE
            newest = max(newest, kept.at)

    @given(st.lists(st.integers(1, 40), max_size=10))
    @settings(max_examples=40, deadline=None)
    def test_a_reader_that_follows_numbers_misses_only_what_is_gone(self, sizes: list[int]) -> None:
        ring, seen, got, at = LogRing(capacity=50), 0, [], 0
        for count in sizes:
            for _ in range(count):
                ring.add(line(float(at), str(at)))
                at += 1
            ring.merge()
            got += [kept.text for kept in ring.since(seen)]
            seen = ring.end
        assert got == [str(number) for number in range(at)]

    def test_a_million_lines_wait_in_bounded_room(self) -> None:
        ring = LogRing(capacity=100)
        for number in range(10_000):
            ring.add(line(float(number)))
            assert len(ring._pending) <= 200
        ring.merge()
        assert [kept.at for kept in ring.lines] == [float(n) for n in range(9_900, 10_000)]

    def test_what_several_agents_logged_before_we_listened_is_in_order_however_close(self, store: Store) -> None:
        for place, agent in enumerate(("manager", "webster")):
            times = [100 + (2 * number + place) / 10 for number in range(20)]
            store.history(
                agent, [LogEvent(at=at, agent=agent, level="info", message=f"{at}", logger="x") for at in times]
            )
            merged(store)
        times = [kept.at for kept in store.log.lines]
        assert times == sorted(times)
        assert len(times) == 40

    def test_older_lines_are_put_in_between_and_say_so(self) -> None:
        ring = LogRing()
        ring.add(line(100.0))
        ring.merge()
        generation = ring.generation
        ring.add(line(50.0))
        ring.merge()
        assert [kept.at for kept in ring.lines] == [50.0, 100.0]
        assert ring.generation == generation + 1


class TestFilter:
    @pytest.mark.parametrize(
        ("source", "text", "state", "passes"),
        [
            ("", "anything", "up", True),
            ("web", "Webster 18828", "up", True),
            ("!web", "Webster", "up", False),
            ("@busy", "manager", "busy", True),
            ("@b", "manager", "busy", True),
            ("!@busy", "manager", "busy", False),
            ("man @busy", "manager", "up", False),
            ("188(00|28)", "webster 18828", "up", True),
            ("tech !@down", "tech-lead", "up", True),
            ("(", "a ( b", "up", True),
            ("!", "a ! b", "up", True),
        ],
    )
    def test_the_grammar(self, source: str, text: str, state: str, passes: bool) -> None:
        assert Filter(source).matches(text, state) is passes

    @given(st.text(max_size=30), st.text(max_size=60))
    @settings(max_examples=150, deadline=None)
    def test_no_text_breaks_it_and_hits_lie_in_the_text(self, source: str, text: str) -> None:
        wanted = Filter(source)
        wanted.matches(text, "up")
        end = 0
        for start, stop in wanted.hits(text):
            assert end <= start < stop <= len(text)
            end = stop

    def test_a_bad_expression_is_said(self) -> None:
        assert "taken literally" in Filter("[").problem


class Situation:
    has_target = has_run = has_cancellable_run = has_approval = can_undo = False


class TestRegistry:
    def test_every_action_has_keys_words_and_a_handler(self) -> None:
        from console.app import ConsoleApp
        from console.screens.agent import AgentScreen
        from console.screens.approvals import ApprovalsScreen
        from console.screens.fleet import FleetScreen
        from console.screens.logs import LogsScreen
        from console.screens.run import RunScreen
        from console.screens.runs import RunsScreen

        screens: dict[Scope, list[type]] = {
            Scope.ANYWHERE: [ConsoleApp, FleetScreen],
            Scope.LISTS: [FleetScreen],
            Scope.FLEET: [FleetScreen],
            Scope.LOGS: [FleetScreen, LogsScreen],
            Scope.RUNS: [RunsScreen],
            Scope.RUN: [RunScreen],
            Scope.APPROVALS: [ApprovalsScreen],
        }
        for action in ACTIONS:
            assert action.keys, action.id
            assert action.label, action.id
            assert action.help.endswith("."), action.id
            handled = [hasattr(kind, f"do_{action.id}") for kind in screens[action.scope]]
            assert any(handled) if action.scope is Scope.ANYWHERE else all(handled), action.id
        for kind in (FleetScreen, AgentScreen, LogsScreen, RunsScreen, RunScreen, ApprovalsScreen):
            for action in allowed(*kind.scopes):
                assert action.id in kind.without or hasattr(kind, f"do_{action.id}"), (kind, action.id)

    @pytest.mark.parametrize(
        "scopes",
        [
            (Scope.FLEET, Scope.LOGS, Scope.LISTS, Scope.ANYWHERE),
            (Scope.RUNS, Scope.RUN, Scope.LISTS, Scope.ANYWHERE),
            (Scope.APPROVALS, Scope.LISTS, Scope.ANYWHERE),
        ],
        ids=lambda scopes: scopes[0].value,
    )
    def test_no_key_means_two_things_on_one_screen(self, scopes: tuple[Scope, ...]) -> None:
        keys = [key for action in allowed(*scopes) for key in action.keys]
        assert sorted(keys) == sorted(set(keys))

    def test_read_only_leaves_no_action_that_writes(self) -> None:
        kept = {a.id for a in allowed(*Scope, read_only=True)}
        writers = {"delegate", "restart", "start", "stop", "model", "heartbeat", "undo"}
        writers |= {"cancel_run", "approve", "reject"}
        assert kept.isdisjoint(writers)
        assert {a.id for a in ACTIONS} - kept == writers

    def test_what_cannot_be_done_says_why(self) -> None:
        for action_id in ("delegate", "cancel_run", "read_run", "approve", "undo"):
            assert BY_ID[action_id].why_disabled(Situation())

    def test_only_disruptive_actions_ask(self) -> None:
        asking = {a.id for a in ACTIONS if a.danger is Danger.DISRUPTIVE}
        assert asking == {"restart", "stop", "cancel_run"}

    def test_the_key_table_of_the_documentation_is_the_registry(self) -> None:
        page = (ROOT / "docs" / "console.md").read_text()
        table = re.search(r"<!-- keys -->\n(.*?)<!-- /keys -->", page, re.DOTALL)
        assert table, "docs/console.md lacks its key table"
        assert table.group(1) == markdown_table(), "run `python -m tests.console.test_pure` to write it again"


class TestWords:
    @pytest.mark.parametrize(("seconds", "text"), [(3, "now"), (42, "40s"), (75, "1m"), (3700, "1h"), (200_000, "2d")])
    def test_ages_are_coarse(self, seconds: float, text: str) -> None:
        assert age(seconds) == text

    @pytest.mark.parametrize(("seconds", "text"), [(42, "42s"), (250, "4m10s"), (7500, "2h05m"), (266_400, "3d2h")])
    def test_spans_are_exact(self, seconds: float, text: str) -> None:
        assert span(seconds) == text

    def test_an_unknown_price_is_not_zero(self) -> None:
        assert (money(None), money(0.0), money(1.5)) == ("$?", "$0.00", "$1.50")

    def test_osc52_is_wrapped_for_tmux_and_capped(self) -> None:
        assert clipboard.osc52("hi", tmux=False) == ("\x1b]52;c;aGk=\x07", False)
        assert "\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\" in clipboard.osc52("hi", tmux=True)[0]
        assert clipboard.osc52("x" * 200_000, tmux=False)[1]


class TestHygiene:
    @pytest.mark.parametrize(
        ("imports", "forbidden"),
        [
            ("console.store", ("textual", "rich", "aiohttp")),
            ("console.actions", ("textual", "rich")),
            ("console.__main__", ("textual", "msgspec")),
            ("console.wire", ("aiohttp", "textual")),
            ("console.app", ("aiohttp", "gateway", "anthropic", "google", "dbos", "discord", "cluster")),
            ("console.app", ("console.wire", "console.dialogs.delegate", "http.client")),
        ],
    )
    def test_what_is_not_imported(self, imports: str, forbidden: tuple[str, ...]) -> None:
        code = f"import sys, {imports}; print([m for m in {forbidden!r} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "[]", done.stdout + done.stderr


def _write_table() -> None:
    page = ROOT / "docs" / "console.md"
    text = page.read_text()
    start, end = text.index("<!-- keys -->\n") + len("<!-- keys -->\n"), text.index("<!-- /keys -->")
    page.write_text(text[:start] + markdown_table() + text[end:])


if __name__ == "__main__":
    _write_table()
