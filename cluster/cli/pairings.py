"""`atomizer pairings`: whose direct messages the agents answer."""

from __future__ import annotations

import time

import click

from cluster.cli.context import Invocation, pass_invocation, shared_options
from protocols.text import printable


@click.command()
@click.argument("agent", required=False)
@click.argument("action", type=click.Choice(["list", "remove"]), default="list")
@click.argument("target", required=False, metavar="[TARGET]")
@shared_options
@pass_invocation
def pairings(call: Invocation, agent: str | None, action: str, target: str | None) -> None:
    """List the people whose direct messages are answered after an approval, or take it back.

    Strangers who ask are among `atomizer approvals`.

    \b
    Examples:
      atomizer pairings
      atomizer pairings webster
      atomizer pairings webster remove discord:user:123456789012345678
    """
    from urllib.parse import quote

    from protocols.control import Acted
    from protocols.errors import Unreachable
    from protocols.pairings import Pairing, PairingList

    def line(name: str, pairing: Pairing) -> str:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(pairing.approved_at))
        return printable(f"{name}  {pairing.target}  {pairing.name}, approved by {pairing.approved_by} {at}")

    if action == "remove":
        if agent is None or target is None:
            raise click.UsageError("remove needs a person's TARGET", click.get_current_context())
        acted = call.ask(agent).send("DELETE", f"/pairings/{quote(target, safe=':')}", None, Acted)
        call.answer(acted, acted.outcome)
        return
    if target is not None:
        raise click.UsageError("TARGET belongs to `remove`", click.get_current_context())
    names = [call.agent(agent).name] if agent else [spec.name for spec in call.cluster.enabled]
    found: dict[str, list[Pairing]] = {}
    for name in names:
        try:
            found[name] = call.ask(name).get("/pairings", PairingList).pairings
        except Unreachable as error:
            if agent:
                raise
            call.note(f"{name} does not answer: {error}")
    lines = [line(name, pairing) for name, people in found.items() for pairing in people]
    call.answer({"ok": True, "pairings": found}, lambda: "\n".join(lines) or "nobody is paired")
