"""What the commands of an agent may do: the table `[shell]` of instance.toml.

The docstrings under the fields are the configuration reference, as in `runtime/config.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from runtime.home import Home

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("ATOMIZER_", "TMPDIR", "HOME", "LD_")


class ShellTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    sandbox: Literal["auto", "landlock", "bubblewrap", "off"] = "auto"
    """What holds commands to the agent's own workspace, the shared folder and the system's programs: Landlock of the
    kernel, or else bubblewrap (`bwrap`) where it is installed; where neither is there, there is no `exec`. `off`:
    they may do whatever your user may do, which includes reading every token of the cluster."""
    network: bool = False
    """Whether commands may open network connections."""
    timeout: str = "30m"
    """Longest a command may run, in the background too."""
    background_after: str = "10s"
    """A command that runs longer goes on in the background, and the turn goes on with it."""
    output_kb: Annotated[int, msgspec.Meta(ge=1, le=56)] = 32
    """KiB of a command's output that are kept: the beginning and the end."""
    processes: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    """Processes one command may have at a time; with more it is ended, with all of them."""
    memory_mb: Annotated[int, msgspec.Meta(ge=16)] = 4096
    """Memory one process of it may have."""
    file_mb: Annotated[int, msgspec.Meta(ge=1)] = 4096
    """Size of the largest file it may write."""
    read: list[str] = msgspec.field(default_factory=list)
    """More folders or files that commands may read and run, absolute or `~/...`."""
    write: list[str] = msgspec.field(default_factory=list)
    """More folders or files that they may change."""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Variables that they get, as they are written here. No keys here: whatever they can read, a model can read."""


def check_shell(table: ShellTable, home: Home) -> Iterator[tuple[list[str], str]]:
    """(keys below `[shell]`, what is wrong) for each thing that is; durations are checked by the caller."""
    for name in table.env:
        if not _VARIABLE.fullmatch(name):
            yield ["env", name], f"{name!r} cannot name a variable"
        elif name.startswith(_OURS):
            yield ["env", name], f"{name} is set by the program, or would change what runs; choose another"
    for key, paths in (("read", table.read), ("write", table.write)):
        for text in paths:
            path = Path(text).expanduser()
            if not path.is_absolute():
                yield [key], f"{text!r} is not an absolute path"
            elif held := _holds(path.resolve(), home):
                yield [key], f"{text!r} holds {held}, which no command may see; name folders below it instead"


def _holds(path: Path, home: Home) -> str:
    """What of the cluster's own files lies in `path`, or around it."""
    for what in (home.secrets, home.root / "instances", home.run, home.root / "workspaces"):
        real = what.resolve()
        if real.is_relative_to(path) or path.is_relative_to(real):
            return str(what)
    return ""
