"""One run as `atomizer run show` prints it: the facts, every step with its time and cost, the answer."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocols.runs import ChildRun, Run, Step, Usage

FOLDED = 240
"""Characters shown of an argument or a result that is folded."""
INDENT = "      "


def run_page(run: Run, full: bool) -> str:
    """`full`: nothing is folded."""
    why = "" if run.state in ("succeeded", "queued", "running") else f": {reason_of(run)}"
    ended = run.finished_at or (time.time() if run.started_at else None)
    took = f" after {_seconds(ended - run.started_at)}" if run.started_at and ended else ""
    lines = [
        f"{run.run_id}  {run.state}{took}{why}",
        f"agent {run.agent}, from {run.caller}, session {run.session_key}, model {run.model or 'none yet'}",
        f"tokens {_usage(run.usage)}; cost {_money(run.cost_usd)}",
    ]
    if run.delivery:
        lines.append(f"delivery {run.delivery.status}" + (f": {run.delivery.detail}" if run.delivery.detail else ""))
    if run.parent_run_id:
        lines.append(f"part of {run.parent_run_id}")
    lines.append(f"task: {run.message}")
    for step in run.steps:
        lines += _step(step, run, full)
    for child in run.children:
        lines += _child(child, full)
    if run.text:
        lines += ["", run.text]
    return "\n".join(lines)


def reason_of(run: Run) -> str:
    return run.error.message if run.error else run.reason or "no reason given"


def _step(step: Step, run: Run, full: bool) -> list[str]:
    took = f"{_seconds(step.finished_at - step.started_at)}" if step.finished_at else "so far"
    spent = f"  {_usage(step.usage)}, {_money(step.cost_usd)}" if step.usage else ""
    lines = [f"step {step.index}: {step.kind} {step.name} {step.state} {took}{spent}"]
    if isinstance(step.input, dict):
        for name, value in step.input.items():
            lines += _folded(f"{name}: ", _text(value), full)
    elif step.input is not None:
        lines += _folded("", _text(step.input), full)
    if step.output and not (run.text and step.kind == "model" and step.output.strip() == run.text.strip()):
        lines += _folded("-> " if step.kind == "tool" else "", step.output, full)
    return lines


def _child(child: ChildRun, full: bool) -> list[str]:
    lines = [f"delegated to {child.agent}: {child.run_id} {child.state}"]
    lines += _folded("task: ", child.task, full)
    if child.error or child.text:
        lines += _folded("-> ", child.error or child.text, full)
    return lines


def _folded(label: str, text: str, full: bool) -> list[str]:
    """As lines beneath a step; unless `full`, on one line that says how much is left out."""
    from protocols.runs import one_line

    if full:
        first, *rest = text.splitlines() or [""]
        return [f"{INDENT}{label}{first}", *(f"{INDENT}{line}" for line in rest)]
    flat = one_line(text, FOLDED)
    more = f" ({len(text):,} characters; --full shows all)" if len(text) > FOLDED else ""
    return [f"{INDENT}{label}{flat}{more}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{max(0.0, seconds):.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _usage(usage: Usage) -> str:
    return f"{usage.input_tokens} in, {usage.output_tokens} out"


def _money(usd: float | None) -> str:
    return "unknown" if usd is None else f"${usd:.4f}"
