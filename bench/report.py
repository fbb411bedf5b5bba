"""How a figure is shown: the value, its ratio to a floor of the same run, and the budget."""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct):
    """One measured value. With `ratio`, the budget `limit` is on the ratio; without, on the value."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    limit: float | None = None
    of: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the budget holds; None if there is none."""
        if self.limit is None:
            return None
        return (self.value if self.ratio is None else self.ratio) <= self.limit

    def __str__(self) -> str:
        parts = [f"  {self.name:<46} {self.value:>10.3g} {self.unit:<6}"]
        if self.ratio is not None:
            parts.append(f"{self.ratio:.2f}x{f' of {self.of}' if self.of else ''}")
        if self.limit is not None:
            unit = "x" if self.ratio is not None else f" {self.unit}"
            parts.append(f"budget {self.limit:g}{unit}: {'holds' if self.holds else 'EXCEEDED'}")
        return "  ".join(parts)
