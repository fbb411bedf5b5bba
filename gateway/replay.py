"""`python -m gateway.replay FILE [--home DIR]`: go through a recorded run again; exit 1 where it goes another way.

With `--home` the system prompt that the agent's workspace makes today is compared too: a regression test of prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import sys
from pathlib import Path

from gateway.agent.prompt import PromptBuilder
from gateway.agent.recording import Diverged, describe, replay
from gateway.agent.skills import Skills
from gateway.ledger.records import ClaimedRun, RunOptions
from protocols.decoding import decode_json
from protocols.errors import AtomizerError, DecodeError
from protocols.recordings import FORMAT, Recording
from runtime.config import load_cluster, load_instance
from runtime.home import find_home


def main(argv: list[str] | None = None) -> int:
    """0 the same, 1 another way, 2 no recording."""
    parser = argparse.ArgumentParser(prog="atomizer run replay", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--home", help="compare the system prompt with what this home makes today")
    options = parser.parse_args(argv)
    try:
        recording = decode_json(options.file.read_bytes(), Recording, str(options.file))
        if recording.format != FORMAT:
            raise DecodeError(str(options.file), f"format {recording.format} is not known here; {FORMAT} is")
    except (OSError, DecodeError) as error:
        print(f"atomizer: no recorded run: {error}; `atomizer run export RUN_ID` saves one", file=sys.stderr)
        return 2
    for line in describe(recording):
        print(line)
    try:
        asyncio.run(replay(recording, print))
        if options.home:
            _compare_prompt(recording, options.home)
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except AtomizerError as error:
        if recording.run.error is not None:
            print(f"ended as it did then: {error}")
            return 0
        print(f"diverged: it failed: {error}", file=sys.stderr)
        return 1
    print("the same as recorded")
    return 0


def _compare_prompt(recording: Recording, home_path: str) -> None:
    """Raises Diverged with a diff if the stable system prompt is another today."""
    home = find_home(home_path)
    config = load_instance(load_cluster(home), recording.agent)
    run = recording.run
    claimed = ClaimedRun(
        run_id=run.run_id,
        source=run.source,
        name=run.name,
        caller=run.caller,
        people=run.caller == "operator",
        session_key=run.session_key,
        message=run.message,
        options=RunOptions(),
        parent_run_id=run.parent_run_id,
        depth=run.depth,
        deadline=run.deadline,
        attempts=1,
        started_at=run.started_at or 0.0,
    )
    skills = Skills(config.workspace, home.shared)
    builder = PromptBuilder(
        recording.agent, config.file.agent.title, config.workspace, home.shared, skills=skills.prompt
    )
    today = builder.build(claimed).stable
    then = recording.prompts[recording.answers[-1].prompt_hash] if recording.answers else today
    if today != then:
        lines = difflib.unified_diff(then.splitlines(), today.splitlines(), "recorded", "today", lineterm="", n=1)
        raise Diverged("the system prompt is another today:\n" + "\n".join(list(lines)[:200]))
    print("the system prompt is the same today")


if __name__ == "__main__":
    sys.exit(main())
