"""read_file, list_files and search_files: text files of the workspace and the shared folder, nothing outside them."""

from __future__ import annotations

import asyncio
import re
import stat
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of
from gateway.tools import looking
from gateway.tools.paths import FilePath, FileTool, FolderPath
from gateway.tools.roots import Roots

MAX_LINES = 2000
MAX_LISTED = 1000


class ReadArguments(msgspec.Struct, forbid_unknown_fields=True):
    path: FilePath
    offset: Annotated[int, msgspec.Meta(ge=1, description="First line to show")] = 1
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LINES, description="Most lines to show")] = MAX_LINES


class ListArguments(msgspec.Struct, forbid_unknown_fields=True):
    path: FolderPath = "."
    pattern: Annotated[
        str, msgspec.Meta(max_length=200, description="Only what fits, all levels down: *.py or src/**/*.py")
    ] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LISTED, description="Most entries to show")] = 300


class SearchArguments(msgspec.Struct, forbid_unknown_fields=True):
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=1000, description="A regular expression (Python)")]
    path: FolderPath = "."
    glob: Annotated[str, msgspec.Meta(max_length=200, description="Only files that fit: *.md or src/**/*.py")] = "*"
    ignore_case: Annotated[bool, msgspec.Meta(description="Take upper and lower case as the same")] = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=500, description="Most lines to show")] = 100


class ReadFile(FileTool[ReadArguments]):
    """Shows a text file with its line numbers."""

    spec = spec_of("read_file", "Read a text file of your workspace or of shared/, with line numbers.", ReadArguments)
    arguments = ReadArguments
    replay = Replay.SAFE
    parallel = True

    def work(self, asked: ReadArguments) -> str:
        raw = self.roots.read(self.roots.find(asked.path))
        if b"\0" in raw[:8192]:
            raise ToolError(f"{asked.path!r} is not a text file")
        lines = raw.decode(errors="replace").splitlines()
        shown = lines[asked.offset - 1 : asked.offset - 1 + asked.limit]
        text = "\n".join(f"{n:>5}  {line}" for n, line in enumerate(shown, start=asked.offset))
        left = len(lines) - (asked.offset - 1 + len(shown))
        return text + (f"\n[{left} more lines]" if left > 0 else "") if shown else "[no lines there]"


class ListFiles(FileTool[ListArguments]):
    """Shows what a folder holds, or what fits a pattern below it."""

    spec = spec_of("list_files", "List a folder, or with a pattern all that fits below it.", ListArguments)
    arguments = ListArguments
    replay = Replay.SAFE
    parallel = True

    def work(self, asked: ListArguments) -> str:
        place = self.roots.find(asked.path)
        lines: list[str] = []
        with self.roots.folder(place) as folder:
            for path, found, _ in looking.walk(folder):
                if "/" in path and not asked.pattern:
                    break  # the walk goes from above: what follows is deeper
                if asked.pattern and not looking.fits(path, asked.pattern):
                    continue
                if len(lines) == asked.limit:
                    lines.append(f"[more than {asked.limit} entries: give a pattern or a folder below]")
                    break
                lines.append(_line(looking.shown(path), found.st_mode, found.st_size))
        return "\n".join(lines) or "[nothing there]"


class SearchFiles(BaseTool):
    """Finds lines by a regular expression, in a process that is ended when it takes too long."""

    spec = spec_of(
        "search_files",
        "Find lines in the text files of a folder by a regular expression; answers file:line: text.",
        SearchArguments,
    )
    replay = Replay.SAFE
    parallel = True
    subject_field = "pattern"

    def __init__(self, roots: Roots) -> None:
        self._roots = roots

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: SearchArguments = decode_arguments(SearchArguments, arguments, "search_files")
        place = self._roots.find(asked.path)
        with self._roots.folder(place) as folder:
            query = {
                "folder": folder,
                "pattern": asked.pattern,
                "glob": asked.glob,
                "limit": asked.limit,
                "flags": int(re.IGNORECASE) if asked.ignore_case else 0,
            }
            answer = await _run(msgspec.json.encode(query).decode(), folder)
        if answer["error"]:
            raise ToolError(answer["error"])
        prefix = "" if asked.path in ("", ".") else f"{asked.path.rstrip('/')}/"
        lines = [f"{prefix}{path}:{number}: {text}" for path, number, text in answer["hits"]]
        if not lines:
            return f"[no line of {answer['files']} files matches]"
        return "\n".join(lines) + (f"\n[cut at {asked.limit} lines]" if len(lines) == asked.limit else "")


async def _run(query: str, folder: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-B", str(Path(looking.__file__)), query),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=(folder,),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(looking.SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        raise ToolError(
            f"the search was not done after {looking.SECONDS} s; look through a smaller folder, or with a simpler"
            " pattern"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ToolError(f"the search failed ({process.returncode})")
    answer: dict[str, Any] = msgspec.json.decode(out)
    return answer


def _line(path: str, mode: int, size: int) -> str:
    if stat.S_ISDIR(mode):
        return f"{path}/"
    return f"{path} -> (a link)" if stat.S_ISLNK(mode) else f"{path}  {size} bytes"
