"""`python -P -m cluster.cli`."""

from __future__ import annotations

from cluster.cli.main import main

main()
