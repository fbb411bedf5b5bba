"""A gateway that dies at a commit, and a story told to it over each of its deaths."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar, cast

from protocols.approvals import Approval, ApprovalAnswer, ApprovalList
from protocols.control import Acted
from protocols.errors import Unreachable
from protocols.runs import Run
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess

T = TypeVar("T")

DYING = Path(__file__).with_name("dying.py")
GEMINI = ("google.genai",)
"""Modules for a gateway that asks that model."""
MOST = 40
"""More commits than one story makes: the enumeration ends when a process survives its story."""


class Died(Exception):
    """The gateway has killed itself as it was told to."""


class _Child:
    """A process that `dying.py` has started for us, in the place of one of our own."""

    def __init__(self, parent: subprocess.Popen[bytes]) -> None:
        assert parent.stdin is not None
        assert parent.stdout is not None
        self._said = parent.stdout
        parent.stdin.write(b"\n")
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("dying.py", timeout or 0)
            self.returncode = int(self._said.readline())
        return self.returncode

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


class DyingGateway(GatewayProcess):
    """Kills itself at a commit once it is armed, whether it runs already or is started later."""

    def __init__(self, home: ClusterHome, agent: str = "webster", *modules: str) -> None:
        """`modules` are imported once for all its lives: the SDK of the model that it asks."""
        super().__init__(home, agent)
        self._fuse = home.folder / f"{agent}.fuse"
        self._program = [sys.executable, str(DYING), str(self._fuse), *modules, "--"]
        self._parent: subprocess.Popen[bytes] | None = None

    def spawn(self, **environment: str) -> None:
        assert not environment
        if self._parent is None:
            folder = self.home.home.instance(self.agent)
            folder.joinpath("logs").mkdir(exist_ok=True)
            with open(folder / "logs" / "console.log", "ab") as out:
                self._parent = subprocess.Popen(
                    [*self._program, "--home", str(self.home.root), "--agent", self.agent],
                    cwd=folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=out,
                    bufsize=0,
                )
        self.process = cast("subprocess.Popen[bytes]", _Child(self._parent))

    def close(self) -> None:
        super().close()
        if self._parent is not None:
            self._parent.communicate(timeout=10)

    def arm(self, number: int, when: str) -> None:
        """Die `before` or `after` the changing commit that is the `number`th from now."""
        fresh = self._fuse.with_suffix(".new")
        fresh.write_text(f"{number} {when}")
        os.replace(fresh, self._fuse)

    def disarm(self) -> None:
        self._fuse.unlink(missing_ok=True)

    @property
    def dead(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def until(self, true: Callable[[], T], seconds: float = 20.0) -> T:
        """What `true()` says as soon as it says something; raises Died if the gateway dies before."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Unreachable):
                if said := true():
                    return said
            if self.dead:
                raise Died
            assert time.monotonic() < end, f"it never came true: {self.output()}"
            time.sleep(0.01)

    def end_of(self, run_id: str, seconds: float = 20.0) -> Run:
        """The run once it has ended and what it sends out has left; raises Died."""
        pending = "SELECT count(*) FROM effects WHERE run_id = ? AND state = 'pending'"

        def ended() -> Run | None:
            run: Run = self.ask.run(run_id, wait=2)
            return run if run.state.ended and self.sql(pending, run_id) == [(0,)] else None

        return self.until(ended, seconds)


def die_at_each_commit(
    gateway: DyingGateway,
    when: str,
    story: Callable[[int], None],
    *,
    prepare: Callable[[int], None] = lambda number: None,
) -> int:
    """Tell `story(n)` for n = 1, 2, ...; the gateway dies at the story's nth commit, is started again and told the
    same story once more, from its beginning, to its end. How many deaths there were before it survived a story.

    So each sentence of a story must do no harm when it is said again: it has a key, or looks first. One start of a
    process serves the rest of one story and the beginning of the next, with `prepare(n)` between them.
    """
    gateway.start()
    for number in range(1, MOST):
        prepare(number)
        gateway.arm(number, when)
        try:
            story(number)
            gateway.status()  # not killed by its very last commit
        except (Died, Unreachable):
            assert gateway.process is not None
            gateway.process.wait(10)
            gateway.disarm()
            gateway.start()
            story(number)
        else:
            gateway.disarm()
            return number - 1
    raise AssertionError(f"a story of more than {MOST} commits")


def ask_about(home: ClusterHome, *tools: str, agent: str = "webster", expires: str = "7d", limits: str = "") -> None:
    """Have a person asked before `agent` calls any of `tools`; `limits` are more lines of that table."""
    path = home.home.instance_toml(agent)
    text = path.read_text()
    for tool in tools:
        text = text.replace(f'"{tool}", ', "", 1)
    names = ", ".join(f'"{tool}"' for tool in tools)
    text = text.replace("deny = []", f"ask = [{names}]\ndeny = []", 1)
    path.write_text(f'{text}\n[limits]\napproval_expires = "{expires}"\n{limits}\n')


def question(gateway: DyingGateway, run_id: str, about: str = "") -> Approval:
    """The run's one question that has the text `about`, once it is put, whatever has become of it; raises Died."""

    def put() -> Approval | None:
        found = [a for a in gateway.ask.get("/approvals", ApprovalList).approvals if a.run_id == run_id]
        past = gateway.sql("SELECT id, question, state FROM approvals WHERE run_id = ? AND state <> 'pending'", run_id)
        found += [Approval(id=row[0], agent=gateway.agent, question=row[1], state=row[2]) for row in past]
        found = [a for a in found if about in a.question]
        assert len(found) <= 1, f"asked more than once: {found}"
        return found[0] if found else None

    return gateway.until(put)


def cancel(gateway: DyingGateway, run_id: str) -> None:
    """Cancel the run over HTTP; raises Unreachable."""
    gateway.ask.send("POST", f"/hooks/runs/{run_id}/cancel", None, Acted)


def answer(gateway: DyingGateway, run_id: str, decision: Literal["approve", "reject"], about: str = "") -> None:
    """Answer the run's question over HTTP, if nobody has yet; raises Died or Unreachable."""
    asked = question(gateway, run_id, about)
    if asked.state == "pending":
        body = ApprovalAnswer(decision=decision, revision=asked.revision, reason="no" if decision == "reject" else "")
        gateway.ask.send("POST", f"/approvals/{asked.id}", body, Approval)


def said(gateway: DyingGateway, session: str) -> list[str]:
    """What stands in a session on the people's side, without tool results."""
    rows = gateway.sql("SELECT content FROM messages WHERE session_key = ? AND role = 'user' ORDER BY seq", session)
    return [block["text"] for (content,) in rows for block in json.loads(content) if block["type"] == "text"]


def is_answered_whole(gateway: DyingGateway, session: str) -> bool:
    """Is each answer with calls followed by the message of their results?"""
    rows = gateway.sql("SELECT content FROM messages WHERE session_key = ? ORDER BY seq", session)
    asked: list[str] = []
    for (content,) in rows:
        blocks = json.loads(content)
        if asked != [block["id"] for block in blocks if block["type"] == "tool_result"]:
            return False
        asked = [block["id"] for block in blocks if block["type"] == "tool_call"]
    return not asked
