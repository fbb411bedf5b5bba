"""Configuration: what the files resolve to, and that each mistake names its file, its line and its mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.registry import AGENTS
from runtime.config import (
    ConfigError,
    Instance,
    Overrides,
    Placements,
    PlacementTable,
    load_cluster,
    load_instance,
    load_overrides,
    load_placements,
    parse_duration,
    parse_quiet,
    save_overrides,
    save_placements,
    split_model,
)
from runtime.home import Home, shipped_instances

CLUSTER = """name = "test"
[agents.webster]
port = 20000
[agents.manager]
port = 20004
"""
INSTANCE = """[agent]
title = "Webster"
[model]
primary = "anthropic/claude-opus-4-6"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    home.cluster_toml.write_text(CLUSTER)
    for agent in ("webster", "manager"):
        home.instance(agent).mkdir(parents=True)
        home.workspace(agent).mkdir(parents=True)
        home.instance_toml(agent).write_text(INSTANCE)
    return home


def cluster_error(home: Home, text: str) -> str:
    home.cluster_toml.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_cluster(home)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).removeprefix(f"{home.root}/")


def instance(home: Home, more: str = "") -> Instance:
    home.instance_toml("webster").write_text(INSTANCE + more)
    return load_instance(load_cluster(home), "webster")


def instance_error(home: Home, more: str) -> str:
    with pytest.raises(ConfigError) as caught:
        instance(home, more)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).removeprefix(f"{home.root}/instances/webster/")


