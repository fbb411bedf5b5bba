"""One budget for all processes of a host: real processes, a real file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocols.errors import StorageFull
from runtime.budget_store import Amount, BudgetStore, BudgetStoreError, Limits, day_of, next_day

ROOT = Path(__file__).resolve().parents[2]
NOON = 1_795_608_000.0
FREE = Limits()


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spender(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.spender", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_eight_processes_at_once_never_pass_the_limit_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    path, limit = tmp_path / "budget.db", 3.0
    processes = [spender(path, f"agent-{n}", limit, 60) for n in range(8)]
    for process in processes:
        assert said(process) == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(said(process)) for process in processes]
    assert [process.wait(30) for process in processes] == [0] * 8
    assert max(a["most"] for a in answers) <= limit + 1e-9
    assert sum(a["refusals"] for a in answers) > 0, "the limit was reached"
    standing = BudgetStore(path, "agent-0", "later").standing()
    assert standing.cluster.reserved_usd == 0
    assert standing.cluster.spent_usd == pytest.approx(sum(a["settled"] for a in answers))
    assert standing.cluster.spent_usd > limit - 0.1, "what was given back was used by others"
    assert standing.agent.spent_usd == pytest.approx(answers[0]["settled"])


def test_what_a_killed_process_had_reserved_comes_back_at_its_next_start_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    process = spender(path, "manager", 0.06, 1, "hold")
    assert json.loads(said(process)) == {"refused": False}
    process.kill()
    process.wait(10)
    other = BudgetStore(path, "webster", "w1")
    assert other.take_over() == 0, "another agent's reservation is not ours to release"
    refused, standing = other.reserve("x", Amount(0.05, 100), FREE, Limits(usd=0.06))
    assert refused is not None
    assert refused.passing
    assert standing.cluster.reserved_usd == pytest.approx(0.05)
    again = BudgetStore(path, "manager", "m2")
    assert (again.take_over(), again.take_over()) == (1, 0)
    again.settle("held", Amount(0.05, 100))  # a late answer of the dead process would count for nothing
    assert other.standing().cluster.spent_usd == 0
    assert other.reserve("x", Amount(0.05, 100), FREE, Limits(usd=0.06))[0] is None


def test_what_the_ledger_knows_is_made_good_once(tmp_path: Path, clock: Clock) -> None:
    store = BudgetStore(tmp_path / "budget.db", "manager", "m1", clock=clock)
    store.reserve("a", Amount(2.0, 100), FREE, FREE)
    store.settle("a", Amount(1.5, 80))
    for usd in (1.0, 1.5, 4.0, 4.0):
        store.make_good(day_of(clock.now), usd, 10, 0)
    assert store.standing().agent.spent_usd == 4.0
    assert store.standing().agent.spent_tokens == 80


def test_a_new_day_begins_with_nothing_spent_and_what_is_under_way_still_reserved(tmp_path: Path, clock: Clock) -> None:
    store = BudgetStore(tmp_path / "budget.db", "manager", "m1", clock=clock)
    limits = Limits(usd=1.0)
    assert store.reserve("a", Amount(0.6, 0), limits, FREE)[0] is None
    store.settle("a", Amount(0.6, 0))
    assert store.reserve("b", Amount(0.4, 0), limits, FREE)[0] is None
    refused, _ = store.reserve("c", Amount(0.5, 0), limits, FREE)
    assert refused is not None
    assert (refused.scope, refused.passing, refused.never) == ("agent", False, False)
    clock.now = next_day(clock.now)
    assert day_of(clock.now) > day_of(NOON)
    refused, standing = store.reserve("c", Amount(0.7, 0), limits, FREE)
    assert refused is not None
    assert refused.passing
    assert (standing.agent.spent_usd, standing.agent.reserved_usd) == (0.0, 0.4)
    assert store.reserve("c", Amount(0.6, 0), limits, FREE)[0] is None
    clock.now += 2 * 86400.0
    assert store.standing().agent.reserved_usd == 0, "no call lasts for days"


@pytest.mark.parametrize(
    ("limits", "most", "names"),
    [
        (Limits(usd=1.0), Amount(1.01, 5), "daily_usd"),
        (Limits(tokens=1000), Amount(0.0, 1001, 1001), "1,000 tokens"),
        (Limits(usd=1.0, unpriced_tokens=1000), Amount(0.0, 1001, 1001), "without a known price"),
    ],
)
def test_a_refusal_names_the_limit_and_says_that_no_day_has_room(
    tmp_path: Path, limits: Limits, most: Amount, names: str
) -> None:
    store = BudgetStore(tmp_path / "budget.db", "manager", "m1")
    refused, _ = store.reserve("a", most, FREE, limits)
    assert refused is not None
    assert names in refused.message
    assert refused.message.startswith("the cluster's budget")
    assert refused.never
    assert store.standing().cluster.reserved_tokens == 0


def test_a_damaged_file_is_named_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    path.write_bytes(b"this is no database, but a text that is long enough to be taken for one" * 20)
    with pytest.raises(BudgetStoreError, match=r"budget\.db.*move the file away"):
        BudgetStore(path, "manager", "m1").standing()


def test_a_folder_that_cannot_be_written_is_no_silent_yes(tmp_path: Path) -> None:
    store = BudgetStore(tmp_path / "missing" / "budget.db", "manager", "m1")
    with pytest.raises((BudgetStoreError, StorageFull)):
        store.reserve("a", Amount(1.0, 1), FREE, Limits(usd=5.0))
