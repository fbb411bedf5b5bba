"""Strict decoding of JSON and TOML, with errors that name the field, the expectation and the source."""

from __future__ import annotations

import re
import types
import typing
from typing import Any, TypeVar

import msgspec

from protocols.errors import DecodeError
from protocols.runs import one_line

T = TypeVar("T")

_UNKNOWN = re.compile(r"unknown field `(?P<name>.*)`$", re.S)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")
_AT = re.compile(r" - at `(?P<path>[^`]+)`$")
_ENUM = re.compile(r"^Invalid enum value (?P<value>.+)$", re.S)


def decode_json(data: bytes, kind: type[T], source: str) -> T:
    """Decode `data` as JSON of exactly the shape `kind`; raises DecodeError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, source) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(source, f"the body is not JSON: {error}") from None


def decode_toml(text: str, kind: type[T], source: str) -> T:
    """Decode TOML `text` as exactly the shape `kind`; raises DecodeError with the line it concerns."""
    import tomllib

    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(at.group(1)) if at else max(1, len(text.splitlines()))
        plain = re.sub(r" \(at .*\)$", "", str(error))
        raise DecodeError(source, f"not valid TOML: {plain}", line=line) from None
    except RecursionError:
        raise DecodeError(source, "not valid TOML: nested too deeply") from None
    try:
        return msgspec.convert(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, source, text, raw) from None


def nearest(word: str, known: typing.Iterable[str]) -> str | None:
    """The known word most like `word`, or None if none is close."""
    import difflib

    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.55)
    return close[0] if close else None


def line_of(text: str, path: list[str]) -> int | None:
    """The 1-based line where TOML `text` sets the dotted `path`: its key, else its nearest table; None if neither."""
    table: list[str] = []
    best: tuple[int, int] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if header := re.match(r"^\[\[?\s*([^\]]+?)\s*\]\]?", line):
            table = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            here = table
        elif key := re.match(r"^([\w.\"'-]+)\s*=", line):
            here = table + [part.strip("\"'") for part in key.group(1).split(".")]
        else:
            continue
        depth = len(here)
        if path[:depth] == here and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best else None


def _explain(message: str, kind: Any, source: str, toml: str | None = None, raw: Any = None) -> DecodeError:
    at = _AT.search(message)
    path = _name_keys(raw, kind, _split(at.group("path"))) if at else []
    body = message[: at.start()] if at else message
    if unknown := _UNKNOWN.search(body):
        name = unknown.group("name")
        known = _fields_at(kind, path)
        close = nearest(name, known)
        hint = f"; did you mean `{close}`?" if close else f"; known: {', '.join(sorted(known))}" if known else ""
        where = f" in `{'.'.join(path)}`" if path else ""
        problem, path = f"unknown field `{one_line(name, 60)}`{where}{hint}", [*path, name]
    elif missing := _MISSING.search(body):
        name = missing.group("name")
        where = f" in `{'.'.join(path)}`" if path else ""
        problem, path = f"field `{name}` is required{where}", [*path, name]
    else:
        dotted = ".".join(path) or "the body"
        if enum := _ENUM.match(body):
            choices = _choices_at(kind, path)
            body = f"got {one_line(enum.group('value'), 60)}"
            body += f", expected one of: {', '.join(choices)}" if choices else ""
        problem = f"field `{dotted}`: {body[0].lower()}{body[1:]}" if path else f"{body[0].lower()}{body[1:]}"
    line = line_of(toml, path) if toml is not None else None
    return DecodeError(source, problem, field=".".join(path) or None, line=line)


def _split(path: str) -> list[str]:
    """`$.agents[...].port` -> ["agents", "...", "port"]; list positions are dropped."""
    parts: list[str] = []
    for name, index in re.findall(r"\.([\w-]+)|\[([^\]]*)\]", path.removeprefix("$")):
        if name:
            parts.append(name)
        elif not index.isdigit():
            parts.append(index.strip("'\""))
    return parts


def _name_keys(raw: Any, kind: Any, path: list[str]) -> list[str]:
    """`path` with each `...` (a table's key, which msgspec does not tell) replaced by the key whose value is wrong."""
    named: list[str] = []
    for depth, part in enumerate(path):
        if part == "..." and isinstance(raw, dict):
            wanted = _type_at(kind, path[: depth + 1])
            part = next((str(key) for key, value in raw.items() if not _fits(value, wanted)), part)
        named.append(part)
        raw = raw.get(part) if isinstance(raw, dict) else None
    return named


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def _type_at(kind: Any, path: list[str]) -> Any:
    for part in path:
        kind = _strip_optional(kind)
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif typing.get_origin(kind) in (list, tuple):
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            found = [f.type for f in msgspec.structs.fields(kind) if f.encode_name == part]
            if not found:
                return None
            kind = found[0]
        else:
            return None
    return _strip_optional(kind)


def _strip_optional(kind: Any) -> Any:
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(kind) if a not in (type(None), msgspec.UnsetType)]
        if len(rest) == 1:
            return _strip_optional(rest[0])
    return kind


def _fields_at(kind: Any, path: list[str]) -> list[str]:
    here = _type_at(kind, path)
    if isinstance(here, type) and issubclass(here, msgspec.Struct):
        return [f.encode_name for f in msgspec.structs.fields(here)]
    return []


def _choices_at(kind: Any, path: list[str]) -> list[str]:
    here = _type_at(kind, path)
    if typing.get_origin(here) is typing.Literal:
        return [str(a) for a in typing.get_args(here)]
    if isinstance(here, type) and hasattr(here, "__members__"):
        return [str(getattr(m, "value", m)) for m in here]  # type: ignore[attr-defined]
    return []
