"""What the operator does to agents.

Each write is shown as sent, then accepted, done, refused or unknown; none repeats itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from console.feed import Feed
from console.rows import Write, WriteState
from console.store import Store
from console.supervision import NoSupervisor, Supervision
from protocols.approvals import Approval
from protocols.control import HeartbeatChange
from protocols.errors import AtomizerError, ProtocolError
from protocols.hooks import AgentHook
from protocols.runs import Run, one_line

if TYPE_CHECKING:
    from console.wire import AgentClient

T = TypeVar("T")


class Undo(msgspec.Struct, frozen=True):
    """How to take back something that was done."""

    label: str
    agent: str
    model: str | None = None
    heartbeat: HeartbeatChange | None = None
    """The change to send; if None, `model` is what to set."""


class ReadOnly(AtomizerError):
    """Somebody tried to write in a console that only reads."""


class Operations:
    """Everything that writes, and the one call that reads a run in full."""

    def __init__(self, store: Store, feed: Feed, supervision: Supervision, read_only: bool) -> None:
        self._store, self._feed, self._supervision = store, feed, supervision
        self._read_only = read_only
        self.undos: list[Undo] = []

    async def read_run(self, agent: str, run_id: str, whole: bool = False) -> Run:
        """The run in full, `whole` with its steps' outputs uncut; raises ProtocolError or Unreachable."""
        return await self._feed.client(agent).run(run_id, whole)

    async def delegate(self, agent: str, message: str, key: str, deliver: bool) -> Write:
        """Give `agent` work. The same `key` again gives the same run, so a person may safely try twice."""
        hook = AgentHook(message=message, name="Console", deliver=deliver, idempotency_key=key)
        label = f"delegate: {one_line(message, 60)}"

        async def send(client: AgentClient) -> tuple[WriteState, str, str | None]:
            accepted = await client.delegate(hook)
            return WriteState.ACCEPTED, f"{accepted.run_id} {accepted.status}", accepted.run_id

        return await self._write(agent, label, send, key)

    async def set_model(self, agent: str, model: str | None, undoing: bool = False) -> Write:
        async def send(client: AgentClient) -> tuple[WriteState, str, str | None]:
            changed = await client.set_model(model)
            if not undoing:
                self.undos.append(Undo(f"model of {agent} back to {changed.previous}", agent, changed.undo))
            return WriteState.DONE, f"{changed.previous} -> {changed.model}, from its next turn", None

        return await self._write(agent, f"model {model or 'as configured'}", send)

    async def set_heartbeat(self, agent: str, change: HeartbeatChange, undoing: bool = False) -> Write:
        known = self._store.agents[agent].status

        async def send(client: AgentClient) -> tuple[WriteState, str, str | None]:
            acted = await client.set_heartbeat(change)
            if known and not undoing:
                before = HeartbeatChange(
                    enabled=known.heartbeat.enabled, every_seconds=max(1.0, known.heartbeat.every_seconds)
                )
                self.undos.append(Undo(f"heartbeat of {agent} as before", agent, heartbeat=before))
            return WriteState.DONE, acted.outcome, None

        return await self._write(agent, "heartbeat", send)

    async def beat_now(self, agent: str) -> Write:
        async def send(client: AgentClient) -> tuple[WriteState, str, str | None]:
            return WriteState.DONE, (await client.beat_now()).outcome, None

        return await self._write(agent, "heartbeat now", send)

    async def cancel(self, agent: str, run_id: str) -> Write:
        async def send(client: AgentClient) -> tuple[WriteState, str, str | None]:
            return WriteState.DONE, (await client.cancel(run_id)).outcome, None

        return await self._write(agent, f"cancel {run_id}", send)

    async def answer(self, approval: Approval, approve: bool, reason: str) -> Write:
        """Answer a question; refused, with who was faster, if it is no longer the one that was shown."""
        verb: Literal["approve", "reject"] = "approve" if approve else "reject"

        async def send(client: AgentClient) -> tuple[WriteState, str, str | None]:
            try:
                answered = await client.answer(approval.id, verb, approval.revision, reason)
            except ProtocolError as refused:
                if refused.status != 409:
                    raise
                raise ProtocolError(409, refused.code, await self._meanwhile(client, approval, refused)) from None
            self._store.add_approval(answered)
            return WriteState.DONE, answered.state, None

        return await self._write(approval.agent, f"{verb} {one_line(approval.question, 60)}", send)

    async def _meanwhile(self, client: AgentClient, approval: Approval, refused: ProtocolError) -> str:
        """What became of a question that could not be answered any more."""
        try:
            listed = (await client.approvals(every=True)).approvals
        except AtomizerError:
            return refused.message
        now = next((a for a in listed if a.id == approval.id), None)
        if now is None:
            return refused.message
        self._store.add_approval(now)
        because = f": {now.reason}" if now.reason else ""
        if now.state == "pending":
            return "the question has changed meanwhile; look at it again"
        if now.answered_by is None:
            return f"it {'expired' if now.state == 'expired' else 'was ' + now.state} meanwhile{because}"
        return f"answered by {now.answered_by} meanwhile: {now.state}{because}"

    async def undo(self) -> Write | None:
        """Take back the last thing that can be; None if there is none."""
        if not self.undos:
            return None
        last = self.undos[-1]
        if last.heartbeat is not None:
            write = await self.set_heartbeat(last.agent, last.heartbeat, undoing=True)
        else:
            write = await self.set_model(last.agent, last.model, undoing=True)
        if write.state is WriteState.DONE:
            self.undos.remove(last)
        return write

    async def supervise(self, verb: str, names: Sequence[str]) -> list[Write]:
        """`start`, `stop` or `restart` agents through the supervisor."""
        self._check()
        writes = [self._begin(name, verb) for name in names]
        self._store.restarts(names, verb == "restart")
        try:
            outcome = await self._supervision.act(verb, names)
            ended = [msgspec.structs.replace(w, state=WriteState.DONE, detail=outcome) for w in writes]
        except NoSupervisor as error:
            self._store.restarts(names, False)
            ended = [msgspec.structs.replace(w, state=WriteState.REFUSED, detail=str(error)) for w in writes]
        for write in ended:
            self._store.write(write)
            self._feed.nudge(write.agent)
        return ended

    def _check(self) -> None:
        if self._read_only:
            raise ReadOnly("this console only reads; start it without --read-only to change things")

    def _begin(self, agent: str, label: str, key: str | None = None) -> Write:
        write = Write(
            key=key or f"console-{secrets.token_hex(8)}",
            agent=agent,
            label=label,
            state=WriteState.SENT,
            at=self._store.clock(),
        )
        self._store.write(write)
        return write

    async def _write(
        self,
        agent: str,
        label: str,
        send: Callable[[AgentClient], Awaitable[tuple[WriteState, str, str | None]]],
        key: str | None = None,
    ) -> Write:
        self._check()
        write = self._begin(agent, label, key)
        try:
            state, detail, run_id = await send(self._feed.client(agent))
            write = msgspec.structs.replace(write, state=state, detail=detail, run_id=run_id)
        except ProtocolError as refused:
            write = msgspec.structs.replace(write, state=WriteState.REFUSED, detail=refused.message)
        except AtomizerError as gone:
            never_sent = "connection refused" in str(gone)
            write = msgspec.structs.replace(
                write,
                state=WriteState.REFUSED if never_sent else WriteState.UNKNOWN,
                detail=f"nothing was sent: {gone}" if never_sent else f"no answer came: {gone}",
            )
        self._store.write(write)
        return write
