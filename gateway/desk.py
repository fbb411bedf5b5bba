"""What slash commands reach: the same operations as the API's, for an operator on a channel."""

from __future__ import annotations

from collections.abc import Callable

from gateway.agent.approvals import Approvals
from gateway.agent.heartbeat import Heartbeat
from gateway.agent.peers import Peers
from gateway.agent.runner import Runner
from gateway.channels.channel import Channel
from gateway.channels.commands import Desk
from gateway.channels.threads import end_thread, open_thread
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.models.models import Models
from protocols.approvals import Approval
from protocols.client import GatewayClient
from protocols.control import HeartbeatChange
from protocols.decoding import nearest
from protocols.errors import ProtocolError
from protocols.hooks import AgentHook
from protocols.runs import RunState
from protocols.status import AgentStatus
from protocols.targets import Target


def build_desk(
    agent: str,
    channel: Channel,
    ledger: Ledger,
    reader: Reader,
    runner: Runner,
    models: Models,
    heartbeat: Heartbeat,
    approvals: Approvals,
    peers: Peers,
    *,
    status: Callable[[], AgentStatus],
    on_model: Callable[[], None],
    set_heartbeat: Callable[[HeartbeatChange], None],
    cancel_children: Callable[[str], None],
    redact: Callable[[str], str],
) -> Desk:
    """The desk of one agent."""

    async def answer(approval_id: str, approve: bool, revision: int, by: str, reason: str) -> Approval:
        return await approvals.answer(approval_id, approve=approve, revision=revision, by=by, reason=reason)

    async def cancel(run_id: str, reason: str) -> RunState | None:
        before = await runner.cancel(run_id, reason)
        cancel_children(run_id)
        return before

    def swap_model(name: str | None) -> str:
        changed = models.swap(name)
        on_model()
        undo = f"`/model name:{changed.undo or 'configured'}` undoes it."
        return f"From the next turn on: `{changed.model}` (before: `{changed.previous}`). {undo}"

    def client_of(to: str) -> GatewayClient:
        if to == agent:
            raise ProtocolError(400, "itself", f"this is {agent}; simply tell it")
        try:
            return peers.client(to)
        except KeyError:
            close = nearest(to, peers.known())
            hint = f"did you mean {close}?" if close else f"there are: {', '.join(peers.known())}"
            raise ProtocolError(404, "unknown_agent", f"there is no agent {to!r}; {hint}") from None

    def check(to: str) -> None:
        client_of(to)

    async def delegate(to: str, task: str, target: Target) -> str:
        accepted = await client_of(to).delegate(
            AgentHook(message=task, name=f"from {agent}'s channel", to=str(target), depth=1)
        )
        return accepted.run_id

    async def start_thread(place: Target, name: str, text: str) -> Target:
        return await open_thread(channel, place, redact(name), redact(text))

    return Desk(
        agent=agent,
        status=status,
        runs=lambda limit: reader.runs(limit)[0],
        open=reader.open_in,
        pending=approvals.list,
        answer=answer,
        cancel=cancel,
        begin_anew=ledger.begin_anew,
        swap_model=swap_model,
        set_heartbeat=set_heartbeat,
        beat_now=heartbeat.beat_now,
        check=check,
        delegate=delegate,
        start_thread=start_thread,
        end_thread=lambda thread: end_thread(channel, thread),
    )
