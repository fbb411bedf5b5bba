"""`atomizer agent add|remove|enable|disable|list`."""

from __future__ import annotations

import contextlib

import click
import msgspec

from cluster.cli.context import Invocation, pass_invocation, shared_options


@click.group()
@shared_options
def agent() -> None:
    """Add, remove, enable, disable or list agents.

    cluster.toml is yours and is never rewritten: what these commands change stands in placements.toml and in the
    agents' overrides.toml.

    \b
    Examples:
      atomizer agent list
      atomizer agent add librarian --like webster
      atomizer agent enable post-processor
    """


@agent.command("add", short_help="Write a whole new agent, and start it.")
@click.argument("name")
@click.option("--title", help="The name people read. Default: made from NAME.")
@click.option("--like", metavar="AGENT", help="Begin as a copy of this agent's configuration and character.")
@click.option("--model", metavar="MODEL", help="Its primary model, for example anthropic/claude-sonnet-5-5.")
@click.option("--port", type=int, help="Base port. Default: the next free family.")
@click.option("--no-start", is_flag=True, help="Do not start it, though the cluster runs.")
@shared_options
@pass_invocation
def add_agent(
    call: Invocation,
    name: str,
    title: str | None,
    like: str | None,
    model: str | None,
    port: int | None,
    no_start: bool,
) -> None:
    """Write a whole new agent, and start it if the cluster runs.

    \b
    Examples:
      atomizer agent add librarian --title "Librarian"
      atomizer agent add webster-two --like webster --model google/gemini-3.8-flash
    """
    from cluster import membership
    from cluster.cli.access import reload_gateways

    if like is not None:
        like = call.agent(like).name
    added, base = membership.add(call.cluster, name, title=title, like=like, model=model, port=port)
    _forget_cache(call)
    reload_gateways(call)
    started = False if no_start else _start_if_running(call, added)
    home = call.home
    call.answer(
        {"ok": True, "agent": added, "port": base, "started": started},
        f"added {added} on port {base}"
        + (", and started it" if started else f"; start it with `atomizer start {added}`")
        + f"\nits character: {home.workspace(added)}/SOUL.md, its settings: {home.instance_toml(added)}",
    )


@agent.command("remove", short_help="Stop an agent and move its folders to the trash.")
@click.argument("name")
@shared_options
@pass_invocation
def remove_agent(call: Invocation, name: str) -> None:
    """Stop an agent, delete its token and secrets, and move its folders to the home's trash.

    \b
    Example:
      atomizer agent remove librarian
    """
    from cluster import membership
    from cluster.cli.access import reload_gateways
    from cluster.supervisors.records import drop_record
    from cluster.supervisors.supervisor import SupervisorDown

    removed = call.agent(name).name
    try:
        call.supervisor().forget([removed])
    except SupervisorDown:
        drop_record(call.home, removed)
    where = membership.remove(call.cluster, removed)
    _forget_cache(call)
    reload_gateways(call)
    call.answer({"ok": True, "agent": removed, "trash": str(where)}, f"removed {removed}; its folders are in {where}")


@agent.command("enable", short_help="Start it, now and with `up`.")
@click.argument("name")
@click.option("--no-start", is_flag=True, help="Do not start it, though the cluster runs.")
@shared_options
@pass_invocation
def enable_agent(call: Invocation, name: str, no_start: bool) -> None:
    """Have an agent started by `up` and `start`; starts it now if the cluster runs.

    \b
    Example:
      atomizer agent enable post-processor
    """
    from cluster import membership

    membership.enable(call.cluster, call.agent(name).name, True)
    _forget_cache(call)
    started = False if no_start else _start_if_running(call, name)
    call.answer(
        {"ok": True, "agent": name, "started": started}, f"enabled {name}" + (", and started it" if started else "")
    )


@agent.command("disable", short_help="Stop it, and leave it out of `up`.")
@click.argument("name")
@shared_options
@pass_invocation
def disable_agent(call: Invocation, name: str) -> None:
    """Stop an agent, and have it no longer started by `up` and `start`.

    \b
    Example:
      atomizer agent disable reporter
    """
    from cluster import membership
    from cluster.supervisors.supervisor import SupervisorDown

    membership.enable(call.cluster, call.agent(name).name, False)
    stopped = False
    with contextlib.suppress(SupervisorDown):
        stopped = bool(call.supervisor().stop([name]))
    call.answer({"ok": True, "agent": name, "stopped": stopped}, f"disabled {name}")


class Listed(msgspec.Struct):
    agent: str
    title: str
    port: int
    enabled: bool
    capabilities: list[str]
    problem: str = ""


@agent.command("list")
@shared_options
@pass_invocation
def list_agents(call: Invocation) -> None:
    """Every agent of the cluster, running or not.

    \b
    Example:
      atomizer agent list
    """
    from runtime.config import ConfigError, load_instance

    found = []
    for spec in call.cluster.agents.values():
        try:
            table = load_instance(call.cluster, spec.name).file.agent
            found.append(Listed(spec.name, table.title, spec.port, spec.enabled, table.capabilities))
        except ConfigError as error:
            found.append(Listed(spec.name, "", spec.port, spec.enabled, [], str(error)))

    def text() -> str:
        width = max((len(entry.agent) for entry in found), default=0)
        return "\n".join(
            f"{entry.agent.ljust(width)}  {entry.port}  {'enabled ' if entry.enabled else 'disabled'}  "
            + (entry.problem or f"{entry.title}: {', '.join(entry.capabilities)}")
            for entry in found
        )

    call.answer({"ok": True, "agents": found}, text)


def _forget_cache(call: Invocation) -> None:
    """Read the cluster again: it was just changed."""
    call.__dict__.pop("cluster", None)


def _start_if_running(call: Invocation, name: str) -> bool:
    from cluster.cli.lifecycle import START_SECONDS
    from cluster.supervisors.records import load_desired
    from cluster.supervisors.supervisor import SupervisorDown

    if not load_desired(call.home).agents:
        return False
    try:
        return call.supervisor().start([name], wait=START_SECONDS)[0].state == "up"
    except SupervisorDown:
        return False
