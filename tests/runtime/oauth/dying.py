"""The refreshing process, killed with SIGKILL at one point: `python dying.py POINT`, then as `python -m runtime.oauth`.

Points: `lock` (it has the lock and has done nothing), `fence` (the fence is on disk, nothing was asked), `answer` (the
server has answered, nothing is written), `write` (all is written, nobody was told).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from runtime.oauth import endpoint
from runtime.oauth.__main__ import main
from runtime.oauth.credential import CredentialFile


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    write, refresh = CredentialFile.write, endpoint.refresh
    written = 0

    def watched_write(self: CredentialFile, credential: Any) -> None:
        nonlocal written
        if point == "lock":
            die()
        write(self, credential)
        written += 1
        if (point, written) in (("fence", 1), ("write", 2)):
            die()

    def watched_refresh(*arguments: Any) -> Any:
        answer = refresh(*arguments)
        if point == "answer":
            die()
        return answer

    CredentialFile.write = watched_write  # type: ignore[method-assign]
    endpoint.refresh = watched_refresh


if __name__ == "__main__":
    arm(sys.argv[1])
    main()
