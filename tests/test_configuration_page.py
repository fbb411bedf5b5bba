"""docs/configuration.md is what the types say, and says something about every key."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_the_page_is_what_the_generator_gives(generator: dict[str, Any]) -> None:
    assert generator["render"]() == PAGE, "run `python docs/generate.py`"


def test_every_key_has_a_type_a_default_and_a_meaning() -> None:
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    keys = [row for row in rows if len(row) == 4]
    assert len(keys) > 35
    assert [row for row in keys if not all(cell.strip() for cell in row)] == []


def test_every_key_of_the_shipped_files_is_on_the_page() -> None:
    known = set(re.findall(r"`(\w+)`", PAGE))
    for path in [ROOT / "instances" / "cluster.toml", *sorted((ROOT / "instances").glob("*/instance.toml"))]:
        inside = ""
        for line in path.read_text().splitlines():
            if header := re.match(r"\[([\w.-]+)\]", line):
                inside = header[1]
            elif (key := re.match(r"(\w+)\s*=", line)) and inside != "authority":
                assert key[1] in known, f"{path}: {key[1]}"
