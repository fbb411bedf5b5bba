"""How each kind of effect is carried out."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.agent.peers import Peers
from gateway.agent.projectlog import ProjectLog
from gateway.channels.outbox import Handler, PermanentRefusal, Skip
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import Effect
from protocols.errors import ProtocolError
from protocols.hooks import MAX_BODY_BYTES, AgentHook, ChildReport
from protocols.runs import ChildRun, RunState


def effect_handlers(agent: str, project_log: ProjectLog, peers: Peers, ledger: Ledger) -> dict[str, Handler]:
    """Kind -> handler. Each does its work once for an effect, however often it is called."""

    async def log(effect: Effect) -> str:
        """The line is keyed by its run."""
        text = str(effect.payload["text"])
        await asyncio.to_thread(project_log.append, effect.run_id, agent, text, at=effect.created_at)
        return "written"

    async def report(effect: Effect) -> str:
        """Tell the delegator how its child ended; a repeat sets the same state again."""
        if effect.target == agent:
            return "noted with the run's end"  # a run that this agent gave itself, in the same ledger
        try:
            client = peers.client(effect.target or "")
            await client.report(_fitting(msgspec.convert(effect.payload, ChildReport), agent))
        except KeyError:
            raise PermanentRefusal(f"{effect.target} is no agent of this cluster") from None
        except ProtocolError as error:
            if error.status in (400, 403, 404):
                raise PermanentRefusal(error.message) from None
            raise
        return f"told {effect.target}"

    async def cancel(effect: Effect) -> str:
        """Cancel what a run gave that has ended without it; a repeat finds it over."""
        try:
            client = peers.client(effect.target or "")
            return (await client.cancel(str(effect.payload["runId"]))).outcome
        except KeyError:
            raise Skip(f"{effect.target} is no agent of this cluster any more") from None
        except ProtocolError as error:
            if error.status in (403, 404):
                raise Skip(error.message) from None
            raise

    async def recall(effect: Effect) -> str:
        """Learn the id of what was being handed over when its run ended, so that it can be cancelled there.

        It is handed over again with its key, held: a receiver that has it names its run, and one that has not takes
        this for it, whatever arrives later.
        """
        hook = AgentHook(
            message=f"(called off before it arrived) {effect.payload['task']}",
            wake_mode="next-heartbeat",
            idempotency_key=str(effect.payload["idempotencyKey"]),
            parent_run_id=effect.run_id,
            depth=1,
            deliver=False,
        )
        try:
            run_id = (await peers.client(effect.target or "").delegate(hook)).run_id
        except KeyError:
            raise Skip(f"there is no agent {effect.target!r}") from None
        except ProtocolError as error:
            if error.status in (400, 403, 404):
                raise Skip(error.message) from None
            raise
        child = ChildRun(
            run_id=run_id, agent=effect.target or "", task=str(effect.payload["task"]), state=RunState.QUEUED.value
        )
        await ledger.add_child(effect.run_id, child, awaited=True)
        return f"{run_id} on {effect.target} is cancelled"

    return {"log": log, "report": report, "cancel": cancel, "recall": recall}


def _fitting(report: ChildReport, agent: str) -> ChildReport:
    """As much of the answer as one call may carry: a longer one would be refused again and again."""
    shown, left = report, len(report.text)
    while len(msgspec.json.encode(shown)) > MAX_BODY_BYTES:
        left = left * 3 // 4
        cut = f"\n[cut: {len(report.text) - left} more characters; {agent} has {report.run_id} whole]"
        shown = msgspec.structs.replace(report, text=report.text[:left] + cut)
    return shown
