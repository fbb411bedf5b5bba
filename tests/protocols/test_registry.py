"""The registry: who exists, on which ports, and that no two ever meet."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.registry import (
    AGENTS,
    BROWSER_OFFSET,
    PORT_LIMIT,
    ROSTER,
    PortFamily,
    RegistryError,
    check_families,
    check_reserved,
    next_free_family,
    parse_agent_name,
    roster_entry,
)

bases = st.integers(1024, PORT_LIMIT - BROWSER_OFFSET - 1)
DESIGNED = {
    "manager": 18800,
    "tech-lead": 18804,
    "secretary": 18808,
    "auditor": 18812,
    "optimizer": 18816,
    "study-builder": 18820,
    "nx-expert": 18824,
    "webster": 18828,
    "post-processor": 18832,
    "reporter": 18836,
    "developer": 18840,
    "knowledge-base": 18844,
    "it": 18848,
    "orchestrator": 18796,
    "mario": 18789,
}


class TestRoster:
    def test_it_is_the_port_map_of_the_brief(self) -> None:
        assert {str(entry.name): entry.port for entry in ROSTER} == DESIGNED

    def test_its_families_do_not_overlap(self) -> None:
        check_families({str(entry.name): entry.port for entry in ROSTER})

    def test_thirteen_agents_of_which_eight_are_on(self) -> None:
        assert len(AGENTS) == 13
        assert [str(e.name) for e in AGENTS if e.default_on] == list(DESIGNED)[:8]

    def test_every_entry_has_a_name_that_parses_and_a_capability(self) -> None:
        for entry in ROSTER:
            assert parse_agent_name(str(entry.name)) == entry.name
            assert entry.capabilities
            assert roster_entry(str(entry.name)) is entry
        assert roster_entry("nobody") is None


class TestFamilies:
    @given(bases, st.sampled_from([-BROWSER_OFFSET, 0, BROWSER_OFFSET]))
    def test_two_that_overlap_are_refused_and_both_are_named(self, base: int, by: int) -> None:
        other = base + by
        if not 1024 <= other < PORT_LIMIT - BROWSER_OFFSET:
            return
        with pytest.raises(RegistryError) as caught:
            check_families({"first": base, "second": other})
        shared = set(PortFamily(base).ports) & set(PortFamily(other).ports)
        assert re.search(r"second \(ports .*\) overlaps first \(ports .*\)", str(caught.value))
        assert any(f" at {port};" in str(caught.value) for port in shared)

    @given(st.dictionaries(st.text("abc", min_size=1, max_size=4), bases, min_size=1, max_size=12))
    def test_a_set_is_refused_exactly_if_a_port_is_shared(self, ports: dict[str, int]) -> None:
        owned = [port for base in ports.values() for port in PortFamily(base).ports]
        if len(set(owned)) == len(owned):
            check_families(ports)
        else:
            with pytest.raises(RegistryError, match="overlaps"):
                check_families(ports)

    @given(st.integers(PORT_LIMIT - BROWSER_OFFSET, 70_000) | st.integers(-10, 1023))
    def test_a_port_out_of_range_is_refused_by_name(self, base: int) -> None:
        with pytest.raises(RegistryError, match=r"^webster: port .*outside 1024-32767"):
            check_families({"webster": base})

    def test_the_last_family_below_the_ephemeral_ports_is_allowed(self) -> None:
        check_families({"webster": PORT_LIMIT - BROWSER_OFFSET - 1})

    @given(st.sets(bases, max_size=30), bases)
    def test_the_next_free_family_overlaps_nothing(self, taken: set[int], start: int) -> None:
        used = {port for base in taken for port in PortFamily(base).ports}
        try:
            base = next_free_family(taken, start)
        except RegistryError:
            return
        assert base >= start
        assert not used.intersection(PortFamily(base).ports)
        check_families({"new": base})

    @pytest.mark.parametrize(("base", "owner"), [(18796, "orchestrator"), (18793, "orchestrator"), (18792, "mario")])
    def test_the_ports_of_other_services_are_kept_and_a_free_one_is_named(self, base: int, owner: str) -> None:
        ports = {str(entry.name): entry.port for entry in AGENTS} | {"webster": base}
        check_families(ports)
        for services_only in (False, True):
            with pytest.raises(RegistryError, match=rf"^webster \(.*kept for {owner} \(.*for example 18852$"):
                check_reserved(ports, services_only=services_only)

    def test_an_agent_s_shipped_port_is_kept_until_it_stands_elsewhere(self) -> None:
        with pytest.raises(RegistryError, match="kept for developer"):
            check_reserved({"scribe": 18840})
        check_reserved({"scribe": 18840, "developer": 20000})
        check_reserved({"developer": 18840})
        check_reserved({"scribe": 18840}, services_only=True)

    def test_no_room_is_said(self) -> None:
        with pytest.raises(RegistryError, match="no free port family"):
            next_free_family([PORT_LIMIT - 4], start=PORT_LIMIT - 4)

    def test_it_is_the_lowest(self) -> None:
        assert next_free_family([]) == 18800
        assert next_free_family([18800, 18804, 18812]) == 18808


class TestNames:
    @given(st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,6}){0,3}", fullmatch=True))
    def test_words_joined_by_hyphens_are_names(self, text: str) -> None:
        reserved = {"all", "operator", "viewer", "shared", "cluster", "anthropic", "google", "openai", "offline"}
        if text not in reserved:
            assert parse_agent_name(text) == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "A",
            "Webster",
            "-a",
            "a-",
            "a--b",
            "1a",
            "a_b",
            "a b",
            "a/b",
            "../a",
            "a.b",
            "a" * 33,
            "webster\n",
            "ä",
            "*",
        ],
    )
    def test_anything_else_is_refused_with_the_form(self, text: str) -> None:
        with pytest.raises(RegistryError, match="lower-case letters"):
            parse_agent_name(text)

    @pytest.mark.parametrize("text", ["operator", "viewer", "shared", "all"])
    def test_reserved_words_are_refused(self, text: str) -> None:
        with pytest.raises(RegistryError, match="reserved"):
            parse_agent_name(text)
