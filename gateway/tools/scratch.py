"""Removing a command's private folder, whatever the command left in it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

_SECONDS = 60.0


def remove_folder(folder: Path) -> None:
    """Remove `folder`; what cannot be removed stays. Blocks. Thousands of folders deep are too deep for `shutil`."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if folder.exists():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                quiet = subprocess.DEVNULL
                subprocess.run([*command, "--", folder], stdout=quiet, stderr=quiet, timeout=_SECONDS, check=False)
