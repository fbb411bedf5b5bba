"""`atomizer login` and `atomizer logout`: a provider's account in place of a key."""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options

if TYPE_CHECKING:
    from runtime.oauth.credential import Credential, CredentialFile
    from runtime.oauth.login import Attempt
    from runtime.oauth.settings import OAuthSettings

WAIT_SECONDS = 900


@click.command()
@click.argument("provider")
@click.option(
    "--import",
    "auth_json",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Take over the account in the Codex CLI's auth.json instead.",
)
@click.option(
    "--timeout", type=click.IntRange(1, 86400), default=WAIT_SECONDS, metavar="S", help="Seconds to wait for you."
)
@shared_options
@pass_invocation
def login(call: Invocation, provider: str, auth_json: Path | None, timeout: int) -> None:
    """Sign in to PROVIDER (openai) with an account, in a browser on any machine.

    The address to open is printed. On a server without a browser, either forward the printed port over SSH, or open
    the address anywhere and paste the address you are sent to. The account is used when there is no key.

    \b
    Examples:
      atomizer login openai
      atomizer login openai --import ~/.codex/auth.json
    """
    settings, file = _account(call, provider)
    credential = _imported(auth_json) if auth_json is not None else _signed_in(settings, timeout)
    with file.locked():
        file.write(credential)
    _say(call, provider, credential, imported=auth_json is not None)


@click.command()
@click.argument("provider")
@shared_options
@pass_invocation
def logout(call: Invocation, provider: str) -> None:
    """Forget PROVIDER's account on this machine.

    \b
    Example:
      atomizer logout openai
    """
    from cluster.cli.access import reload_gateways

    _, file = _account(call, provider)
    with file.locked():
        removed = file.remove()
    reloaded, failed = reload_gateways(call)
    lines = [f"{provider}'s account is forgotten here" if removed else f"nobody was signed in to {provider}"]
    lines += [f"{agent}: {why}" for agent, why in failed.items()]
    call.answer(
        {"ok": True, "provider": provider, "removed": removed, "reloaded": reloaded, "failed": failed},
        "\n".join(lines),
    )


def _account(call: Invocation, provider: str) -> tuple[OAuthSettings, CredentialFile]:
    from runtime.config_providers import ProviderTable
    from runtime.oauth.credential import CredentialFile
    from runtime.oauth.settings import OAuthError, settings_for

    table = call.cluster.file.providers.get(provider) or ProviderTable()
    try:
        settings = settings_for(provider, table.oauth)
    except OAuthError as error:
        raise CommandFailure(str(error), exits.USAGE, "no_sign_in") from None
    return settings, CredentialFile(call.home, provider)


def _imported(auth_json: Path) -> Credential:
    from runtime.oauth.credential import of_auth_json
    from runtime.oauth.settings import OAuthError

    try:
        return of_auth_json(auth_json.expanduser().read_bytes(), time.time())
    except OSError as error:
        raise CommandFailure(f"cannot read {auth_json}: {error.strerror}", exits.USAGE, "file") from None
    except OAuthError as error:
        raise CommandFailure(f"{auth_json}: {error}", exits.USAGE, "bad_file") from None


def _signed_in(settings: OAuthSettings, timeout: int) -> Credential:
    from runtime.oauth import endpoint
    from runtime.oauth.credential import of_tokens
    from runtime.oauth.login import Listener, code_of
    from runtime.oauth.settings import OAuthError

    try:
        with Listener(settings) as listener:
            attempt = listener.attempt
            _invite(attempt, listener.port)
            code = code_of(attempt, _brought(attempt, listener.answers, timeout))
        return of_tokens(endpoint.exchange(settings, code, attempt.verifier, attempt.redirect_uri), time.time())
    except OAuthError as error:
        raise CommandFailure(f"not signed in: {error}", exits.REFUSED, "not_signed_in") from None


def _invite(attempt: Attempt, port: int) -> None:
    """On stderr: stdout is for the result."""
    click.echo(
        f"Open this address in a browser and sign in:\n\n  {attempt.url}\n\n"
        "If this machine is not the one you sit at, first run there, in another terminal:\n\n"
        f"  ssh -L {port}:127.0.0.1:{port} THIS-HOST\n\n"
        "or open the address anywhere, and when the browser fails to load the page it is sent to, "
        "paste that page's address here.",
        err=True,
    )


def _brought(attempt: Attempt, answers: queue.Queue[str], timeout: int) -> str:
    """The redirect's URL, from the browser or pasted; a line of another attempt is told, and not obeyed."""
    from runtime.oauth.login import code_of
    from runtime.oauth.settings import OAuthError

    pasted: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            if not line.strip():
                continue
            try:
                code_of(attempt, line)
            except OAuthError as error:
                if not sys.stdin.isatty():
                    pasted.put(line)  # a script gets its answer at once
                    return
                click.echo(f"{error}", err=True)
                continue
            pasted.put(line)
            return

    threading.Thread(target=read, daemon=True, name="paste").start()
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for source in (pasted, answers):
            try:
                return source.get(timeout=0.1)
            except queue.Empty:
                continue
    raise CommandFailure(f"nobody signed in within {timeout} s; run the command again", exits.TIMEOUT, "timeout")


def _say(call: Invocation, provider: str, credential: Credential, *, imported: bool) -> None:
    from cluster.cli.access import reload_gateways
    from runtime.secrets import Secrets

    reloaded, failed = reload_gateways(call)
    lines = [f"signed in to {provider}" + (f"; {len(reloaded)} running agents have read it" if reloaded else "")]
    if imported:
        lines.append(
            "the other program's refresh token is used from here now: it works once, so sign in there anew "
            "if you go on using that program"
        )
    if Secrets(call.home).api_key(provider):
        lines.append(f"{provider} has a key, which is used before the account; remove secrets/{provider}/api-key")
    if call.cluster.file.models.profile == "offline":
        lines.append(
            f'the profile is still offline: set profile = "live" under [models] in {call.home.cluster_toml}, '
            "then `atomizer restart --all`"
        )
    lines += [f"{agent}: {why}" for agent, why in failed.items()]
    call.answer(
        {
            "ok": True,
            "provider": provider,
            "account": credential.account_id,
            "expires_at": credential.expires_at,
            "reloaded": reloaded,
            "failed": failed,
        },
        "\n".join(lines),
    )
