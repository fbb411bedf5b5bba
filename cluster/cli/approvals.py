"""`atomizer approvals`: what waits for a person, and the answer to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options

if TYPE_CHECKING:
    from protocols.approvals import Approval


class AgentOrCommand(click.Group):
    """A first word that is no subcommand is an agent's name, for the hidden `list`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["list", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=AgentOrCommand, invoke_without_command=True, subcommand_metavar="[AGENT | approve ID | reject ID]")
@shared_options
@pass_invocation
@click.pass_context
def approvals(context: click.Context, call: Invocation) -> None:
    """Show what waits for a person's answer, or answer it.

    \b
    Examples:
      atomizer approvals
      atomizer approvals webster --json
      atomizer approvals approve ap-3f9c2d81aa
      atomizer approvals reject ap-3f9c2d81aa --reason "not on this machine"
    """
    if context.invoked_subcommand is None:
        _show(call, None)


@approvals.command("list", hidden=True)
@click.argument("agent")
@shared_options
@pass_invocation
def list_(call: Invocation, agent: str) -> None:
    """Show what one agent waits for."""
    _show(call, agent)


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="Told to the agent, and kept.")
@shared_options
@pass_invocation
def approve(call: Invocation, approval_id: str, reason: str) -> None:
    """Let the call be made; the run goes on.

    \b
    Example:
      atomizer approvals approve ap-3f9c2d81aa
    """
    _answer(call, approval_id, "approve", reason)


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="Told to the agent, so that it can do it another way.")
@shared_options
@pass_invocation
def reject(call: Invocation, approval_id: str, reason: str) -> None:
    """Refuse the call; the agent is told, with the reason, and goes on without it.

    \b
    Example:
      atomizer approvals reject ap-3f9c2d81aa --reason "not on this machine"
    """
    _answer(call, approval_id, "reject", reason)


def _show(call: Invocation, agent: str | None) -> None:
    found, away = _ask(call, agent)
    found.sort(key=lambda asked: asked.created_at)
    for silent in away:
        call.note(f"{silent} does not answer")
    call.answer({"ok": True, "approvals": found, "unreachable": away}, lambda: _table(found, time.time()))


def _ask(call: Invocation, agent: str | None) -> tuple[list[Approval], dict[str, str]]:
    """(questions that wait, agents that do not answer and why); raises where nobody answers."""
    from protocols.approvals import ApprovalList
    from protocols.errors import Unreachable

    names = [call.agent(agent).name] if agent else [spec.name for spec in call.cluster.enabled]
    found: list[Approval] = []
    away: dict[str, str] = {}
    for name in names:
        try:
            found += call.ask(name).get("/approvals", ApprovalList).approvals
        except Unreachable as error:
            if agent:
                raise
            away[name] = str(error)
    if away and len(away) == len(names):
        raise CommandFailure("no agent answers; `atomizer up` starts them", exits.UNREACHABLE, "unreachable")
    return found, away


def _answer(call: Invocation, approval_id: str, decision: Literal["approve", "reject"], reason: str) -> None:
    from protocols.approvals import Approval, ApprovalAnswer

    found, away = _ask(call, None)
    asked = next((a for a in found if a.id == approval_id), None)
    if asked is None:
        _explain(call, approval_id, away)
    assert asked is not None
    body = ApprovalAnswer(decision=decision, revision=asked.revision, reason=reason)
    path = f"/approvals/{quote(approval_id, safe='')}"
    answered = call.ask(asked.agent).send("POST", path, body, Approval)
    call.answer(answered, f"{answered.agent}: {answered.state}: {answered.question}")


def _explain(call: Invocation, approval_id: str, away: dict[str, str]) -> None:
    """Raises CommandFailure: it was answered before, or nobody who answers knows it."""
    from protocols.approvals import ApprovalList

    for spec in call.cluster.enabled:
        if spec.name in away:
            continue
        for past in call.ask(spec.name).get("/approvals?all=1", ApprovalList).approvals:
            if past.id == approval_id:
                who = f" by {past.answered_by}" if past.answered_by else ""
                because = f": {past.reason}" if past.reason else ""
                raise CommandFailure(
                    f"{approval_id} was already {past.state}{who}{because}", exits.REFUSED, "already_answered"
                )
    if away:
        raise CommandFailure(
            f"no question {approval_id} at the agents that answer; {', '.join(away)} do not",
            exits.UNREACHABLE,
            "unreachable",
        )
    raise CommandFailure(
        f"no agent asks {approval_id}; `atomizer approvals` lists what waits", exits.REFUSED, "not_found"
    )


def _table(found: list[Approval], now: float) -> str:
    from cluster.cli.status import ago

    if not found:
        return "nothing waits for an answer"
    cells = [["ID", "AGENT", "WAITS", "ENDS"]]
    for asked in found:
        ends = f"in {ago(asked.expires_at - now)}" if asked.expires_at else "never"
        cells.append([asked.id, asked.agent, ago(now - asked.created_at), ends])
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines[0] += "  QUESTION"
    for place, asked in enumerate(found, 1):
        detail = "".join(f"\n    {line}" for line in asked.detail.splitlines())
        lines[place] += f"  {asked.question}{detail}"
    return "\n".join(lines)
