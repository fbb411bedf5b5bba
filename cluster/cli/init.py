"""`atomizer init`."""

from __future__ import annotations

import click

from cluster.cli.context import Invocation, pass_invocation, shared_options


@click.command()
@click.option("--ports", type=int, metavar="BASE", help="Base port of the first agent; all others move along (18800).")
@shared_options
@pass_invocation
def init(call: Invocation, ports: int | None) -> None:
    """Make a home: configuration, workspaces and tokens.

    Never overwrites what is there: run on a home that is incomplete, it adds what is missing.

    \b
    Examples:
      atomizer init
      atomizer init --home ~/clusters/second --ports 19800
    """
    from cluster.foundation import found

    founded = found(call.home, ports)

    def text() -> str:
        if not founded.created:
            kept = "; --ports counts only when a home is made" if ports is not None else ""
            return f"{founded.home} is complete; nothing was changed{kept}"
        what = "completed" if founded.had_cluster else "made"
        lines = [f"{what} {founded.home}: {len(founded.agents)} agents, {len(founded.created)} files"]
        if founded.had_cluster and ports is not None:
            lines.append("cluster.toml was there already, so --ports changed nothing")
        lines.append(offline_hint(call) if founded.profile == "offline" else "profile live")
        lines.append("next: atomizer up")
        return "\n".join(lines)

    call.answer({"ok": True, "home": founded.home, "created": founded.created, "profile": founded.profile}, text)


def offline_hint(call: Invocation) -> str:
    """How to leave the offline profile."""
    return (
        "profile offline: answers come from the workspace files, without keys or network. To leave it: "
        f'atomizer secrets set anthropic (or google), then profile = "live" in {call.home.cluster_toml}'
    )
