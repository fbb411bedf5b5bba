"""The one-shot client: refusals, nobody there, and strangers on our port."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from protocols.ask import Ask, refusal
from protocols.errors import ProtocolError, Unreachable
from protocols.health import Health, Ready
from protocols.hooks import AgentAccepted, AgentHook
from tests.ports import Lease
from tests.protocols.standin import Standin, standin_in_thread

HEALTH = {"ok": True, "status": "live", "service": "atomizer-gateway", "agent": "a", "instance": "i", "version": "v"}


@pytest.fixture(scope="module")
def server() -> Iterator[Standin]:
    with standin_in_thread() as running:
        yield running


@pytest.fixture
def ask(server: Standin) -> Ask:
    server.requests.clear()
    server.parts, server.hold = [], False
    return Ask(server.port, "secret-token", timeout=2)


def test_an_answer_is_decoded_and_the_token_sent_in_its_header_only(server: Standin, ask: Ask) -> None:
    server.answer(200, json.dumps(HEALTH).encode())
    assert ask.get("/health", Health).agent == "a"
    head = server.requests[0]
    assert head.startswith(b"GET /health HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret-token\r\n" in head
    assert head.count(b"secret-token") == 1


def test_a_body_goes_out_as_camel_case_json(server: Standin, ask: Ask) -> None:
    server.answer(202, b'{"ok":true,"runId":"run-0001","status":"queued","statusUrl":"/hooks/runs/run-0001"}')
    accepted = ask.send("POST", "/hooks/agent", AgentHook(message="x", idempotency_key="k"), AgentAccepted)
    assert accepted.run_id == "run-0001"
    sent = json.loads(server.requests[0].split(b"\r\n\r\n", 1)[1])
    assert (sent["message"], sent["idempotencyKey"]) == ("x", "k")


def test_a_run_id_is_quoted_and_wait_is_in_the_query(server: Standin, ask: Ask) -> None:
    server.answer(404, b'{"ok":false,"error":{"code":"unknown_run","message":"no"}}')
    with pytest.raises(ProtocolError, match="no"):
        ask.run("run-1/../x", wait=2.5)
    assert server.requests[0].startswith(b"GET /hooks/runs/run-1%2F..%2Fx?wait=2.5 HTTP")


def test_a_refusal_keeps_status_code_and_message(server: Standin, ask: Ask) -> None:
    server.answer(403, b'{"ok":false,"error":{"code":"not_authorised","message":"the rule"}}')
    with pytest.raises(ProtocolError) as caught:
        ask.get("/status", Health)
    assert (caught.value.status, caught.value.code, caught.value.message) == (403, "not_authorised", "the rule")


@pytest.mark.parametrize(
    "raw",
    [b"", b"<html>no", b"[]", b'{"error":"x"}', b'{"error":{}}', b"\xff\xfe", b"null", b"[" * 200_000],
    ids=lambda raw: repr(raw[:12]),
)
def test_a_stranger_s_refusal_is_quoted(raw: bytes) -> None:
    gc.collect()  # what other tests left is not to be collected at the bottom of a deep recursion
    error = refusal(502, raw)
    assert (error.status, error.code) == (502, "unknown")
    assert error.message.startswith("HTTP 502")
    assert len(error.message) < 300


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"{}", b'{"status":"ok"}', b"[" * 200_000], ids=lambda body: repr(body[:12])
)
def test_a_stranger_s_success_is_no_answer(server: Standin, ask: Ask, body: bytes) -> None:
    server.answer(200, body, "text/html")
    with pytest.raises(Unreachable, match="not ours"):
        ask.get("/health", Health)


def test_a_redirect_is_not_followed(server: Standin, ask: Ask) -> None:
    server.answer(302, b"", Location="http://127.0.0.1:9/")
    with pytest.raises(Unreachable, match="not ours"):
        ask.get("/health", Health)
    assert len(server.requests) == 1


def test_another_protocol_is_no_answer(server: Standin, ask: Ask) -> None:
    server.raw = b"SSH-2.0-OpenSSH_9.6\r\n"
    with pytest.raises(Unreachable, match="nobody answers on"):
        ask.get("/health", Health)


def test_an_answer_cut_short_is_no_answer(server: Standin, ask: Ask) -> None:
    server.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"
    with pytest.raises(Unreachable):
        ask.get("/health", Health)


def test_silence_ends_at_the_timeout(server: Standin, ask: Ask) -> None:
    server.raw, server.hold = b"", True
    with pytest.raises(Unreachable, match="timed out"):
        ask.get("/health", Health, timeout=0.1)


def test_nobody_there_is_said() -> None:
    with Lease() as lease, pytest.raises(Unreachable, match=rf"127.0.0.1:{lease.ports[0]} \(connection refused\)"):
        Ask(lease.ports[0]).get("/health", Health)


def test_not_ready_is_an_answer_and_not_a_refusal(server: Standin, ask: Ask) -> None:
    server.answer(503, b'{"ready":false,"failing":["no key"]}')
    assert ask.get("/ready", Ready).failing == ["no key"]


def test_many_threads_may_ask_for_the_same_type_first() -> None:
    """msgspec ends the process with a segmentation fault if they are let."""
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
from protocols.ask import Ask
from protocols.errors import Unreachable
from protocols.status import AgentStatus

def ask():
    together.wait()
    try:
        Ask(1)._decode(b'{"agent": "webster"}', AgentStatus, "/status")
    except Unreachable:
        pass

together = threading.Barrier(8)
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
