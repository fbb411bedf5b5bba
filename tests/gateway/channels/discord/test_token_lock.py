"""One token, one gateway of a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.channels.discord.token_lock import TokenLock, TokenTaken, lock_folder
from tests.gateway.channels.discord.conftest import Bot

ROOT = Path(__file__).resolve().parents[4]
HOLD = """
import sys
from pathlib import Path
from gateway.channels.discord.token_lock import TokenLock
with TokenLock(sys.argv[1], "manager", "/clusters/two", Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a token's lock."""

    def __init__(self, token: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, token, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_the_other_is_named_and_a_kill_frees_it(tmp_path: Path) -> None:
    holder = Holder("a.secret.token", tmp_path)
    try:
        with pytest.raises(TokenTaken, match="manager of the cluster in /clusters/two"):
            TokenLock("a.secret.token", "webster", "/clusters/one", tmp_path).__enter__()
        with TokenLock("another.token", "webster", "/clusters/one", tmp_path):
            pass
    finally:
        holder.kill()
    with TokenLock("a.secret.token", "webster", "/clusters/one", tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_the_token_is_in_no_name_and_no_file(tmp_path: Path) -> None:
    with TokenLock("a.secret.token", "webster", "/clusters/one", tmp_path):
        [path] = tmp_path.iterdir()
        assert "secret" not in path.name + path.read_text()
        assert path.stat().st_mode & 0o077 == 0


def test_the_folder_is_the_users_alone() -> None:
    found = lock_folder().stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.getuid(), 0o700)


def test_a_file_that_is_never_the_one_that_was_opened_is_given_up(tmp_path: Path) -> None:
    class Shifting(TokenLock):
        """On a file system that numbers a file anew each time."""

        def _is(self, fd: int) -> bool:
            return False

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="another file each time"):
        Shifting("a.secret.token", "webster", "/clusters/one", tmp_path).__enter__()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_bot_whose_token_another_has_waits_for_it(bot: Bot) -> None:
    bot.time.patient = True
    holder = Holder(bot.token, bot.folder)
    try:
        bot.begin()
        detail = await bot.state("auth_failed")
        assert "manager" in detail
        assert bot.discord.view.requests() == [], "Discord is not asked"
    finally:
        holder.kill()
    bot.time.advance(31)
    await bot.state("ready")
