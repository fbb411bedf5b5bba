"""A run exported as one file is gone through again, offline, and a change in what would be asked is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import running
from tests.standins.models.script import Call, Reply

MakeHome = Callable[..., ClusterHome]


def test_an_exported_run_replays_step_by_step_and_differences_are_named(make_home: MakeHome, tmp_path: Path) -> None:
    server = ModelProcess(
        tmp_path,
        Reply(text="The first answer."),
        Reply(
            text="Let me look. ",
            calls=[
                Call("read_file", {"path": "SOUL.md"}, id="a"),
                Call("read_file", {"path": "missing.md"}, id="b"),
                Call("memory_write", {"text": "a fact"}, id="c"),
            ],
        ),
        Reply(text="All read and noted."),
    )
    try:
        home = make_home("webster")
        use_models(home, server)
        with running(home, "webster") as (gateway,):
            gateway.result(gateway.delegate("Say something first.", session_key="agent:webster:main"))
            run_id = gateway.delegate("Read and note.", session_key="agent:webster:main")
            assert gateway.result(run_id).state is RunState.SUCCEEDED
            file = tmp_path / "run.json"
            home.cli("run", "export", run_id, "-o", str(file))
        assert file.stat().st_mode & 0o777 == 0o600
        notes = home.home.workspace("webster") / "memory"
        before = {p.name: p.read_text() for p in notes.glob("*.md")}
        told = home.run("run", "replay", str(file), "--prompt")
        assert told.returncode == 0, told.stderr
        assert "2. model google/gemini-3.8-flash: All read and noted." in told.stdout
        assert "calls memory_write" in told.stdout
        assert "there is no file" in told.stdout
        assert "the same as recorded" in told.stdout
        assert {p.name: p.read_text() for p in notes.glob("*.md")} == before

        soul = home.home.workspace("webster") / "SOUL.md"
        soul.write_text(soul.read_text() + "\nNever guess.\n")
        changed = home.run("run", "replay", str(file), "--prompt")
        assert changed.returncode == 1
        assert "+Never guess." in changed.stderr

        recording = json.loads(file.read_text())
        recording["conversation"][1]["content"] = [{"type": "text", "text": "Another way."}]
        file.write_text(json.dumps(recording))
        other = home.run("run", "replay", str(file))
        assert other.returncode == 1
        assert "diverged" in other.stderr
        file.write_text("{}")
        assert home.run("run", "replay", str(file)).returncode == 2
    finally:
        server.close()


def test_a_failed_run_replays_to_its_failure_and_one_under_way_is_not_exported(make_home: MakeHome) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        held = gateway.delegate("remember nothing", wake_mode="next-heartbeat")
        status, _, body = gateway.raw("GET", f"/hooks/runs/{held}/recording", None, gateway.headers())
        assert (status, body["error"]["code"]) == (409, "not_ended")
        assert gateway.raw("GET", "/hooks/runs/run-0000/recording", None, gateway.headers())[0] == 404