class TestCluster:
    def test_the_shipped_one_loads(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        home.cluster_toml.write_text((shipped_instances() / "cluster.toml").read_text())
        cluster = load_cluster(home)
        assert {spec.name: spec.port for spec in cluster.agents.values()} == {e.name: e.port for e in AGENTS}
        assert len(cluster.enabled) == 8

    def test_the_registry_gives_the_port_that_is_not_written(self, home: Home) -> None:
        home.cluster_toml.write_text("[agents.webster]\n")
        assert load_cluster(home).agent("webster").port == 18828

    def test_a_few_agents_need_not_restate_the_shipped_rules(self, home: Home) -> None:
        home.cluster_toml.write_text("[agents.webster]\n[agents.tech-lead]\n")
        authority = load_cluster(home).authority
        assert authority.verdict("tech-lead", "webster").allowed
        assert not authority.verdict("webster", "tech-lead").allowed

    def test_a_byte_order_mark_does_no_harm(self, home: Home) -> None:
        home.cluster_toml.write_text("\ufeff" + CLUSTER, encoding="utf-8")
        assert load_cluster(home).name == "test"

    @pytest.mark.parametrize(
        ("text", "begins", "says"),
        [
            ("nmae = 'x'\n", "cluster.toml:1:", "did you mean `name`?"),
            (
                CLUSTER + "prot = 1\n",
                "cluster.toml:6:",
                "unknown field `prot` in `agents.manager`; did you mean `port`?",
            ),
            (CLUSTER + "[models]\nprofile = 'offlin'\n", "cluster.toml:7:", "expected one of: offline, live"),
            ("[models]\noffline_model = 'offline/x'\n", "cluster.toml:2:", "offline/retrieval, offline/echo"),
            (CLUSTER + "[providers.antropic]\n", "cluster.toml:6:", "did you mean `anthropic`?"),
            ("[agents.webster]\nport = 20000\n[agents.manager]\nport = 20003\n", "cluster.toml:4:", "overlaps webster"),
            ("[agents.webster]\nport = 20000\n[agents.manager]\nport = 20000\n", "cluster.toml:4:", "overlaps webster"),
            ("[agents.webster]\nport = 18796\n", "cluster.toml:2:", "which is kept for orchestrator"),
            ("[agents.webster]\nport = 18828\n[agents.new]\nport = 18831\n", "cluster.toml:4:", "overlaps webster"),
            ("[agents.webster]\nenabled = true\nport = 32768\n", "cluster.toml:3:", "outside 1024-32767"),
            ("[agents.webster]\nport = 32766\n", "cluster.toml:2:", "32769 is outside"),
            ("[agents.webster]\nport = true\n", "cluster.toml:2:", "expected `int | null`, got `bool`"),
            ("[agents.nobody]\n", "cluster.toml:1:", "needs `port` in [agents.nobody]"),
            ("[agents.Webster]\n", "cluster.toml:1:", "lower-case letters"),
            ("[agents.operator]\nport = 20000\n", "cluster.toml:1:", "reserved"),
            (CLUSTER + "[authority]\nmanager = ['webstr']\n", "cluster.toml:7:", "'webstr', which is no agent"),
            (CLUSTER + "[budget]\ndaily_usd = 'much'\n", "cluster.toml:7:", "field `budget.daily_usd`"),
            ("name = \n", "cluster.toml:1:", "not valid TOML"),
        ],
    )
    def test_a_mistake_names_file_line_and_mend(self, home: Home, text: str, begins: str, says: str) -> None:
        error = cluster_error(home, text)
        assert error.startswith(begins), error
        assert says in error

    def test_text_that_is_not_utf_8_is_said(self, home: Home) -> None:
        home.cluster_toml.write_bytes(b'name = "caf\xe9"\n')
        with pytest.raises(ConfigError, match=r"cluster\.toml: not UTF-8 text \(byte 11\)"):
            load_cluster(home)

    def test_an_unknown_agent_is_answered_with_the_nearest(self, home: Home) -> None:
        with pytest.raises(ConfigError, match="did you mean webster"):
            load_cluster(home).agent("webstr")


class TestInstance:
    def test_defaults_are_those_of_the_reference(self, home: Home) -> None:
        loaded = instance(home)
        assert loaded.file.limits.concurrent_runs == 4
        assert loaded.workspace == home.workspace("webster")

    @pytest.mark.parametrize("agent", [str(entry.name) for entry in AGENTS])
    def test_every_shipped_one_loads(self, tmp_path: Path, agent: str) -> None:
        home = Home(tmp_path)
        home.cluster_toml.write_text((shipped_instances() / "cluster.toml").read_text())
        home.instance(agent).mkdir(parents=True)
        home.workspace(agent).mkdir(parents=True)
        home.instance_toml(agent).write_text((shipped_instances() / agent / "instance.toml").read_text())
        assert load_instance(load_cluster(home), agent).file.model.fallbacks

    @pytest.mark.parametrize(
        ("more", "line", "says"),
        [
            ("fallback = []\n", 5, "did you mean `fallbacks`?"),
            ("thinking = 'deep'\n", 5, "off, low, medium, high"),
            ("fallbacks = ['claude']\n", 5, "write provider/model"),
            ("max_output_tokens = 0\n", 5, ">= 1"),
            ("[heartbeat]\nevery = '30'\n", 6, "write a number with s, m, h or d"),
            ("[heartbeat]\nquiet = '22-07'\n", 6, "write `22:00-07:00`"),
            ("[heartbeat]\nquiet = '22:00-24:30'\n", 6, "write `22:00-07:00`"),
            ("[heartbeat]\ntz = 'Mars/Olympus'\n", 6, "not a time zone"),
            ("[heartbeat]\ntarget = '123456789012345678'\n", 6, "write provider:kind:id"),
            ("[discord]\nhome = 'discord:channel:general'\n", 6, "is not a discord channel id"),
            ("[limits]\nconcurrent_runs = 99\n", 6, "<= 16"),
            ("[limits]\nrun_timeout = '0m'\n", 6, "leaves a run no time"),
            ("[limits]\nlog_level = 'loud'\n", 6, "debug, info, warning, error"),
            ("[tols]\n", 5, "did you mean `tools`?"),
        ],
    )
    def test_a_mistake_names_file_line_and_mend(self, home: Home, more: str, line: int, says: str) -> None:
        error = instance_error(home, more)
        assert error.startswith(f"instance.toml:{line}:"), error
        assert says in error

    def test_a_missing_file_says_what_to_do(self, home: Home) -> None:
        home.instance_toml("webster").unlink()
        with pytest.raises(ConfigError, match=r"instance\.toml: missing; restore it, or remove \[agents\.webster\]"):
            load_instance(load_cluster(home), "webster")

    def test_a_relative_workspace_is_within_the_home(self, home: Home) -> None:
        (home.root / "elsewhere").mkdir()
        text = INSTANCE.replace("[model]", 'workspace = "elsewhere"\n[model]')
        home.instance_toml("webster").write_text(text)
        assert load_instance(load_cluster(home), "webster").workspace == home.root / "elsewhere"

    def test_a_missing_workspace_is_said(self, home: Home) -> None:
        home.workspace("webster").rmdir()
        with pytest.raises(ConfigError, match="the workspace of webster is missing"):
            load_instance(load_cluster(home), "webster")


class TestOverrides:
    def test_none_written_are_none_in_force(self, home: Home) -> None:
        assert load_overrides(home, "webster") == Overrides()

    @given(
        st.builds(
            Overrides,
            enabled=st.none() | st.booleans(),
            model=st.none() | st.text(st.characters(codec="utf-8"), max_size=30),
            heartbeat_enabled=st.none() | st.booleans(),
            heartbeat_every_seconds=st.none() | st.floats(1, 1e6),
        )
    )
    def test_they_survive_the_file(self, tmp_path_factory: pytest.TempPathFactory, overrides: Overrides) -> None:
        home = Home(tmp_path_factory.getbasetemp() / "overrides")
        home.instance("webster").mkdir(parents=True, exist_ok=True)
        save_overrides(home, "webster", overrides)
        assert load_overrides(home, "webster") == overrides

    def test_they_win_over_the_human_file_which_stays_as_it_is(self, home: Home) -> None:
        save_overrides(home, "webster", Overrides(enabled=False, model="offline/echo"))
        cluster = load_cluster(home)
        assert [spec.name for spec in cluster.enabled] == ["manager"]
        assert load_instance(cluster, "webster").overrides.model == "offline/echo"
        assert home.cluster_toml.read_text() == CLUSTER

    def test_a_damaged_one_names_its_file_and_line(self, home: Home) -> None:
        home.overrides_toml("webster").write_text("modle = 'x'\n")
        with pytest.raises(ConfigError, match=r"overrides\.toml:1: unknown field `modle`; did you mean `model`"):
            load_cluster(home)
        home.overrides_toml("webster").write_bytes(b"\xff")
        with pytest.raises(ConfigError, match=r"overrides\.toml: not UTF-8"):
            load_cluster(home)


class TestPlacements:
    def test_added_agents_stand_beside_the_human_ones(self, home: Home) -> None:
        added = Placements(agents={"analyst": PlacementTable(port=20008)})
        save_placements(home, added)
        assert load_placements(home) == added
        assert list(load_cluster(home).agents) == ["webster", "manager", "analyst"]

    def test_the_human_file_wins_where_both_place_one(self, home: Home) -> None:
        save_placements(home, Placements(agents={"webster": PlacementTable(port=21000)}))
        assert load_cluster(home).agent("webster").port == 20000

    def test_a_removed_one_is_gone_though_the_file_and_a_rule_name_it(self, home: Home) -> None:
        home.cluster_toml.write_text(CLUSTER + "[authority]\nmanager = ['webster']\n")
        save_placements(home, Placements(removed=["webster"]))
        assert list(load_cluster(home).agents) == ["manager"]

    def test_a_mistake_in_them_names_them(self, home: Home) -> None:
        save_placements(home, Placements(agents={"analyst": PlacementTable()}))
        with pytest.raises(ConfigError, match=r"placements\.toml: analyst is not in the shipped registry"):
            load_cluster(home)


class TestWords:
    @given(st.integers(0, 10**6), st.sampled_from("smhd"))
    def test_durations(self, number: int, unit: str) -> None:
        assert parse_duration(f" {number}{unit} ") == number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]

    @pytest.mark.parametrize("text", ["", "30", "m", "-1m", "1 week", "1e3s", "30m 5s", "inf", "nan s"])
    def test_no_durations(self, text: str) -> None:
        with pytest.raises(ValueError, match="not a duration"):
            parse_duration(text)

    @given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 23), st.integers(0, 59))
    def test_quiet_hours(self, h1: int, m1: int, h2: int, m2: int) -> None:
        assert parse_quiet(f"{h1:02}:{m1:02}-{h2:02}:{m2:02}") == (h1 * 60 + m1, h2 * 60 + m2)

    def test_quiet_until_midnight(self) -> None:
        assert parse_quiet("22:00-24:00") == (1320, 1440)

    @pytest.mark.parametrize(
        "text", ["", "22:00", "22-07", "24:00-07:00", "22:60-07:00", "22:00-24:01", "22:00-07:00\n"]
    )
    def test_no_quiet_hours(self, text: str) -> None:
        with pytest.raises(ValueError, match=re.escape("write `22:00-07:00`")):
            parse_quiet(text)

    def test_models_have_two_parts(self) -> None:
        assert split_model("google/models/x") == ("google", "models/x")
        for text in ("", "x", "/x", "x/"):
            with pytest.raises(ValueError, match="write provider/model"):
                split_model(text)
