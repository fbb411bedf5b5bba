"""`atomizer login` as a real process, with a browser that follows redirects and a person who pastes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener, urlopen

import pytest

from runtime.config_providers import OAuthTable
from runtime.oauth.credential import Credential, CredentialFile
from runtime.oauth.login import begin, code_of
from runtime.oauth.settings import OPENAI, OAuthError, settings_for
from tests.conftest import ClusterHome
from tests.standins.oauth_server import CLIENT, OAuthServer

MakeHome = Callable[..., ClusterHome]


class Server:
    """The authorization server, on a loop of its own."""

    def __init__(self) -> None:
        self.oauth = OAuthServer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self.oauth.start())

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def close(self) -> None:
        self._call(self.oauth.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def oauth() -> Iterator[OAuthServer]:
    server = Server()
    yield server.oauth
    server.close()


@pytest.fixture
def home(make_home: MakeHome, oauth: OAuthServer) -> ClusterHome:
    made = make_home("webster")
    path = made.home.cluster_toml
    path.write_text(path.read_text() + oauth.toml("http://127.0.0.1:1/v1"))
    return made


class Login:
    """`atomizer login openai` under way."""

    def __init__(self, home: ClusterHome, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.cli", "login", "openai", *options],
            env={**os.environ, "ATOMIZER_HOME": str(home.root)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if "paste" in line:
                break
        found = re.search(r"^  (http\S+)$", self.said, re.M)
        assert found, self.said
        self.url = found[1]

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.url).query).items()}

    def paste(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """(exit code, all that was said)"""
        out, err = self.process.communicate(timeout=30)
        self.said += err
        return self.process.returncode, out + self.said

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def login(home: ClusterHome) -> Iterator[Callable[..., Login]]:
    made: list[Login] = []

    def start(*options: str) -> Login:
        made.append(Login(home, *options))
        return made[-1]

    yield start
    for one in made:
        one.close()


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def redirect_of(url: str) -> str:
    """Where the server sends a browser, which stays where it is."""
    with contextlib.closing(build_opener(_Stay)), pytest.raises(HTTPError) as sent:
        build_opener(_Stay).open(url, timeout=10)
    return str(sent.value.headers["Location"])


def stored(home: ClusterHome) -> Credential | None:
    return CredentialFile(home.home, "openai").read()


class TestSigningIn:
    def test_a_browser_on_this_machine_ends_it(
        self, home: ClusterHome, login: Callable[..., Login], oauth: OAuthServer
    ) -> None:
        running = login()
        asked = running.query
        port = urlsplit(asked["redirect_uri"]).port
        assert asked["redirect_uri"] == f"http://localhost:{port}/auth/callback"
        assert f"ssh -L {port}:127.0.0.1:{port} THIS-HOST" in running.said
        assert (asked["code_challenge_method"], asked["client_id"]) == ("S256", CLIENT)
        assert len(asked["state"]) >= 43
        with urlopen(running.url, timeout=10) as page:
            assert b"Signed in" in page.read()
        code, said = running.end()
        found = stored(home)
        assert code == 0, said
        assert found is not None
        assert oauth.accepts(found.access_token)
        assert found.account_id == "acct-1"
        assert found.works(time.time())
        path = home.home.secrets / "openai" / "oauth.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "signed in to openai" in said
        assert found.access_token not in said
        assert found.refresh_token not in said
        listed = home.run("secrets", "list")
        assert "openai/oauth.json" in listed.stdout
        assert found.access_token not in listed.stdout

    @pytest.mark.parametrize("form", ["url", "query", "code#state"])
    def test_on_a_remote_server_the_address_is_pasted(
        self, home: ClusterHome, login: Callable[..., Login], form: str
    ) -> None:
        running = login("--json")
        url = redirect_of(running.url)
        query = parse_qs(urlsplit(url).query)
        pasted = {
            "url": url,
            "query": urlsplit(url).query,
            "code#state": f"{query['code'][0]}#{query['state'][0]}",
        }[form]
        running.paste(f"  {pasted}  ")
        out, err = running.process.communicate(timeout=30)
        assert running.process.returncode == 0, err
        document = json.loads(out)
        assert (document["ok"], document["account"]) == (True, "acct-1")
        found = stored(home)
        assert found is not None
        assert found.refresh_token not in out + err

    def test_a_wrong_state_that_is_pasted_is_refused_and_nothing_is_stored(
        self, home: ClusterHome, login: Callable[..., Login]
    ) -> None:
        running = login()
        url = redirect_of(running.url)
        running.paste(url.replace(running.query["state"], "another-state"))
        code, said = running.end()
        assert code == 4
        assert "the state of this answer is not the one of this sign-in" in said
        assert stored(home) is None

    def test_a_stranger_s_redirect_is_refused_and_does_not_end_the_sign_in(
        self, home: ClusterHome, login: Callable[..., Login]
    ) -> None:
        running = login()
        there = running.query["redirect_uri"].replace("localhost", "127.0.0.1")
        for query in ({"code": "stolen", "state": "x"}, {"code": "stolen"}, {"error": "access_denied", "state": "x"}):
            with pytest.raises(HTTPError) as refused:
                urlopen(f"{there}?{urlencode(query)}", timeout=10)
            assert refused.value.code == 400
        assert stored(home) is None
        urlopen(running.url, timeout=10).close()
        assert running.end()[0] == 0

    def test_a_user_who_says_no_is_told(self, home: ClusterHome, login: Callable[..., Login]) -> None:
        running = login()
        with pytest.raises(HTTPError):
            urlopen(running.url + "&deny=1", timeout=10)
        code, said = running.end()
        assert code == 4
        assert "The user said no." in said
        assert stored(home) is None

    def test_a_code_that_the_server_does_not_know_is_refused(
        self, home: ClusterHome, login: Callable[..., Login]
    ) -> None:
        running = login()
        running.paste(f"{running.query['redirect_uri']}?code=made-up&state={running.query['state']}")
        code, said = running.end()
        assert code == 4
        assert "invalid_grant" in said

    def test_nobody_comes(self, login: Callable[..., Login]) -> None:
        code, said = login("--timeout", "1").end()
        assert code == 5
        assert "nobody signed in within 1 s" in said

    def test_two_at_once_are_told_apart(self, make_home: MakeHome, oauth: OAuthServer) -> None:
        home = make_home("webster")
        port = home.ports["webster"] + 1
        path = home.home.cluster_toml
        path.write_text(path.read_text() + oauth.toml("http://127.0.0.1:1/v1", redirect_port=port))
        first = Login(home)
        try:
            done = home.run("login", "openai")
            assert done.returncode == 4
            assert f"port {port} of this machine is taken" in done.stderr
        finally:
            first.close()


class TestImporting:
    def test_the_other_program_s_account_is_taken_over(self, home: ClusterHome, tmp_path: Path) -> None:
        claims = "eyJleHAiOjQxMDAwMDAwMDB9"  # {"exp":4100000000}
        path = tmp_path / "auth.json"
        tokens = {
            "access_token": f"e30.{claims}.sig",
            "refresh_token": "rt-theirs-0123456789",
            "id_token": "e30.e30.sig",
            "account_id": "acct-7",
        }
        document = {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": "2026-11-20T10:00:00.123456Z"}
        path.write_text(json.dumps(document))
        done = home.run("login", "openai", "--import", str(path))
        assert done.returncode == 0, done.stderr
        found = stored(home)
        assert found is not None
        assert (found.refresh_token, found.account_id, found.expires_at) == (
            "rt-theirs-0123456789",
            "acct-7",
            4100000000.0,
        )
        assert "rt-theirs" not in done.stdout + done.stderr
        assert "it works once" in done.stdout

    @pytest.mark.parametrize("text", ["", "{}", '{"OPENAI_API_KEY": "sk-x"}', '{"tokens": {"access_token": ""}}'])
    def test_what_is_none_is_refused_and_nothing_is_stored(self, home: ClusterHome, tmp_path: Path, text: str) -> None:
        path = tmp_path / "auth.json"
        path.write_text(text)
        done = home.run("login", "openai", "--import", str(path))
        assert done.returncode == 2
        assert "no auth.json of a signed-in account" in done.stderr
        assert stored(home) is None

    def test_a_file_that_is_not_there(self, home: ClusterHome) -> None:
        assert home.run("login", "openai", "--import", "/nowhere/auth.json").returncode == 2


class TestLeaving:
    def test_logout_forgets_and_can_be_repeated(self, home: ClusterHome, oauth: OAuthServer) -> None:
        access, refresh = oauth.issue()
        CredentialFile(home.home, "openai").write(Credential(access, refresh, 0.0))
        assert "is forgotten here" in home.run("logout", "openai").stdout
        assert stored(home) is None
        done = home.run("logout", "openai")
        assert (done.returncode, "nobody was signed in" in done.stdout) == (0, True)

    def test_a_provider_without_accounts_is_told_what_it_takes(self, home: ClusterHome) -> None:
        done = home.run("login", "anthropic")
        assert done.returncode == 2
        assert "atomizer secrets set anthropic" in done.stderr


class TestSettings:
    def test_tokens_are_sent_over_tls_or_to_this_machine_only(self) -> None:
        for table in (OAuthTable(token_url="http://auth.example.com/token"), OAuthTable(base_url="ftp://x/y")):
            with pytest.raises(OAuthError, match="must begin with https://"):
                settings_for("openai", table)

    def test_the_defaults_are_those_of_the_public_client(self) -> None:
        attempt = begin(OPENAI, 1455)
        asked = {key: values[0] for key, values in parse_qs(urlsplit(attempt.url).query).items()}
        assert attempt.url.startswith("https://auth.openai.com/oauth/authorize?")
        assert asked["redirect_uri"] == "http://localhost:1455/auth/callback"
        assert asked["scope"] == "openid profile email offline_access"
        assert attempt.verifier not in attempt.url
        assert attempt.state not in repr(attempt)

    def test_the_state_is_needed_in_every_form(self) -> None:
        attempt = begin(OPENAI, 1455)
        assert code_of(attempt, f"http://localhost:1455/auth/callback?code=abc&state={attempt.state}") == "abc"
        for brought in (
            "abc",
            "code=abc",
            "http://localhost:1455/auth/callback?code=abc",
            "",
            "?state=" + attempt.state,
        ):
            with pytest.raises(OAuthError):
                code_of(attempt, brought)
