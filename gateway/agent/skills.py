"""Skills: written ways of working, one folder each with a `SKILL.md`. Names in the prompt, the body on demand.

`skills/<name>/SKILL.md` in the workspace wins over the same in the shared folder. The files are those of the peer
system: YAML front matter with `name`, `description` and `metadata`, then Markdown; `{baseDir}` is the skill's folder.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.agent.inside import read_inside, walk_files
from protocols.errors import AtomizerError
from protocols.status import SkillStatus

log = logging.getLogger("skills")

MAX_SKILLS = 60
"""Skills of one agent; more are left out, visibly."""
MAX_FILE = 100_000
"""Bytes of one SKILL.md."""
MAX_FRONT = 16_000
"""Characters of its front matter."""
MAX_DESCRIPTION = 400
"""Characters of a description that stand in the prompt."""
MAX_LISTED = 10_000
"""Characters of the whole list in the prompt."""
MAX_FILES = 40
"""Files of a skill that are named beside its body."""
_MAX_WALKED = 2000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.S | re.M)
_WORDS = re.compile(r"([a-z][a-z-]*): ([A-Za-z][A-Za-z0-9 (),.;/+=_'-]*[A-Za-z0-9).;])")
_NO_WORDS = frozenset("true false yes no on off null y n".split())
"""What YAML takes for something else than words."""
_PLATFORMS = {"linux": "linux", "darwin": "darwin", "win32": "win32"}
_Stamp = tuple[int, int, int]


class SkillError(AtomizerError):
    """A SKILL.md that cannot be used; says what is wrong with it."""


class Skill(msgspec.Struct, frozen=True):
    name: str
    description: str
    folder: Path
    source: str
    """`workspace` or `shared`."""
    missing: str = ""
    """What it needs and this machine has not; such a skill is not offered."""
    offered: bool = True
    """Whether the model is told of it."""


class Skills:
    """One agent's skills, as the files are now. A broken one is named and does not stand in the others' way."""

    def __init__(
        self,
        workspace: Path,
        shared: Path,
        *,
        environ: Mapping[str, str] = os.environ,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._roots = (("workspace", workspace), ("shared", shared))
        self._environ = environ
        self._which = which
        self._read: dict[Path, tuple[_Stamp, Skill | str]] = {}
        self._lock = threading.Lock()

    def usable(self) -> list[Skill]:
        """Those that can be used, by name."""
        return [skill for skill in self._scan()[0] if not skill.missing]

    def status(self) -> list[SkillStatus]:
        """All of them, and why one cannot be used."""
        skills, broken = self._scan()
        found = [
            SkillStatus(
                name=s.name, source=s.source, available=not s.missing, reason=s.missing, description=s.description[:200]
            )
            for s in skills
        ]
        return [*found, *broken]

    def prompt(self) -> str:
        """The list for the stable prompt; empty without skills."""
        lines = []
        left = MAX_LISTED
        for skill in self.usable():
            if not skill.offered:
                continue
            line = f"- {skill.name}: {skill.description[:MAX_DESCRIPTION]}"
            left -= len(line)
            if left < 0:
                lines.append("- [more skills than fit here]")
                break
            lines.append(line)
        if not lines:
            return ""
        intro = (
            "Ways of working that are written down. If one fits the task, call `skill` with its name before you begin."
        )
        return "\n".join(["<skills>", intro, *lines, "</skills>"])

    def body(self, name: str) -> str:
        """The skill's text with `{baseDir}` filled in, and the files beside it; raises SkillError."""
        skill = next((s for s in self._scan()[0] if s.name.lower() == name.strip().lower()), None)
        if skill is None:
            known = ", ".join(s.name for s in self.usable()) or "none"
            raise SkillError(f"there is no skill {name!r}; there are: {known}")
        if skill.missing:
            raise SkillError(f"the skill {skill.name} cannot be used here: {skill.missing}")
        text = _FRONT.sub("", _text_of(skill.folder / "SKILL.md", dict(self._roots)[skill.source]), count=1).strip()
        text = text.replace("{baseDir}", str(skill.folder))
        files = _files_of(skill.folder)
        beside = f"\n\nFiles of this skill, in {skill.folder}: {', '.join(files)}" if files else ""
        return f"# Skill: {skill.name}\n\n{text}{beside}"

    def _scan(self) -> tuple[list[Skill], list[SkillStatus]]:
        """(the skills, the broken ones); each file is read again only if it has changed."""
        with self._lock:
            return self._scan_files()

    def _scan_files(self) -> tuple[list[Skill], list[SkillStatus]]:
        found: dict[str, Skill] = {}
        broken: list[SkillStatus] = []
        seen: set[Path] = set()
        for source, root in self._roots:
            for folder in _folders(root / "skills"):
                if len(seen) == MAX_SKILLS:
                    broken.append(SkillStatus(name="...", source=source, available=False, reason=_TOO_MANY))
                    return sorted(found.values(), key=lambda s: s.name), broken
                path = folder / "SKILL.md"
                seen.add(path)
                skill = self._load(path, root, source)
                if isinstance(skill, str):
                    broken.append(SkillStatus(name=folder.name, source=source, available=False, reason=skill))
                else:
                    found.setdefault(skill.name, skill)
        self._read = {path: known for path, known in self._read.items() if path in seen}
        return sorted(found.values(), key=lambda s: s.name), broken

    def _load(self, path: Path, root: Path, source: str) -> Skill | str:
        try:
            about = path.stat()
        except OSError as error:
            return f"{path.name} cannot be read: {error.strerror}"
        stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
        known = self._read.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        result: Skill | str
        try:
            result = self._parse(_text_of(path, root), path.parent, source)
        except SkillError as error:
            result = str(error)
            log.warning("the skill %s is left out: %s", path, error)
        self._read[path] = (stamp, result)
        return result

    def _parse(self, text: str, folder: Path, source: str) -> Skill:
        """Raises SkillError."""
        match = _FRONT.match(text)
        if match is None:
            raise SkillError("it does not begin with front matter between two lines `---`")
        front = _yaml(match[1])
        name = str(front.get("name") or folder.name).strip()
        description = " ".join(str(front.get("description") or "").split())
        if not _NAME.fullmatch(name):
            raise SkillError(f"{name[:80]!r} is no name: letters, digits, spaces, `.`, `_` and `-`, 64 at most")
        if not description:
            raise SkillError("it has no description, by which a model would choose it")
        return Skill(
            name=name,
            description=description,
            folder=folder,
            source=source,
            missing=self._missing(front.get("metadata")),
            offered=front.get("disable-model-invocation") is not True,
        )

    def _missing(self, metadata: object) -> str:
        """What `metadata` requires and is not here."""
        if isinstance(metadata, str):
            try:
                metadata = msgspec.json.decode(metadata)
            except msgspec.MsgspecError:
                raise SkillError("its metadata is neither a mapping nor JSON") from None
        peer = metadata.get("openclaw", metadata.get("clawdbot")) if isinstance(metadata, dict) else None
        if not isinstance(peer, dict) or peer.get("always") is True:
            return ""
        wanted = peer.get("requires")
        requires: dict[str, Any] = wanted if isinstance(wanted, dict) else {}
        lacks = [f"the program {b}" for b in _words(requires.get("bins")) if not self._which(b)]
        either = _words(requires.get("anyBins"))
        if either and not any(self._which(b) for b in either):
            lacks.append(f"one of the programs {', '.join(either)}")
        lacks += [f"the variable {v}" for v in _words(requires.get("env")) if not self._environ.get(v)]
        lacks += [f"the setting {c} of another system" for c in _words(requires.get("config"))]
        systems = _words(peer.get("os"))
        if systems and _PLATFORMS.get(sys.platform, sys.platform) not in systems:
            lacks.append(f"another system ({', '.join(systems)})")
        return f"it needs {' and '.join(lacks)}" if lacks else ""


