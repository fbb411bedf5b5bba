"""`atomizer logs`: the agents' log files, merged by time; works whether gateways run or not."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from cluster.cli.context import Invocation, escaped, pass_invocation, shared_options
from protocols.text import printable

if TYPE_CHECKING:
    from protocols.errors import AtomizerError
    from runtime.logs import LogLine

LOOK_SECONDS = 0.25
"""How often --follow looks for new lines."""
LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines as they come; Ctrl-C ends it.")
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True, help="Least important level.")
@click.option("--since", metavar="WHEN", help="A span before now (10m, 2h, 1d) or a time (2026-11-25T14:00).")
@click.option("--limit", "-n", type=click.IntRange(0, 100_000), default=100, show_default=True, help="Newest lines.")
@click.option("--console", is_flag=True, help="What the processes printed outside their logs, for example a traceback.")
@shared_options
@pass_invocation
def logs(
    call: Invocation, agents: tuple[str, ...], follow: bool, level: str, since: str | None, limit: int, console: bool
) -> None:
    """Read the agents' logs, merged by time.

    With --follow and --json it prints one JSON object a line instead of one document.

    \b
    Examples:
      atomizer logs
      atomizer logs webster manager --level warning --since 2h
      atomizer logs --follow
      atomizer logs webster --console
    """
    from cluster.cli.unconfigured import begin, end, problem_of
    from runtime.logs import tail

    if problem := problem_of(call):
        names = _logging(call, agents, problem)
    else:
        names = [call.agent(name).name for name in agents] or list(call.cluster.agents)
    if console:
        document, text = _console(call, names, limit)
        if problem:
            end(call, problem, document, text)
        call.answer({"ok": True, **document}, text)
        return

    start = _parse_since(since) if since else 0.0
    tails = [_Tail(name, call.home.logs(name) / "gateway.jsonl") for name in names] if follow else []
    found: list[tuple[str, LogLine]] = []
    for name in names:
        path = call.home.logs(name) / "gateway.jsonl"
        found += [(name, line) for line in tail(path, level=level, since=start, limit=limit)] if limit else []
    found = sorted(found, key=lambda pair: pair[1].at)[-limit:] if limit else []
    width = max(map(len, names), default=0)
    if not follow:
        document = {"lines": [_document(name, line) for name, line in found]}
        text = "\n".join(_text(name, line, width) for name, line in found)
        if problem:
            end(call, problem, document, text)
        call.answer({"ok": True, **document}, text)
        return
    if problem:
        begin(call, problem)
    floor = LEVELS.index(level)
    for name, line in [*found, *_follow(tails)]:
        _show(call, name, line, width)
    for name, line in _follow_forever(tails):
        if line.level not in LEVELS or LEVELS.index(line.level) >= floor:
            _show(call, name, line, width)


def _logging(call: Invocation, given: tuple[str, ...], problem: AtomizerError) -> list[str]:
    """The agents that have logs in this home, where the configuration that names them cannot be read: those given, else
    all. Raises `problem` for one that has none."""
    there = sorted(path.parent.name for path in call.home.root.glob("instances/*/logs"))
    if set(given) - set(there):
        raise problem
    return list(given) or there


def _show(call: Invocation, name: str, line: LogLine, width: int) -> None:
    if call.json:
        click.echo(escaped(json.dumps(_document(name, line), ensure_ascii=False)))
    else:
        click.echo(_text(name, line, width))


def _follow_forever(tails: list[_Tail]) -> Iterator[tuple[str, LogLine]]:
    while True:
        sys.stdout.flush()
        time.sleep(LOOK_SECONDS)
        yield from _follow(tails)


def _follow(tails: list[_Tail]) -> list[tuple[str, LogLine]]:
    return sorted(((tail.agent, line) for tail in tails for line in tail.fresh()), key=lambda pair: pair[1].at)


class _Tail:
    """New lines of one file, through its rotations."""

    def __init__(self, agent: str, path: Path) -> None:
        import msgspec

        from runtime.logs import LogLine

        self.agent = agent
        self._path = path
        self._decoder = msgspec.json.Decoder(LogLine)
        self._error = msgspec.MsgspecError
        self._rest = b""
        self._file: BinaryIO | None = self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def fresh(self) -> list[LogLine]:
        found = self._read()
        if self._rotated():
            found += self._read()  # what came into the old file after we looked
            if self._file is not None:
                self._file.close()
            self._rest, self._file = b"", self._open()
            found += self._read()
        return found

    def _open(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except OSError:
            return None

    def _rotated(self) -> bool:
        try:
            now = self._path.stat()
        except OSError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != now.st_ino

    def _read(self) -> list[LogLine]:
        if self._file is None:
            return []
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        found = []
        for raw in lines:
            try:
                found.append(self._decoder.decode(raw))
            except self._error:
                continue
        return found


def _console(call: Invocation, names: list[str], limit: int) -> tuple[dict[str, object], str]:
    """(for --json, as text)."""
    from cluster.supervisors.launch import console_log

    found: dict[str, list[str]] = {}
    for name in names:
        try:
            with console_log(call.home, name).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 256 * 1024))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        found[name] = lines[-limit:] if limit else []
    width = max(map(len, names), default=0)
    text = "\n".join(f"{name.ljust(width)}  {line}" for name, lines in found.items() for line in lines)
    return {"console": found}, text or "nothing was printed outside the logs"


def _parse_since(text: str) -> float:
    """Unix seconds; raises click.UsageError."""
    from datetime import datetime

    from runtime.config import parse_duration

    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.UsageError(
            f"--since {text!r} is neither a span (10m, 2h, 1d) nor a time (2026-11-25T14:00)",
            click.get_current_context(),
        ) from None


def _document(agent: str, line: LogLine) -> dict[str, object]:
    return {
        "at": line.at,
        "agent": agent,
        "level": line.level,
        "logger": line.logger,
        "message": line.message,
        "runId": line.run_id,
    }


def _text(agent: str, line: LogLine, width: int) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at)) + f".{int(line.at % 1 * 1000):03d}"
    run = f"  [{line.run_id}]" if line.run_id else ""
    return f"{at}  {line.level:<7}  {agent.ljust(width)}  {printable(line.message)}{run}"
