"""Ways in which a run fails that are told apart by a code."""

from __future__ import annotations

from typing import ClassVar

from protocols.errors import AtomizerError


class RunFailure(AtomizerError):
    """The run cannot go on; `code` is its RunError's."""

    code: ClassVar[str] = "failed"


class BudgetExceeded(RunFailure):
    """There is no money left for the next model call, and nobody is to wait for more."""

    code = "budget"
