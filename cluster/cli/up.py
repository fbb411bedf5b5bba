"""`atomizer up`: from nothing to a running cluster and its console."""

from __future__ import annotations

import os
import sys

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options


@click.command()
@click.option("--no-console", is_flag=True, help="Print the status table instead of opening the console.")
@shared_options
@pass_invocation
def up(call: Invocation, no_console: bool) -> None:
    """Make a home if needed, start all enabled agents, and open the console.

    Without a terminal it prints the status table. Harmless if the cluster runs.

    \b
    Examples:
      atomizer up
      atomizer up --no-console
      atomizer up --home ~/clusters/second
    """
    from cluster.cli.lifecycle import start_agents
    from cluster.cli.status import show_status

    if not call.home.exists:
        from cluster.cli.init import offline_hint
        from cluster.foundation import found

        founded = found(call.home)
        call.note(f"made a home at {founded.home}")
        if founded.profile == "offline":
            call.note(offline_hint(call))
    children = start_agents(call, [spec.name for spec in call.cluster.enabled])
    bad = [child for child in children if child.state != "up"]
    if sys.stdin.isatty() and sys.stdout.isatty() and not (no_console or call.json):
        for child in bad:
            call.note(f"{child.agent} is not up ({child.state}): {child.detail}")
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-P", "-m", "console", "--home", str(call.home.root)])
    if not (bad and call.json):
        show_status(call)
    if bad:
        config = all(child.state == "config-error" for child in bad)
        raise CommandFailure(
            "; ".join(f"{child.agent} is not up ({child.state}): {child.detail or 'see its notes'}" for child in bad),
            exits.CONFIG if config else exits.FAILED,
            bad[0].state.replace("-", "_"),
        )
