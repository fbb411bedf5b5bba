"""Slash commands: what a person does to an agent from a channel, by the same roads as the console and the CLI."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from gateway.channels.asking import whole_question
from gateway.channels.channel import ChannelError, Command, CommandOption, CommandSpec
from protocols.approvals import Approval
from protocols.control import HeartbeatChange
from protocols.errors import AtomizerError, ProtocolError
from protocols.runs import RunState, RunSummary, one_line
from protocols.status import AgentStatus
from protocols.targets import Target

log = logging.getLogger("commands")

_SHOWN = 1900
_LISTED = 10

SPECS: tuple[CommandSpec, ...] = (
    CommandSpec("status", "How this agent stands"),
    CommandSpec("new", "Begin this conversation anew; what was said is kept, not read"),
    CommandSpec("stop", "End the work in this conversation"),
    CommandSpec(
        "model",
        "Show the models, or swap to one",
        (CommandOption("name", "provider/model, or `configured` to undo a swap"),),
    ),
    CommandSpec(
        "delegate",
        "Give another agent a task; its answer comes here",
        (
            CommandOption("agent", "Who is to do it", required=True),
            CommandOption("task", "What to do", required=True),
            CommandOption("thread", "Whether it gets a thread of its own", choices=("yes", "no")),
        ),
    ),
    CommandSpec("runs", "The newest runs"),
    CommandSpec(
        "approve",
        "The open questions, or the answer to one",
        (
            CommandOption("question", "Its id, ap-..."),
            CommandOption("decision", "The answer", choices=("approve", "reject")),
            CommandOption("reason", "Why"),
        ),
    ),
    CommandSpec(
        "heartbeat",
        "Show the heartbeat, beat now, or switch it",
        (CommandOption("action", "What to do", choices=("show", "now", "on", "off")),),
    ),
    CommandSpec("usage", "Tokens and money today"),
    CommandSpec("help", "What can be said to this agent"),
)
OPEN = frozenset({"status", "new", "stop", "help"})
"""For everybody who may talk to the agent; the others are for operators."""


class Desk(msgspec.Struct, frozen=True):
    """What the commands reach; each raises AtomizerError with a sentence for the person."""

    agent: str
    status: Callable[[], AgentStatus]
    runs: Callable[[int], list[RunSummary]]
    open: Callable[[str], list[RunSummary]]
    """Session key -> its runs that have not ended, the newest first."""
    pending: Callable[[], Sequence[Approval]]
    answer: Callable[[str, bool, int, str, str], Awaitable[Approval]]
    """(id, approve, revision, by, reason)"""
    cancel: Callable[[str, str], Awaitable[RunState | None]]
    """(run id, reason) -> the state before."""
    begin_anew: Callable[[str], Awaitable[bool]]
    """Session key -> whether there was anything to leave behind."""
    swap_model: Callable[[str | None], str]
    """A model, or None for the configured one -> what is asked from now on."""
    set_heartbeat: Callable[[HeartbeatChange], None]
    beat_now: Callable[[], str]
    check: Callable[[str], None]
    """Agent: can it be given work at all?"""
    delegate: Callable[[str, str, Target], Awaitable[str]]
    """(agent, task, where its answer goes) -> the run's id."""
    start_thread: Callable[[Target, str, str], Awaitable[Target]]
    """(channel, name, first message) -> a new thread. None stays where that message is refused."""
    end_thread: Callable[[Target], Awaitable[None]]
    """Raises nothing."""


