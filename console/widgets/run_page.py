"""A run in full as lines of text: every step as it happens, and once it has ended the answer first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from console.show import RUN_GLYPHS, RUN_STYLES, Segments, age, clock, money, span, tokens
from console.widgets.facts import field, heading
from console.widgets.lines import wrap
from protocols.runs import ChildRun, Run, RunState, RunSummary, Step, Usage

TASK_LINES, INPUT_LINES, OUTPUT_LINES, CHILD_LINES = 20, 8, 12, 6
"""Lines shown of each before it is cut."""
_STEP_STYLES = {"failed": "bad", "interrupted": "warn", "started": "busy"}
_INDENT = "     "


class RunPage:
    """What the lines are made of besides the run itself. `whole`: nothing is cut."""

    def __init__(self, now: float, width: int, whole: bool, runs: Mapping[str, RunSummary], deltas: Mapping[str, str]):
        self._now, self._width, self._whole = now, width, whole
        self._runs, self._deltas = runs, deltas

    def lines(self, run: Run) -> list[Segments]:
        """While it goes on the newest is at the end; afterwards the answer is at the beginning."""
        width = self._width
        ran = f"  {span(self._now - run.started_at)}" if run.started_at and not run.state.ended else ""
        lines: list[Segments] = [
            (
                (f" {RUN_GLYPHS[run.state]} {run.state.value}", RUN_STYLES[run.state]),
                (f"{ran}  {run.agent}  {run.run_id}", "dim"),
            )
        ]
        lines += heading("TASK", width) + self._text(run.message or run.task, " ", "", TASK_LINES)
        if run.reason:
            title = "WAITS FOR" if run.state is RunState.WAITING else "REASON"
            lines += heading(title, width) + wrap(run.reason, width - 2, "warn", " ")
            if run.state is RunState.WAITING and run.reason.startswith("approval "):
                lines.append(((" g", "key"), (" answers it", "dim")))
        if run.error:
            lines += heading("ERROR", width) + wrap(f"{run.error.code}: {run.error.message}", width - 2, "bad", " ")
        answer, facts = self._answer(run), heading("FACTS", width) + self._facts(run)
        children, steps = self._children(run), self._steps(run)
        parts = [answer, facts, children, steps] if run.state.ended else [facts, children, steps, answer]
        return lines + [line for part in parts for line in part]

    def _text(self, text: str, indent: str, style: str, limit: int) -> list[Segments]:
        """Wrapped, and cut to `limit` lines with a note of how many are left out."""
        made = wrap(text, self._width - 2, style, indent)
        if self._whole or len(made) <= limit + 1:
            return made
        return [
            *made[:limit],
            ((f"{indent}({len(made) - limit} more lines; ", "dim"), ("e", "key"), (" shows all)", "dim")),
        ]

    def _answer(self, run: Run) -> list[Segments]:
        if run.state.ended:
            text = run.text or self._deltas.get(run.run_id, "")
            shown = wrap(text, self._width - 2, "", " ") if text else [((" none", "dim"),)]
            return heading("ANSWER", self._width) + shown
        text = self._streaming(run)
        return heading("ANSWER (so far)", self._width) + wrap(text, self._width - 2, "", " ") if text else []

    def _streaming(self, run: Run) -> str:
        """What comes in now, unless it is a step already."""
        text = self._deltas.get(run.run_id, "").strip()
        done = next((s.output for s in reversed(run.steps) if s.kind == "model" and s.output), "").strip()
        return "" if done and text[:200] == done[:200] else text

    def _facts(self, run: Run) -> list[Segments]:
        width = self._width
        lines = field("from", f"{run.caller} ({run.source.value}, {run.name})", width)
        ago = age(self._now - run.created_at)
        times = f"{clock(run.created_at)}, {ago if ago == 'now' else f'{ago} ago'}"
        if run.started_at and run.finished_at:
            times += f"; ran {run.finished_at - run.started_at:.1f}s"
        lines += field("accepted", times, width)
        lines += field("usage", f"{_usage(run.usage)}, {money(run.cost_usd)}", width)
        lines += field("model", run.model or "none yet", width)
        if run.delivery:
            detail = f": {run.delivery.detail}" if run.delivery.detail else ""
            target = f" to {run.delivery.target}" if run.delivery.target else ""
            style = {"dead": "bad", "unknown": "warn"}.get(run.delivery.status, "")
            lines += field("delivery", run.delivery.status + target + detail, width, style)
        words = {True: "yes", False: "no", None: "not known"}
        if run.facts:
            lines += field("facts", ", ".join(f"{name}: {words[value]}" for name, value in run.facts.items()), width)
        lines += field("session", run.session_key, width)
        if run.attempts > 1:
            lines += field("attempts", f"{run.attempts} (it went on after a restart)", width)
        if run.parent_run_id:
            lines += field("part of", run.parent_run_id, width)
        return lines

    def _children(self, run: Run) -> list[Segments]:
        if not run.children:
            return []
        lines = heading(f"DELEGATED ({len(run.children)})", self._width)
        for child in run.children:
            lines += self._child(child)
        return lines

    def _child(self, child: ChildRun) -> list[Segments]:
        """Its own gateway knows better than its parent's how it stands, and what it is saying."""
        here = self._runs.get(child.run_id)
        state = here.state.value if here and not child.error else child.state
        known = RunState(state) if state in set(RunState) else None
        mark = f"{RUN_GLYPHS[known]} {state}" if known else state
        lines: list[Segments] = [
            (
                (f" {child.agent} ", "bold"),
                (mark, RUN_STYLES[known] if known else ""),
                (f"  {child.run_id}", "dim"),
            )
        ]
        lines += self._text(child.task, _INDENT, "dim", 2)
        text = child.text or (here.reason if here else "") or self._deltas.get(child.run_id, "").strip()
        text = text or (here.preview if here else "")
        if child.error:
            lines += self._text(child.error, _INDENT, "bad", CHILD_LINES)
        elif text:
            lines += self._text(text, _INDENT, "", CHILD_LINES)
        return lines

    def _steps(self, run: Run) -> list[Segments]:
        lines = heading(f"STEPS ({len(run.steps)})", self._width)
        for step in run.steps:
            lines += self._step(step, run)
        return lines

    def _step(self, step: Step, run: Run) -> list[Segments]:
        if step.finished_at:
            took = f" {max(0.0, step.finished_at - step.started_at):.1f}s"
        else:
            took = f" {span(self._now - step.started_at)}" if step.started_at and not run.state.ended else ""
        spent = f"  {_usage(step.usage)}, {money(step.cost_usd)}" if step.usage else ""
        lines: list[Segments] = [
            (
                (f" {step.index:>2} {step.kind} ", "dim"),
                (step.name, "bold"),
                (f" {step.state}{took}", _STEP_STYLES.get(step.state, "")),
                (spent, "dim"),
            )
        ]
        if step.input is not None:
            lines += self._text(arguments(step.input), _INDENT, "dim", INPUT_LINES)
        if step.output:
            if step.kind == "model" and run.state.ended and run.text and step.output.strip() == run.text.strip():
                lines.append(((f"{_INDENT}the answer above", "dim"),))
            else:
                style = "bad" if step.state == "failed" else ""
                lines += self._text(step.output, _INDENT, style, OUTPUT_LINES)
        return lines


def arguments(given: Any) -> str:
    """A tool's arguments as a person reads them: a line each, texts as they are."""
    if not isinstance(given, dict):
        return json.dumps(given, ensure_ascii=False)
    parts = []
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(f"{name}: {text}" if "\n" not in text else f"{name}:\n{text}")
    return "\n".join(parts)


def _usage(usage: Usage) -> str:
    cached = f" ({tokens(usage.cache_read_tokens)} cached)" if usage.cache_read_tokens else ""
    return f"{tokens(usage.input_tokens)} tokens in{cached}, {tokens(usage.output_tokens)} out"
