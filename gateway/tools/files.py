"""read_file: text files of the workspace and the shared folder, and nothing outside them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of

MAX_FILE = 2_000_000
"""Bytes of the largest file that is read."""
MAX_LINES = 2000


class ReadArguments(msgspec.Struct, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(min_length=1, description="A file of your workspace, or shared/...")]
    offset: Annotated[int, msgspec.Meta(ge=1, description="First line to show")] = 1
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LINES, description="Most lines to show")] = MAX_LINES


class Roots:
    """The folders an agent's file tools may touch. Links are followed before the check, so none leads out."""

    def __init__(self, workspace: Path, shared: Path) -> None:
        self._workspace = workspace
        self._shared = shared

    def resolve(self, text: str) -> Path:
        """`text` as a path inside the roots; raises ToolError."""
        name = self._workspace.name
        plain = text.removeprefix("./")
        if plain == "shared" or plain.startswith("shared/"):
            candidate = self._shared / plain.removeprefix("shared").lstrip("/")
        elif plain.startswith(f"{name}/"):
            candidate = self._workspace / plain.removeprefix(f"{name}/")
        else:
            candidate = self._workspace / plain
        real = candidate.resolve()
        for root in (self._workspace, self._shared):
            if real.is_relative_to(root.resolve()):
                return real
        raise ToolError(f"{text!r} is outside your workspace; you may use files of it and of shared/")


class ReadFile(BaseTool):
    """Shows a text file with its line numbers."""

    spec = spec_of("read_file", "Read a text file of your workspace or of shared/, with line numbers.", ReadArguments)
    replay = Replay.SAFE
    parallel = True
    subject_field = "path"

    def __init__(self, roots: Roots) -> None:
        self._roots = roots

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: ReadArguments = decode_arguments(ReadArguments, arguments, "read_file")
        return await asyncio.to_thread(self._read, asked)

    def _read(self, asked: ReadArguments) -> str:
        path = self._roots.resolve(asked.path)
        try:
            if path.is_dir():
                names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in path.iterdir())
                raise ToolError(f"{asked.path!r} is a folder; it holds: {', '.join(names) or 'nothing'}")
            if not path.is_file():
                raise ToolError(f"there is no file {asked.path!r}")
            if path.stat().st_size > MAX_FILE:
                raise ToolError(f"{asked.path!r} is larger than {MAX_FILE // 1_000_000} MB")
            raw = path.read_bytes()
        except OSError as error:
            raise ToolError(f"{asked.path!r} cannot be read: {error.strerror}") from None
        if b"\0" in raw[:8192]:
            raise ToolError(f"{asked.path!r} is not a text file")
        lines = raw.decode(errors="replace").splitlines()
        shown = lines[asked.offset - 1 : asked.offset - 1 + asked.limit]
        text = "\n".join(f"{n:>5}  {line}" for n, line in enumerate(shown, start=asked.offset))
        left = len(lines) - (asked.offset - 1 + len(shown))
        return text + (f"\n[{left} more lines]" if left > 0 else "") if shown else "[no lines there]"
