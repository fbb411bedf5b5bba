"""Exit codes of the `atomizer` command; docs/cli.md states them, so they do not change."""

from __future__ import annotations

OK = 0
FAILED = 1
"""What was asked for did not succeed: a run failed, an agent did not come up."""
USAGE = 2
UNREACHABLE = 3
"""The agent or the supervisor is down, or does not answer."""
REFUSED = 4
"""A gateway refused: authority, a wrong token, an unknown run, a conflict."""
TIMEOUT = 5
"""Waiting ended before the run did; the run goes on."""
CONFIG = 78
"""A local file is wrong or missing, or the home cannot be written."""
INTERRUPTED = 130
