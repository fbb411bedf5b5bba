"""A conversation that outgrows its window is summarised: no tool pair is split, nothing lost, a bad summary refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.agent.compaction import END_MARK, Compactor, _cut_at
from gateway.agent.sessions import HISTORY_CHARS, load_messages
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import Ending, NewRun, StoredMessage
from protocols.runs import RunSource, RunState, new_run_id
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Fault, Match, Reply

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]
SESSION = "agent:webster:main"
SUMMARY = f"Goal: choose a mirror blank. Decided: Zerodur Class 0, by CTE. Open: the supplier.\n{END_MARK}"
LONG = "The blank is to be light and stiff. " * 120


def small_window(home: ClusterHome) -> None:
    path = home.home.instance_toml("webster")
    path.write_text(path.read_text().replace("[model]", "[model]\ncontext_tokens = 8000", 1))


def asked(server: ModelProcess) -> list[str]:
    return [str(request["body"]["contents"]) for request in server.requests()]


def transcript(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return list(gateway.raw("GET", f"/sessions/{SESSION}", None, gateway.headers())[2]["messages"])


def talk(gateway: GatewayProcess, count: int) -> None:
    for n in range(count):
        run = gateway.result(gateway.delegate(f"Part {n}. {LONG}", session_key=SESSION))
        assert run.state is RunState.SUCCEEDED, run.reason


def test_the_past_is_summarised_after_memory_was_flushed_and_stays_in_the_transcript(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(
            calls=[Call("memory_write", {"text": "the blank is Zerodur Class 0", "pin": True})],
            match=Match(text="about to be summarised"),
            times=0,
        ),
        Reply(text=SUMMARY, match=Match(text="Summarise the transcript"), times=0),
        Reply(text="Understood.", times=0),
    )
    home = make_home("webster")
    use_models(home, server)
    small_window(home)
    with running(home, "webster") as (gateway,):
        talk(gateway, 6)
        messages = transcript(gateway)
        markers = [m for m in messages if m["role"] == "compaction"]
        assert markers
        assert "Zerodur Class 0, by CTE" in markers[0]["content"][0]["text"]
        assert sum(m["role"] == "user" for m in messages) == 6
        last = asked(server)[-1]
        assert "were summarised" in last
        assert "Checkpoint, written by code" in last
        assert "- pinned: the blank is Zerodur Class 0" in last
        assert "Part 0." not in last
        assert "Part 5." in last
        assert gateway.notes().count("the blank is Zerodur Class 0") == len(markers)
        gateway.kill()
        gateway.start()
        talk(gateway, 1)
        assert "were summarised" in asked(server)[-1]


@pytest.mark.parametrize("bad", ["", "Too short.", "A summary that was cut off before its end mark came, sadly so."])
def test_a_bad_summary_is_thrown_away_and_the_history_kept(make_home: MakeHome, serve: Serve, bad: str) -> None:
    server = serve(
        Reply(text="NOTHING", match=Match(text="about to be summarised"), times=0),
        Reply(text=bad or " ", match=Match(text="Summarise the transcript"), times=0),
        Reply(text="Understood.", times=0),
    )
    home = make_home("webster")
    use_models(home, server)
    small_window(home)
    with running(home, "webster") as (gateway,):
        talk(gateway, 6)
        assert not [m for m in transcript(gateway) if m["role"] == "compaction"]
        assert "Part 0." in asked(server)[-1]
        log = home.home.logs("webster").joinpath("gateway.jsonl").read_text()
        assert "the history is kept" in log
        paid = [
            text for text in asked(server) if "about to be summarised" in text or "Summarise the transcript" in text
        ]
        steps = gateway.sql("SELECT count(*) FROM steps WHERE kind = 'compaction' AND input_tokens > 0")
        assert steps[0][0] == len(paid) > 0


def test_a_summary_that_fails_is_not_asked_for_again_at_every_step_of_the_run(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(text="NOTHING", match=Match(text="about to be summarised"), times=0),
        Reply(text="Too short.", match=Match(text="Summarise the transcript"), times=0),
        Reply(text="Understood.", match=Match(text="Part"), times=0),
        *(Reply(calls=[Call("list_files", {"path": "."})]) for _ in range(3)),
        Reply(text="Listed.", times=0),
    )
    home = make_home("webster")
    use_models(home, server)
    small_window(home)
    with running(home, "webster") as (gateway,):
        talk(gateway, 6)
        before = sum("Summarise the transcript" in text for text in asked(server))
        run = gateway.result(gateway.delegate("List them three times.", session_key=SESSION))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "Listed.")
        assert sum("Summarise the transcript" in text for text in asked(server)) == before + 1


def test_what_compaction_asks_is_paid_out_of_the_budget_and_a_failed_flush_does_not_prevent_it(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(fault=Fault(status=400, message="no"), match=Match(text="about to be summarised"), times=0),
        Reply(text=SUMMARY, match=Match(text="Summarise the transcript"), times=0),
        Reply(text="Understood.", times=0),
    )
    home = make_home("webster")
    use_models(home, server)
    small_window(home)
    path = home.home.instance_toml("webster")
    path.write_text(path.read_text().replace("[budget]", "[budget]\ndaily_tokens = 10000000", 1))
    with running(home, "webster") as (gateway,):
        talk(gateway, 6)
        assert [m for m in transcript(gateway) if m["role"] == "compaction"]
        ((used,),) = gateway.sql("SELECT sum(input_tokens + output_tokens) FROM steps")
        assert gateway.status().budget.agent.spent_tokens == used


async def test_nothing_is_left_out_of_a_conversation_that_its_window_has_room_for(tmp_path: Path) -> None:
    """600 short messages, and 300,000 characters: neither passes a window of 200,000 tokens."""
    ledger = Ledger(tmp_path / "state.db", "webster")
    ledger.start()
    reader = Reader(tmp_path / "state.db", "webster")
    try:
        for number in range(300):
            new = NewRun(
                new_run_id(), RunSource.HOOK, "Hook", "operator", True, SESSION, f"Part {number}. " + "x" * 990
            )
            await ledger.accept(new)
            (run,) = await ledger.claim(1, 1)
            await ledger.steps.add_user_message(run, b'[{"type":"text","text":"noted"}]')
            await ledger.finish(run.run_id, Ending(RunState.SUCCEEDED))
        compactor = Compactor(
            ledger, reader, cast(Any, None), window=lambda: 200_000, checkpoint=lambda run: "", memory=lambda: None
        )
        messages = compactor.load(run)
        assert len(messages) == 600
        assert "Part 0." in messages[0].text
    finally:
        reader.close()
        ledger.close()


def test_one_long_exchange_does_not_bring_back_everything_before_it() -> None:
    rows = [
        StoredMessage(1, "user", '[{"type":"text","text":"old"}]', "r1"),
        StoredMessage(2, "assistant", '[{"type":"text","text":"yes"}]', "r1"),
        StoredMessage(3, "user", '[{"type":"text","text":"new"}]', "r2"),
        StoredMessage(4, "assistant", '[{"type":"tool_call","id":"a","name":"read","arguments":{}}]', "r2"),
        StoredMessage(
            5,
            "user",
            '[{"type":"tool_result","id":"a","name":"read","content":"' + "x" * HISTORY_CHARS + '","is_error":false}]',
            "r2",
        ),
        StoredMessage(6, "assistant", '[{"type":"text","text":"read it"}]', "r2"),
    ]
    messages = load_messages(rows, "r2")
    assert [m.text for m in messages if "old" in m.text] == []
    assert "2 earlier messages" in messages[0].text


def test_an_overflow_that_the_model_reports_is_mended_once(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(text="NOTHING", match=Match(text="about to be summarised"), times=0),
        Reply(text=SUMMARY, match=Match(text="Summarise the transcript"), times=0),
        Reply(text="First.", match=Match(text="Part 0.")),
        Reply(fault=Fault(status=400, message="The input token count exceeds the maximum number of tokens allowed")),
        Reply(text="After the mend.", times=0),
    )
    home = make_home("webster")
    use_models(home, server)
    with running(home, "webster") as (gateway,):
        path = home.home.instance_toml("webster")
        path.write_text(path.read_text().replace("[model]", "[model]\ncontext_tokens = 60000", 1))
        gateway.post("/control/reload", {})
        talk(gateway, 1)
        big = "word " * 14_000
        run = gateway.result(gateway.delegate(f"Part 1. {big}", session_key=SESSION))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "After the mend.")
        assert "compaction" in [s.kind for s in run.steps]


@st.composite
def conversations(draw: st.DrawFn) -> list[StoredMessage]:
    rows: list[StoredMessage] = []
    for n in range(draw(st.integers(1, 8))):
        rows.append(StoredMessage(len(rows) + 1, "user", '[{"type":"text"}]' + "x" * draw(st.integers(0, 50)), f"r{n}"))
        for _ in range(draw(st.integers(0, 4))):
            rows.append(StoredMessage(len(rows) + 1, "assistant", '[{"type":"tool_call"}]', f"r{n}"))
            rows.append(StoredMessage(len(rows) + 1, "user", '[{"type":"tool_result"}]' + "y" * 30, f"r{n}"))
        if draw(st.booleans()):
            rows.append(StoredMessage(len(rows) + 1, "assistant", '[{"type":"text"}]', f"r{n}"))
    return rows


@given(conversations(), st.integers(0, 600))
@settings(max_examples=200)
def test_a_cut_never_parts_a_call_from_its_result(rows: list[StoredMessage], keep: int) -> None:
    cut = _cut_at(rows, keep)
    assert 0 <= cut < len(rows)
    assert not rows[cut].has_results
    assert cut == 0 or "tool_call" not in rows[cut - 1].content
