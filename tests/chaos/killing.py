"""`remember bar N`, many times over, while the gateway is killed again and again: shared by the test and the bench."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter

import msgspec

from protocols.errors import ProtocolError, Unreachable
from protocols.runs import RunState
from tests.gateway.process import GatewayProcess


class Outcome(msgspec.Struct):
    """What a round of killing came to."""

    runs: int
    kills: int
    kills_while_running: int
    succeeded: int
    copies: dict[int, int]
    """N -> how often `bar N` stands in the notes."""
    seconds: float
    others: list[str]
    """What became of the runs that did not succeed."""

    def __str__(self) -> str:
        once = sum(1 for n in self.copies.values() if n == 1)
        return (
            f"{self.runs} runs, {self.kills} kills of which {self.kills_while_running} while a run was `running`: "
            f"{self.succeeded} succeeded, {once} notes stand exactly once ({self.seconds:.1f} s)"
            + "".join(f"\n  {line}" for line in self.others)
        )


def kill_while_remembering(gateway: GatewayProcess, runs: int, kills: int, seed: int) -> Outcome:
    """Hand in `runs` runs from one thread while `kills` SIGKILLs fall; wait for all; count what is on disk.

    The runs are paced by the kills, so that there is work to interrupt until the last one.
    """
    rng = random.Random(seed)
    begun = time.monotonic()
    accepted: dict[int, str] = {}
    gateway.start()
    allowed = threading.Semaphore(0)
    share = -(-runs // (kills + 1))
    sender = threading.Thread(target=_send_all, args=(gateway, runs, accepted, allowed), daemon=True)
    sender.start()
    killed = while_running = 0
    try:
        while killed < kills:
            allowed.release(share)
            time.sleep(rng.uniform(0.0, 0.03))
            _aim(gateway, rng, want_running=rng.random() < 0.8)
            gateway.kill()
            killed += 1
            # Nobody can have changed it since: what stands there now is what the kill interrupted.
            while_running += gateway.sql("SELECT count(*) FROM runs WHERE state = 'running'")[0][0] > 0
            gateway.start()
    finally:
        allowed.release(runs)
        sender.join(300)
    assert not sender.is_alive(), "the sender never got all its runs accepted"
    ended = [gateway.result(accepted[n], seconds=120) for n in range(runs)]
    others = [
        f"{run.run_id} ({run.message}): {run.state.value}, attempt {run.attempts}, {run.error or run.reason}; "
        f"{[(step.kind, step.name, step.state) for step in run.steps]}"
        for run in ended
        if run.state is not RunState.SUCCEEDED
    ]
    found = Counter(int(n) for n in re.findall(r"\bbar (\d+)\b", gateway.notes()))
    return Outcome(
        runs=runs,
        kills=killed,
        kills_while_running=while_running,
        succeeded=runs - len(others),
        copies={n: found[n] for n in range(runs)},
        seconds=time.monotonic() - begun,
        others=others,
    )


def _send_all(gateway: GatewayProcess, runs: int, accepted: dict[int, str], allowed: threading.Semaphore) -> None:
    """Each is handed in until it is accepted; its key makes a repeat harmless."""
    for n in range(runs):
        allowed.acquire()
        until = time.monotonic() + 120
        while n not in accepted:
            try:
                accepted[n] = gateway.delegate(f"remember bar {n}", idempotency_key=f"bar-{n}")
            except (Unreachable, ProtocolError):
                assert time.monotonic() < until, f"run {n} was never accepted"
                time.sleep(0.02)


def _aim(gateway: GatewayProcess, rng: random.Random, *, want_running: bool) -> None:
    """Freeze the process at random moments until one falls into a run; the kill then finds it exactly there."""
    until = time.monotonic() + 1.0
    while want_running and time.monotonic() < until:
        os.kill(gateway.pid, signal.SIGSTOP)
        if gateway.sql("SELECT 1 FROM runs WHERE state = 'running' LIMIT 1"):
            return
        os.kill(gateway.pid, signal.SIGCONT)
        time.sleep(rng.uniform(0.0, 0.02))
