"""`atomizer sessions`: an agent's conversations, shown and exported."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.context import Invocation, pass_invocation, shared_options
from protocols.text import printable

if TYPE_CHECKING:
    from protocols.ask import Ask
    from protocols.control import Transcript

MOST_MESSAGES = 1000
"""Messages that a gateway answers at a time."""


@click.command()
@click.argument("agent")
@click.argument("key", required=False)
@click.option("--export", "export", metavar="FILE", help="Write the session there; .jsonl: JSON lines, else Markdown.")
@click.option("--format", "form", type=click.Choice(["markdown", "jsonl"]), help="Whatever FILE is called.")
@click.option("--last", type=click.IntRange(1, MOST_MESSAGES), metavar="N", help="Only the newest N messages.")
@shared_options
@pass_invocation
def sessions(
    call: Invocation, agent: str, key: str | None, export: str | None, form: str | None, last: int | None
) -> None:
    """List an agent's sessions, read one, or export it.

    \b
    Examples:
      atomizer sessions manager
      atomizer sessions manager agent:manager:main --last 20
      atomizer sessions manager agent:manager:main --export talk.md
    """
    from urllib.parse import quote

    from protocols.control import SessionList

    ask = call.ask(agent, timeout=30.0)
    if key is None:
        if export or form or last:
            raise click.UsageError("to read or export one, name a session", click.get_current_context())
        found = ask.get("/sessions", SessionList)

        def text() -> str:
            lines = [
                f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(s.updated_at))}  {s.messages:5d} messages  {s.key}"
                for s in found.sessions
            ]
            return printable("\n".join(lines)) or f"{agent} has no sessions"

        call.answer(found, text)
        return
    path = f"/sessions/{quote(key, safe=':')}"
    if call.json and not export:
        call.answer(_read(ask, path, last), "")
        return
    form = form or ("jsonl" if export and export.endswith(".jsonl") else "markdown")
    data = ask.raw(f"{path}?format={form}" + (f"&limit={last}" if last else ""))
    if export:
        Path(export).write_bytes(data)
        call.answer({"ok": True, "file": export, "bytes": len(data)}, f"wrote {len(data)} bytes to {export}")
    elif sys.stdout.isatty() or form == "markdown":
        click.echo(printable(data.decode("utf-8", "replace")), nl=False)
    else:
        click.echo(data, nl=False)


def _read(ask: Ask, path: str, last: int | None) -> Transcript:
    """A session, or its `last` messages, page by page."""
    from protocols.control import Transcript

    page = ask.get(f"{path}?limit={last or MOST_MESSAGES}", Transcript)
    pages = [page.messages]
    while page.before is not None and not last:
        page = ask.get(f"{path}?limit={MOST_MESSAGES}&before={page.before}", Transcript)
        pages.append(page.messages)
    return Transcript(key=page.key, messages=[m for messages in reversed(pages) for m in messages], before=page.before)
