"""The pages beside the wire types: whoever uses curl finds every field, and the tables are those of the code."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path

import msgspec
import pytest

import protocols
from protocols.authority import DEFAULT_AUTHORITY
from protocols.decoding import decode_json
from protocols.hooks import AgentAccepted, AgentHook
from protocols.registry import _RESERVED, ROSTER
from protocols.targets import parse_target

FOLDER = Path(protocols.__file__).parent
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text()


def structs(name: str) -> list[type[msgspec.Struct]]:
    """The structs that `protocols.<name>` itself defines."""
    module = importlib.import_module(f"protocols.{name}")
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__
    ]


def test_every_module_with_wire_types_has_a_page() -> None:
    modules = [path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "errors")]
    assert [name for name in modules if structs(name) and name not in PAGES] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_field_on_the_wire_is_on_its_page(name: str) -> None:
    words = set(re.findall(r"`([^`\s]+)`", page(name)))
    missing = [
        f"{kind.__name__}.{field.encode_name}"
        for kind in structs(name)
        if kind.__name__ != "PortFamily"
        for field in msgspec.structs.fields(kind)
        if field.encode_name not in words
    ]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_page_and_names_its_module(name: str) -> None:
    text = page(name)
    assert text.startswith("# ")
    assert f"protocols/{name}.py" in text
    assert len(text.splitlines()) < 100
    for other in re.findall(r"\]\((\w+)\.md\)", text):
        assert other in PAGES


def test_every_event_is_on_its_page() -> None:
    tags = [kind.__struct_config__.tag for kind in structs("events") if kind.__struct_config__.tag]
    assert [tag for tag in tags if tag != "_Event" and f"| `{tag}` |" not in page("events")] == []


def test_the_curl_of_the_hooks_page_is_a_good_one_and_its_answer_ours() -> None:
    body = re.search(r"-d '(\{.*?\})'", page("hooks"))
    answer = re.search(r"^\{.*\}$", page("hooks"), re.M)
    assert body
    assert answer
    decode_json(body[1].encode(), AgentHook, "hooks.md")
    decode_json(answer[0].encode(), AgentAccepted, "hooks.md")


def test_the_registry_s_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (\d+) \| (\w+) \| (.+?) \|$", page("registry"), re.M)
    assert rows == [
        (
            str(entry.name),
            entry.title,
            str(entry.port),
            "service" if entry.service != "gateway" else "yes" if entry.default_on else "no",
            ", ".join(entry.capabilities),
        )
        for entry in ROSTER
    ]
    assert all(f"`{word}`" in page("registry") for word in _RESERVED)


def test_the_authority_page_shows_the_shipped_rules() -> None:
    block = re.search(r"```toml\n\[authority\]\n(.*?)```", page("authority"), re.S)
    assert block
    rules = {name: json.loads(rule) for name, rule in re.findall(r"^([a-z-]+) = (\[.*\])$", block[1], re.M)}
    assert rules == DEFAULT_AUTHORITY


def test_the_targets_page_shows_targets() -> None:
    examples = re.findall(r"`((?:discord|slack|agent):\w+:[^`]+)`", page("targets"))
    assert len(examples) == 3
    assert [str(parse_target(example)) for example in examples] == examples