_TOO_MANY = f"there are more than {MAX_SKILLS} skills; the rest is left out"


def _words(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [value] if isinstance(value, str) else []


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(p for p in root.iterdir() if not p.name.startswith(".") and (p / "SKILL.md").is_file())
    except OSError:
        return []


def _files_of(folder: Path) -> list[str]:
    """Relative names of what else lies in a skill's folder."""
    paths = (path.relative_to(folder) for path in walk_files(folder, _MAX_WALKED))
    found = [str(p) for p in paths if p.name != "SKILL.md" and not any(part.startswith("__") for part in p.parts[:-1])]
    return [*found[:MAX_FILES], "..."] if len(found) > MAX_FILES else found


def _text_of(path: Path, root: Path) -> str:
    """Raises SkillError."""
    try:
        raw = read_inside(path, (root,), MAX_FILE + 1)
    except OSError as error:
        raise SkillError(f"it cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE:
        raise SkillError(f"it is larger than {MAX_FILE // 1000} kB; move parts into files beside it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SkillError("it is not UTF-8 text") from None


def _plain(text: str) -> dict[str, Any] | None:
    """Front matter that is nothing but `key: some words` in each line, else None.

    YAML reads such lines in one way only; reading them here spares most gateways the parser's 2.5 MiB.
    """
    found: dict[str, Any] = {}
    for line in text.splitlines():
        match = _WORDS.fullmatch(line)
        if match is None or match[1] in found or match[2].lower() in _NO_WORDS:
            return None
        found[match[1]] = match[2]
    return found or None


def _yaml(text: str) -> dict[str, Any]:
    """Front matter as a mapping; raises SkillError. Aliases are refused: a few of them can stand for gigabytes."""
    if len(text) > MAX_FRONT:
        raise SkillError(f"its front matter is longer than {MAX_FRONT // 1000} kB")
    if (plain := _plain(text)) is not None:
        return plain
    yaml: Any = importlib.import_module("yaml")
    try:
        if any(isinstance(token, yaml.tokens.AliasToken) for token in yaml.scan(text)):
            raise SkillError("its front matter uses aliases, which are refused")
        front = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 2}" if mark else ""
        raise SkillError(f"its front matter is not YAML{where}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(front, dict):
        raise SkillError("its front matter is no mapping of keys to values")
    return front
