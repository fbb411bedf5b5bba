"""`atomizer start`, `stop`, `restart`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options

if TYPE_CHECKING:
    from cluster.supervisors.supervisor import ChildState

START_SECONDS = 60.0
"""How long `start` waits for the agents to answer."""


def names_of(call: Invocation, given: tuple[str, ...]) -> list[str]:
    """The agents that are meant: those given, else all that are enabled."""
    if not given:
        return [spec.name for spec in call.cluster.enabled]
    return [call.agent(name).name for name in given]


def start_agents(call: Invocation, names: list[str]) -> list[ChildState]:
    """Start them and wait until each is up or has failed."""
    from runtime.home import explain_os_error

    client = call.supervisor()
    try:
        client.ensure()
    except OSError as error:
        raise CommandFailure(explain_os_error(error, "cannot start the supervisor"), exits.CONFIG, "file") from None
    return client.start(names, wait=START_SECONDS) if names else []


def outcome(call: Invocation, children: list[ChildState], wanted: str = "up") -> None:
    """Say what became of them; raises CommandFailure if one is not as wanted."""
    bad = [child for child in children if child.state != wanted]
    lines = [describe(child) for child in children]
    if not bad:
        call.answer({"ok": True, "agents": children}, "\n".join(lines))
        return
    if not call.json:
        click.echo("\n".join(lines))
    code = exits.CONFIG if all(child.state == "config-error" for child in bad) else exits.FAILED
    raise CommandFailure(
        "; ".join(f"{child.agent} is not up ({child.state}): {child.detail or 'no reason given'}" for child in bad),
        code,
        bad[0].state.replace("-", "_"),
    )


def count_agents(count: int) -> str:
    return f"{count} agent{'' if count == 1 else 's'}"


def describe(child: ChildState) -> str:
    where = f"port {child.port}" + (f", pid {child.pid}" if child.pid else "")
    return f"{child.agent}: {child.state} ({where})" + (f": {child.detail}" if child.detail else "")


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@shared_options
@pass_invocation
def start(call: Invocation, agents: tuple[str, ...]) -> None:
    """Start some agents, or all that are enabled.

    Harmless for agents that run. Clears a crash loop, and tries a repaired configuration again.

    \b
    Examples:
      atomizer start
      atomizer start webster optimizer
    """
    outcome(call, start_agents(call, names_of(call, agents)))


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@shared_options
@pass_invocation
def stop(call: Invocation, agents: tuple[str, ...]) -> None:
    """Stop some agents, or everything.

    Without a name it also ends the supervisor, and no process of the cluster is left. Runs that were under way go on
    when their agent is started again.

    \b
    Examples:
      atomizer stop
      atomizer stop webster
    """
    if agents:
        from cluster.cli.unconfigured import problem_of

        problem = problem_of(call)
        if problem:  # the supervisor knows them without it, and refuses a name that is none
            call.note(str(problem))
        names = list(agents) if problem else names_of(call, agents)
        client = call.supervisor()
        if not client.alive():
            call.answer({"ok": True, "agents": []}, "the cluster is not running")
            return
        outcome(call, client.stop(names), "stopped")
        return
    from cluster.supervisors.stopping import stop_everything

    ended = stop_everything(call.home.require())
    call.answer(
        {"ok": True, "stopped": ended.agents, "leftovers": ended.leftovers},
        f"stopped {count_agents(len(ended.agents))}" if ended.agents else "the cluster was not running",
    )


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--all", "everyone", is_flag=True, help="All agents that are enabled.")
@shared_options
@pass_invocation
def restart(call: Invocation, agents: tuple[str, ...], everyone: bool) -> None:
    """Restart agents; their runs go on afterwards.

    \b
    Examples:
      atomizer restart webster
      atomizer restart --all
    """
    if not agents and not everyone:
        raise click.UsageError("name the agents to restart, or say --all", click.get_current_context())
    names = names_of(call, () if everyone else agents)
    client = call.supervisor()
    client.ensure()
    outcome(call, client.restart(names, wait=START_SECONDS))
