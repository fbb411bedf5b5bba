"""Logs: one JSON object per line, redacted, rotated, with the run they belong to; each line is an event too."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec

from protocols.events import LogEvent
from runtime.secrets import Redactor

MAX_BYTES = 8 * 1024 * 1024
BACKUPS = 4
"""A log file's size, and how many older ones are kept: at most 40 MiB for one agent."""
MAX_MESSAGE = 8000
"""Characters of one line's message; the rest is cut, visibly."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_run: contextvars.ContextVar[str | None] = contextvars.ContextVar("run", default=None)
_encode = msgspec.json.Encoder().encode


@contextlib.contextmanager
def logging_run(run_id: str) -> Iterator[None]:
    """Lines logged inside belong to this run."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


class LogLine(msgspec.Struct, rename="camel", omit_defaults=True):
    """A line as it stands in `gateway.jsonl`."""

    at: float
    level: str
    logger: str
    message: str
    run_id: str | None = None


class _JsonHandler(logging.Handler):
    def __init__(self, agent: str, file: RotatingFileHandler, redact: Redactor) -> None:
        super().__init__()
        self._agent = agent
        self._file = file
        self._redact = redact
        self.publish: Callable[[LogEvent], None] | None = None
        self.failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
            message = self._redact(message.encode(errors="backslashreplace").decode())  # before a cut could hide one
            if len(message) > MAX_MESSAGE:
                message = f"{message[:MAX_MESSAGE]}… ({len(message) - MAX_MESSAGE} characters cut)"
            line = LogLine(
                at=record.created,
                level=_level_word(record.levelno),
                logger=record.name,
                message=message,
                run_id=_run.get(),
            )
            self._write(line)
            if self.publish is not None:
                self.publish(
                    LogEvent(
                        at=line.at,
                        agent=self._agent,
                        level=line.level,
                        logger=line.logger,
                        message=line.message,
                        run_id=line.run_id,
                    )
                )
        except Exception:
            self.handleError(record)

    def _write(self, line: LogLine) -> None:
        """A full disk loses the line, not the process; the console still gets it."""
        text = _encode(line).decode() + "\n"
        if self.failed:
            text = "\n" + text  # half a line may stand there
        file = self._file
        try:
            file.stream = stream = file.stream or file._open()
            if stream.tell() + len(text.encode()) >= MAX_BYTES:
                file.doRollover()  # closes the stream and, since it opens late, leaves none
                file.stream = stream = file._open()
            stream.write(text)
            stream.flush()
            self.failed = False
        except OSError as error:
            if not self.failed:
                self.failed = True
                print(f"log file: {error}", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError):
                file.close()


class Logs:
    """The logging of one process: `gateway.jsonl` in `folder`."""

    def __init__(self, agent: str, folder: Path, redact: Redactor, level: str = "info") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "gateway.jsonl"
        file = RotatingFileHandler(self.path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True)
        self._handler = _JsonHandler(agent, file, redact)
        self._file = file
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        self.set_level(level)
        for noisy in ("aiohttp.access", "httpx2", "httpcore2", "google_genai", "anthropic", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.WARNING)

    def set_level(self, level: str) -> None:
        logging.getLogger().setLevel(LEVELS[level])

    def publish_to(self, publish: Callable[[LogEvent], None] | None) -> None:
        """Hand every line to `publish` as well; called on the thread that logs."""
        self._handler.publish = publish

    def close(self) -> None:
        self.publish_to(None)
        self._file.close()


def tail(path: Path, *, level: str = "info", since: float = 0.0, limit: int = 200) -> list[LogLine]:
    """The newest `limit` lines at `level` or above since `since` (unix seconds), oldest first, rotated files too."""
    floor = LEVELS[level]
    decoder = msgspec.json.Decoder(LogLine)
    found: list[LogLine] = []
    for file in [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, BACKUPS + 1))]:
        for raw in _lines_backwards(file):
            try:
                line = decoder.decode(raw)
            except msgspec.MsgspecError:
                continue
            if line.at < since:
                return found[::-1]
            if LEVELS.get(line.level, logging.ERROR) >= floor:
                found.append(line)
                if len(found) >= limit:
                    return found[::-1]
    return found[::-1]


def _lines_backwards(path: Path, block: int = 64 * 1024) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            rest = b""
            while end > 0:
                start = max(0, end - block)
                file.seek(start)
                lines = (file.read(end - start) + rest).split(b"\n")
                rest = lines.pop(0)
                yield from (line for line in reversed(lines) if line)
                end = start
            if rest:
                yield rest
    except FileNotFoundError:
        return


def _level_word(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
