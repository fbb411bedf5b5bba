"""`atomizer deadletters`: what could not be delivered."""

from __future__ import annotations

import time

import click

from cluster.cli.context import Invocation, pass_invocation, shared_options
from protocols.text import printable


@click.command()
@click.argument("agent")
@click.argument("action", type=click.Choice(["list", "replay"]), default="list")
@click.argument("letter_id", type=int, required=False, metavar="[ID]")
@click.option("--to", metavar="TARGET", help="replay: another target, provider:kind:id.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many, the newest.")
@shared_options
@pass_invocation
def deadletters(call: Invocation, agent: str, action: str, letter_id: int | None, to: str | None, limit: int) -> None:
    """List an agent's undelivered answers and messages, or send one again.

    \b
    Examples:
      atomizer deadletters manager
      atomizer deadletters manager replay 7 --to discord:channel:123456789012345678
    """
    from protocols.deadletters import DeadLetter, DeadLetterList, Replay, Replayed
    from protocols.runs import one_line

    def line(letter: DeadLetter) -> str:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(letter.created_at))
        head = f"{letter.id}  {at}  {letter.kind} to {letter.target or '(nowhere)'}  {letter.state}: {letter.detail}"
        return printable(f"{head}\n    {one_line(letter.text, 160)}" if letter.text else head)

    if action == "list":
        if letter_id is not None or to is not None:
            raise click.UsageError("ID and --to belong to `replay`", click.get_current_context())
        found = call.ask(agent).get(f"/dead-letters?limit={limit}", DeadLetterList)
        call.answer(found, lambda: "\n".join(map(line, found.letters)) or f"{agent} has no dead letters")
        return
    if letter_id is None:
        raise click.UsageError("replay needs a letter's ID", click.get_current_context())
    done = call.ask(agent).send("POST", f"/dead-letters/{letter_id}/replay", Replay(to=to), Replayed)
    call.answer(done, lambda: line(done.letter))
