"""`atomizer discord` as a person types it, against a local Discord. Each test has an agent of its own."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cluster.discord.bot import MOST_REQUESTS
from cluster.discord.needs import PERMISSIONS
from runtime.config import load_cluster
from runtime.home import shipped_instances
from runtime.secrets import Secrets
from tests.cluster.conftest import until
from tests.gateway.channels.land import Land, land
from tests.standins.discord import permissions

AGENTS = (
    "manager",
    "tech-lead",
    "secretary",
    "auditor",
    "optimizer",
    "study-builder",
    "nx-expert",
    "webster",
    "reporter",
    "developer",
    "it",
)
NEEDED = (
    "view_channel",
    "send_messages",
    "send_messages_in_threads",
    "read_message_history",
    "add_reactions",
    "attach_files",
    "embed_links",
)


@pytest.fixture(scope="module")
def here() -> Iterator[Land]:
    with land(*AGENTS) as made:
        yield made


def check(here: Land, agent: str) -> tuple[int, dict[str, Any]]:
    """(exit code, its report)."""
    done = here.home.run("discord", "check", agent, "--json")
    (report,) = json.loads(done.stdout)["agents"]
    return done.returncode, report


def finding(report: dict[str, Any], code: str) -> dict[str, str]:
    """The finding with this code; fails the test if there are none or several."""
    (found,) = [row for row in report["findings"] if row["code"] == code]
    return dict(found)


def codes(report: dict[str, Any], severity: str = "problem") -> set[str]:
    return {row["code"] for row in report["findings"] if row["severity"] == severity}


def place(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [row for row in report["channels"] if row["name"] == name]
    return dict(found)


class TestCheck:
    def test_a_bot_that_is_all_right_ends_with_0_few_requests_and_no_connection(self, here: Land) -> None:
        here.home.cli("discord", "identity", "webster")
        code, report = check(here, "webster")
        assert (code, report["state"], report["token"], report["findings"]) == (0, "ok", "valid", [])
        assert (report["message_content"], report["public"], report["name"], report["picture"]) == (
            True,
            False,
            "ok",
            "ok",
        )
        assert report["guilds"] == [{"id": here.made["guild"], "name": "Atomizer", "member": True}]
        assert {row["state"] for row in report["channels"]} == {"ok"}
        assert report["requests"] == 5 <= MOST_REQUESTS
        assert not here.discord.view.events("identified", "Webster")

    def test_the_invite_asks_for_exactly_what_the_features_need(self, here: Land) -> None:
        _, report = check(here, "webster")
        asked = parse_qs(urlsplit(report["invite"]).query)
        assert asked["scope"] == ["bot applications.commands"]
        assert asked["guild_id"] == [here.made["guild"]]
        assert asked["client_id"] == [here.made["bots"]["webster"]["application_id"]]
        assert int(asked["permissions"][0]) == permissions.bits(*NEEDED)
        here.configure("reporter", threads=True, reactions=False)
        _, report = check(here, "reporter")
        wanted = {*NEEDED, "create_public_threads"} - {"add_reactions"}
        assert set(report["permissions"]) == wanted
        assert int(parse_qs(urlsplit(report["invite"]).query)["permissions"][0]) == permissions.bits(*wanted)

    def test_a_refused_token_is_shown_to_discord_once_and_names_where_to_reset_it(self, here: Land) -> None:
        bot = here.made["bots"]["nx-expert"]["id"]
        here.discord.revoke("nx-expert")
        before = len(here.discord.view.requests())
        code, report = check(here, "nx-expert")
        assert (code, report["token"]) == (1, "refused")
        mend = finding(report, "token_refused")["mend"]
        assert "Reset Token" in mend
        assert "atomizer secrets set nx-expert discord" in mend
        assert [row["status"] for row in here.discord.view.requests()[before:]] == [401]
        assert bot not in json.dumps(report["findings"])
        here.discord.restore("nx-expert")

    def test_a_token_that_cannot_be_one_is_not_shown_to_discord(self, here: Land) -> None:
        token = here.made["bots"]["nx-expert"]["token"]
        (here.home.home.secrets / "nx-expert" / "discord").write_text(f"Bot {token}\n")
        before = len(here.discord.view.requests())
        code, report = check(here, "nx-expert")
        assert (code, report["token"]) == (1, "malformed")
        assert "without that word" in finding(report, "token_malformed")["text"]
        assert len(here.discord.view.requests()) == before
        again = here.home.run("secrets", "set", "nx-expert", "discord", stdin=f"Bot {token}")
        assert (again.returncode, "without that word" in again.stderr) == (78, True)
        Secrets(here.home.home).set("nx-expert", "discord", token)

    def test_one_token_for_two_agents_is_refused_by_name_and_never_shown(self, here: Land) -> None:
        secrets = Secrets(here.home.home)
        token, own = (here.made["bots"][agent]["token"] for agent in ("developer", "it"))
        secrets.set("it", "discord", token)
        done = here.home.run("discord", "check", "developer", "it", "--json")
        reports = {row["agent"]: row for row in json.loads(done.stdout)["agents"]}
        assert done.returncode == 1
        assert "same token as it" in finding(reports["developer"], "token_shared")["text"]
        assert "same token as developer" in finding(reports["it"], "token_shared")["text"]
        assert token not in done.stdout
        secrets.set("it", "discord", own)
        taken = here.home.run("secrets", "set", "it", "discord", stdin=token)
        assert (taken.returncode, secrets.get("it", "discord")) == (4, own)
        assert "the token of developer" in taken.stderr

    def test_an_agent_without_a_bot_is_a_problem_only_if_it_is_named(self, here: Land) -> None:
        path = here.home.home.secrets / "it" / "discord"
        token = path.read_text()
        path.unlink()
        named, report = check(here, "it")
        everybody = json.loads(here.home.run("discord", "check", "--json").stdout)
        path.write_text(token)
        assert (named, report["state"], report["token"]) == (1, "problem", "none")
        assert "atomizer secrets set it discord" in finding(report, "no_token")["mend"]
        assert {row["agent"]: row["state"] for row in everybody["agents"]}["it"] == "off"
        assert [row["agent"] for row in everybody["agents"]] == list(AGENTS)

    def test_the_message_content_intent_is_named_with_its_switch(self, here: Land) -> None:
        here.discord.set_message_content("manager", False)
        code, report = check(here, "manager")
        here.discord.set_message_content("manager", True)
        assert (code, report["message_content"]) == (1, False)
        mend = finding(report, "message_content")["mend"]
        assert "Message Content Intent" in mend
        assert f"/applications/{report['application_id']}/bot" in mend

    def test_a_bot_that_is_in_no_server_gets_its_link(self, here: Land) -> None:
        here.discord.leave_guild("optimizer")
        done = here.home.run("discord", "check", "optimizer")
        here.discord.join_guild("optimizer")
        assert done.returncode == 1
        assert f"is not in the server {here.made['guild']}" in done.stdout
        assert "\nhttps://discord.com/oauth2/authorize?client_id=" in done.stdout
        assert "oauth2" not in here.home.run("discord", "check", "optimizer").stdout

    def test_missing_permissions_are_named_with_where_they_are_taken(self, here: Land) -> None:
        extra = here.discord.add_channel("lab", category="labs")
        here.configure("secretary", channels=[extra, "research"], home=f"discord:channel:{extra}")
        here.discord.overwrite(extra, "@everyone", deny=["send_messages"])
        here.discord.overwrite(here.channel("research"), "secretary", deny=["add_reactions", "embed_links"])
        code, report = check(here, "secretary")
        assert code == 1
        assert place(report, "lab")["missing"] == ["send_messages"]
        assert place(report, "lab")["uses"] == ["hears", "home"]
        assert place(report, "research")["missing"] == ["add_reactions", "embed_links"]
        texts = [row["text"] for row in report["findings"] if row["code"] == "permission"]
        assert "may not Send Messages in #lab: taken from @everyone in its settings" in texts
        assert "may not Add Reactions, Embed Links in #research: taken from secretary in its settings" in texts
        here.discord.overwrite(here.channel("research"), "secretary")

    def test_the_role_or_category_that_takes_a_permission_is_named(self, here: Land) -> None:
        role = here.discord.add_role("quiet ones", [])
        here.discord.give_role("study-builder", role)
        there = here.discord.add_channel("yard", category="outside")
        above = next(row["id"] for row in here.discord.view.data["channels"] if row["name"] == "OUTSIDE")
        for ident in (there, above):
            here.discord.overwrite(ident, role, deny=["attach_files"])
        here.configure("study-builder", channels=[there])
        _, report = check(here, "study-builder")
        found = finding(report, "permission")
        assert found["text"] == "may not Attach Files in #yard: taken from the role quiet ones in the category OUTSIDE"
        assert "Edit Category" in found["mend"]

    def test_what_no_role_gives_is_told_once_for_all_channels(self, here: Land) -> None:
        here.configure("auditor", threads=True)
        everyone = [name for name in permissions.BITS if permissions.EVERYONE & permissions.bits(name)]
        here.discord.set_role("@everyone", [name for name in everyone if name != "create_public_threads"])
        code, report = check(here, "auditor")
        here.discord.set_role("@everyone", everyone)
        assert code == 1
        found = finding(report, "role_permission")
        assert found["text"].startswith("may not Create Public Threads in #command-center, ")
        assert found["text"].endswith(": none of its roles may")
        assert "invite link" in found["mend"]

    def test_a_channel_open_to_all_agents_may_be_kept_from_one(self, here: Land) -> None:
        here.discord.overwrite(here.channel("projects"), "tech-lead", deny=["view_channel"])
        code, report = check(here, "tech-lead")
        here.discord.overwrite(here.channel("projects"), "tech-lead")
        assert (code, place(report, "projects")["state"]) == (0, "hidden")
        assert codes(report) == set()

    def test_a_channel_that_does_not_exist_is_named(self, here: Land) -> None:
        here.configure("it", home="discord:channel:123456789012345678")
        code, report = check(here, "it")
        assert code == 1
        assert "the channel 123456789012345678" in finding(report, "no_channel")["text"]
        assert "atomizer discord channels" in finding(report, "no_channel")["mend"]

    def test_closed_slash_commands_and_a_public_bot_are_warnings(self, here: Land) -> None:
        there = here.discord.add_channel("plain")
        here.discord.overwrite(there, "@everyone", deny=["use_application_commands"])
        here.configure("developer", channels=[there])
        app = {"id": "1", "name": "x", "icon": None, "description": "", "verify_key": "", "bot_public": True}
        owner = {"id": "2", "username": "o", "discriminator": "0", "avatar": None}
        body = app | {"bot_require_code_grant": True, "flags": 1 << 19, "owner": owner, "rpc_origins": []}
        bot = here.made["bots"]["developer"]["id"]
        here.discord.fault("GET", "/oauth2/applications/@me", "developer", status=200, body=body | {"id": bot})
        code, report = check(here, "developer")
        assert code == 1
        assert {"public", "people_commands"} <= codes(report, "warning")
        assert "#plain" in finding(report, "people_commands")["text"]
        assert codes(report) == {"code_grant"}

    def test_an_administrator_has_more_than_it_needs(self, here: Land) -> None:
        here.discord.give_role("nx-expert", here.discord.add_role("boss", ["administrator"]))
        code, report = check(here, "nx-expert")
        assert (code, "is Administrator of Atomizer" in finding(report, "administrator")["text"]) == (0, True)

    def test_several_people_in_one_conversation_are_a_warning(self, here: Land) -> None:
        here.configure("reporter", users=["223456789012345678"])
        _, report = check(here, "reporter")
        assert "2 people share one conversation" in finding(report, "one_session")["text"]
        assert 'dm_session = "person"' in finding(report, "one_session")["mend"]

    @pytest.mark.parametrize(
        ("fault", "code", "requests"),
        [
            ({"status": 503}, "discord_down", 1),
            ({"status": 502}, "discord_down", 1),
            ({"cut": "close"}, "unreachable", 1),
            ({"status": 429, "via": False}, "rate_limited", 1),
            ({"status": 429, "retry_after": 600.0}, "rate_limited", 1),
            ({"status": 200, "body": {"name": "no Discord"}}, "malformed", 1),
        ],
        ids=["503", "502", "cut", "banned", "limited", "malformed"],
    )
    def test_what_discord_does_wrong_is_told_and_not_tried_again(
        self, here: Land, fault: dict[str, Any], code: str, requests: int
    ) -> None:
        here.discord.fault("GET", "/users/@me", "manager", times=0, **fault)
        try:
            exit_code, report = check(here, "manager")
        finally:
            here.discord.clear_faults()
        assert (exit_code, report["token"], codes(report)) == (1, "unknown", {code})
        assert report["requests"] == requests

    def test_the_table_fits_80_columns_and_only_links_are_longer(self, here: Land) -> None:
        lines = here.home.run("discord", "check").stdout.splitlines()
        assert lines[0].split() == ["AGENT", "BOT", "INTENT", "CHANNELS", "NAME", "PICTURE"]
        assert [line for line in lines if len(line) > 79 and not line.startswith("https://")] == []


def test_the_page_says_what_each_permission_is_for() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "discord.md").read_text()
    table = page[page.index("| permission | for |") :].partition("\n\n")[0]
    named = {name.strip() for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")}
    assert named == {PERMISSIONS[name] for name in (*NEEDED, "create_public_threads")}


class TestIdentity:
    def test_it_sets_name_and_picture_once(self, here: Land) -> None:
        here.discord.no_limits()
        dry = here.home.cli("discord", "identity", "tech-lead", "--dry-run")
        assert dry == "tech-lead: would be called Tech Lead instead of tech-lead; would get its picture\n"
        assert not here.discord.view.events("identity", "tech-lead")
        first = here.home.cli("discord", "identity", "tech-lead")
        assert first == "tech-lead: is now called Tech Lead instead of tech-lead; has its picture now\n"
        changes = len(here.discord.view.requests("PATCH", "/users/@me"))
        again = here.home.cli("discord", "identity", "tech-lead")
        assert again == "tech-lead: is called Tech Lead already; has its picture already\n"
        assert len(here.discord.view.requests("PATCH", "/users/@me")) == changes

    def test_an_agents_own_picture_wins_and_a_change_elsewhere_shows(self, here: Land) -> None:
        here.home.cli("discord", "identity", "manager")
        own = here.home.home.instance("manager") / "avatar.png"
        own.write_bytes((shipped_instances() / "auditor" / "avatar.png").read_bytes())
        _, report = check(here, "manager")
        assert report["picture"] == "differs"
        assert "has its picture now in place of another" in here.home.cli("discord", "identity", "manager")
        _, report = check(here, "manager")
        assert report["picture"] == "ok"
        own.unlink()
        (here.home.home.instance("manager") / "discord-identity.json").unlink()
        _, report = check(here, "manager")
        assert report["picture"] == "unknown"

    @pytest.mark.parametrize(
        ("field", "said", "told"),
        [
            ("username", "You are changing your username too fast. Try again later.", "twice an hour"),
            ("username", "Too many users have this username, please try another.", "choose another"),
            ("avatar", "You are changing your avatar too fast. Try again later.", "picture can be changed"),
        ],
    )
    def test_a_refused_change_is_told_in_words(self, here: Land, field: str, said: str, told: str) -> None:
        errors = {field: {"_errors": [{"code": "X", "message": said}]}}
        body = {"code": 50035, "message": "Invalid Form Body", "errors": errors}
        skip = 0 if field == "username" else 1
        here.discord.fault("PATCH", "/users/@me", "auditor", skip=skip, status=400, body=body)
        if field == "avatar":
            here.discord.fault("PATCH", "/users/@me", "auditor", status=200, body=here_user(here, "auditor"))
        done = here.home.run("discord", "identity", "auditor", "--json")
        here.discord.clear_faults()
        (row,) = json.loads(done.stdout)["agents"]
        assert done.returncode == 1
        assert len(row["failed"]) == 1
        assert told in row["failed"][0]

    def test_a_name_that_discord_does_not_take_is_not_tried(self, here: Land) -> None:
        path = here.home.home.instance_toml("it")
        text = path.read_text()
        path.write_text(text.replace('title = "IT"', 'title = "The Discord people"'))
        done = here.home.run("discord", "identity", "it")
        path.write_text(text)
        assert done.returncode == 1
        assert "contains 'discord'" in done.stdout
        patched = here.discord.view.requests("PATCH", "/users/@me", "it")
        assert len(patched) == 1, "its picture, and no name"


def here_user(here: Land, agent: str) -> dict[str, Any]:
    ident = here.made["bots"][agent]["id"]
    return {"id": ident, "username": "Auditor", "discriminator": "0001", "avatar": None, "bot": True, "verified": True}


def test_a_connected_gateway_shows_its_new_name() -> None:
    with land("webster") as here:
        gateway = here.gateway()
        assert gateway.status().channels[0].name == "webster"
        here.home.cli("discord", "identity")
        until(lambda: gateway.status().channels[0].name == "Webster")


class TestChannels:
    def test_the_block_can_be_pasted_and_keeps_what_the_file_says(self, here: Land) -> None:
        path = here.home.home.cluster_toml
        before = path.read_text()
        ident = here.channel("webster")
        path.write_text(
            before.replace(f'\nwebster = "{ident}"\n', f'\nwebster = {{ id = "{ident}", agents = ["webster"] }}\n')
        )
        try:
            printed = here.home.cli("discord", "channels")
            found = tomllib.loads(printed)["discord"]["channels"]
            assert found["command"]["command-center"] == here.channel("command-center")
            assert found["agents"]["webster"] == {"id": ident, "agents": ["webster"]}
            head = path.read_text().partition("[discord.channels.all]")[0]
            path.write_text(f"{head}{printed}")
            names = [name for group in load_cluster(here.home.home).file.discord.channels.values() for name in group]
            assert set(here.made["channels"]) <= set(names)
        finally:
            path.write_text(before)

    def test_it_works_where_a_channel_is_named_whose_id_is_not_known_yet(self, here: Land) -> None:
        path = here.home.home.cluster_toml
        before = path.read_text()
        head = before.partition("[discord.channels.all]")[0]
        path.write_text(f'{head}log_channel = "agent-logs"\ndelegation_channel = "inter-agent"\n')
        try:
            printed = here.home.cli("discord", "channels")
            refused = here.home.run("status")
            path.write_text(f"{path.read_text()}{printed}")
            assert load_cluster(here.home.home).file.discord.log_channel == "agent-logs"
        finally:
            path.write_text(before)
        assert refused.returncode == 78
        assert "`atomizer discord channels` prints them" in refused.stderr

    def test_two_channels_of_one_name_get_names_of_their_own(self, here: Land) -> None:
        twins = [here.discord.add_channel("twin", category=f"house {n}") for n in (1, 2)]
        found = tomllib.loads(here.home.cli("discord", "channels"))["discord"]["channels"]
        for twin in twins:
            here.discord.delete_channel(twin)
        assert found["house-1"] == {"twin": twins[0]}
        assert found["house-2"] == {f"twin-{twins[1][-4:]}": twins[1]}

    def test_no_name_on_discord_writes_a_line_of_its_own(self, here: Land) -> None:
        made = [here.discord.add_channel("x\nguild = 1", type=15), here.discord.add_channel('a"b\n[budget]')]
        printed = here.home.cli("discord", "channels")
        for ident in made:
            here.discord.delete_channel(ident)
        parsed = tomllib.loads(printed)
        assert set(parsed) == {"discord"}
        assert parsed["discord"]["channels"]["none"]['a"b\n[budget]'] == made[1]
        assert f"# not heard: x guild = 1 (forum) {made[0]}" in printed

    def test_a_server_no_bot_is_in_is_told(self, here: Land) -> None:
        done = here.home.run("discord", "channels", "--guild", "123456789012345678")
        assert done.returncode == 1
        assert "is not in the server 123456789012345678" in done.stderr


def test_what_the_running_gateways_know_is_in_the_report() -> None:
    """Who is paired, and a connection that waits for a person though its token is good by now."""
    with land("webster") as here:
        here.home.cli("start")
        here.discord.add_user("bob")
        here.discord.wait_for(lambda view: view.connected("webster"), 30)
        here.discord.dm("bob", "webster", "hello")
        asked = until(lambda: here.home.json("approvals")["approvals"])
        here.home.cli("approvals", "approve", asked[0]["id"])
        until(lambda: "Bob" in here.home.cli("pairings", "webster"))
        code, report = check(here, "webster")
        assert (code, codes(report)) == (0, set())
        assert "2 people" in finding(report, "one_session")["text"]
        here.discord.revoke("webster")
        until(lambda: "auth_failed" in here.home.cli("status"))
        here.discord.restore("webster")
        code, report = check(here, "webster")
        assert (code, report["token"]) == (1, "valid")
        assert finding(report, "gateway")["mend"] == "atomizer reload webster"
        here.home.cli("stop")


def test_without_any_bot_nothing_is_wrong_and_it_says_where_to_begin(make_home: Any) -> None:
    home = make_home("webster")
    done = home.run("discord", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "docs/discord.md" in done.stderr
    assert "atomizer secrets set AGENT discord" in done.stderr
    assert home.json("discord", "check")["ok"] is True
    assert home.run("discord", "check", "webster").returncode == 1
    done = home.run("discord", "identity")
    assert (done.returncode, "atomizer secrets set webster discord" in done.stderr) == (78, True)
