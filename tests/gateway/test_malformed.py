"""What is no HTTP: refused by the server's parser, before anything of ours sees it, and harmless."""

from __future__ import annotations

import socket

import pytest

from tests.gateway.process import GatewayProcess

HOST = b"Host: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/9.z\r\n" + HOST + b"\r\n",
        b"GET /health HTTP/1.1\r\n" + HOST + b"X-Long: " + b"x" * 10_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /health HTTP/1.1\r\n" + HOST + b"Content-Length: many\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + HOST + b"No colon\r\n\r\n",
    ],
    ids=["no-request-line", "version", "long-header", "long-path", "content-length", "no-colon"],
)
def test_it_gets_a_plain_400_as_the_page_says_and_its_connection_ends(webster: GatewayProcess, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", webster.port), timeout=10) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):  # until they close
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert b"content-type: text/plain" in head.lower()
    assert not body.startswith(b"{")
    assert webster.raw("GET", "/health")[0] == 200
