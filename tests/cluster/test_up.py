"""`atomizer up` on a terminal: it becomes the console, and losing the terminal stops nobody."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import sys
import threading
from collections.abc import Callable

from cluster.supervisors import processes
from tests.cluster.conftest import STANDIN, until
from tests.conftest import ClusterHome


def test_on_a_terminal_up_becomes_the_console_and_closing_it_stops_nobody(
    make_home: Callable[..., ClusterHome],
) -> None:
    home = make_home("webster")
    home.use_program(*STANDIN)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(ATOMIZER_HOME=str(home.root), TERM="xterm-256color")
        os.execv(sys.executable, [sys.executable, "-P", "-m", "cluster.cli", "up"])
    drain = threading.Thread(target=_drain, args=(terminal,), daemon=True)
    drain.start()
    try:
        until(lambda: "console" in processes.command_of(pid), 30)
        assert processes.command_of(pid)[1:] == ["-P", "-m", "console", "--home", str(home.root)]
        gateway = home.pid("webster")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)  # the terminal is gone: whoever still belonged to it gets SIGHUP
    drain.join(10)
    assert home.supervisor_pid() is not None
    assert home.json("status")["agents"][0]["pid"] == gateway


def _drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
