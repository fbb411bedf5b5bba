"""`atomizer usage`: what the agents' models used and cost, by day, agent and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options

if TYPE_CHECKING:
    from protocols.status import BudgetScope
    from protocols.usage import UsageReport


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT...]")
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="UTC days, today included.")
@shared_options
@pass_invocation
def usage(call: Invocation, agents: tuple[str, ...], days: int) -> None:
    """Show tokens and dollars by day, agent and model, and how today's budgets stand.

    Dollars are list prices; `?` where the price of a call is not known. --json has sessions and runs too.

    \b
    Examples:
      atomizer usage
      atomizer usage manager --days 30
      atomizer usage --json | jq '.agents[].runs[0]'
    """
    from protocols.errors import Unreachable
    from protocols.usage import UsageReport

    names = [call.agent(name).name for name in agents] or [spec.name for spec in call.cluster.enabled]
    reports: list[UsageReport] = []
    silent: list[str] = []
    for name in dict.fromkeys(names):
        try:
            reports.append(call.ask(name).get(f"/usage?days={days}", UsageReport))
        except Unreachable:
            if agents:
                raise
            silent.append(name)
    if not reports:
        raise CommandFailure("no agent answers; `atomizer up` starts them", exits.UNREACHABLE, "unreachable")
    if silent:
        call.note(f"not counted, because nobody answers: {', '.join(silent)}")
    call.answer({"ok": True, "days": days, "agents": reports, "unreachable": silent}, lambda: _text(reports, days))


def _text(reports: list[UsageReport], days: int) -> str:
    rows = sorted(
        ((row, report.agent) for report in reports for row in report.rows), key=lambda r: (r[0].day, r[1]), reverse=True
    )
    lines = [["DAY", "AGENT", "MODEL", "CALLS", "SENT", "CACHED", "ANSWERED", "COST"]]
    for row, agent in rows:
        used = row.usage
        share = f"{100 * used.cache_read_tokens / used.input_tokens:.0f}%" if used.input_tokens else "-"
        lines.append(
            [
                row.day,
                agent,
                row.model,
                str(row.calls),
                f"{used.input_tokens:,}",
                share,
                f"{used.output_tokens:,}",
                _dollars(row.cost_usd),
            ]
        )
    if not rows:
        told = [f"no model was asked in {days} day{'s' * (days != 1)}"]
    else:
        widths = [max(len(line[column]) for line in lines) for column in range(8)]
        told = [
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        known = sum(row.cost_usd or 0.0 for row, _ in rows)
        unknown = sum(row.usage.input_tokens + row.usage.output_tokens for row, _ in rows if row.cost_usd is None)
        told.append(f"in all {_dollars(known)}" + (f", and {unknown:,} tokens of unknown price" if unknown else ""))
    return "\n".join([*told, *_budgets(reports)])


def _budgets(reports: list[UsageReport]) -> list[str]:
    """A line for the cluster's budget and for each agent that has one."""
    limited = [report for report in reports if report.budget.state != "none"]
    scopes = [("the cluster", limited[0].budget.cluster)] if limited else []
    scopes += [(report.agent, report.budget.agent) for report in limited]
    return [f"today, {name}: {said}" for name, scope in scopes if (said := _scope(scope))]


def _scope(scope: BudgetScope) -> str:
    said = []
    if scope.limit_usd is not None:
        held = f" (+ ${scope.reserved_usd:.2f} reserved)" if scope.reserved_usd else ""
        said.append(f"${scope.spent_usd:.2f}{held} of ${scope.limit_usd:.2f}")
    if scope.limit_tokens is not None:
        said.append(f"{scope.spent_tokens:,} of {scope.limit_tokens:,} tokens")
    return ", ".join(said)


def _dollars(usd: float | None) -> str:
    return "?" if usd is None else f"${usd:.2f}" if usd >= 0.01 or not usd else f"${usd:.4f}"
