"""A session as a document and as lines, over HTTP and by command."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.conftest import ClusterHome
from tests.gateway.process import running


def test_a_session_is_exported_readably_and_whole(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        key = "agent:webster:desk/with slash"
        run = gateway.result(gateway.delegate("remember ```fences``` too", session_key=key))
        path = "/sessions/agent:webster:desk%2Fwith%20slash"
        status, headers, text = gateway.raw("GET", f"{path}?format=markdown", None, gateway.headers("viewer"))
        assert (status, headers["content-type"]) == (200, "text/markdown; charset=utf-8")
        assert text.startswith(f"# Session `{key}` of webster\n")
        assert f"## {run.run_id}" in text
        assert "### given, " in text
        assert "### webster, " in text
        assert "<details><summary>calls memory_write</summary>\n\n````\n" in text
        assert run.text in text
        status, headers, lines = gateway.raw("GET", f"{path}?format=jsonl", None, gateway.headers())
        assert headers["content-type"] == "application/jsonl; charset=utf-8"
        messages = [json.loads(line) for line in lines.splitlines()]
        assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
        assert gateway.raw("GET", f"{path}?format=xml", None, gateway.headers())[0] == 400
        assert gateway.raw("GET", path, None, gateway.headers())[2]["messages"] == messages
        assert gateway.raw("GET", "/sessions/nobody?format=jsonl", None, gateway.headers())[0] == 404

        assert key in home.cli("sessions", "webster")
        assert run.text in home.cli("sessions", "webster", key)
        for name, begins in (("talk.md", "# Session"), ("talk.jsonl", "{")):
            file = home.folder / name
            assert "wrote" in home.cli("sessions", "webster", key, "--export", str(file))
            assert file.read_text().startswith(begins)
        assert home.json("sessions", "webster", key)["key"] == key


def test_schedules_by_command(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    with running(home, "webster"):
        made = home.json("schedule", "webster", "add", "status", "--cron", "0 9 * * mon-fri", "--tz", "Europe/Berlin")
        assert (made["kind"], made["tz"], made["enabled"]) == ("cron", "Europe/Berlin", True)
        assert made["id"] in home.cli("schedule", "webster")
        assert "off" in home.cli("schedule", "webster", "disable", made["id"])
        assert "next" in home.cli("schedule", "webster", "enable", made["id"])
        assert "is removed" in home.cli("schedule", "webster", "remove", made["id"])
        assert "has no schedules" in home.cli("schedule", "webster", "list")
        refused = home.run("schedule", "webster", "add", "x", "--every", "5s")
        assert refused.returncode == 4
        assert "from 60 s" in refused.stderr
        assert home.run("schedule", "webster", "add").returncode == 2
