"""`atomizer-console`: the operator's console for the cluster in a home folder."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.leaving import leave

if TYPE_CHECKING:
    from console.app import ConsoleApp

EPILOG = """\
examples:
  atomizer-console                      the cluster in ATOMIZER_HOME, or in the user's data folder
  atomizer-console --home ~/cluster     another one
  atomizer-console --read-only          look, and change nothing
  atomizer-console --slow --ascii       over a thin line, in a plain terminal

Closing the console stops nobody. `?` shows all keys.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="atomizer-console",
        description="Watch and steer the agents of one cluster, by keyboard alone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--home", help="the cluster's folder (else ATOMIZER_HOME, else the user's data folder)")
    parser.add_argument("--read-only", action="store_true", help="no key that changes anything; cannot be lifted")
    parser.add_argument("--slow", action="store_true", help="fewer frames and plain colours, for a thin line")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII only")
    given = parser.parse_args(argv)

    from protocols.errors import AtomizerError
    from runtime.config import load_cluster
    from runtime.home import EXIT_CONFIG, find_home
    from runtime.secrets import Secrets

    try:
        cluster = load_cluster(find_home(given.home))
        token = Secrets(cluster.home).token("viewer" if given.read_only else "operator")
    except AtomizerError as error:
        print(f"atomizer-console: {error}", file=sys.stderr)
        return EXIT_CONFIG
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("atomizer-console: needs a terminal; `atomizer status` prints the same without one", file=sys.stderr)
        return 2
    slow = given.slow or thin_line(os.environ)
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    if slow:
        os.environ.setdefault("TEXTUAL_FPS", "4")
        os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")

    from console.app import ConsoleApp, Options

    app = ConsoleApp(cluster, token, Options(read_only=given.read_only, slow=slow, ascii=given.ascii))
    asyncio.run(_run(app))
    return app.return_code or 0


async def _run(app: ConsoleApp) -> None:
    """An answer that is still awaited keeps nobody from leaving."""
    await app.run_async()
    leave(app.return_code or 0)


def thin_line(environ: os._Environ[str] | dict[str, str]) -> bool:
    """Over SSH in a terminal that does not claim all colours, bytes are dear."""
    return bool(environ.get("SSH_CONNECTION")) and not environ.get("COLORTERM")


if __name__ == "__main__":
    sys.exit(main())
