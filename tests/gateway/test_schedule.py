"""The schedule: due times become runs, once each, over clock changes, restarts and the operator's hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sqlite3
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.agent.schedule import MAX_SCHEDULES, ScheduleConfig, Scheduler, ScheduleRefused
from gateway.agent.timing import TimingError, first_due, next_due
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun
from protocols.runs import RunSource, RunState
from protocols.schedules import NewSchedule, Schedule, ScheduleList
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.obeying import hands
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Match, Reply

BERLIN = ZoneInfo("Europe/Berlin")
NOW = dt.datetime(2026, 11, 25, 12, 0, tzinfo=dt.UTC).timestamp()


def local(times: list[float]) -> list[str]:
    return [dt.datetime.fromtimestamp(t, BERLIN).isoformat(timespec="minutes") for t in times]


def coming(cron: str, start: dt.datetime, count: int) -> list[str]:
    times, at = [], start.timestamp()
    for _ in range(count):
        following = next_due("cron", cron, "Europe/Berlin", anchor=at, after=at)
        assert following is not None
        assert following > at
        times.append(at := following)
    return local(times)


def test_cron_over_the_hour_that_spring_skips() -> None:
    start = dt.datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert coming("30 2 * * *", start, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    start = dt.datetime(2026, 3, 29, 1, 20, tzinfo=BERLIN)
    assert coming("30 * * * *", start, 2) == ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]


def test_cron_over_the_hour_that_autumn_repeats() -> None:
    start = dt.datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert coming("30 2 * * *", start, 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    start = dt.datetime(2026, 10, 25, 1, 40, tzinfo=BERLIN)
    assert coming("30 * * * *", start, 3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]
    inside = dt.datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    assert coming("30 2 * * *", inside, 1) == ["2026-10-26T02:30+01:00"]


def test_every_keeps_its_beat_however_late_it_was_dealt_with() -> None:
    assert next_due("every", "10m", "UTC", anchor=1000.0, after=1000.0) == 1600.0
    assert next_due("every", "10m", "UTC", anchor=1000.0, after=1601.0) == 2200.0
    assert next_due("every", "10m", "UTC", anchor=1000.0, after=9 * 86400.0) == 778_000.0


@pytest.mark.parametrize(
    ("kind", "spec", "tz", "says"),
    [
        ("at", "tomorrow", "UTC", "is not an ISO time"),
        ("at", "2020-01-01T00:00", "UTC", "has passed"),
        ("every", "1s", "UTC", "from 60 s"),
        ("every", "often", "UTC", "is not a duration"),
        ("cron", "61 * * * *", "UTC", "bad minute"),
        ("cron", "* * * * * *", "UTC", "five fields"),
        ("cron", "0 0 30 2 *", "UTC", "bad day-of-month"),
        ("cron", "0 9 * * *", "Mars/Olympus", "is not a time zone"),
    ],
)
def test_a_time_that_cannot_be_is_refused_with_the_form(kind: Any, spec: str, tz: str, says: str) -> None:
    with pytest.raises(TimingError, match=says):
        first_due(kind, spec, tz, NOW)


class Bench:
    """A scheduler on a real ledger, with a clock of ours."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.ledger = Ledger(folder / "state.db", "webster", clock=lambda: self.now)
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")
        self.accepted: list[NewRun] = []
        self.scheduler = Scheduler(
            "webster",
            ScheduleConfig(tz="UTC", missed="once"),
            self.ledger,
            self.reader,
            on_accept=self.accepted.append,
            on_change=lambda: None,
            redact=lambda text: text,
            clock=lambda: self.now,
        )

    async def at(self, now: float) -> list[str]:
        """What becomes due until `now`: the keys of the runs."""
        self.now = now
        self.accepted.clear()
        for due in self.reader.schedules.due(now):
            await self.scheduler._deal_with(due)
        return [str(run.idempotency_key) for run in self.accepted]

    def stands(self, ident: str) -> Schedule:
        found = self.reader.schedules.find(ident)
        assert found is not None
        return found

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


def ended(bench: Bench) -> Coroutine[Any, Any, int]:
    return bench.ledger.writer.submit(lambda db: db.execute("UPDATE runs SET state = 'succeeded'").rowcount)


async def test_a_due_time_becomes_one_run_and_the_next_is_set(bench: Bench) -> None:
    kept = await bench.scheduler.add(NewSchedule(message="look", every="1h"), by="operator")
    assert kept.next_at == NOW + 3600
    assert await bench.at(NOW + 3599) == []
    assert await bench.at(NOW + 3600) == [f"schedule:{kept.id}:{NOW + 3600:.3f}"]
    assert await bench.at(NOW + 3600) == []
    (summary,), total = bench.reader.runs(10)
    assert total == 1
    assert (summary.source, summary.session_key, summary.caller) == (RunSource.SCHEDULE, f"cron:{kept.id}", "webster")
    stands = bench.stands(kept.id)
    assert (stands.next_at, stands.last_at, stands.last_run_id) == (NOW + 7200, NOW + 3600, summary.run_id)


