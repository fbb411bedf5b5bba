"""Log lines by the thousand: every request is a line at level debug, so requests are sent by the thousand."""

from __future__ import annotations

import socket

_AT_ONCE = 50


def flood_log(port: int, lines: int) -> None:
    """Make the gateway at `port` (log level debug) log `lines` lines, by pipelined requests on one connection."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        left = lines
        while left > 0:
            count = min(_AT_ONCE, left)
            sock.sendall(request * count)
            seen, tail = 0, b""
            while seen < count:
                data = sock.recv(65536)
                assert data, "the gateway closed the connection"
                tail += data
                seen += tail.count(b'"version":')
                tail = tail[-9:] if not tail.endswith(b'"version":') else b""
            left -= count
