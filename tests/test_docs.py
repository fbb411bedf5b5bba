"""What the pages say is so: links and files exist, commands parse, HTTP paths are served, tables match the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cluster.cli.main import COMMANDS, atomizer
from protocols import VERSION
from protocols.registry import AGENTS
from tests.conftest import ClusterHome
from tests.gateway.process import running

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "protocols").glob("*.md")])
ROOMS = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")} - {"instances"}
"""Folders whose files are meant where they are named; `instances/` is in every home too."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_ENDS = re.compile(r"\s(?:\|\||&&|[|;<>#])|[|;]|\)")
"""Where a command in a line of shell ends."""
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_.]*")
_TOP = (
    "health",
    "ready",
    "status",
    "metrics",
    "events",
    "openapi.json",
    "hooks",
    "control",
    "approvals",
    "logs",
    "sessions",
    "usage",
    "schedules",
    "dead-letters",
    "pairings",
)


def each_page(test: Callable[..., Any]) -> Callable[..., Any]:
    return pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))(test)


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    return _INLINE.findall(prose(text))


def slug(heading: str) -> str:
    """A heading's anchor, as Git hosts make it."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"`", "", heading).lower())
    return plain.strip().replace(" ", "-")


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: there is no {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(target.read_text()), re.M)
            assert anchor in {slug(h) for h in headings}, f"{link}: {target.name} has no such heading"


@each_page
def test_every_file_of_this_repository_that_is_named_exists(page: Path) -> None:
    for span in spans(page.read_text()):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) or "/" not in span:
            continue
        if span.split("/")[0] in ROOMS:
            assert (ROOT / span).exists(), f"`{span}` does not exist"


def shell_lines(text: str) -> Iterator[tuple[str, bool]]:
    """(line, whether a reader would type it; else it only names a command)."""
    for language, block in _FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            yield from ((line.removeprefix("$ "), True) for line in lines if line.startswith("$ "))
        elif language in ("sh", "bash"):
            yield from ((line, True) for line in lines)
    yield from ((span.replace("\\|", "|"), False) for span in spans(text) if re.match(r"(\./)?atomizer ", span))


def commands(text: str) -> Iterator[tuple[list[str], bool]]:
    """(arguments, whether they are complete) of each `atomizer` command shown."""
    for line, complete in shell_lines(text):
        for found in re.finditer(r"(?:^|\$\(|&& |\| )(?:\./)?atomizer (.*)", line):
            if arguments := shlex.split(_outside_quotes(found[1]), comments=True):
                yield arguments, complete


def _outside_quotes(text: str) -> str:
    """`text` up to where the command ends; what is quoted does not end it."""
    quoted = [(m.start(), m.end()) for m in re.finditer(r"\"[^\"]*\"|'[^']*'", text)]
    for end in _ENDS.finditer(text):
        if not any(a <= end.start() < b for a, b in quoted):
            return text[: end.start()]
    return text


def parse(arguments: list[str]) -> None:
    """Walk the click commands as `atomizer ARGUMENTS` would, without carrying anything out; raises click's errors."""
    command: click.Command = atomizer
    parent: click.Context | None = None
    while True:
        try:
            context = command.make_context(command.name, list(arguments), parent=parent)
        except click.exceptions.Exit:  # --help, --version
            return
        except click.BadParameter as error:
            shown = re.findall(r"'([^']*)'", error.message)
            if any(_PLACEHOLDER.fullmatch(word) for word in shown):  # `--ports BASE`: the option is there
                return
            raise
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, found, arguments = command.resolve_command(context, rest)
        assert found is not None, f"no command {name!r}"
        command, parent = found, context


@each_page
def test_every_atomizer_command_that_is_shown_parses(page: Path) -> None:
    for arguments, complete in commands(page.read_text()):
        if arguments[0] == "test":  # the wrapper's
            continue
        try:
            parse(arguments)
        except click.UsageError as error:
            if isinstance(error, click.MissingParameter) and not complete:
                continue
            pytest.fail(f"`atomizer {shlex.join(arguments)}`: {error.format_message()}")


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert list(commands("```sh\n./atomizer stauts   # x\n```\nand `atomizer run show ID --agnet X`")) == [
        (["stauts"], True),
        (["run", "show", "ID", "--agnet", "X"], False),
    ]
    for arguments in (
        ["stauts"],
        ["run", "show", "ID", "--agnet", "X"],
        ["run", "shwo", "ID"],
        ["delegate", "webster"],
    ):
        with pytest.raises(click.UsageError):
            parse(arguments)


def test_the_command_page_has_every_command() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in COMMANDS if not re.search(rf"`{name}\b", text)] == []


def http_calls(text: str) -> Iterator[tuple[str | None, str]]:
    """(method, or None where none is said; path) of each HTTP path mentioned."""
    for found in re.finditer(r"\b(GET|POST|PUT|DELETE|PATCH) (/[\w/{}.-]*\w}?)", text):
        yield found[1], found[2]
    for found in re.finditer(r"https?://(?:127\.0\.0\.1|localhost):\d+(/[\w/{}.-]*[\w}])", text):
        yield None, found[1]
    for span in spans(text):
        if (found := re.fullmatch(r"(/[\w/{}.-]+)(\?.*)?", span)) and found[1].split("/")[1] in _TOP:
            yield None, found[1]


@pytest.fixture(scope="module")
def served(module_gateway_paths: dict[str, set[str]]) -> dict[re.Pattern[str], set[str]]:
    """Path pattern -> methods, as a real gateway describes itself."""
    return {re.compile(re.sub(r"{\w+}", "[^/]+", path)): methods for path, methods in module_gateway_paths.items()}


@pytest.fixture(scope="module")
def module_gateway_paths() -> Iterator[dict[str, set[str]]]:
    home = ClusterHome(("webster",))
    try:
        with running(home, "webster") as (gateway,):
            _, _, described = gateway.raw("GET", "/openapi.json")
        yield {path: {m.upper() for m in methods} for path, methods in described["paths"].items()}
    finally:
        home.close()


def test_every_http_path_that_is_mentioned_is_served(served: dict[re.Pattern[str], set[str]]) -> None:
    unknown = []
    for page in PAGES:
        for method, path in http_calls(page.read_text()):
            allowed = [methods for pattern, methods in served.items() if pattern.fullmatch(path)]
            if not allowed or (method is not None and not any(method in methods for methods in allowed)):
                unknown.append(f"{page.relative_to(ROOT)}: {method or ''} {path}")
    assert not unknown


def test_the_security_page_says_who_may_make_each_call(module_gateway_paths: dict[str, set[str]]) -> None:
    rows = (ROOT / "docs" / "security.md").read_text()
    table = {
        call for line in rows.splitlines() if line.startswith("| `") for call in re.findall(r"`([A-Z]+ /[^`]+)`", line)
    }
    assert table == {f"{method} {path}" for path, methods in module_gateway_paths.items() for method in methods}


def test_the_readme_shows_the_registry() -> None:
    rows = re.findall(r"^\| ([^|]+) \| `([\w-]+)` \| (\d+) \| (on|off) \|$", (ROOT / "README.md").read_text(), re.M)
    assert [(title, name, int(port), word == "on") for title, name, port, word in rows] == [
        (e.title, e.name, e.port, e.default_on) for e in AGENTS
    ]


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {VERSION}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_page_is_in_the_index() -> None:
    links = _LINK.findall((ROOT / "docs" / "index.md").read_text())
    assert {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"} <= set(links)
