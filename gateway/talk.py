"""Everything between one agent and the people on its channel, built in one place.

In: the channel -> intake -> a run. Out: the outbox -> delivery -> the channel; beside it the draft of an answer that is
still being written, questions with buttons, slash commands, the mirror of what the agent does, and its presence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from gateway.agent.acceptance import Acceptance
from gateway.agent.approvals import Approvals
from gateway.agent.inside import read_inside
from gateway.channels.asking import KIND as ASK
from gateway.channels.asking import Asking
from gateway.channels.channel import MAX_UPLOAD, Activity, Channel, Command, Heard, Listener, Upload
from gateway.channels.commands import SPECS, Commands, Desk
from gateway.channels.composing import session_of
from gateway.channels.delivery import Delivery, Part
from gateway.channels.hearing import deaf, listens_to
from gateway.channels.intake import Intake
from gateway.channels.live import Live
from gateway.channels.mirror import Mirror
from gateway.channels.outbox import Handler, PermanentRefusal
from gateway.channels.posting import Poster
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Effect, NewEffect
from protocols.approvals import Approval
from protocols.runs import RunSource, RunState, RunSummary
from protocols.status import ChannelStatus
from protocols.targets import Target
from runtime.config import Cluster, Instance
from runtime.config_discord import Ears, InstanceDiscordTable, channel_id, ears

log = logging.getLogger("channel")

_PRESENCE_SECONDS = 1.0
"""Changes within it are shown as one."""


class Forward:
    """The listener that a channel is made with, before there is anybody to listen."""

    def __init__(self) -> None:
        self.to: Listener | None = None

    def heard(self, message: Heard) -> None:
        if self.to is not None:
            self.to.heard(message)

    def edited(self, place: Target, message_id: str, text: str) -> None:
        if self.to is not None:
            self.to.edited(place, message_id, text)

    def deleted(self, place: Target, message_id: str) -> None:
        if self.to is not None:
            self.to.deleted(place, message_id)

    def commanded(self, command: Command) -> None:
        if self.to is not None:
            self.to.commanded(command)

    def connected(self, gap: bool) -> None:
        if self.to is not None:
            self.to.connected(gap)


class Talk:
    """One agent's conversations on one channel. `configured()`: is there a bot at all?"""

    def __init__(
        self,
        agent: str,
        make_channel: Callable[[Listener], Channel],
        ledger: Ledger,
        reader: Reader,
        acceptance: Acceptance,
        approvals: Approvals,
        *,
        config: Callable[[], Instance],
        cluster: Callable[[], Cluster],
        configured: Callable[[], bool],
        desk: Callable[[Talk], Desk],
        redact: Callable[[str], str],
        preview: Callable[[str], str],
        on_change: Callable[[str], None],
        wake_outbox: Callable[[], None],
    ) -> None:
        forward = Forward()
        self.channel = channel = make_channel(forward)
        self._agent = agent
        self._ledger = ledger
        self._reader = reader
        self._config = config
        self._cluster = cluster
        self._configured = configured
        self._redact = redact
        self._wake_outbox = wake_outbox
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._presence: asyncio.TimerHandle | None = None
        self._state = ""
        self.poster = Poster(channel, ledger.posts, reader.posts.known)
        self.live = Live(
            channel,
            self.poster,
            divide=self._divide,
            table=self._table,
            preview=preview,
            waiting=self._is_waiting,
        )
        self._delivery = Delivery(
            channel,
            self.poster,
            parts_of=self._parts_of,
            uploads=lambda names: asyncio.to_thread(self._uploads, names),
            close_draft=self.live.close,
            marked=self.live.marked,
            retarget=ledger.effects.retarget,
            add=self._add,
            home=lambda: self._table().home,
            reactions=lambda: self._table().reactions,
        )
        self._asking = Asking(
            self.poster,
            find=reader.approval,
            recent=lambda: approvals.list(every=True),
            shown=reader.posts.of,
            options_of=reader.options,
            home=lambda: self._table().home,
            operators=lambda: self._ears().operators,
            add=self._add,
            answer=lambda id, approve, revision, by: approvals.answer(
                id, approve=approve, revision=revision, by=by, reason=""
            ),
        )
        self._commands = Commands(
            desk(self),
            session_of=lambda c: session_of(agent, c.place, c.author, self._table().dm_session),
            operators=lambda: self._ears().operators,
            may_talk=self._may_talk,
            pressed=self._asking.pressed,
        )
        self.intake = Intake(
            agent,
            channel,
            ledger,
            reader,
            approvals,
            table=self._table,
            ears=self._ears,
            workspace=lambda: config().workspace,
            accept=acceptance,
            on_change=on_change,
            on_command=lambda command: self._beside(self._commands(command), command.name),
            redact=redact,
        )
        forward.to = self.intake
        self._mirror = Mirror(
            agent,
            channel,
            runs_to=lambda: self._named(self._cluster().file.discord.log_channel),
            delegations_to=lambda: self._named(self._cluster().file.discord.delegation_channel),
            agents=lambda: self._cluster().agents,
            redact=redact,
        )

    # -- what the gateway asks ---------------------------------------------------------------------------------

    def connected(self) -> Collection[str]:
        """The providers through which a message can go out, now or once the connection is back."""
        return (self.channel.provider,) if self._configured() else ()

    def status(self) -> list[ChannelStatus]:
        return [self.channel.status()]

    def failing(self) -> list[str]:
        """What `/ready` says of it: nothing while it is off or connected."""
        status = self.channel.status()
        if status.state in ("off", "ready"):
            return []
        return [f"{status.provider} {status.state}{f': {status.detail}' if status.detail else ''}"]

    def handlers(self) -> dict[str, Handler]:
        """Effects that leave through the channel."""
        return {"deliver": self._carry_out(self._delivery), "message": self._carry_out(self._delivery), ASK: self._ask}

    def parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Tasks that work while the gateway serves."""
        provider = self.channel.provider
        return {
            provider: self.channel.serve(),
            f"the ears on {provider}": self.intake.serve(),
            f"the mirror on {provider}": self._mirror.serve(),
        }

    async def start(self) -> None:
        """Questions that were put and not shown yet are shown."""
        await self.channel.sync(SPECS)
        if self._configured():
            await self._asking.start()

    async def close(self) -> None:
        if self._presence is not None:
            self._presence.cancel()
        for task in list(self._side_tasks):
            task.cancel()
        await asyncio.gather(*self._side_tasks, return_exceptions=True)
        await self.live.stop()

    async def forget(self) -> None:
        """What is remembered of people and places that can matter no longer; raises DiskFull."""
        if self._configured():
            await self.intake.forget()

    # -- what happens in the gateway ---------------------------------------------------------------------------

    def run_began(self, run: ClaimedRun) -> None:
        """A run is worked on: typing, and the draft of its answer, begin."""
        if self._configured():
            self.live.began(run)

    def delta(self, run_id: str, text: str, reset: bool) -> None:
        self.live.delta(run_id, text, reset)

    def run_changed(self, run: RunSummary) -> None:
        """A run was accepted or its state is another."""
        if not self._configured():
            return
        self._mirror.changed(run)
        if run.source is RunSource.CHAT and run.state is RunState.QUEUED and run.started_at is None:
            options = self._reader.options(run.run_id)
            if options is not None and options.origin is not None:
                self.live.seen(run.run_id, options.origin)
        if self._presence is None:
            self._presence = asyncio.get_running_loop().call_later(_PRESENCE_SECONDS, self._show_presence)

    def approval_changed(self, approval: Approval) -> None:
        if self._configured():
            self._beside(self._asking.changed(approval), f"ask-{approval.id}")

    def connection_changed(self) -> None:
        """What waits for the channel goes out as soon as it can."""
        before, self._state = self._state, self.channel.status().state
        if self._state == "ready" != before:
            self._beside(self._hurry(), "hurry")

    # -- inside ------------------------------------------------------------------------------------------------

    def _table(self) -> InstanceDiscordTable:
        return self._config().file.discord

    def _divide(self, text: str) -> list[str]:
        """A draft's messages: no more than an answer may have that does not become a file."""
        from gateway.channels.splitting import split  # with the first answer, not with the process

        most, limit = self._table().file_over, self.channel.limit
        return split(text[: (most + 1) * limit], limit, self._table().lines)[:most]

    def _parts_of(self, text: str) -> list[Part]:
        """An answer's messages."""
        from gateway.channels.presenting import parts_of

        return parts_of(self._redact(text), self._table(), self.channel.limit)

    def _uploads(self, names: list[str]) -> list[Upload]:
        """Files of the workspace and the shared folder, as they are now."""
        from gateway.channels.files import safe_names

        workspace, shared = self._config().workspace, self._cluster().home.shared
        found: list[Upload] = []
        left = MAX_UPLOAD
        for name, shown in zip(names, safe_names([name.rpartition("/")[2] for name in names]), strict=True):
            path = shared / name.removeprefix("shared/") if name.startswith("shared/") else workspace / name
            try:
                data = read_inside(path, (workspace, shared), left + 1)
            except OSError as error:
                raise PermanentRefusal(f"the file {name} is not there any more: {error.strerror}") from None
            if len(data) > left:
                raise PermanentRefusal(f"the files have more than {MAX_UPLOAD / 1e6:.0f} MB together")
            left -= len(data)
            found.append(Upload(shown, data))
        return found

    def _ears(self) -> Ears:
        return ears(self._cluster().file.discord, self._config().file.discord, self._agent)

    def _named(self, name: str | None) -> Target | None:
        if name is None:
            return None
        return Target(self.channel.provider, "channel", channel_id(self._cluster().file.discord, name))

    def _may_talk(self, command: Command) -> bool:
        """Would what they write there be heard?"""
        listening = self._ears()
        if command.place.kind != "direct":
            return not deaf(command.place, listening) and listens_to(command.author, listening)
        table, person = self._table(), command.author.target
        if table.dm == "off":
            return False
        if person.id in listening.users | listening.operators:
            return True
        return table.dm == "pairing" and self.intake.pairing.paired(person)

    def _is_waiting(self, run_id: str) -> bool:
        run = self._reader.summary(run_id)
        return run is not None and run.state is RunState.WAITING

    async def _add(self, run_id: str, effect: NewEffect) -> None:
        await self._ledger.effects.add(run_id, effect)
        self._wake_outbox()

    async def _hurry(self) -> None:
        await self._ledger.effects.hurry(self.channel.provider)
        self._wake_outbox()

    def _carry_out(self, handler: Handler) -> Handler:
        async def carry_out(effect: Effect) -> str:
            provider, typed, _ = (effect.target or "").partition(":")
            provider = provider if typed else self.channel.provider
            if provider not in self.connected():
                raise PermanentRefusal(f"no {provider} channel is connected to this agent")
            return await handler(effect)

        return carry_out

    async def _ask(self, effect: Effect) -> str:
        return await self._carry_out(self._asking.show)(effect)

    def _show_presence(self) -> None:
        """How much there is to do, never what: everybody sees it."""
        self._presence = None
        queue = self._reader.queue()
        activity: Activity = "working" if queue.running else "waiting" if queue.waiting else "idle"
        text = f"{queue.running} run(s)" if queue.running else f"{queue.waiting} waiting" if queue.waiting else ""
        self._beside(self.channel.show(activity, text), "presence")

    def _beside(self, part: Coroutine[Any, Any, None], name: str) -> None:
        self._side_tasks.add(task := asyncio.create_task(_logged(part, name), name=name))
        task.add_done_callback(self._side_tasks.discard)


async def _logged(part: Coroutine[Any, Any, None], name: str) -> None:
    """The outermost edge of what is done beside."""
    try:
        await part
    except Exception:
        log.exception("%s failed", name)
