"""Memory: what the agent wrote down and what the cluster knows, searched by full text.

The Markdown files are the truth; the index beside the ledger is rebuilt from them whenever they change. A passage is
one list item, table row or heading, or one paragraph, so that it can be cited as `file:line`.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import itertools
import math
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gateway.agent.inside import NotPlain, open_folder, open_plain, read_inside, walk_files
from gateway.agent.vocabulary import GENERIC, STOP, SYNONYMS

MIN_COVERAGE = 0.5
"""Share of a question's weight that a passage must hold to be an answer."""
NEAR_BEST = 0.75
"""Passages that score below this share of the best one are left out: they would only bury it."""
_GENERIC_WEIGHT = 0.25
_NUMBER_WEIGHT = 0.3
_PHRASE_BONUS = 0.15
_MAX_ROWS = 5000
_MAX_FILE = 2_000_000
_MAX_FILES = 10_000
"""Files of one folder that are searched."""
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-'][A-Za-z0-9]+)*|\d+(?:[.,]\d+)?[A-Za-z0-9]*(?:-[A-Za-z0-9]+)*")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+|^\s*\|")
_BULLET = re.compile(r"^\s*[-*+]\s+")
_NOTE = re.compile(r"\d{4}-\d\d-\d\d\.md")
_KEY_MARK = re.compile(r"\s\^k[0-9a-f]{12}$")


class Passage(msgspec.Struct, frozen=True):
    """A passage found: `path` is relative to the home's `workspaces/`, `line` is 1-based."""

    path: str
    line: int
    text: str
    heading: str
    score: float

    @property
    def citation(self) -> str:
        return f"{self.path}:{self.line}"


class Found(msgspec.Struct, frozen=True):
    """A search's result. `unknown` are the words of the question that stand nowhere."""

    passages: list[Passage]
    unknown: list[str]


class _Term(msgspec.Struct):
    word: str
    match: str
    """As an FTS5 expression."""
    weight: float
    subject: bool
    rows: set[int] = set()


