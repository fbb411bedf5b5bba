"""`[discord]` of both files: what is refused and how, and what an agent listens to."""

from __future__ import annotations

import msgspec
import pytest

from runtime.config_discord import (
    ClusterDiscordTable,
    InstanceDiscordTable,
    check_cluster_discord,
    check_instance_discord,
    ears,
)

GUILD, NX, LAB, OTHER, ANN = (f"1000000000000000{n:02}" for n in range(5))
AGENTS = {"nx-expert", "webster"}


def cluster(**values: object) -> ClusterDiscordTable:
    return msgspec.convert(values, ClusterDiscordTable)


def own(**values: object) -> InstanceDiscordTable:
    return msgspec.convert(values, InstanceDiscordTable)


MAP = {"engineering": {"nx": {"id": NX, "agents": ["nx-expert"], "mention": False}, "lab": LAB}}


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("values", "key", "says"),
        [
            ({"guild": "my server"}, ["guild"], "Copy ID"),
            ({"operators": ["ann"]}, ["operators"], "a user's id"),
            ({"channels": {"a": {"x": "7"}}}, ["channels", "a", "x"], "a channel's id"),
            ({"channels": {"a": {"x": NX}, "b": {"x": LAB}}}, ["channels", "b", "x"], "also in a"),
            ({"channels": {"a": {"x": {"id": NX, "agents": ["webmaster"]}}}}, ["channels", "a", "x"], "no agent"),
            ({"channels": {"a": {"x": {"id": NX, "mention": False}}}}, ["channels", "a", "x"], "one agent"),
            ({"log_channel": "agent-logs"}, ["log_channel"], "no channel"),
            ({"api_base": "http://discord.example/api"}, ["api_base"], "https"),
            ({"api_base": "https://user@discord.example/api"}, ["api_base"], "https"),
            ({"gateway_url": "ws://10.0.0.1/gw"}, ["gateway_url"], "wss"),
        ],
    )
    def test_in_the_cluster_by_key_and_with_the_mend(self, values: object, key: list[str], says: str) -> None:
        ((where, sentence),) = check_cluster_discord(msgspec.convert(values, ClusterDiscordTable), AGENTS)
        assert where == key
        assert says in sentence

    @pytest.mark.parametrize(
        ("values", "key"),
        [
            ({"home": NX}, "home"),
            ({"guilds": ["here"]}, "guilds"),
            ({"users": ["ann"]}, "users"),
            ({"bots": ["other"]}, "bots"),
            ({"channels": ["nix"]}, "channels"),
            ({"free": ["#nix"]}, "free"),
        ],
    )
    def test_in_an_instance(self, values: object, key: str) -> None:
        ((where, _),) = check_instance_discord(msgspec.convert(values, InstanceDiscordTable), cluster(channels=MAP))
        assert where == [key]

    def test_a_local_server_may_be_named_without_tls(self) -> None:
        table = cluster(api_base="http://127.0.0.1:8080/api/v10", gateway_url="ws://localhost:8080/gw")
        assert check_cluster_discord(table, AGENTS) == []


class TestWhatAnAgentHears:
    def test_a_channel_given_to_one_agent_is_not_heard_by_the_others(self) -> None:
        table = cluster(guild=GUILD, channels=MAP)
        assert ears(table, own(), "nx-expert").hears(NX)
        assert not ears(table, own(), "webster").hears(NX)
        assert ears(table, own(), "webster").hears(LAB)
        assert ears(table, own(), "webster").hears(OTHER)

    def test_a_list_of_its_own_leaves_the_rest_out_but_for_what_it_was_given(self) -> None:
        listening = ears(cluster(channels=MAP), own(channels=["#lab"]), "nx-expert")
        assert listening.hears(LAB)
        assert listening.hears(NX)
        assert not listening.hears(OTHER)

    def test_a_thread_is_heard_with_its_channel(self) -> None:
        assert ears(cluster(channels=MAP), own(channels=["lab"]), "webster").hears(OTHER, LAB)

    def test_a_mention_is_needed_but_in_the_channels_named_free(self) -> None:
        listening = ears(cluster(channels=MAP), own(free=["lab"]), "nx-expert")
        assert not listening.needs_mention(NX)
        assert not listening.needs_mention(OTHER, LAB)
        assert listening.needs_mention(ANN)

    def test_the_guild_is_the_clusters_unless_it_names_others(self) -> None:
        assert ears(cluster(guild=GUILD), own(), "webster").guilds == {GUILD}
        assert ears(cluster(guild=GUILD), own(guilds=[OTHER]), "webster").guilds == {OTHER}
