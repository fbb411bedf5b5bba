"""Two small parts of every process: who holds a port, and what systemd is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.notify import notify
from runtime.ports import owner_of
from tests.ports import Lease

LISTEN = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
sys.stdin.read()
"""


class TestOwner:
    def test_a_listening_child_is_named_with_pid_and_command(self) -> None:
        with (
            Lease() as lease,
            subprocess.Popen(
                [sys.executable, "-c", LISTEN, str(lease.ports[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as child,
        ):
            assert child.stdout is not None
            assert child.stdout.readline() == b"listening\n"
            owner = owner_of(lease.ports[0])
            child.communicate()
        assert owner is not None
        assert f"(pid {child.pid}):" in owner
        assert "-c" in owner

    def test_a_free_port_has_none(self) -> None:
        with Lease() as lease:
            assert owner_of(lease.ports[0]) is None

    def test_a_connection_is_no_owner(self) -> None:
        with Lease(2) as lease, socket.create_server(("127.0.0.1", lease.ports[0])):
            with socket.socket() as client:
                client.bind(("127.0.0.1", lease.ports[1]))
                client.connect(("127.0.0.1", lease.ports[0]))
                assert owner_of(lease.ports[1]) is None
            assert f"(pid {os.getpid()})" in str(owner_of(lease.ports[0]))


class TestNotify:
    def test_it_reaches_a_socket_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "s"))
            manager.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
            notify("READY=1")
            notify("STOPPING=1\nSTATUS=done")
            assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1\nSTATUS=done"]

    def test_it_reaches_an_abstract_socket(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0atomizer-test-{os.getpid()}")
            manager.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", f"@atomizer-test-{os.getpid()}")
            notify("WATCHDOG=1")
            assert manager.recv(100) == b"WATCHDOG=1"

    @pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-there", "x" * 300])
    def test_it_is_never_fatal(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
        monkeypatch.delenv("NOTIFY_SOCKET")
        notify("READY=1")