class Memory:
    """One agent's memory. Methods block (files and SQLite): call them in a thread. They may overlap."""

    def __init__(
        self, workspace: Path, shared: Path, index: Path, *, today: Callable[[], dt.datetime] = dt.datetime.now
    ) -> None:
        self._workspace = workspace
        self._shared = shared
        self._index = index
        self._today = today
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def search(self, question: str, limit: int = 5) -> Found:
        """The passages that answer `question` best, best first; none if nothing holds enough of it."""
        with self._lock:
            db = self._open()
            self._refresh(db)
            return self._search(db, question, limit)

    def note(self, text: str, key: str) -> str:
        """Append `text` to today's note, once for a key; where it stands, as `file:line`.

        Raises OSError; NotPlain where a link or the like stands in the place of `memory/` or of the note.
        """
        now = self._today()
        mark = f"^k{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        flat = " ".join(text.split())
        with self._lock:
            folder = open_folder(self._workspace.resolve(), ("memory",), make=True)
            try:
                name, line = _find_mark(folder, mark) or _append_line(
                    folder, f"{now:%Y-%m-%d}.md", f"- {now:%H:%M} {flat} {mark}", title=f"# {now:%Y-%m-%d}"
                )
            finally:
                os.close(folder)
        return f"{self._workspace.name}/memory/{name}:{line}"

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _open_index(self._index)
            except sqlite3.DatabaseError:  # only an index: throw a damaged one away
                for name in (self._index, self._index.with_name(self._index.name + "-journal")):
                    name.unlink(missing_ok=True)
                self._connection = _open_index(self._index)
        return self._connection

    def _sources(self) -> Iterator[tuple[str, Path]]:
        """(citation path, file) of what is searched. Files that are in the prompt anyway are left out."""
        own = self._workspace.name
        yield f"{own}/MEMORY.md", self._workspace / "MEMORY.md"
        for root, prefix in ((self._workspace / "memory", f"{own}/memory"), (self._shared, "shared")):
            for path in walk_files(root, _MAX_FILES):
                name = f"{prefix}/{path.relative_to(root)}"
                if name.endswith((".md", ".txt")) and path.name != "project_log.md" and name.isprintable():
                    yield name, path

    def _refresh(self, db: sqlite3.Connection) -> None:
        """Bring the index up to date with the files: compared by time, size and inode."""
        known = {row[0]: row[1] for row in db.execute("SELECT path, stamp FROM files")}
        seen: set[str] = set()
        for path, file in self._sources():
            try:
                about = file.stat()
            except OSError:
                continue
            if about.st_size > _MAX_FILE:
                continue
            stamp = f"{about.st_mtime_ns}-{about.st_size}-{about.st_ino}"
            if known.get(path) == stamp:
                seen.add(path)
                continue
            try:
                raw = read_inside(file, (self._workspace, self._shared), _MAX_FILE)
            except OSError:  # a link that leads out, a pipe: no note of this agent
                continue
            seen.add(path)
            text = raw.decode(errors="replace")
            db.execute("BEGIN")
            db.execute("DELETE FROM passages WHERE path = ?", (path,))
            db.executemany(
                "INSERT INTO passages(text, heading, path, line) VALUES (?, ?, ?, ?)",
                ((body, heading, path, line) for line, heading, body in split_passages(text)),
            )
            db.execute("INSERT OR REPLACE INTO files(path, stamp) VALUES (?, ?)", (path, stamp))
            db.execute("COMMIT")
        for path in known.keys() - seen:
            db.execute("BEGIN")
            db.execute("DELETE FROM passages WHERE path = ?", (path,))
            db.execute("DELETE FROM files WHERE path = ?", (path,))
            db.execute("COMMIT")

    def _search(self, db: sqlite3.Connection, question: str, limit: int) -> Found:
        terms = _terms(question)
        (total,) = db.execute("SELECT count(*) FROM passages").fetchone()
        if not terms or not total:
            return Found([], [])
        best = math.log(total + 1)
        unknown: list[str] = []
        weight_of_all = 0.0
        for term in terms:
            term.rows = _matching(db, term.match)
            if not term.rows and term.weight == 1.0:
                unknown.append(term.word)
                weight_of_all += best * (2.0 if term.subject else 1.0)
                continue
            term.weight *= math.log((total + 1) / (len(term.rows) + 0.5)) if term.rows else 0.0
            weight_of_all += term.weight
        if any(t.subject and t.word in unknown and t.word[:1].isupper() for t in terms):
            return Found([], unknown)
        scores: dict[int, float] = {}
        for term in terms:
            for row in term.rows:
                scores[row] = scores.get(row, 0.0) + term.weight
        for phrase in _phrases(question):
            for row in _matching(db, f'"{phrase}"'):
                if row in scores:
                    scores[row] += _PHRASE_BONUS * weight_of_all
        least = max(MIN_COVERAGE * weight_of_all, NEAR_BEST * max(scores.values(), default=0.0))
        enough = {row: s for row, s in scores.items() if s >= least}
        ranked = sorted(enough, key=lambda row: (-round(enough[row], 6), row))[: limit * 4]
        passages = []
        for row in ranked:
            text, heading, path, line = db.execute(
                "SELECT text, heading, path, line FROM passages WHERE rowid = ?", (row,)
            ).fetchone()
            passages.append(
                Passage(path=path, line=line, text=text, heading=heading, score=round(enough[row] / weight_of_all, 3))
            )
        passages.sort(key=lambda p: (-p.score, len(p.text)))
        return Found(passages[:limit], unknown)