async def test_what_was_missed_runs_once_or_is_skipped(bench: Bench) -> None:
    once = await bench.scheduler.add(NewSchedule(message="a", every="1h"), by="operator")
    skip = await bench.scheduler.add(NewSchedule(message="b", every="1h", missed="skip"), by="operator")
    late = await bench.at(NOW + 5 * 3600 + 1800)
    assert late == [f"schedule:{once.id}:{NOW + 3600:.3f}"]
    assert "min late" in bench.accepted[0].message
    assert bench.stands(once.id).next_at == bench.stands(skip.id).next_at == NOW + 6 * 3600
    assert bench.stands(skip.id).last_run_id is None
    await ended(bench)
    assert len(await bench.at(NOW + 6 * 3600)) == 2


async def test_a_missed_at_that_skips_is_over(bench: Bench) -> None:
    kept = await bench.scheduler.add(NewSchedule(message="a", at="2026-11-25T13:00", missed="skip"), by="operator")
    assert await bench.at(NOW + 86400) == []
    assert bench.stands(kept.id).next_at is None
    await bench.scheduler.enable(kept.id, False)
    with pytest.raises(ScheduleRefused, match="nothing to come"):
        await bench.scheduler.enable(kept.id, True)


async def test_a_time_whose_predecessor_is_still_under_way_is_passed_over(bench: Bench) -> None:
    kept = await bench.scheduler.add(NewSchedule(message="slow", every="1h"), by="operator")
    assert len(await bench.at(NOW + 3600)) == 1
    assert await bench.at(NOW + 7200) == []
    await ended(bench)
    assert len(await bench.at(NOW + 3 * 3600)) == 1
    assert bench.stands(kept.id).next_at == NOW + 4 * 3600


async def test_one_that_changed_meanwhile_is_left_alone(bench: Bench) -> None:
    kept = await bench.scheduler.add(NewSchedule(message="x", every="1h"), by="operator")
    bench.now = NOW + 3600
    (due,) = bench.reader.schedules.due(bench.now)
    await bench.scheduler.enable(kept.id, False)
    await bench.scheduler._deal_with(due)
    assert bench.accepted == []
    assert bench.reader.runs(10)[1] == 0


async def test_there_may_be_so_many_and_the_same_key_is_the_same_schedule(bench: Bench) -> None:
    first = await bench.scheduler.add(NewSchedule(message="x", every="1h", idempotency_key="k"), by="operator")
    again = await bench.scheduler.add(NewSchedule(message="y", every="2h", idempotency_key="k"), by="operator")
    assert again == first
    for _ in range(MAX_SCHEDULES - 1):
        await bench.scheduler.add(NewSchedule(message="x", every="1h"), by="operator")
    with pytest.raises(ScheduleRefused, match="as many as it may"):
        await bench.scheduler.add(NewSchedule(message="x", every="1h"), by="operator")
    with pytest.raises(ScheduleRefused, match="exactly one"):
        await bench.scheduler.add(NewSchedule(message="x", every="1h", at="2030-01-01"), by="operator")
    with pytest.raises(ScheduleRefused, match="provider:kind:id"):
        await bench.scheduler.add(NewSchedule(message="x", every="1h", to="12345"), by="operator")


async def test_serve_sleeps_until_it_is_due_and_hears_of_new_ones(bench: Bench) -> None:
    begun = asyncio.Event()
    bench.scheduler._clock = time.time
    bench.scheduler._on_accept = lambda run: begun.set()
    task = asyncio.create_task(bench.scheduler.serve())
    await asyncio.sleep(0)
    at = dt.datetime.fromtimestamp(time.time() + 0.3, dt.UTC).isoformat()
    await bench.scheduler.add(NewSchedule(message="soon", at=at), by="operator")
    async with asyncio.timeout(5):
        await begun.wait()
    task.cancel()


