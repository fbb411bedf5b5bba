"""Questions to people, shown on a channel with two buttons: the same question as in the console, answered once.

Each showing is an effect of the outbox, so that it survives what the outbox survives; what it says is read from the
ledger when it is carried out, so that a question answered meanwhile is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from gateway.channels.channel import Button, ChannelError, Command, Refusal
from gateway.channels.measure import reach
from gateway.channels.outbox import PermanentRefusal, Skip
from gateway.channels.posting import Poster
from gateway.ledger.approvals import post_key
from gateway.ledger.posts import StoredPost
from gateway.ledger.records import Effect, NewEffect, RunOptions
from protocols.approvals import Approval
from protocols.errors import ProtocolError
from protocols.runs import one_line
from protocols.targets import parse_target
from protocols.text import printable

log = logging.getLogger("asking")

KIND = "ask"
_PREFIX = "ap"
_UNITS = 1400
"""UTF-16 units of a question and its detail that are shown under it."""


class Asking:
    """Shows the questions of one agent and takes the answers of its operators."""

    def __init__(
        self,
        poster: Poster,
        *,
        find: Callable[[str], Approval | None],
        recent: Callable[[], Sequence[Approval]],
        shown: Callable[[str], Sequence[StoredPost]],
        options_of: Callable[[str], RunOptions | None],
        home: Callable[[], str | None],
        operators: Callable[[], Collection[str]],
        add: Callable[[str, NewEffect], Awaitable[None]],
        answer: Callable[[str, bool, int, str], Awaitable[Approval]],
    ) -> None:
        """`recent()`: the newest questions of any state; `shown(key)`: what was posted of one; `answer(id, approve,
        revision, by)` raises ProtocolError; `home()`: the agent's home channel, a target."""
        self._poster = poster
        self._find = find
        self._recent = recent
        self._shown = shown
        self._options_of = options_of
        self._home = home
        self._operators = operators
        self._add = add
        self._answer = answer

    async def start(self) -> None:
        """Questions that a process put and did not live to show, and answers of which it did not live to tell."""
        for approval in self._recent():
            if approval.state == "pending" or not all(row.final for row in self._shown(_key(approval))):
                await self.changed(approval)

    async def changed(self, approval: Approval) -> None:
        """A question was put, answered or has expired."""
        asked = approval.state == "pending"
        target = self._where(approval)
        if target is None:
            return
        key = _key(approval)
        await self._add(
            approval.run_id or "",
            NewEffect(
                key=key if asked else f"{key}/answered", kind=KIND, payload={"approval": approval.id}, target=target
            ),
        )

    async def show(self, effect: Effect) -> str:
        """The outbox's handler."""
        approval = self._find(str(effect.payload["approval"]))
        if approval is None:
            raise Skip("the question is gone")
        key = _key(approval)
        rows = await self._poster.of(key)
        row = rows[0] if rows else None
        if row is None and approval.state != "pending":
            raise Skip(f"it was {approval.state} before it was shown")
        target = parse_target(row.target if row else effect.target or "")
        asked = approval.state == "pending"
        try:
            await self._poster.put(
                key, 0, target, _text(approval), row=row, final=not asked, buttons=_buttons(approval) if asked else ()
            )
        except Refusal as error:
            raise PermanentRefusal(str(error)) from None
        return "asked" if asked else f"shown as {approval.state}"

    async def pressed(self, command: Command) -> None:
        """A button under a question: whoever is first decides, the others are told who did."""
        parts = command.arguments.get("id", "").split(":")
        if len(parts) != 4 or parts[0] != _PREFIX or not parts[2].isdecimal():
            return
        _, approval_id, revision, choice = parts
        if command.author.target.id not in self._operators():
            text = "Only an operator may answer this ([discord] operators in cluster.toml)."
        else:
            try:
                decided = await self._answer(
                    approval_id, choice == "approve", int(revision), str(command.author.target)
                )
                text = f"{decided.state}."
            except ProtocolError as error:
                text = error.message
        try:
            await command.reply(text)
        except ChannelError as error:
            log.info("the answer to a button was not shown: %s", error)

    def _where(self, approval: Approval) -> str | None:
        """To an operator who asked for the work where they did; else at home; else to an operator."""
        options = self._options_of(approval.run_id) if approval.run_id else None
        origin = options.origin if options is not None else None
        operators = sorted(self._operators())
        if origin is not None and origin.author.rpartition(":")[2] in operators:
            return options.to if options is not None else None
        if home := self._home():
            return home
        return f"discord:user:{operators[0]}" if operators else None


def _key(approval: Approval) -> str:
    return post_key(approval.run_id, approval.id)


def _buttons(approval: Approval) -> list[Button]:
    choice = f"{_PREFIX}:{approval.id}:{approval.revision}"
    return [Button(f"{choice}:approve", "Approve", "good"), Button(f"{choice}:reject", "Reject", "bad")]


def _text(approval: Approval) -> str:
    """A question, or what became of it. What the agent wrote stands in a fence of its own."""
    if approval.state != "pending":
        by = f" by {_person(approval.answered_by)}" if approval.answered_by else ""
        why = f": {one_line(approval.reason, 300)}" if approval.reason else ""
        return f"**{approval.state}**{by}{why}\n{_fenced(printable(one_line(approval.question, 400)))}"
    until = f", until <t:{int(approval.expires_at)}:f>" if approval.expires_at else ""
    return f"**A question** ({approval.id}{until})\n{whole_question(approval, _UNITS)}"


def whole_question(approval: Approval, units: int) -> str:
    """All that would be done, in a fence of its own: what cannot be seen is shown, and a cut is told."""
    text = printable(approval.question + (f"\n\n{approval.detail}" if approval.detail else ""))
    end = reach(text, 0, units)
    cut = f"\n[cut: {len(text) - end} more characters; the console shows all]" if end < len(text) else ""
    return _fenced(text[:end]) + cut


def _fenced(text: str) -> str:
    return "```\n" + text.replace("```", "'''") + "\n```"


def _person(by: str) -> str:
    return f"<@{by.rpartition(':')[2]}>" if by.startswith("discord:user:") else by
