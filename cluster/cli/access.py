"""`atomizer token` and `atomizer secrets`."""

from __future__ import annotations

import sys

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options


@click.command()
@click.argument("name")
@shared_options
@pass_invocation
def token(call: Invocation, name: str) -> None:
    """Print the token of `operator`, `viewer` or an agent, for curl.

    \b
    Examples:
      atomizer token operator
      curl -H "Authorization: Bearer $(atomizer token viewer)" http://127.0.0.1:18828/status
    """
    from runtime.secrets import Secrets

    value = Secrets(call.home.require()).token(name)
    call.answer({"ok": True, "owner": name, "token": value}, value)


@click.group()
@shared_options
def secrets() -> None:
    """Store keys; list which are there; remove one.

    \b
    Examples:
      atomizer secrets set anthropic
      atomizer secrets list
      atomizer secrets remove anthropic
    """


@secrets.command("set")
@click.argument("owner")
@click.argument("name", required=False)
@shared_options
@pass_invocation
def set_secret(call: Invocation, owner: str, name: str | None) -> None:
    """Store one secret, typed without echo or read from stdin; never given as an argument.

    OWNER is a provider (anthropic, google, openai) or a search service (brave), NAME is then its api-key; or an agent
    (NAME is then, for example, `anthropic` for a key of its own, or `discord`).

    \b
    Examples:
      atomizer secrets set anthropic
      atomizer secrets set google < key.txt
      atomizer secrets set webster discord
    """
    from cluster.discord.tokens import holders
    from runtime.discord_token import SECRET as DISCORD
    from runtime.discord_token import clean_token
    from runtime.secrets import API_KEY, PROVIDERS, SERVICES, TOKEN, Secrets

    cluster = call.cluster
    providers = list(dict.fromkeys([*PROVIDERS, *cluster.file.providers]))
    if owner not in (*providers, *SERVICES):
        if owner not in cluster.agents:
            from protocols.decoding import nearest

            close = nearest(owner, [*providers, *SERVICES, *cluster.agents])
            hint = f"did you mean {close}?" if close else f"known: {', '.join([*providers, *cluster.agents])}"
            raise CommandFailure(f"no provider or agent {owner!r}; {hint}", exits.USAGE, "usage")
        if name is None:
            raise CommandFailure(
                f"say which secret of {owner}: for example `atomizer secrets set {owner} discord`", exits.USAGE, "usage"
            )
        if name == TOKEN:
            raise CommandFailure("tokens are made by `atomizer init`, not set by hand", exits.USAGE, "usage")
    name = name or API_KEY
    store = Secrets(call.home)
    store.path(owner, name)
    if sys.stdin.isatty():
        import getpass

        value = getpass.getpass(f"{owner}/{name} (not shown): ", stream=sys.stderr)
    else:
        value = sys.stdin.read(65536)
    if owner in cluster.agents and name == DISCORD and value.strip():
        value = clean_token(value)
        if others := [agent for agent in holders(store, value, cluster.agents) if agent != owner]:
            raise CommandFailure(
                f"that is the token of {others[0]}, and both would answer every message; make a bot of its own "
                f"for {owner} in the developer portal and store that one's token; nothing was changed",
                exits.REFUSED,
                "token_taken",
            )
    store.set(owner, name, value)
    reloaded, failed = reload_gateways(call)
    lines = [f"stored {owner}/{name}" + (f"; {_running(reloaded)} read it" if reloaded else "")]
    lines += [f"{agent}: {why}" for agent, why in failed.items()]
    if owner in providers and cluster.file.models.profile == "offline":
        lines.append(
            f'the profile is still offline: set profile = "live" under [models] in {call.home.cluster_toml}, '
            "then `atomizer restart --all`"
        )
    call.answer({"ok": True, "owner": owner, "name": name, "reloaded": reloaded, "failed": failed}, "\n".join(lines))


@secrets.command("remove")
@click.argument("owner")
@click.argument("name", required=False)
@shared_options
@pass_invocation
def remove_secret(call: Invocation, owner: str, name: str | None) -> None:
    """Delete one secret, and have running agents forget it. NAME is an api-key if it is left out.

    \b
    Examples:
      atomizer secrets remove anthropic
      atomizer secrets remove webster discord
    """
    from runtime.secrets import API_KEY, TOKEN, Secrets

    name = name or API_KEY
    if name == TOKEN:
        raise CommandFailure(
            "tokens are not removed: docs/security.md says how one is renewed, and `atomizer agent remove` forgets one",
            exits.USAGE,
            "usage",
        )
    if not Secrets(call.home.require()).remove(owner, name):
        raise CommandFailure(f"there is no secret {owner}/{name}; `atomizer secrets list`", exits.USAGE, "no_secret")
    reloaded, failed = reload_gateways(call)
    lines = [f"removed {owner}/{name}" + (f"; {_running(reloaded)} forgotten it" if reloaded else "")]
    lines += [f"{agent}: {why}" for agent, why in failed.items()]
    call.answer({"ok": True, "owner": owner, "name": name, "reloaded": reloaded, "failed": failed}, "\n".join(lines))


@secrets.command("list")
@shared_options
@pass_invocation
def list_secrets(call: Invocation) -> None:
    """Which secrets are there; never their values.

    \b
    Example:
      atomizer secrets list
    """
    from runtime.secrets import Secrets

    found = Secrets(call.home.require()).list()
    call.answer(
        {"ok": True, "secrets": [{"owner": owner, "name": name} for owner, name in found]},
        "\n".join(f"{owner}/{name}" for owner, name in found) or "no secrets yet",
    )


def _running(agents: list[str]) -> str:
    """Who has done it: the beginning of a sentence."""
    return "1 running agent has" if len(agents) == 1 else f"{len(agents)} running agents have"


def running_agents(call: Invocation) -> list[str]:
    """The agents of the cluster whose gateways run; none without a supervisor."""
    from cluster.supervisors.supervisor import SupervisorError

    try:
        return [c.agent for c in call.supervisor().list() if c.state == "up" and c.agent in call.cluster.agents]
    except SupervisorError:
        return []


def reload_gateways(call: Invocation) -> tuple[list[str], dict[str, str]]:
    """Ask every running gateway to read its configuration again; answers who did, and why others did not."""
    from protocols.control import Acted
    from protocols.errors import AtomizerError

    done: list[str] = []
    failed: dict[str, str] = {}
    for agent in running_agents(call):
        try:
            call.ask(agent).send("POST", "/control/reload", {}, Acted)
            done.append(agent)
        except AtomizerError as error:
            failed[agent] = str(error)
    return done, failed