def wait_for_run(gateway: GatewayProcess, session: str, seconds: float = 20.0) -> str:
    until = time.monotonic() + seconds
    while True:
        rows = gateway.sql("SELECT id FROM runs WHERE session_key = ?", session)
        if rows:
            return str(rows[0][0])
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_schedule_of_the_operator_runs_and_shows(make_home: Callable[..., ClusterHome]) -> None:
    with running(make_home("webster"), "webster") as (gateway,):
        at = dt.datetime.fromtimestamp(time.time() + 1.0, dt.UTC).isoformat()
        status, _, made = gateway.post("/schedules", {"message": "remember the milk", "at": at, "name": "milk"})
        assert status == 201
        assert [s.id for s in gateway.status().schedules] == [made["id"]]
        run = gateway.result(wait_for_run(gateway, f"cron:{made['id']}"))
        assert (run.state, run.source, run.name) == (RunState.SUCCEEDED, RunSource.SCHEDULE, "milk")
        _, _, listed = gateway.raw("GET", "/schedules", None, gateway.headers("viewer"))
        assert [(s["nextAt"], s["lastRunId"]) for s in listed["schedules"]] == [(None, run.run_id)]
        assert gateway.status().schedules == []
        path = f"/schedules/{made['id']}"
        assert gateway.raw("DELETE", path, None, gateway.headers("webster"))[0] == 403
        assert gateway.raw("DELETE", path, None, gateway.headers())[0] == 200
        assert gateway.raw("DELETE", path, None, gateway.headers())[0] == 404
        status, _, said = gateway.post("/schedules", {"message": "x", "cron": "0 25 * * *"})
        assert (status, said["error"]["code"]) == (400, "bad_time")
        assert gateway.post("/schedules", {"message": "x", "every": "1h"}, "webster")[0] == 403


def test_what_was_due_while_it_was_down_runs_once_after_the_start(make_home: Callable[..., ClusterHome]) -> None:
    with running(make_home("webster"), "webster") as (gateway,):
        at = dt.datetime.fromtimestamp(time.time() + 0.5, dt.UTC).isoformat()
        _, _, made = gateway.post("/schedules", {"message": "status", "at": at})
        gateway.kill()
        time.sleep(0.6)
        gateway.start()
        run_id = wait_for_run(gateway, f"cron:{made['id']}")
        assert gateway.result(run_id).state is RunState.SUCCEEDED
        assert gateway.sql("SELECT count(*) FROM runs") == [(1,)]


def test_a_schedule_that_can_no_longer_be_kept_is_seen_in_ready(make_home: Callable[..., ClusterHome]) -> None:
    with running(make_home("webster"), "webster") as (gateway,):
        at = dt.datetime.fromtimestamp(time.time() + 1.0, dt.UTC).isoformat()
        assert gateway.post("/schedules", {"message": "x", "at": at})[0] == 201
        with contextlib.closing(sqlite3.connect(gateway.home.home.state_db("webster"))) as db, db:
            db.execute("ALTER TABLE schedules RENAME TO gone")
        until = time.monotonic() + 20
        while gateway.raw("GET", "/ready")[0] != 503:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert "the schedule has stopped" in gateway.raw("GET", "/ready")[2]["failing"]
        assert gateway.raw("GET", "/health")[0] == 200


def test_a_time_that_could_not_be_shown_is_not_kept(make_home: Callable[..., ClusterHome]) -> None:
    with hands(make_home("webster"), "webster") as its:
        added, cron, listed = its.calls(
            (
                "schedule",
                {"action": "add", "message": "x", "at": "9999-12-31T23:59:59+00:00", "tz": "Pacific/Kiritimati"},
            ),
            ("schedule", {"action": "add", "message": "x", "cron": f"{'0,' * 50_000}0 * * * *"}),
            ("schedule", {"action": "list"}),
        )
        assert "up to 2199" in added
        assert "200" in cron
        assert listed == "there are no schedules"


def test_an_agent_gives_itself_work_at_a_time(make_home: Callable[..., ClusterHome], tmp_path: Path) -> None:
    at = dt.datetime.fromtimestamp(time.time() + 3600.0, dt.UTC).isoformat()
    add = Call("schedule", {"action": "add", "message": "tidy up", "at": at, "name": "later"})
    forever = Call("schedule", {"action": "add", "message": "again", "every": "1h"})
    server = ModelProcess(
        tmp_path,
        Reply(calls=[add], match=Match(text="BEGIN", tool_result=False)),
        Reply(text="kept", match=Match(text="BEGIN", tool_result=True)),
        Reply(calls=[forever], match=Match(text="LATER", tool_result=False)),
        Reply(text="done later", match=Match(text="LATER", tool_result=True)),
    )
    try:
        home = make_home("manager")
        use_models(home, server)
        with running(home, "manager") as (gateway,):
            run = gateway.result(gateway.delegate("BEGIN"))
            (schedule,) = gateway.ask.get("/schedules", ScheduleList).schedules
            assert schedule.id in str(run.steps[1].output)
            assert (schedule.created_by, schedule.message) == ("manager", "tidy up")
            soon = dt.datetime.fromtimestamp(time.time() + 0.5, dt.UTC).isoformat()
            _, _, made = gateway.post("/schedules", {"message": "LATER", "at": soon})
            later = gateway.result(wait_for_run(gateway, made["sessionKey"]))
            assert (later.text, later.source) == ("done later", RunSource.SCHEDULE)
            assert "may add only `at`" in str(later.steps[1].output)
    finally:
        server.close()
