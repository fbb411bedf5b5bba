"""The hooks API as scripts use it: what is accepted, what is refused and how, and what stays true."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocols.runs import RunState
from tests.gateway.process import GatewayProcess

QUESTION = "Find the CTE of Zerodur Class 0 between 20 and 40 C"


def test_the_documented_curl_call_is_accepted_and_carried_out(webster: GatewayProcess) -> None:
    status, _, body = webster.post(
        "/hooks/agent", {"message": "your request here", "deliver": True, "channel": "discord"}
    )
    assert (status, body["ok"], body["status"]) == (202, True, "queued")
    assert body["statusUrl"] == f"/hooks/runs/{body['runId']}"
    run = webster.result(body["runId"])
    assert run.state is RunState.SUCCEEDED
    assert run.delivery is not None
    assert (run.delivery.status, run.delivery.detail) == ("skipped", "no channel")
    assert run.facts == {"accepted": True, "run": True, "delivered": None, "verified": None}


def test_one_idempotency_key_gives_one_run(webster: GatewayProcess) -> None:
    ids = {webster.delegate("remember once", idempotency_key="the-key") for _ in range(3)}
    assert len(ids) == 1
    with ThreadPoolExecutor(8) as pool:
        ids |= set(pool.map(lambda _: webster.delegate("other words", idempotency_key="the-key"), range(16)))
    assert len(ids) == 1
    webster.result(ids.pop())
    assert webster.notes().count("once") == 1


def test_an_answer_cites_the_line_that_holds_the_value(webster: GatewayProcess) -> None:
    run = webster.result(webster.delegate(QUESTION))
    cited = re.findall(r"\((shared/\S+?):(\d+)\)", run.text)
    assert run.text.startswith("[offline]")
    assert cited
    path, line = cited[0]
    text = (webster.home.root / "workspaces" / path).read_text().splitlines()[int(line) - 1]
    assert "Class 0" in text
    assert "0 ± 0.02e-6 /K" in text
    assert "20 to 40 C" in text
    assert [s.name for s in run.steps] == ["offline/retrieval", "memory_search", "offline/retrieval"]


def test_a_paraphrase_finds_the_same_line_and_an_edit_changes_the_answer(webster: GatewayProcess) -> None:
    knowledge = webster.home.home.shared / "knowledge" / "materials-optical.md"
    before = knowledge.read_text()
    try:
        paraphrase = "How much does class 0 Zerodur expand per kelvin from 20 to 40 degrees Celsius?"
        assert "0 ± 0.02e-6 /K" in webster.result(webster.delegate(paraphrase)).text
        knowledge.write_text(before.replace("0 ± 0.02e-6 /K", "0 ± 0.07e-6 /K"))
        run = webster.result(webster.delegate(QUESTION))
        assert "0 ± 0.07e-6 /K" in run.text
        assert "0 ± 0.02e-6 /K" not in run.text
    finally:
        knowledge.write_text(before)


@pytest.mark.parametrize(
    "question",
    [
        "Find the CTE of Unobtanium between 20 and 40 C",
        "what is the density of kryptonite?",
        "Find the CTE of Clearceram-Z Class 0 between 20 and 40 C",
    ],
)
def test_what_is_not_there_is_not_invented(webster: GatewayProcess, question: str) -> None:
    text = webster.result(webster.delegate(question)).text
    assert "found nothing" in text
    assert not re.search(r":\d+\)", text)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": ""}, "message"),
        ({"message": "  \n"}, "message"),
        ({}, "message"),
        ({"message": "x", "wakeMode": "later"}, "wakeMode"),
        ({"message": "x", "sesionKey": "a"}, "sessionKey"),
        ({"message": 7}, "message"),
        ({"message": "x", "agentId": "manager"}, "agentId"),
        ({"message": "x", "deadline": 5.0}, "deadline"),
        ({"message": "x", "timeoutSeconds": -1}, "timeoutSeconds"),
        ({"message": "x", "depth": 99}, "depth"),
        ({"message": "x", "model": "nobody/knows"}, "nobody"),
    ],
)
def test_bad_fields_are_refused_by_name(webster: GatewayProcess, body: dict[str, object], field: str) -> None:
    before = webster.sql("SELECT count(*) FROM runs")
    status, _, answer = webster.post("/hooks/agent", body)
    assert status in (400, 409)
    assert field in answer["error"]["message"]
    assert webster.sql("SELECT count(*) FROM runs") == before


def test_malformed_requests_are_refused_plainly(webster: GatewayProcess) -> None:
    headers = webster.headers()
    cases = [
        (webster.raw("POST", "/hooks/agent", b"{not json", headers), 400, "JSON"),
        (webster.raw("POST", "/hooks/agent", b'{"message":"x"}', webster.headers(kind="text/plain")), 415, "json"),
        (webster.raw("POST", "/hooks/agent", b"{}", {}), 401, "token"),
        (webster.raw("GET", "/hooks/agent", None, headers), 405, "POST"),
        (webster.raw("GET", "/hooks/runs/run-000000", None, headers), 404, "run-000000"),
        (webster.raw("GET", "/nowhere", None, headers), 404, "/nowhere"),
    ]
    for (status, _, body), expected, word in cases:
        assert status == expected, body
        assert body["ok"] is False
        assert word in body["error"]["message"]
    big = b'{"message":"' + b"x" * (300 * 1024) + b'"}'
    assert webster.raw("POST", "/hooks/agent", big, headers)[0] == 413


def test_the_token_says_who_calls_and_the_receiver_keeps_the_rule(webster: GatewayProcess) -> None:
    status, _, body = webster.post("/hooks/agent", {"message": "status"}, owner="secretary")
    assert status == 403
    assert "secretary" in body["error"]["message"]
    assert "nobody" in body["error"]["message"]
    status, _, _ = webster.post("/hooks/agent", {"message": "status"}, owner="viewer")
    assert status == 403
    status, _, body = webster.post("/hooks/agent", {"message": "status"}, owner="manager")
    assert status == 202
    run = webster.result(body["runId"])
    assert run.caller == "manager"
    assert run.depth == 1
    assert webster.raw("GET", f"/hooks/runs/{run.run_id}", None, webster.headers("secretary"))[0] == 403
    assert webster.post("/control/drain", {}, owner="manager")[0] == 403


def test_an_unresolvable_target_is_a_visible_dead_letter(webster: GatewayProcess) -> None:
    for fields in ({"to": "123456789012345678"}, {"channel": "987654321098765432"}):
        run = webster.result(webster.delegate("read MEMORY.md", **fields))
        assert run.state is RunState.SUCCEEDED
        assert run.delivery is not None
        assert run.delivery.status == "dead"
        assert run.facts["delivered"] is False
    assert webster.status().dead_letters >= 2


def test_a_queued_run_can_be_cancelled_and_stays_so(webster: GatewayProcess) -> None:
    held = webster.delegate("remember never", wake_mode="next-heartbeat")
    status, _, body = webster.post(f"/hooks/runs/{held}/cancel", {})
    assert (status, body["outcome"]) == (200, "cancelled")
    run = webster.result(held)
    assert (run.state, run.reason) == (RunState.CANCELLED, "cancelled by operator")
    assert webster.post(f"/hooks/runs/{held}/cancel", {})[2]["outcome"] == "it had already cancelled"


def test_a_deadline_cancels_a_run_that_never_started(webster: GatewayProcess) -> None:
    held = webster.delegate("remember never", wake_mode="next-heartbeat", deadline=time.time() + 0.3)
    run = webster.result(held, seconds=10)
    assert run.state is RunState.CANCELLED
    assert "deadline" in run.reason


def test_a_wake_reaches_the_next_heartbeat_as_data(webster: GatewayProcess) -> None:
    status, _, body = webster.post("/hooks/wake", {"text": "the licence server is down", "mode": "now"})
    assert (status, body) == (200, {"ok": True, "mode": "now", "outcome": "queued"})
    until = time.monotonic() + 10
    while not (beats := [r for r in webster.ask.get("/hooks/runs", dict)["runs"] if r["source"] == "heartbeat"]):
        assert time.monotonic() < until
        time.sleep(0.02)
    run = webster.result(beats[0]["runId"])
    assert "operator: the licence server is down" in run.message


def test_a_session_keeps_its_conversation(webster: GatewayProcess) -> None:
    for text in ("remember the first thing", "status"):
        webster.result(webster.delegate(text, session_key="agent:webster:main"))
    status, _, body = webster.raw("GET", "/sessions/agent%3Awebster%3Amain", None, webster.headers("viewer"))
    assert status == 200
    roles = [m["role"] for m in body["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"] * 2
    assert not any(b["type"] == "native" for m in body["messages"] for b in m["content"])


def test_a_thousand_hooks_in_a_burst_are_all_accepted_and_all_run(webster: GatewayProcess) -> None:
    import http.client
    import json

    import msgspec

    webster.result(webster.delegate("remember the warm-up"))
    before = webster.status().rss_bytes

    def send(worker: int) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", webster.port, timeout=60)
        ids = []
        for n in range(125):
            body = msgspec.json.encode({"message": "read MEMORY.md", "idempotencyKey": f"burst-{worker}-{n}"})
            connection.request("POST", "/hooks/agent", body, webster.headers())
            answer = connection.getresponse()
            assert answer.status == 202
            ids.append(json.loads(answer.read())["runId"])
        connection.close()
        return ids

    with ThreadPoolExecutor(8) as pool:
        ids = [i for part in pool.map(send, range(8)) for i in part]
    assert len(set(ids)) == 1000
    until = time.monotonic() + 120
    while (status := webster.status()).queue.queued or status.queue.running:
        assert time.monotonic() < until
        time.sleep(0.1)
    states = dict(webster.sql("SELECT state, count(*) FROM runs WHERE idempotency_key LIKE 'burst-%' GROUP BY state"))
    assert states == {"succeeded": 1000}
    grown = (status.rss_bytes - before) / 2**20
    print(f"\nburst: 1000 hooks, resident memory grew by {grown:.1f} MiB")
    assert grown < 8
