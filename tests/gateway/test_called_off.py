"""What becomes of delegated work whose delegator ends without an answer: cancelled where it would be read by nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Callable

import pytest

from gateway.ledger.ledger import MAX_STALLED, STALLED_SECONDS
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey, wait_until
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Reply, Script, Seen, _last_words

MakeHome = Callable[..., ClusterHome]
SLOW = Reply(text="never said to its end", pause=60)


class Giving(Script):
    """BEGIN gives work by the calls it was made with, then looks about until a limit; other tasks take for ever."""

    def __init__(self, *calls: Call) -> None:
        super().__init__([])
        self.calls = list(calls)
        self.looks = 0

    def take(self, seen: Seen) -> Reply:
        text, has_result = _last_words(seen)
        if has_result:
            self.looks += 1
            return Reply(calls=[Call("sessions_list", {"limit": 1 + self.looks % 100})])
        if text.startswith("BEGIN"):
            return Reply(calls=self.calls)
        return Reply(text="hello") if "hello" in text else SLOW


def settled(gateway: GatewayProcess, run_id: str) -> bool:
    return gateway.sql("SELECT count(*) FROM effects WHERE run_id = ? AND state = 'pending'", run_id) == [(0,)]


def test_a_run_out_of_steps_has_its_spawned_work_cancelled_and_leaves_what_it_only_sent(make_home: MakeHome) -> None:
    home = make_home("webster")
    with obedient_model() as server:
        server.script = Giving(
            Call("sessions_spawn", {"task": "count the bolts"}, id="c1"),
            Call("sessions_send", {"session": "desk", "message": "tidy up", "wait": False}, id="c2"),
        )
        obey(home, server, "webster", "[limits]\nmax_steps = 6")
        with running(home, "webster") as (gateway,):
            gateway.result(gateway.delegate("hello", session_key="desk"))
            run = gateway.result(gateway.delegate("BEGIN", session_key="here"))
            assert (run.state, "6 steps" in run.reason) == (RunState.FAILED, True), run.reason
            spawned, sent = sorted(run.children, key=lambda child: child.task != "count the bolts")
            ended = gateway.result(spawned.run_id)
            assert (ended.state, ended.reason) == (RunState.CANCELLED, "cancelled by webster")
            wait_until(lambda: settled(gateway, run.run_id))
            assert gateway.ask.run(sent.run_id).state is RunState.RUNNING
            assert gateway.sql("SELECT key, state FROM effects WHERE kind = 'cancel'") == [
                (f"{spawned.run_id}/cancel", "done")
            ]


def test_a_lost_run_has_what_it_waited_for_cancelled_at_a_receiver_that_was_away(make_home: MakeHome) -> None:
    """Killed while it waits, as often as makes it `lost`, with the receiver gone too when that is found out."""
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Giving(
            Call("delegate", {"agent": "webster", "task": "in the background", "wait": False}, id="c1"),
            Call("delegate", {"agent": "webster", "task": "waited for"}, id="c2"),
        )
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            run_id = manager.delegate("BEGIN")
            wait_until(lambda: len(manager.ask.run(run_id).children) == 2)
            wait_until(lambda: manager.ask.run(run_id).state is RunState.WAITING)
            beside, awaited = sorted(manager.ask.run(run_id).children, key=lambda child: child.task)
            manager.kill()
            webster.kill()
            with contextlib.closing(sqlite3.connect(home.home.state_db("manager"))) as db, db:
                db.execute("UPDATE runs SET stalled = ?", (MAX_STALLED,))
                db.execute(
                    "UPDATE steps SET started_at = started_at - ?1, finished_at = finished_at - ?1", (STALLED_SECONDS,)
                )
            manager.start()
            assert manager.result(run_id).state is RunState.LOST
            webster.start()
            assert webster.result(awaited.run_id).state is RunState.CANCELLED
            wait_until(lambda: settled(manager, run_id))
            assert webster.ask.run(beside.run_id).state is RunState.RUNNING
            wait_until(
                lambda: {c.run_id: c.state for c in manager.ask.run(run_id).children}[awaited.run_id] == "cancelled"
            )
            assert manager.status().dead_letters == 0


def test_a_cancelled_run_has_everything_cancelled_also_where_nobody_could_be_reached(make_home: MakeHome) -> None:
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Giving(
            Call("delegate", {"agent": "webster", "task": "in the background", "wait": False}, id="c1"),
            Call("delegate", {"agent": "webster", "task": "waited for"}, id="c2"),
        )
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            run_id = manager.delegate("BEGIN")
            wait_until(lambda: len(manager.ask.run(run_id).children) == 2)
            webster.kill()
            assert manager.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
            assert manager.result(run_id).state is RunState.CANCELLED
            webster.start()
            for child in manager.ask.run(run_id).children:
                assert webster.result(child.run_id).state is RunState.CANCELLED


def test_what_was_being_handed_over_when_its_run_was_cancelled_is_cancelled_where_it_arrived(
    make_home: MakeHome,
) -> None:
    """The receiver accepts it when nobody listens to its answer any more."""
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Giving(Call("delegate", {"agent": "webster", "task": "waited for"}))
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            os.kill(webster.pid, signal.SIGSTOP)
            run_id = manager.delegate("BEGIN")
            wait_until(lambda: manager.sql("SELECT 1 FROM steps WHERE name = 'delegate'"))
            assert manager.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
            assert manager.result(run_id).state is RunState.CANCELLED
            os.kill(webster.pid, signal.SIGCONT)
            wait_until(lambda: webster.sql("SELECT 1 FROM runs WHERE caller = 'manager'"))
            ((child,),) = webster.sql("SELECT id FROM runs WHERE caller = 'manager'")
            assert webster.result(child).state is RunState.CANCELLED
            wait_until(lambda: [c.run_id for c in manager.ask.run(run_id).children] == [child])


@pytest.mark.parametrize("arrived", [True, False])
def test_it_is_cancelled_also_if_we_were_killed_before_the_receiver_answered(
    make_home: MakeHome, arrived: bool
) -> None:
    """Whether the receiver had taken it or not: under its key there is one run, and it is cancelled."""
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Giving(Call("delegate", {"agent": "webster", "task": "waited for"}))
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            os.kill(webster.pid, signal.SIGSTOP)
            run_id = manager.delegate("BEGIN")
            wait_until(lambda: manager.sql("SELECT 1 FROM steps WHERE name = 'delegate'"))
            if not arrived:
                webster.kill()
            assert manager.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
            assert manager.result(run_id).state is RunState.CANCELLED
            manager.kill()
            if arrived:
                os.kill(webster.pid, signal.SIGCONT)
                wait_until(lambda: webster.sql("SELECT 1 FROM runs WHERE caller = 'manager'"))
            else:
                webster.start()
            manager.start()
            wait_until(lambda: webster.sql("SELECT state FROM runs WHERE caller = 'manager'") == [("cancelled",)])
            ((child, key),) = webster.sql("SELECT id, idempotency_key FROM runs WHERE caller = 'manager'")
            assert key.startswith(f"{run_id}/")
            wait_until(lambda: settled(manager, run_id))
            wait_until(
                lambda: [(c.run_id, c.state) for c in manager.ask.run(run_id).children] == [(child, "cancelled")]
            )
            wait_until(lambda: settled(webster, child))
            assert (manager.status().dead_letters, webster.status().dead_letters) == (0, 0)
