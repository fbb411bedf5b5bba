"""Two processes that change different fields of one file: neither takes the other's change back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.config import Overrides, load_overrides, save_overrides
from runtime.home import Home
from runtime.overrides import OverridesBusy, change_overrides

WRITER = """
import sys
from pathlib import Path
from runtime.config import load_overrides
from runtime.home import Home
from runtime.overrides import change_overrides

home, field, kind = Home(Path(sys.argv[1])), sys.argv[2], {"model": str, "heartbeat_every_seconds": float}[sys.argv[2]]
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    change_overrides(home, "webster", **{field: kind(number)})
    assert getattr(load_overrides(home, "webster"), field) == kind(number), f"{field} {number} was taken back"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.instance("webster").mkdir(parents=True)
    return home


def test_two_writers_lose_nothing_of_each_other(home: Home) -> None:
    fields = ("model", "heartbeat_every_seconds")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(home.root), field],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for field in fields
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, said = writer.communicate(timeout=60)
        assert writer.returncode == 0, said
    assert load_overrides(home, "webster") == Overrides(model="59", heartbeat_every_seconds=59.0)


def test_one_that_is_held_is_told_of_and_one_whose_holder_died_is_free(home: Home) -> None:
    save_overrides(home, "webster", Overrides(model="offline/echo"))
    home.run.mkdir()
    lock = home.run / "overrides-webster.lock"
    code = (
        f"import filelock, sys; lock = filelock.FileLock({str(lock)!r}); lock.acquire();"
        " print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(OverridesBusy, match=r"overrides\.toml: another process"):
            change_overrides(home, "webster", enabled=False)
        assert load_overrides(home, "webster") == Overrides(model="offline/echo")
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert change_overrides(home, "webster", enabled=False) == Overrides(model="offline/echo", enabled=False)
