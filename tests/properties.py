"""How hypothesis runs in this suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def use_small_examples() -> None:
    """A modest number of examples, and no deadline: two cores may be shared by many."""
    settings.register_profile("atomizer", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("atomizer")
