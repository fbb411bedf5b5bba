"""A reader of /events that stops reading costs the gateway nothing, and is told what it missed."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

from tests.conftest import ClusterHome
from tests.e2e.flood import flood_log
from tests.gateway.process import GatewayProcess, running

LINES = 20_000


def with_debug_log(home: ClusterHome, agent: str) -> None:
    path = home.home.instance_toml(agent)
    path.write_text(path.read_text() + '\n[limits]\nlog_level = "debug"\n')


def open_events(gateway: GatewayProcess) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(30)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", gateway.port))
    head = f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gateway.home.token()}\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def read_until(sock: socket.socket, pattern: bytes, seconds: float = 30.0) -> bytes:
    data = b""
    until = time.monotonic() + seconds
    while not re.search(pattern, data):
        assert time.monotonic() < until, data[-2000:]
        more = sock.recv(65536)
        assert more, "the stream ended"
        data += more
    return data


def test_a_stopped_reader_costs_less_than_2_mib_and_gets_a_gap(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    with_debug_log(home, "webster")
    with running(home, "webster") as (gateway,):
        flood_log(gateway.port, 3000)
        time.sleep(0.2)
        with open_events(gateway) as stopped:
            read_until(stopped, rb"event: status")
            before = gateway.status().rss_bytes
            flood_log(gateway.port, LINES)
            grown = gateway.status().rss_bytes - before
            data = read_until(stopped, rb'event: gap\ndata: .*"missed":(\d+)')
        print(f"\n{LINES} log lines past a stopped reader: the gateway grew by {grown / 2**20:.2f} MiB")
        assert grown < 2 * 2**20
        missed = re.search(rb'"missed":(\d+)', data)
        assert missed
        assert int(missed[1]) > LINES // 2
        assert (home.home.logs("webster") / "gateway.jsonl").read_text().count("GET /health 200") >= LINES // 2
