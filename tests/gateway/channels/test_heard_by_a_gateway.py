"""Hearing through a real gateway with discord.py, against the stand-in: mentions, strangers, files, and kills."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocols.approvals import ApprovalList
from runtime.secrets import Secrets
from tests.chaos.deaths import DyingGateway
from tests.conftest import ClusterHome
from tests.gateway.models.images import PNG
from tests.standins.discord import DiscordProcess


class Webster:
    """A gateway whose bot is in the stand-in's guild; it may die at a commit."""

    def __init__(self, home: ClusterHome, discord: DiscordProcess, instance_toml: str = "") -> None:
        self.home = home
        self.discord = discord
        self.world = discord.furnish(["webster"])
        toml = f'[discord]\nguild = "{self.world["guild"]}"\n'
        toml += f'api_base = "{discord.api_base}"\ngateway_url = "{discord.gateway_url}"\n'
        path = home.home.cluster_toml
        path.write_text(path.read_text() + toml)
        instance = home.home.instance_toml("webster")
        instance.write_text(instance.read_text() + f"\n[discord]\n{instance_toml}\n")
        Secrets(home.home).set("webster", "discord", self.world["bots"]["webster"]["token"])
        self.gateway = DyingGateway(home)

    @property
    def id(self) -> str:
        return str(self.world["bots"]["webster"]["id"])

    def start(self, number: int = 0, when: str = "after") -> None:
        """Until it is connected, or has died at its `number`th commit."""
        self.gateway.arm(number, when) if number else self.gateway.disarm()
        self.gateway.spawn()
        until = time.monotonic() + 30
        while not self.gateway.dead and not self.connected():
            assert time.monotonic() < until, self.gateway.output()
            time.sleep(0.02)

    def connected(self) -> bool:
        try:
            return self.gateway.status().channels[0].state == "ready"
        except Exception:  # not up yet, or dead
            return False

    def mention(self, channel: str, text: str, **files: str) -> str:
        return str(self.discord.say(channel, "antoine", text, mentions=["webster"], attachments=files or None))

    def runs(self, message_id: str) -> list[tuple[str, str]]:
        """(state, message) of each run for a message."""
        return self.gateway.sql("SELECT state, message FROM runs WHERE idempotency_key = ?", f"discord:{message_id}")

    def answers(self, channel: str) -> list[str]:
        return [str(text) for text in self.discord.view.texts(channel, self.id)]


@pytest.fixture
def webster(
    make_home: Callable[..., ClusterHome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Webster]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with DiscordProcess() as discord:
        made = Webster(make_home("webster"), discord, getattr(request, "param", ""))
        yield made
        made.gateway.close()


def test_the_words_of_a_mention_are_the_request(webster: Webster) -> None:
    webster.start()
    webster.discord.say("research", "antoine", "the mirror is 2.4 m")
    said = webster.mention("research", "remember that the flange is 40 mm")
    until(lambda: webster.runs(said) == [("succeeded", "remember that the flange is 40 mm")])
    webster.discord.wait_for(lambda view: view.texts("research", webster.id))
    assert "the flange is 40 mm" in webster.gateway.notes()
    [(content,)] = webster.gateway.sql("SELECT content FROM messages WHERE role = 'user' ORDER BY seq LIMIT 1")
    assert "the mirror is 2.4 m" in content, "what was said before stands beside it"


def test_a_file_and_an_image_come_in(webster: Webster) -> None:
    webster.start()
    picture = f"base64:{base64.b64encode(PNG).decode()}"
    said = webster.mention("research", "look", **{"loads.csv": "node,N\n1,40\n", "plot.png": picture})
    until(lambda: webster.runs(said) == [("succeeded", "look")])
    kept = sorted(path.name for path in (webster.home.home.workspace("webster") / "inbox").rglob("*.*"))
    assert [re.sub(r"-\d+", "", name) for name in kept] == ["loads.csv", "plot.png"]
    [(content,)] = webster.gateway.sql("SELECT content FROM messages WHERE role = 'user' ORDER BY seq LIMIT 1")
    assert "node,N" in content
    assert '"type":"image"' in content


def test_a_stranger_is_let_in_by_the_command_line_and_made_a_stranger_again(webster: Webster) -> None:
    webster.start()
    direct = webster.discord.dm_channel("antoine", "webster")
    first = webster.discord.dm("antoine", "webster", "remember that I am Antoine")
    (told,) = webster.discord.wait_for(lambda view: view.texts(direct, webster.id))
    (question,) = webster.gateway.ask.get("/approvals", ApprovalList).approvals
    code = re.search(r"`(\w{4}-\w{4})`", told)
    assert code
    assert question.question.startswith(f"pairing: code {code[1]}: may ")
    assert code[1] in webster.home.cli("approvals")
    assert webster.runs(first) == []
    webster.home.cli("approvals", "approve", question.id)
    until(lambda: webster.runs(first) == [("succeeded", "remember that I am Antoine")])
    person = f"discord:user:{webster.world['people']['antoine']}"
    assert person in webster.home.cli("pairings")
    assert "not paired any more" in webster.home.cli("pairings", "webster", "remove", person)
    assert webster.home.json("pairings", "webster")["pairings"] == {"webster": []}
    webster.discord.dm("antoine", "webster", "and now?")
    webster.discord.wait_for(lambda view: "I do not know you yet" in view.texts(direct, webster.id)[-1])


def test_an_edit_and_a_deletion_count_while_the_run_waits(webster: Webster) -> None:
    webster.start()
    webster.gateway.ask.send("POST", "/control/drain", {}, dict)
    said = webster.mention("research", "remember teh load")
    gone = webster.mention("research", "never mind")
    until(lambda: len(webster.runs(said)) == len(webster.runs(gone)) == 1)
    webster.discord.edit(said, f"<@{webster.id}> remember the load")
    webster.discord.delete(gone)
    until(lambda: webster.runs(said) == [("queued", "remember the load")])
    until(lambda: webster.runs(gone) == [("cancelled", "never mind")])


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("webster", ['dm = "off"'], indirect=True)
def test_a_kill_at_any_commit_leaves_one_run_for_each_message(webster: Webster, when: str) -> None:
    """It dies before, at or after the acceptance of what it hears, and reads up on it when it is back."""
    webster.start()
    webster.mention("research", "remember warm-up")
    webster.discord.wait_for(lambda view: view.texts("research", webster.id))
    deaths = 0
    for number in range(1, 9):
        assert webster.gateway.stop() == 0
        webster.start(number, when)
        said = webster.mention("research", f"remember fact {number}.")
        patience = time.monotonic() + 6
        while not webster.gateway.dead and time.monotonic() < patience and not settled(webster, number):
            time.sleep(0.02)
        deaths += webster.gateway.dead
        webster.gateway.kill()
        webster.start()
        until(lambda n=number: settled(webster, n))  # type: ignore[misc]
        assert webster.runs(said) == [("succeeded", f"remember fact {number}.")]
        assert webster.gateway.notes().count(f"fact {number}.") == 1
    assert deaths >= 6


def settled(webster: Webster, number: int) -> bool:
    runs = webster.gateway.sql("SELECT state FROM runs WHERE message = ?", f"remember fact {number}.")
    return runs == [("succeeded",)] and len(webster.answers("research")) > number


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
