"""Ground floor: wire types, the registry, the rules, and the clients. Imports no other room."""

VERSION = "0.1.0"
"""The product's version, as `/health` and `--version` show it; equal to `pyproject.toml`'s (a test holds that)."""
