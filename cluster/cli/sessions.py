"""`atomizer sessions`: an agent's conversations, shown and exported."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from cluster.cli.context import Invocation, pass_invocation, shared_options
from protocols.text import printable


@click.command()
@click.argument("agent")
@click.argument("key", required=False)
@click.option("--export", "export", metavar="FILE", help="Write the session there; .jsonl: JSON lines, else Markdown.")
@click.option("--format", "form", type=click.Choice(["markdown", "jsonl"]), help="Whatever FILE is called.")
@shared_options
@pass_invocation
def sessions(call: Invocation, agent: str, key: str | None, export: str | None, form: str | None) -> None:
    """List an agent's sessions, read one, or export it.

    \b
    Examples:
      atomizer sessions manager
      atomizer sessions manager agent:manager:main
      atomizer sessions manager agent:manager:main --export talk.md
    """
    from urllib.parse import quote

    from protocols.control import SessionList, Transcript

    ask = call.ask(agent, timeout=30.0)
    if key is None:
        if export or form:
            raise click.UsageError("to export, name a session", click.get_current_context())
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
    form = form or ("jsonl" if export and export.endswith(".jsonl") else "markdown")
    if export:
        data = ask.raw(f"{path}?format={form}")
        Path(export).write_bytes(data)
        call.answer({"ok": True, "file": export, "bytes": len(data)}, f"wrote {len(data)} bytes to {export}")
    elif call.json:
        call.answer(ask.get(path, Transcript), "")
    else:
        data = ask.raw(f"{path}?format={form}")
        if sys.stdout.isatty() or form == "markdown":
            click.echo(printable(data.decode("utf-8", "replace")), nl=False)
        else:
            click.echo(data, nl=False)
