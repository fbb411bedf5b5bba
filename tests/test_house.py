"""The house rules: linters and types are clean, imports go one way only, and nothing of one machine is in the files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols import VERSION
from protocols.ask import Ask
from protocols.errors import Unreachable
from protocols.health import Health
from tests.conftest import ClusterHome

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SDKS = ("anthropic", "google.genai", "openai", "discord", "slack_sdk", "mcp", "genai_prices")
HEAVY = (*SDKS, "textual", "pydantic", "httpx2")
TELL = (
    "import atexit, sys; atexit.register(lambda: print('MODULES', *sorted(sys.modules), file=sys.stderr, flush=True)); "
)
"""Put before a program: it then prints what it had imported, when it ends."""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def modules_in(stderr: str) -> set[str]:
    last = [line for line in stderr.splitlines() if line.startswith("MODULES ")]
    assert last, stderr
    return set(last[-1].split()[1:])


def imported_by(program: str, **environment: str) -> set[str]:
    """The modules that `program` (Python text) has imported when it ends, in a process of its own."""
    return modules_in(run(sys.executable, "-c", TELL + program, **environment).stderr)


def found(wanted: tuple[str, ...], modules: set[str]) -> list[str]:
    """Those of `wanted` that are in `modules`, themselves or by a part of theirs."""
    return [name for name in wanted if any(m == name or m.startswith(f"{name}.") for m in modules)]


def modules_of(package: str) -> list[str]:
    """Every module of `package`, by its file."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__main__.py"
    ]


class TestTools:
    """What CI would say."""

    @pytest.mark.parametrize(
        "command",
        [("-m", "ruff", "check", "."), ("-m", "ruff", "format", "--check", "."), ("-m", "mypy")],
        ids=["ruff-check", "ruff-format", "mypy-strict"],
    )
    def test_the_whole_tree_is_clean(self, command: tuple[str, ...]) -> None:
        done = run(sys.executable, *command)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_import_contracts_hold(self) -> None:
        done = run(str(Path(sys.executable).parent / "lint-imports"))
        assert done.returncode == 0, done.stdout + done.stderr

    def test_mypy_is_strict_on_every_package_that_is_shipped(self) -> None:
        assert PROJECT["tool"]["mypy"]["strict"] is True
        shipped = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) - {"instances"}
        assert shipped <= set(PROJECT["tool"]["mypy"]["packages"])
        assert shipped <= set(PROJECT["tool"]["importlinter"]["root_packages"])


class TestImports:
    """What is really loaded: the static contracts do not see imports inside functions, nor those of others."""

    ROOMS = ("protocols", "runtime", "gateway", "cluster", "console", "orchestrator", "bridge")

    @pytest.mark.parametrize(
        ("room", "may"),
        [
            ("protocols", {"protocols"}),
            ("runtime", {"runtime", "protocols"}),
            ("cluster", {"cluster", "runtime", "protocols"}),
            ("console", {"console", "cluster", "runtime", "protocols"}),
            ("gateway", {"gateway", "runtime", "protocols"}),
        ],
    )
    def test_a_room_loads_only_rooms_below(self, room: str, may: set[str]) -> None:
        loaded = imported_by(f"import importlib; [importlib.import_module(n) for n in {modules_of(room)!r}]")
        assert set(modules_of(room)) <= loaded, "all of it can be imported"
        assert set(found(self.ROOMS, loaded)) <= may

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"],
            ["--version"],
            ["delegate", "--help"],
            ["status", "--json"],
            ["runs", "webster"],
            ["usage", "webster"],
            ["run", "show", "webster", "run-0001"],
            ["model", "webster"],
            ["token", "operator"],
            ["logs", "webster"],
            ["delegate", "webster", "hello"],
        ],
        ids=" ".join,
    )
    def test_a_command_that_only_asks_stays_light(
        self, make_home: Callable[..., ClusterHome], arguments: list[str]
    ) -> None:
        home = make_home() if arguments[-1].strip("-") not in ("help", "version") else None
        loaded = imported_by(
            f"import runpy; sys.argv = ['atomizer', *{arguments!r}]; "
            "runpy.run_module('cluster.cli', run_name='__main__', alter_sys=True)",
            ATOMIZER_HOME=str(home.root) if home else "/nonexistent",
        )
        assert "cluster.cli.main" in loaded
        assert found((*HEAVY, "aiohttp", "console", "gateway"), loaded) == []

    def test_importing_the_gateway_imports_nothing_heavy(self) -> None:
        loaded = imported_by("import gateway.gateway")
        assert "gateway.gateway" in loaded
        assert found((*HEAVY, "platformdirs", "filelock"), loaded) == []

    def test_an_idle_gateway_has_loaded_nothing_heavy(self, make_home: Callable[..., ClusterHome]) -> None:
        home = make_home("webster")
        program = (
            f"import runpy; sys.argv = ['atomizer-gateway', '--home', {str(home.root)!r}, '--agent', 'webster']; "
            "runpy.run_module('gateway', run_name='__main__', alter_sys=True)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", TELL + program],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            wait_for_health(process, home.ports["webster"])
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        loaded = modules_in(stderr)
        assert "gateway.agent.runner" in loaded
        assert found(HEAVY, loaded) == []


