"""Writes docs/configuration.md from the types in runtime/config.py: `python docs/generate.py`.

Names, types and defaults come from the types themselves, descriptions from the docstring under each field.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from runtime import config  # noqa: E402  the checkout's, wherever this is called from

PAGE = ROOT / "docs" / "configuration.md"

HEAD = """# Configuration

<!-- Made by `python docs/generate.py` from the types in runtime/config.py: change them there. -->

A home has files that people write and files that the program writes, and none that both do. What the program writes is
in force above what stands in yours. Every file is TOML. An unknown key is refused with the nearest known one, and a
wrong value with its file and line; a gateway then does not start (exit 78), and one that runs keeps the last good
configuration and says so in `atomizer status`. After a change: `atomizer reload [AGENT]`; a new port
or another workspace wants `atomizer restart AGENT`.

| file | written by | what it says |
|---|---|---|
| `cluster.toml` | you | who runs, on which ports, who may give work to whom |
| `instances/<agent>/instance.toml` | you | one agent: its model, heartbeat, tools and limits |
| `instances/<agent>/overrides.toml` | the program | what was changed from the console or the command line |
| `placements.toml` | the program | agents that were added or removed |
| `secrets/<owner>/<name>` | `atomizer secrets set` | keys and tokens, one file each, mode 0600 |

`ATOMIZER_HOME`, or `--home DIR`, says where the home is.
"""

FILES = (
    (config.ClusterFile, "cluster.toml", "You write it; `atomizer init` makes the first one."),
    (config.InstanceFile, "instances/&lt;agent&gt;/instance.toml", "You write it, one for each agent."),
    (
        config.Overrides,
        "instances/&lt;agent&gt;/overrides.toml",
        "The program writes it: `atomizer model`, `atomizer heartbeat`, `atomizer agent enable`, and the console.",
    ),
    (config.Placements, "placements.toml", "The program writes it: `atomizer agent add` and `remove`."),
)


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, name, note in FILES:
        parts.append(f"## {name}\n\n{note}\n")
        parts += _tables(kind, ())
    return "\n".join(parts)


def _tables(kind: type[msgspec.Struct], path: tuple[str, ...]) -> list[str]:
    """The table of `kind`'s own keys, then those of the tables in it."""
    described = describe(kind)
    rows: list[str] = []
    below: list[str] = []
    for field in msgspec.structs.fields(kind):
        inner, keyed = _table_of(field.type)
        if inner is not None:
            below += _tables(inner, (*path, field.encode_name, "NAME") if keyed else (*path, field.encode_name))
            continue
        for nested in _tables_inside(field.type):
            below += _tables(nested, (*path, field.encode_name, "CATEGORY", "NAME"))
        cells = (f"`{field.encode_name}`", name_type(field.type), _default(field), described.get(field.name, ""))
        rows.append(f"| {' | '.join(cells)} |")
    parts: list[str] = []
    if path:
        parts.append(f"### `[{'.'.join(path)}]`\n")
    if rows:
        parts.append("\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]))
    return parts + below


def _table_of(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """(the type of the table that `kind` is, whether it is one of many by name), or (None, False) for a plain key."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind, False
    if typing.get_origin(kind) is dict:
        value = typing.get_args(kind)[1]
        if isinstance(value, type) and issubclass(value, msgspec.Struct):
            return value, True
    return None, False


def _tables_inside(kind: Any) -> list[type[msgspec.Struct]]:
    """The tables that may stand for a plain value two levels below."""
    if typing.get_origin(kind) is not dict:
        return []
    inner = typing.get_args(kind)[1]
    if typing.get_origin(inner) is not dict:
        return []
    choices = typing.get_args(typing.get_args(inner)[1])
    return [c for c in choices if isinstance(c, type) and issubclass(c, msgspec.Struct)]


def describe(kind: type) -> dict[str, str]:
    """Field -> the docstring under it, on one line."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = " ".join(text.value.value.split()).replace("|", "\\|")
    return found


def name_type(kind: Any) -> str:
    """A type in words, with its bounds or choices."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        bounds = args[1]
        words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
        said = [f"{word} {value}" for key, word in words.items() if (value := getattr(bounds, key)) is not None]
        return ", ".join([name_type(args[0]), *said])
    if origin in (typing.Union, types.UnionType):
        tables = [a for a in args if isinstance(a, type) and issubclass(a, msgspec.Struct)]
        return name_type(next(a for a in args if a is not type(None))) + (" or a table" if tables else "")
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(a)}`" for a in args)
    if origin is list:
        return f"list of {name_type(args[0])}s"
    if origin is dict:
        return f"table, each a {name_type(args[1])}"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else typing.cast(Any, field.default_factory)()
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "<br>".join(f"`{key} = {json.dumps(item)}`" for key, item in value.items()) or "empty"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(PAGE.relative_to(ROOT))
