"""`python -m bench [NAME...]`: measure, each in one run; exit 1 if a budget is exceeded.

Times are shown as ratios to a floor measured in the same run where that is possible: absolute times say more about
the machine than about us.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys

import msgspec

from bench.report import Figure

NAMES = ("fleet", "accept", "turn", "commands", "console", "kill", "discord", "stopped")


def main(names: list[str]) -> int:
    as_json = "--json" in names
    chosen = [n for n in names if not n.startswith("-")] or list(NAMES)
    unknown = set(chosen) - set(NAMES)
    if unknown:
        print(f"bench: unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load {_load()}")
    every: dict[str, list[Figure]] = {}
    for name in chosen:
        print(f"{name}:", flush=True)
        every[name] = importlib.import_module(f"bench.{name}").measure()
        for figure in every[name]:
            print(figure, flush=True)
    if as_json:
        print(json.dumps({n: msgspec.to_builtins(f) for n, f in every.items()}))
    return int(any(f.holds is False for figures in every.values() for f in figures))


def _load() -> str:
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