def split_passages(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, heading path, passage) of a Markdown text. Paragraphs keep together; items and rows stand alone."""
    headings: list[str] = []
    block: list[str] = []
    start = 0
    fenced = False

    def flush() -> Iterator[tuple[int, str, str]]:
        if block:
            yield start, " > ".join(headings), " ".join(part.strip() for part in block)
            block.clear()

    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("```"):
            fenced = not fenced
            yield from flush()
            continue
        heading = None if fenced else re.match(r"^(#{1,6})\s+(.*)$", line)
        if heading:
            yield from flush()
            del headings[len(heading.group(1)) - 1 :]
            headings.append(heading.group(2).strip())
        elif not stripped or re.fullmatch(r"[|\s:-]+", stripped) or stripped.startswith("<!--"):
            yield from flush()
        else:
            if _ITEM.match(line):
                yield from flush()
            if not block:
                start = number
            block.append(_BULLET.sub("", _KEY_MARK.sub("", line)))
    yield from flush()


def _open_index(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=TRUNCATE")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA cache_size=-512")
    db.execute("CREATE TABLE IF NOT EXISTS files(path TEXT PRIMARY KEY, stamp TEXT NOT NULL)")
    db.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS passages USING fts5"
        "(text, heading, path UNINDEXED, line UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    return db


def _matching(db: sqlite3.Connection, match: str) -> set[int]:
    rows = db.execute("SELECT rowid FROM passages WHERE passages MATCH ? LIMIT ?", (match, _MAX_ROWS))
    return {row[0] for row in rows}


def _terms(question: str) -> list[_Term]:
    """The question's words that carry meaning, each with its synonyms, once."""
    terms: dict[str, _Term] = {}
    words = list(_WORD.finditer(question))
    for position, found in enumerate(words):
        word = found.group()
        lower = word.lower()
        if lower in STOP or (len(lower) < 2 and not lower.isdigit()):
            continue
        group = SYNONYMS.get(lower, frozenset({lower}))
        label = min(group)
        if label in terms:
            continue
        before = words[position - 1].group().lower() if position else ""
        sentence_start = position == 0 or question[: found.start()].rstrip()[-1:] in ".?!:"
        named = (word[0].isupper() and not sentence_start) or bool(
            re.search(r"\d", word) and re.search(r"[A-Za-z]", word)
        )
        number = lower[0].isdigit() and not re.search(r"[a-z]", lower)
        weight = _NUMBER_WEIGHT if number else _GENERIC_WEIGHT if lower in GENERIC else 1.0
        subject = weight == 1.0 and (named or before in ("of", "for"))
        match = " OR ".join(f'"{w}"' for w in sorted(group))
        terms[label] = _Term(word=word, match=match, weight=weight, subject=subject)
    return list(terms.values())


def _phrases(question: str) -> list[str]:
    """Neighbouring words of which one is a number or both carry meaning: `class 0`, `fused silica`."""
    words = [m.group().lower() for m in _WORD.finditer(question)]
    pairs = []
    for first, second in itertools.pairwise(words):
        if first in STOP or second in STOP or first in GENERIC or second in GENERIC or first[0].isdigit():
            continue
        pairs.append(f"{first} {second}")
    return pairs


def _find_mark(folder: int, mark: str) -> tuple[str, int] | None:
    """Where a keyed line already stands: in the two newest notes, since a replay may come after midnight."""
    notes = [name for name in os.listdir(folder) if _NOTE.fullmatch(name)]
    for name in sorted(notes, reverse=True)[:2]:
        try:
            with open(open_plain(folder, name), "rb") as file:
                text = file.read(_MAX_FILE).decode(errors="replace")
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if line.endswith(mark):
                return name, number
    return None


def _append_line(folder: int, name: str, line: str, *, title: str) -> tuple[str, int]:
    """Append one whole line durably; its file and 1-based number. A torn line before it is ended first."""
    fd = open_plain(folder, name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        if size > _MAX_FILE:
            raise NotPlain(errno.EFBIG, "it is larger than any note; move it away", name)
        head = f"{title}\n\n" if size == 0 else ""
        if size and os.pread(fd, 1, size - 1) != b"\n":
            head = "\n"
        os.write(fd, f"{head}{line}\n".encode(errors="replace"))
        os.fsync(fd)
        count = os.pread(fd, _MAX_FILE * 2, 0).count(b"\n")
    finally:
        os.close(fd)
    if size == 0:
        os.fsync(folder)
    return name, count
