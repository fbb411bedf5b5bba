"""The wheel, installed where no checkout is: it must be all that a cluster needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.ports import Lease

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*command: str | Path, cwd: str | Path = "/", **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with our wheel, and what it depends on from the one the tests run in."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    borrowed = Path(sysconfig.get_path("purelib"))
    for entry in borrowed.iterdir():  # dependencies only: an editable install of ours would show the checkout
        if entry.name.startswith(("_atomizer", "atomizer", "__editable__")) or (site / entry.name).exists():
            continue
        (site / entry.name).symlink_to(entry)
    return folder / "venv" / "bin"


def test_init_up_and_delegate_from_the_root_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-P", "-c", "import gateway; print(gateway.__file__)")
    assert where.startswith(str(installed.parent))
    home = tmp_path / "home"
    with Lease(13) as lease:
        atomizer = installed / "atomizer"
        environment = {"ATOMIZER_HOME": str(home)}
        run(atomizer, "init", **environment)
        text = (home / "cluster.toml").read_text()
        for base, port in zip(range(18800, 18852, 4), lease.ports, strict=True):
            text = text.replace(f"port = {base}", f"port = {port}")
        (home / "cluster.toml").write_text(text)
        try:
            run(atomizer, "up", **environment)
            question = "Find the CTE of Zerodur Class 0 between 20 and 40 C"
            answer = json.loads(run(atomizer, "delegate", "webster", question, "--wait", "--json", **environment))
            assert answer["state"] == "succeeded"
            assert "shared/knowledge/materials-optical.md:" in answer["text"]
        finally:
            run(atomizer, "stop", **environment)
