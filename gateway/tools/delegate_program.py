"""`atomizer delegate` and `atomizer run show` inside the sandbox: the program that a command finds in its PATH.

Standard library only, and run by its path: of the program's own files a command may read this one. It has no token and
needs none; `shell_delegation.py` is the other side, and says what goes over the wire.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

DESCRIPTOR = "ATOMIZER_DELEGATE_FD"
OK, FAILED, USAGE, UNREACHABLE, REFUSED, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
"""As `atomizer` outside has them."""
_EXITS = {
    "failed": FAILED, "run_failed": FAILED, "bad_request": USAGE, "too_long": USAGE, "no_such_agent": USAGE,
    "unreachable": UNREACHABLE, "no_channel": UNREACHABLE, "timeout": TIMEOUT,
}  # fmt: skip
"""Whatever else: REFUSED."""
_ANSWER_SECONDS = 30.0
"""A gateway that is asked for a connection gives it at once."""
_TRIES = 5
_ABOUT = """\
Inside a command of an agent. The work is delegated by the agent, as a child of the run whose command this is: with its
authority, limits and depth. No token is needed. Everything else that `atomizer` does is done outside.
"""
_EXITS_HELP = "Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable, 4 refused, 5 timed out."


class Failure(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def ask(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The gateway's answers to one request; raises Failure."""
    line = json.dumps(request).encode() + b"\n"
    for _ in range(_TRIES):
        answered = False
        with _connection() as connection:
            with contextlib.suppress(OSError):
                connection.sendall(line)  # where it is cut short, why may still be read
            with connection.makefile("rb") as answers, contextlib.suppress(OSError):
                for answer in answers:
                    answered = True
                    yield _checked(json.loads(answer))
        if answered:
            return
        # The connection was meant for a process that died before it could take it: another is there at once.
    raise Failure("run_ended", "the gateway gave no answer: this command's run has ended")


def _checked(answer: Any) -> dict[str, Any]:
    if not answer.get("ok"):
        raise Failure(answer["error"]["code"], answer["error"]["message"])
    return dict(answer)


def _connection() -> socket.socket:
    """A connection of our own, by the descriptor that all processes of the command share."""
    number = os.environ.get(DESCRIPTOR, "")
    try:
        shared = socket.socket(fileno=os.dup(int(number)))
    except (ValueError, OSError):
        why = (
            f"descriptor {number} is not open here ({DESCRIPTOR}): the program that started this one has closed it."
            " In Python: subprocess.run([...], close_fds=False)"
            if number
            else f"{DESCRIPTOR} is not set: this is no command of an agent with `delegate`, or a cleared environment"
        )
        raise Failure("no_channel", why) from None
    with shared:
        shared.settimeout(_ANSWER_SECONDS)
        try:
            shared.send(b"ask")
            said, descriptors, _, _ = socket.recv_fds(shared, 4096, 1)
        except TimeoutError:
            raise Failure("unreachable", f"the gateway did not answer within {_ANSWER_SECONDS:.0f} s") from None
        except OSError:
            said, descriptors = b"", []
    if descriptors:
        return socket.socket(fileno=descriptors[0])
    if said:
        _checked(json.loads(said))
    raise Failure("run_ended", "this command's run has ended, or it asked too often: it can delegate nothing any more")


def delegate(given: argparse.Namespace) -> int:
    task = sys.stdin.read() if given.text == "-" else given.text
    if not task.strip():
        raise Failure("bad_request", "the text is empty")
    if given.timeout is not None and not given.wait:
        raise Failure("bad_request", "--timeout is how long --wait waits; give both")
    request = {"do": "delegate", "agent": given.agent, "task": task, "wait": given.wait}
    if given.timeout is not None:
        request["timeout_seconds"] = given.timeout
    return _follow(request, given)


def show(given: argparse.Namespace) -> int:
    request = {"do": "show", "run": given.run_id, "wait": given.wait}
    if given.timeout is not None:
        request["timeout_seconds"] = given.timeout
    return _follow(request, given)


def _follow(request: dict[str, Any], given: argparse.Namespace) -> int:
    answer: dict[str, Any] = {}
    try:
        for said in ask(request):
            answer = said
    except Failure as failure:
        if answer and failure.code in ("timeout", "run_ended"):
            failure.args = (f"{failure} (it is {answer['runId']})",)
        raise
    if given.wait and "text" not in answer:
        raise Failure("run_ended", f"{answer['runId']} goes on; nobody waits for it: this command's run has ended")
    state, run_id, agent = answer["state"], answer["runId"], answer["agent"]
    if given.json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    elif given.wait:
        if state != "succeeded":
            raise Failure("run_failed", f"{run_id} {state}: {answer['reason'] or 'no reason given'}")
        print(answer["text"])
    elif "text" in answer:
        print(f"{run_id} {state}, {agent}{': ' + answer['reason'] if answer['reason'] else ''}")
        if answer["text"]:
            print(f"\n{answer['text']}")
    else:
        print(f"{run_id} {state} (atomizer run show {run_id} --wait)")
    return OK if not given.wait or state == "succeeded" else FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"atomizer: {message} (see `{self.prog} --help`)\n")
        sys.exit(USAGE)


def parser(program: str) -> argparse.ArgumentParser:
    """For `atomizer`, or for `atomizer-delegate`, which is its `delegate`."""
    top = _Parser(prog=program, description=_ABOUT, epilog=_EXITS_HELP, formatter_class=argparse.RawTextHelpFormatter)
    if program == "atomizer-delegate":
        _delegate_options(top)
        return top
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    summary = "Give an agent a piece of work."
    _delegate_options(commands.add_parser("delegate", help=summary, description=summary, epilog=_EXITS_HELP))
    run = commands.add_parser("run", help="Show a run that this command's run delegated.")
    shown = run.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "show", help="Its state, and its answer once it has ended.", epilog=_EXITS_HELP
    )
    shown.add_argument("run_id", metavar="RUN_ID")
    _waiting(shown, "Wait until it has ended, and print its answer.")
    shown.set_defaults(work=show)
    return top


def _delegate_options(into: argparse.ArgumentParser) -> None:
    into.add_argument("agent", metavar="AGENT")
    into.add_argument("text", metavar="TEXT", help="what to do, complete in itself; `-` reads it from stdin")
    _waiting(into, "Wait until the run has ended, and print its answer.")
    into.set_defaults(work=delegate)


def _waiting(into: argparse.ArgumentParser, help_text: str) -> None:
    into.add_argument("--wait", action="store_true", help=help_text)
    timeout = "Seconds that --wait waits at most (1800); a run that is delegated so is cancelled then."
    into.add_argument("--timeout", type=float, metavar="S", help=timeout)
    into.add_argument("--json", action="store_true", help="Print one JSON document.")


def main(argv: list[str]) -> int:
    given = parser(argv[1]).parse_args(argv[2:])
    try:
        return int(given.work(given))
    except Failure as failure:
        if given.json:
            print(json.dumps({"ok": False, "error": {"code": failure.code, "message": str(failure)}}))
        else:
            sys.stderr.write(f"atomizer: {failure}\n")
        return _EXITS.get(failure.code, REFUSED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv))