class Commands:
    """Carries commands out, one at a time for each person's."""

    def __init__(
        self,
        desk: Desk,
        *,
        session_of: Callable[[Command], str],
        operators: Callable[[], Collection[str]],
        may_talk: Callable[[Command], bool],
        pressed: Callable[[Command], Awaitable[None]],
    ) -> None:
        """`may_talk`: would a message of theirs, there, be heard? `pressed`: buttons are somebody else's."""
        self._desk = desk
        self._session_of = session_of
        self._operators = operators
        self._may_talk = may_talk
        self._pressed = pressed

    async def __call__(self, command: Command) -> None:
        """Carry one out and answer it; raises nothing but what is a bug."""
        if command.name == "button":
            await self._pressed(command)
            return
        try:
            text = await self._carry_out(command)
        except (AtomizerError, TimeoutError) as error:
            text = f"Not done: {error or 'it took too long'}"
        try:
            await command.reply(text[:_SHOWN])
        except ChannelError as error:
            log.info("the answer to /%s was not shown: %s", command.name, error)

    async def _carry_out(self, command: Command) -> str:
        if command.name not in {spec.name for spec in SPECS}:
            return f"There is no /{command.name} (any more). /help says what there is."
        if command.author.target.id not in self._operators():
            if command.name not in OPEN:
                return "This is for operators ([discord] operators in cluster.toml)."
            if not self._may_talk(command):
                return "You may not talk to this agent here."
        log.info("/%s by %s", command.name, command.author.target)
        match command.name:
            case "status":
                return _status(self._desk.status())
            case "new":
                return await self._new(command)
            case "stop":
                return await self._stop(command)
            case "model":
                return self._model(command.arguments.get("name"))
            case "delegate":
                return await self._delegate(command)
            case "runs":
                return "\n".join(_run(run) for run in self._desk.runs(_LISTED)) or "No runs yet."
            case "approve":
                return await self._approve(command)
            case "heartbeat":
                return self._heartbeat(command.arguments.get("action", "show"))
            case "usage":
                return _usage(self._desk.status())
        return _help(self._desk.agent)

    async def _new(self, command: Command) -> str:
        session = self._session_of(command)
        if any(run.session_key == session for run in self._desk.status().current):
            return "There is work under way here; /stop ends it, then /new."
        if not await self._desk.begin_anew(session):
            return "This conversation has only just begun."
        return "From here on I have forgotten what was said; it stays in the transcript."

    async def _stop(self, command: Command) -> str:
        session = self._session_of(command)
        stopped = 0
        for run in self._desk.open(session):
            before = await self._desk.cancel(run.run_id, f"stopped by {command.author.target}")
            stopped += before is not None and not before.ended
        return f"Stopped: {stopped} run(s)." if stopped else "There is nothing under way here."

    def _model(self, name: str | None) -> str:
        if name:
            return self._desk.swap_model(None if name == "configured" else name)
        model = self._desk.status().model
        choices = [f"- `{c.id}`" + ("" if c.available else f" ({c.reason})") for c in model.choices]
        return "\n".join([f"Now: `{model.active}` ({model.origin}). `/model name:...` swaps it.", *choices])

    async def _delegate(self, command: Command) -> str:
        agent, task = command.arguments.get("agent", "").strip(), command.arguments.get("task", "").strip()
        if not agent or not task:
            return "Say who is to do it and what: /delegate agent:... task:..."
        self._desk.check(agent)  # before there is a thread for it
        place, thread, note = command.place.target, None, ""
        if command.place.kind == "direct":
            place = command.author.target
        elif command.arguments.get("thread") == "yes" and command.place.kind == "channel":
            begin = f"For {agent}, from <@{command.author.target.id}>:\n{task}"
            try:
                place = thread = await self._desk.start_thread(place, f"{agent}: {task}", begin)
            except ChannelError as error:  # the task matters more than its place
                note = f" It has no thread: {error}."
        try:
            run_id = await self._desk.delegate(agent, task, place)
        except ProtocolError:  # an answer: it was not accepted
            if thread is not None:
                await self._desk.end_thread(thread)
            raise
        where = f" in <#{place.id}>" if place.kind == "channel" else ""
        return f"{agent} accepted it as `{run_id}`; its answer comes{where or ' here'} from its own bot.{note}"

    async def _approve(self, command: Command) -> str:
        pending = self._desk.pending()
        wanted = command.arguments.get("question")
        if not wanted:
            lines = [f"- `{a.id}` {one_line(a.question, 150)} (for {_ago(a.created_at)})" for a in pending]
            return "\n".join(lines) or "There are no open questions."
        found = next((a for a in pending if a.id == wanted), None)
        if found is None:
            return f"There is no open question {wanted!r}; /approve lists them."
        decision = command.arguments.get("decision")
        if decision is None:
            return whole_question(found, _SHOWN - 100)
        by, reason = str(command.author.target), command.arguments.get("reason", "")
        answered = await self._desk.answer(found.id, decision == "approve", found.revision, by, reason)
        return f"{answered.question}: {answered.state}."

    def _heartbeat(self, action: str) -> str:
        if action == "now":
            return self._desk.beat_now()
        if action in ("on", "off"):
            self._desk.set_heartbeat(HeartbeatChange(enabled=action == "on"))
        beat = self._desk.status().heartbeat
        last = f"; last {_ago(beat.last_at)} ago: {beat.last_outcome}" if beat.last_at else ""
        return f"Heartbeat {beat.state}, every {beat.every_seconds / 60:.0f} min{last}. {beat.reason}".rstrip()


def _status(status: AgentStatus) -> str:
    queue = status.queue
    lines = [
        f"**{status.title}** is {status.state} on `{status.model.active}`: {queue.running} running, {queue.waiting}"
        f" waiting, {queue.queued} queued.",
        *(_run(run) for run in status.current[:_LISTED]),
        *(f"\N{WARNING SIGN} {problem}" for problem in status.failing),
    ]
    if status.dead_letters:
        lines.append(f"\N{WARNING SIGN} {status.dead_letters} dead letter(s)")
    return "\n".join(lines)


def _run(run: RunSummary) -> str:
    return f"- `{run.run_id}` {run.state.value}, {_ago(run.created_at)} ago: {one_line(run.task, 100)}"


def _usage(status: AgentStatus) -> str:
    used, scope = status.usage_today, status.budget.agent
    money = "price unknown" if status.cost_today_usd is None else f"${status.cost_today_usd:.3f}"
    limit = f" of ${scope.limit_usd:.2f}" if scope.limit_usd is not None else ""
    over = f" {status.budget.reason}" if status.budget.state == "over" else ""
    return (
        f"Today (UTC): {used.input_tokens} tokens read, {used.output_tokens} written, {money}{limit},"
        f" {status.runs_today} runs.{over}"
    )


def _help(agent: str) -> str:
    lines = [f"Mention me, answer me or write to me alone, and {agent} works on it. Commands:"]
    lines += [f"- `/{spec.name}` {spec.description}" for spec in SPECS]
    return "\n".join(lines)


def _ago(at: float | None) -> str:
    seconds = max(0.0, time.time() - (at or 0.0))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
