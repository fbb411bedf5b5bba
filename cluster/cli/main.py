"""The `atomizer` command. Each subcommand is a file of its own, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from cluster.cli import exits
from cluster.cli.context import Invocation, classify, fail, shared_options
from protocols import VERSION
from protocols.errors import AtomizerError

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Make a home: configuration, workspaces and tokens."),
    "up": ("up", "Make a home if needed, start all agents, open the console."),
    "start": ("lifecycle", "Start some agents, or all that are enabled."),
    "stop": ("lifecycle", "Stop some agents, or everything."),
    "restart": ("lifecycle", "Restart agents."),
    "status": ("status", "Show every agent: state, port, model, heartbeat, queue."),
    "logs": ("logs", "Read the agents' logs, merged by time."),
    "delegate": ("work", "Give an agent a piece of work."),
    "runs": ("work", "List runs."),
    "run": ("work", "Show, cancel, export or replay one run."),
    "usage": ("usage", "Show what the models used and cost."),
    "sessions": ("sessions", "List an agent's conversations, read or export one."),
    "schedule": ("schedule", "What an agent begins by itself: list, add, remove."),
    "deadletters": ("deadletters", "What could not be delivered; send it again."),
    "model": ("steer", "List an agent's models, or swap."),
    "heartbeat": ("steer", "Steer an agent's heartbeat."),
    "reload": ("steer", "Have agents read their configuration again."),
    "approvals": ("approvals", "Show what waits for a person, and answer it."),
    "discord": ("discord", "Check the agents' bots; names, pictures, channels."),
    "pairings": ("pairings", "Whose direct messages are answered; take it back."),
    "agent": ("agents", "Add, remove, enable, disable or list agents."),
    "token": ("access", "Print a token, for curl."),
    "login": ("login", "Sign in to a provider with an account."),
    "logout": ("login", "Forget a provider's account."),
    "secrets": ("access", "Store, list and remove keys."),
}
"""Name -> (module in this package, the line shown in the help)."""


class LazyGroup(click.Group):
    """Knows its commands by name, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"cluster.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from protocols.decoding import nearest

            close = nearest(args[0], COMMANDS)
            ctx.fail(f"no command {args[0]!r}" + (f"; did you mean `{close}`?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="atomizer")
@shared_options
@click.pass_context
def atomizer(context: click.Context) -> None:
    """A cluster of AI agents on your own machine.

    \b
    Examples:
      atomizer up
      atomizer delegate webster "Find the CTE of Zerodur Class 0 between 20 and 40 C" --wait
      atomizer status
      atomizer logs --follow
      atomizer stop

    Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable, 4 refused, 5 timed out, 78 bad configuration.
    """
    context.ensure_object(Invocation)


def main() -> None:
    """Run the command line; ends the process with one of `exits`."""
    as_json = "--json" in sys.argv
    call = Invocation()
    try:
        code = atomizer.main(prog_name="atomizer", standalone_mode=False, obj=call)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        sys.exit(exits.USAGE)
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx is not None else ""
        fail(error.format_message() + ("" if as_json else hint), exits.USAGE, "usage", as_json)
    except click.ClickException as error:
        fail(error.format_message(), exits.FAILED, "failed", as_json)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exits.INTERRUPTED)
    except AtomizerError as error:
        exit_code, word = classify(error)
        fail(call.explain(error), exit_code, word, as_json)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(exits.OK)
    except OSError as error:
        from runtime.home import explain_os_error

        fail(explain_os_error(error, "cannot go on"), exits.CONFIG, "file", as_json)
    sys.exit(code if isinstance(code, int) else exits.OK)
