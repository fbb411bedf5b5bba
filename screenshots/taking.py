"""What the pictures share: a home on free ports, the command line, and the console on a virtual screen."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from textual.pilot import Pilot  # noqa: E402

from console.app import ConsoleApp  # noqa: E402
from runtime.home import Home  # noqa: E402
from tests.ports import Lease  # noqa: E402

ASKING = "secretary"
"""Who must ask before it writes into its memory."""


def atomizer(home: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "cluster.cli", *words, "--home", str(home)], check=True, cwd=HERE.parent)


async def until(true: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110 - what is awaited is another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise SystemExit(f"no picture: {what} did not happen in 30 s") from None


async def take(app: ConsoleApp, pilot: Pilot[None], name: str) -> None:
    """Save what is on screen."""
    app.clear_notifications()
    await pilot.pause(1.3)
    app.flush()
    await pilot.pause(0.4)
    svg = app.export_screenshot(title="atomizer-console")
    # Each picture has its own ids, so that a page may hold several; a fixed one keeps it the same when nothing changed.
    svg = re.sub(r"terminal-\d+", f"terminal-{name}", svg)
    (HERE / f"{name}.svg").write_text(svg)
    print(f"screenshots/{name}.svg")


@contextmanager
def cluster() -> Iterator[Home]:
    """A home with the shipped cluster, not started; stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="atomizer-pictures-") as folder, Lease(13) as lease:
        home = Home(Path(folder) / "home")
        atomizer(home.root, "init")
        ports = iter(lease.ports)
        toml = home.cluster_toml
        toml.write_text(re.sub(r"(?m)^port = \d+", lambda _: f"port = {next(ports)}", toml.read_text()))
        instance = home.instance_toml(ASKING)
        instance.write_text(instance.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
        try:
            yield home
        finally:
            atomizer(home.root, "stop")
