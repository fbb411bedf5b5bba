"""`./atomizer` from a checkout: what it says and leaves where something is missing.

`uv` is a stand-in here, whose environment is this interpreter; a real installation is what CI's first call does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

UV = f"""#!/bin/sh
echo "$@" >> "$CALLS"
case $1 in
  venv) bin=$CHECKOUT/.venv/bin; mkdir -p "$bin"
    printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' > "$bin/python"; chmod +x "$bin/python" ;;
  pip) sleep 0.3; exit "${{UV_FAILS:-0}}" ;;
esac
"""


class Checkout:
    """A folder with the wrapper and what it reads, and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.folder.mkdir()
        self.bin.mkdir()
        for name in ("atomizer", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        for tool in ("sh", "cat", "cksum", "dirname", "readlink", "ln", "mv", "rm", "sleep", "tail", "mkdir", "chmod"):
            (self.bin / tool).symlink_to(shutil.which(tool) or "")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.folder / "atomizer"), *arguments],
            env={
                "PATH": str(self.bin),
                "HOME": str(self.folder),
                "CALLS": str(self.calls),
                "CHECKOUT": str(self.folder),
                "PYTHONPATH": str(ROOT),
                **environment,
            },
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def installs(self) -> int:
        return self.calls.read_text().count("pip install") if self.calls.exists() else 0


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    made.program("uv", UV)
    return made


def test_the_first_call_installs_and_later_ones_only_run(checkout: Checkout) -> None:
    assert checkout.run("--version")[0] == 0
    code, out, err = checkout.run("--version")
    assert (code, err) == (0, "")
    assert out.startswith("atomizer, version")
    assert checkout.installs == 1


def test_changed_pins_install_again(checkout: Checkout) -> None:
    checkout.run("--version")
    with (checkout.folder / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    checkout.run("--version")
    assert checkout.installs == 2


def test_a_failed_installation_is_not_taken_for_a_good_one(checkout: Checkout) -> None:
    code, _, err = checkout.run("--version", UV_FAILS="1")
    assert code == 69
    assert "installation failed" in err
    assert checkout.run("--version")[0] == 0
    assert checkout.installs == 2
    assert not (checkout.folder / ".venv.lock").is_symlink()


def test_calls_at_the_same_time_install_once(checkout: Checkout) -> None:
    calls = [checkout.start("--version") for _ in range(4)]
    assert [call.wait(60) for call in calls] == [0] * 4
    assert checkout.installs == 1
    for call in calls:
        call.communicate()


def test_the_lock_of_a_killed_call_is_taken_over(checkout: Checkout) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (checkout.folder / ".venv.lock").symlink_to(str(gone.pid))
    assert checkout.run("--version")[0] == 0


def test_it_works_through_a_symlink(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    link = tmp_path / "deeper" / "linked"
    link.symlink_to(Path("..") / "a checkout" / "atomizer")
    done = subprocess.run(
        [str(link), "--version"],
        env={"PATH": str(checkout.bin), "CALLS": str(checkout.calls), "CHECKOUT": str(checkout.folder)}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (None, "Python 3.11 or newer is needed; found none"),
        ('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n', "found Python 3.9.2"),
        ("#!/bin/sh\ncase $2 in *ensurepip*) exit 1 ;; esac\n", "apt install python3-venv"),
    ],
    ids=["none", "too-old", "no-venv"],
)
def test_what_is_missing_is_said_in_plain_words(tmp_path: Path, python: str | None, said: str) -> None:
    checkout = Checkout(tmp_path)
    if python:
        checkout.program("python3", python)
    code, _, err = checkout.run("up")
    assert code == 69
    assert said in err
    assert "apt install" in err
    assert not (checkout.folder / ".venv.lock").is_symlink()


def test_the_wrapper_names_no_index() -> None:
    text = (ROOT / "atomizer").read_text() + (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "index" not in (ROOT / "atomizer").read_text()


def test_the_stamp_is_read_by_a_posix_shell() -> None:
    shell = shutil.which("dash") or "sh"
    assert subprocess.run([shell, "-n", str(ROOT / "atomizer")], env=os.environ).returncode == 0
