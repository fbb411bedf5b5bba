"""The Discord stand-in beside the test: in a process or a thread, by the control API."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.ports import Lease
from tests.standins.discord import DiscordProcess, DiscordThread, Remote


def send(server: Remote, token: str, channel: str, text: str) -> Any:
    """What a bot does, without any library."""
    headers = {"Authorization": f"Bot {token}", "Content-Type": "application/json"}
    body = json.dumps({"content": text}).encode()
    with urlopen(Request(f"{server.api_base}/channels/{channel}/messages", body, headers), timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("kind", [DiscordProcess, DiscordThread])
def test_the_same_actions_beside_the_test(kind: type[DiscordProcess] | type[DiscordThread]) -> None:
    with kind() as server:
        world = server.furnish(["webster"])
        token, research = world["bots"]["webster"]["token"], world["channels"]["research"]
        asked = server.say("research", "antoine", "hello", attachments={"a.txt": "text"})
        assert server.view.message(asked)["attachments"][0]["size"] == 4
        later = threading.Timer(0.2, send, (server, token, research, "good day"))
        later.start()
        assert server.wait_for(lambda view: view.texts("research", "webster")) == ["good day"]
        later.join()
        server.fault("POST", "/channels/*/messages", status=503)
        with pytest.raises(URLError):
            send(server, token, research, "refused")
        server.down("rest")
        with pytest.raises(URLError, match="refused"):
            send(server, token, research, "refused")
        server.up("rest")
        send(server, token, research, "back")
        assert server.view.texts("research") == ["hello", "good day", "back"]


def test_a_refusal_is_told_in_words() -> None:
    with DiscordThread() as server:
        server.furnish(["webster"])
        with pytest.raises(AssertionError, match="0 channels are called 'nowhere'"):
            server.say("nowhere", "antoine", "hello")
        with pytest.raises(AssertionError, match=r"not seen within 0\.1 s"):
            server.wait_for(lambda view: view.texts("research"), 0.1)


def test_it_does_not_outlive_who_started_it() -> None:
    program = "from tests.standins.discord import DiscordProcess\nprint(DiscordProcess().pid, flush=True)\ninput()"
    root = Path(__file__).resolve().parents[2]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        watched = os.pidfd_open(child)
        try:
            parent.kill()
            assert select.select([watched], [], [], 20)[0], "it goes on"
        finally:
            os.close(watched)


def test_a_port_of_one_s_own() -> None:
    with Lease() as lease, DiscordProcess(lease.ports[0]) as server:
        assert server.api_base == f"http://127.0.0.1:{lease.ports[0]}/api/v10"
