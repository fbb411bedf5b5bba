"""What a provider's cache sees: a prefix that is the same from request to request of a session, and only grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import running
from tests.standins.models.script import Call, Match, Reply

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]


def blocks(body: dict[str, Any]) -> list[tuple[str, bool]]:
    """(the block's own text, whether a cache entry ends with it) in the order in which a cache reads a request."""
    rows = [("tool", tool) for tool in body["tools"]] + [("system", block) for block in body["system"]]
    rows += [(message["role"], block) for message in body["messages"] for block in message["content"]]
    return [
        (kind + json.dumps({k: v for k, v in block.items() if k != "cache_control"}), "cache_control" in block)
        for kind, block in rows
    ]


def cached(body: dict[str, Any]) -> list[list[str]]:
    """The prefixes that the request has a cache keep, shortest first."""
    seen = blocks(body)
    return [[text for text, _ in seen[: at + 1]] for at, (_, marked) in enumerate(seen) if marked]


def read_again(before: list[dict[str, Any]], body: dict[str, Any]) -> int:
    """How many blocks of `body` a cache still has of the requests before it."""
    now = [text for text, _ in blocks(body)]
    kept = [prefix for earlier in before for prefix in cached(earlier)]
    return max((len(prefix) for prefix in kept if now[: len(prefix)] == prefix), default=0)


def test_the_prefix_is_the_same_over_turns_steps_and_a_restart_and_only_grows(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(calls=[Call("status", {})], match=Match(text="second", tool_result=False)),
        *(Reply(text=f"Answer {n}.") for n in range(4)),
    )
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        for text in ("first question", "second question", "third question"):
            assert gateway.result(gateway.delegate(text, session_key="study-7")).text.startswith("Answer")
        gateway.stop()
        gateway.start()
        gateway.result(gateway.delegate("fourth question", session_key="study-7"))
    requests = [request["body"] for request in server.requests()]
    assert len(requests) == 5
    fixed = len(requests[0]["tools"]) + len(requests[0]["system"])
    again = [read_again(requests[:at], body) for at, body in enumerate(requests)]
    assert again[0] == 0
    assert all(count > fixed for count in again[1:]), "tools, system and a part of the conversation are read again"
    assert again == sorted(again), "what is read again only grows"
    for body in requests:
        assert [marked for _, marked in blocks(body)].count(True) <= 4, "Anthropic's limit"
        assert blocks(body)[:fixed] == blocks(requests[0])[:fixed], "tools and the stable prompt, byte by byte"
    words = [text for text, _ in blocks(requests[-1]) if "<context>" in text]
    assert len(words) == 1, "what changes is shown once, with the newest message"


def test_a_file_that_changes_changes_the_prefix_from_the_next_turn_on_and_a_long_one_is_cut_visibly(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(Reply(text="Noted.", times=0))
    home = make_home("manager")
    use_models(home, server)
    memory = home.home.workspace("manager") / "MEMORY.md"
    with running(home, "manager") as (gateway,):
        gateway.result(gateway.delegate("first question", session_key="study-7"))
        memory.write_text("The mirror is 1.2 m.\n" + "x" * 30_000)
        gateway.result(gateway.delegate("second question", session_key="study-7"))
        (file,) = [f for f in gateway.status().prompt if f.name == "MEMORY.md"]
    first, second = ("\n".join(block["text"] for block in r["body"]["system"]) for r in server.requests())
    assert "The mirror is 1.2 m." not in first
    assert "The mirror is 1.2 m." in second
    assert "[MEMORY.md: truncated, 20000 of 30021 characters shown]" in second
    assert (file.truncated, file.chars, file.tokens) == (True, 30021, 5000)
    for body in (r["body"] for r in server.requests()):
        said = json.dumps([m["content"] for m in body["messages"]])
        assert "1.2 m" not in said, "memory is in the prompt, never in the conversation"


def test_a_heartbeat_s_prompt_is_light(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="HEARTBEAT_OK", times=0))
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        gateway.raw("POST", "/control/heartbeat/now", b"{}", gateway.headers())
        (run_id,) = (row[0] for row in _until(lambda: gateway.sql("SELECT id FROM runs WHERE source = 'heartbeat'")))
        gateway.result(run_id)
    (body,) = (r["body"] for r in server.requests())
    system = "\n".join(block["text"] for block in body["system"])
    assert "<file name='HEARTBEAT.md'>" in system
    assert "<file name='SOUL.md'>" in system
    for name in ("AGENTS.md", "MEMORY.md", "shared/CLUSTER.md"):
        assert f"<file name='{name}'>" not in system


def _until(look: Callable[[], list[Any]]) -> list[Any]:
    import time

    until = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found
