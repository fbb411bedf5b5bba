"""`atomizer schedule`: what an agent begins by itself."""

from __future__ import annotations

import time

import click

from cluster.cli.context import Invocation, pass_invocation, shared_options
from protocols.text import printable


@click.command()
@click.argument("agent")
@click.argument("action", type=click.Choice(["list", "add", "remove", "enable", "disable"]), default="list")
@click.argument("what", required=False, metavar="[TEXT | ID]")
@click.option("--at", metavar="TIME", help="add: once, at an ISO time such as 2026-12-01T09:00.")
@click.option("--every", metavar="SPAN", help="add: again and again, for example 90m; at least 1m.")
@click.option("--cron", metavar="FIELDS", help="add: minute hour day-of-month month day-of-week.")
@click.option("--tz", metavar="ZONE", help="add: time zone. Default: [schedule] tz of the agent.")
@click.option("--name", default="", help="add: a short name.")
@click.option("--session", metavar="KEY", help="add: the conversation its runs belong to. Default: one of its own.")
@click.option("--to", metavar="TARGET", help="add: where the answers go, provider:kind:id.")
@click.option("--missed", type=click.Choice(["once", "skip"]), help="add: what was due while the agent was down.")
@shared_options
@pass_invocation
def schedule(
    call: Invocation,
    agent: str,
    action: str,
    what: str | None,
    at: str | None,
    every: str | None,
    cron: str | None,
    tz: str | None,
    name: str,
    session: str | None,
    to: str | None,
    missed: str | None,
) -> None:
    """List an agent's schedules, add one, remove one, or switch one on or off.

    \b
    Examples:
      atomizer schedule secretary
      atomizer schedule secretary add "Collect the open actions" --cron "0 9 * * mon-fri" --tz Europe/Berlin
      atomizer schedule secretary remove sch-0123456789
    """
    from urllib.parse import quote

    from protocols.control import Acted
    from protocols.schedules import Schedule, ScheduleChange, ScheduleList

    if action != "list" and not what:
        needed = "the work, in quotes" if action == "add" else "a schedule's ID"
        raise click.UsageError(f"{action} needs {needed}", click.get_current_context())
    if action == "add" and sum(value is not None for value in (at, every, cron)) != 1:
        raise click.UsageError("give one of --at TIME, --every SPAN, --cron FIELDS", click.get_current_context())
    ask = call.ask(agent)
    path = f"/schedules/{quote(what or '', safe='')}"
    if action == "list":
        found = ask.get("/schedules", ScheduleList)
        call.answer(found, lambda: "\n".join(map(_line, found.schedules)) or f"{agent} has no schedules")
    elif action == "remove":
        acted = ask.send("DELETE", path, None, Acted)
        call.answer(acted, acted.outcome)
    elif action == "add":
        body = {
            "message": what,
            "name": name,
            "at": at,
            "every": every,
            "cron": cron,
            "tz": tz,
            "sessionKey": session,
            "to": to,
            "missed": missed,
        }
        made = ask.send("POST", "/schedules", body, Schedule)
        call.answer(made, f"added {_line(made)}")
    else:
        changed = ask.send("PUT", path, ScheduleChange(enabled=action == "enable"), Schedule)
        call.answer(changed, _line(changed))


def _line(schedule: object) -> str:
    from protocols.runs import one_line
    from protocols.schedules import Schedule

    assert isinstance(schedule, Schedule)
    if not schedule.enabled:
        coming = "off"
    elif schedule.next_at is None:
        coming = "over"
    else:
        coming = time.strftime("next %Y-%m-%d %H:%M here", time.localtime(schedule.next_at))
    text = f"{schedule.id}  {schedule.kind} {schedule.spec} ({schedule.tz})  {coming}  {one_line(schedule.message, 80)}"
    return printable(text)