def wait_for_health(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            Ask(port).get("/health", Health)
            return
        except Unreachable:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Every file of the repository."""
    listed = run("git", "ls-files", "-z")
    if listed.returncode != 0:
        pytest.skip("not a clone: there is no list of files to look at")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


class TestFiles:
    def test_no_file_names_a_machine_or_an_index(self, files: list[Path]) -> None:
        # Put together here, so that this file does not name them either.
        wrong = re.compile(
            "|".join(
                [
                    r"(?<![\w./-])/" + r"(?:work|root)/",
                    r"(?<![\w.])/" + r"home/(?!USER|you\b|me\b|<)\w+/",
                    r"https?://[\w.:@-]+/" + r"(?:[\w./-]+/)?simple\b",
                    "index" + "-url",
                    r"files\." + r"pythonhosted",
                ]
            )
        )
        hits = [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for path in files
            for number, line in enumerate(path.read_text(errors="ignore").splitlines(), start=1)
            if wrong.search(line)
        ]
        assert hits == []

    def test_no_secret_s_shape_is_committed(self, files: list[Path]) -> None:
        key = re.compile(r"sk-ant-[a-z0-9]+-[\w-]{60,}|AIza[\w-]{35}|xox[abp]-\d{8,}-\w{20,}")
        hits = [str(path.relative_to(ROOT)) for path in files if key.search(path.read_text(errors="ignore"))]
        assert hits == []


class TestVersions:
    def test_the_product_has_one_version(self) -> None:
        assert PROJECT["project"]["version"] == VERSION

    def test_the_changelog_speaks_of_it(self) -> None:
        changelog = ROOT / "CHANGELOG.md"
        if not changelog.exists():
            pytest.skip("there is no CHANGELOG.md yet")
        assert VERSION in changelog.read_text()

    def test_every_direct_dependency_is_pinned_and_constrained_alike(self) -> None:
        constrained = constraints()
        project = PROJECT["project"]
        direct = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
        for requirement in direct:
            name, _, version = requirement.partition("==")
            assert version, f"{requirement}: not pinned"
            assert constrained.get(normal(name)) == version, requirement

    def test_the_constraints_name_versions_and_nothing_else(self) -> None:
        assert len(constraints()) > 20


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0].strip()).lower()


def constraints() -> dict[str, str]:
    """Name -> version; fails on a line that is anything but a pin."""
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line)
        assert pin, line
        assert normal(pin[1]) not in pins, f"{line}: twice"
        pins[normal(pin[1])] = pin[2]
    return pins
