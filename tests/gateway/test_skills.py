"""Skills: in the prompt by name, in full on demand, ours and the peer's, broken ones named; through a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.skills import SkillError, Skills, _plain
from runtime.home import shipped_instances
from tests.conftest import ClusterHome
from tests.gateway.obeying import Hands, obedient_model, obey
from tests.gateway.process import running
from tests.properties import use_small_examples

PEER = """---
name: gog
description: >-
  Google Workspace CLI for Gmail,
  Calendar and Drive.
homepage: https://example.org
user-invocable: true
metadata: {"openclaw":{"emoji":"x","requires":{"bins":["gog-that-is-nowhere"],"env":["GOG_ACCOUNT"]},"install":[]}}
---
# gog
Run {baseDir}/run.sh
"""


def write(root: Path, name: str, text: str) -> Path:
    folder = root / "skills" / name
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(text)
    return folder


def plain(name: str, about: str, body: str = "Body of {baseDir}.") -> str:
    return f"---\nname: {name}\ndescription: {about}\n---\n{body}\n"


@pytest.fixture(scope="module")
def webster() -> Iterator[Hands]:
    """Webster with the shipped skills, one of its own that hides a shared one, one that is not for here, one broken."""
    home = ClusterHome(("manager", "webster"))
    try:
        workspace = home.home.workspace("webster")
        folder = write(workspace, "weekly-status", plain("weekly-status", "The week, as Webster does it."))
        (folder / "template.md").write_text("| a | b |\n")
        write(workspace, "gog", PEER)
        write(workspace, "broken", "---\nname: broken\ndescription: [never closed\n---\n")
        with obedient_model() as model:
            obey(home, model, "webster")
            with running(home, "webster") as (gateway,):
                its = Hands(gateway)
                its.model = model  # type: ignore[attr-defined]
                yield its
    finally:
        home.close()


class TestThroughAGateway:
    def test_the_prompt_names_those_that_can_be_used(self, webster: Hands) -> None:
        webster.call("status")
        prompt = str(webster.model.seen[-1].body)  # type: ignore[attr-defined]
        assert "- mesh-convergence: Run and report a mesh convergence study" in prompt
        assert "- weekly-status: The week, as Webster does it." in prompt
        assert "- material-data:" in prompt
        assert "- gog" not in prompt
        assert "Grid convergence index GCI12" not in prompt, "the body comes on demand"

    def test_the_body_comes_on_demand_and_its_files_can_be_read(self, webster: Hands) -> None:
        folder = webster.workspace / "skills" / "weekly-status"
        text = webster.call("skill", name="weekly-status")
        assert f"Body of {folder}." in text
        assert f"Files of this skill, in {folder}: template.md" in text
        assert "| a | b |" in webster.call("read_file", path=f"{folder}/template.md")
        assert "GCI12 = 1.25" in webster.call("skill", name="Mesh-Convergence")
        assert "there is no skill 'none'; there are: material-data" in webster.call("skill", name="none")

    def test_the_status_says_why_one_cannot_be_used(self, webster: Hands) -> None:
        status = webster.gateway.status()
        skills = {s.name: s for s in status.skills}
        assert skills["mesh-convergence"].available
        assert skills["weekly-status"].source == "workspace"
        assert "the program gog-that-is-nowhere and the variable GOG_ACCOUNT" in skills["gog"].reason
        assert not skills["broken"].available
        assert "not YAML in line" in skills["broken"].reason
        assert any(f.name == "skills" and f.tokens > 50 for f in status.prompt)
        logged = (webster.home.logs("webster") / "gateway.jsonl").read_text()
        assert "broken/SKILL.md is left out" in logged
        assert "cannot be used here" in webster.call("skill", name="gog")


class TestReading:
    def skills(self, tmp_path: Path, **environ: str) -> Skills:
        (tmp_path / "w").mkdir(exist_ok=True)
        (tmp_path / "s").mkdir(exist_ok=True)
        return Skills(
            tmp_path / "w", tmp_path / "s", environ=environ, which=lambda name: "/x" if name == "git" else None
        )

    def test_what_the_peer_s_skill_needs_is_looked_for(self, tmp_path: Path) -> None:
        write(tmp_path / "w", "a", PEER.replace("gog-that-is-nowhere", "git"))
        assert not self.skills(tmp_path).usable()
        (gog,) = self.skills(tmp_path, GOG_ACCOUNT="me").usable()
        assert gog.description == "Google Workspace CLI for Gmail, Calendar and Drive."

    def test_a_changed_file_counts_at_once(self, tmp_path: Path) -> None:
        skills = self.skills(tmp_path)
        folder = write(tmp_path / "s", "a", plain("a", "first"))
        assert "- a: first" in skills.prompt()
        (folder / "SKILL.md").write_text(plain("a", "second time"))
        assert "- a: second time" in skills.prompt()
        (folder / "SKILL.md").unlink()
        assert skills.prompt() == ""

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("no front matter", "does not begin with front matter"),
            ("---\nname: a\n---\n", "has no description"),
            ("---\n- a\n---\n", "no mapping"),
            ("---\nname: '../x'\ndescription: d\n---\n", "is no name"),
            ("---\na: &a [x, x]\nb: *a\ndescription: d\n---\n", "uses aliases"),
            ("---\ndescription: !!python/object/apply:os.system ['true']\n---\n", "not YAML"),
            (f"---\ndescription: {'d' * 20_000}\n---\n", "longer than 16 kB"),
            (plain("a", "d", "x" * 100_001), "larger than 100 kB"),
            ("---\ndescription: d\nmetadata: just words\n---\n", "neither a mapping nor JSON"),
            (f"---\ndescription: {'[' * 5000}\n---\n", "not YAML"),
        ],
    )
    def test_a_broken_one_is_named_and_the_others_stay(self, tmp_path: Path, text: str, problem: str) -> None:
        write(tmp_path / "w", "bad", text)
        write(tmp_path / "w", "good", plain("good", "still here"))
        skills = self.skills(tmp_path)
        assert [s.name for s in skills.usable()] == ["good"]
        (broken,) = [s for s in skills.status() if not s.available]
        assert broken.name == "bad"
        assert problem in broken.reason

    def test_a_link_does_not_lead_out(self, tmp_path: Path) -> None:
        skills = self.skills(tmp_path)
        outside = write(tmp_path / "elsewhere", "x", plain("x", "outside"))
        (tmp_path / "w" / "skills").mkdir()
        (tmp_path / "w" / "skills" / "x").symlink_to(outside)
        assert skills.usable() == []
        with pytest.raises(SkillError, match="no skill"):
            skills.body("x")

    def test_there_can_be_too_many(self, tmp_path: Path) -> None:
        for number in range(70):
            write(tmp_path / "w", f"s{number:02}", plain(f"s{number:02}", "d" * 390))
        skills = self.skills(tmp_path)
        assert len(skills.usable()) == 60
        assert "more than 60" in skills.status()[-1].reason
        assert len(skills.prompt()) < 11_000


use_small_examples()


class TestPlainFrontMatter:
    @given(st.lists(st.tuples(st.sampled_from(["name", "description", "homepage"]), st.text(max_size=40)), max_size=3))
    def test_lines_of_words_are_read_as_yaml_reads_them(self, lines: list[tuple[str, str]]) -> None:
        text = "\n".join(f"{key}: {value}" for key, value in lines)
        plain = _plain(text)
        if plain is not None:
            assert plain == yaml.safe_load(text)

    @pytest.mark.parametrize(
        "value", ["true", "No", "null", "1", "a: b", "a #b", "[a]", "'a'", "a\n  b", "2026-01-01", "~"]
    )
    def test_anything_else_is_left_to_yaml(self, value: str) -> None:
        assert _plain(f"name: a\ndescription: {value}") is None

    def test_the_shipped_ones_are_plain(self) -> None:
        for path in (shipped_instances() / "shared" / "skills").glob("*/SKILL.md"):
            front = path.read_text().split("---\n")[1]
            assert _plain(front) == yaml.safe_load(front), path


def test_the_shipped_skills_are_sound() -> None:
    shared = shipped_instances() / "shared"
    skills = Skills(Path("/nonexistent"), shared)
    assert [s.name for s in skills.usable()] == ["material-data", "mesh-convergence", "weekly-status"]
    assert [s for s in skills.status() if not s.available] == []
