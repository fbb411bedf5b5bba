"""`POST /control/drain` on a real gateway: what it still takes, what becomes of its runs, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable

from protocols.control import Acted, HeartbeatChange
from protocols.health import Ready
from protocols.runs import RunState
from protocols.schedules import NewSchedule, Schedule
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey, wait_until
from tests.gateway.process import running
from tests.standins.models.script import Call, Reply, Script, Seen, _last_words

MakeHome = Callable[..., ClusterHome]


class Paced(Script):
    """Tasks that end soon, that give work and wait for it, and that take for ever."""

    def take(self, seen: Seen) -> Reply:
        text, has_result = _last_words(seen)
        if has_result:
            return Reply(text="done")
        if text.startswith("WAIT"):
            return Reply(calls=[Call("delegate", {"agent": "webster", "task": "take for ever"})])
        if text.startswith("SOON"):
            return Reply(text="ended by itself", piece=3, pause=0.5)
        return Reply(text="never said to its end", pause=60) if "for ever" in text else Reply(text="done")


def test_a_drained_gateway_takes_nothing_ends_or_keeps_what_it_has_and_goes_on_after_a_restart(
    make_home: MakeHome,
) -> None:
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Paced([])
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            waits = manager.delegate("WAIT")
            wait_until(lambda: manager.ask.run(waits).state is RunState.WAITING)
            soon = manager.delegate("SOON")
            wait_until(lambda: manager.ask.run(soon).state is RunState.RUNNING)
            due = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 2))
            schedule = manager.ask.send("POST", "/schedules", NewSchedule(message="due meanwhile", at=due), Schedule)
            manager.ask.send("PUT", "/control/heartbeat", HeartbeatChange(enabled=True, every_seconds=1), Acted)

            answer = manager.ask.send("POST", "/control/drain", None, Acted)
            assert "until this gateway is restarted" in answer.outcome
            assert manager.status().state == "draining"
            assert "draining" in manager.ask.get("/ready", Ready).failing[0]
            assert manager.raw("GET", "/ready")[0] == 503
            for path, body, caller in (
                ("/hooks/agent", {"message": "more"}, "operator"),
                ("/hooks/request", {"agent": "webster", "task": "more", "reason": "why"}, "webster"),
                ("/control/heartbeat/now", {}, "operator"),
            ):
                status, headers, refused = manager.post(path, body, owner=caller)
                assert (status, refused["error"]["code"]) == (503, "draining"), path
                assert int(headers["retry-after"]) > 0

            ended = manager.result(soon)
            assert (ended.state, ended.text) == (RunState.SUCCEEDED, "ended by itself")
            wait_until(lambda: manager.ask.run(waits).state is RunState.QUEUED)
            (child,) = manager.ask.run(waits).children
            assert webster.ask.run(child.run_id).state is RunState.RUNNING
            wait_until(lambda: manager.status().heartbeat.last_outcome == "skipped: draining")
            assert schedule.next_at is not None
            until = schedule.next_at + 1.2  # a beat and the due time have passed
            wait_until(lambda: time.time() > until)
            assert manager.sql("SELECT count(*) FROM runs WHERE state <> 'succeeded'") == [(1,)]
            assert (manager.status().state, manager.status().queue.running) == ("draining", 0)

            assert manager.stop() == 0
            manager.start()
            assert manager.status().state != "draining"
            wait_until(lambda: manager.ask.run(waits).state is RunState.WAITING)
            run = manager.ask.run(waits)
            assert (run.attempts, [c.run_id for c in run.children]) == (2, [child.run_id])
            wait_until(lambda: manager.sql("SELECT state FROM runs WHERE source = 'schedule'") == [("succeeded",)])
            assert manager.result(manager.delegate("anything")).text == "done"
