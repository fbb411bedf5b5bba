"""Who may change what in the shared folder: one rule for the file tools and for the shell's sandbox."""

from __future__ import annotations

from pathlib import PurePath

GATEKEEPER = "manager"
PROJECT_STATUS = "PROJECT_STATUS.md"
_BY_CODE = "project_log.md"
_BY_OPERATOR = ("CLUSTER.md", "HOOKS-PROTOCOL.md", "knowledge", "skills")


def refusal(path: PurePath, agent: str) -> str:
    """Why `agent` may not change `path`, relative to the shared folder; empty if it may."""
    top = path.parts[0] if path.parts else ""
    if top == PROJECT_STATUS and agent != GATEKEEPER:
        return f"shared/{PROJECT_STATUS} is written by the {GATEKEEPER} only; send it what should stand there"
    if top == _BY_CODE:
        return f"shared/{_BY_CODE} is written by the program; use the tool project_log"
    if top in _BY_OPERATOR:
        return f"shared/{top} is kept by the operator; propose the change in your answer"
    return ""
