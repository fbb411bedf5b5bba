"""One refresh for the whole host, whoever is killed and when; real processes against a real authorization server."""

from __future__ import annotations

import asyncio
import signal
import stat
import time
from pathlib import Path

import msgspec
import pytest

from runtime.oauth.credential import NotSignedIn
from runtime.oauth.refresh import hash_of, refresh, refresh_apart
from tests.runtime.oauth.conftest import Account
from tests.standins.oauth_server import OAuthServer

DYING = str(Path(__file__).with_name("dying.py"))


class TestEightProcesses:
    async def test_an_expired_single_use_token_is_refreshed_once_and_all_go_on(
        self, account: Account, server: OAuthServer
    ) -> None:
        before = account.sign_in()
        workers = await asyncio.gather(*(account.worker() for _ in range(8)))
        told = await account.ask(*workers)
        assert (server.refreshes, server.asked) == (1, 1)
        assert {answer.get("token") for answer in told} == {account.read().access_token}, told
        assert {answer["account"] for answer in told} == {"acct-1"}
        after = account.read()
        assert after.access_token != before.access_token
        assert (after.pending_since, after.refused) == (None, "")
        assert server.accepts(after.access_token)
        assert stat.S_IMODE(account.file.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(account.file.path.parent.stat().st_mode) == 0o700

    async def test_killed_while_the_answer_is_under_way_the_refresh_is_finished_for_the_others(
        self, account: Account, server: OAuthServer
    ) -> None:
        account.sign_in()
        server.hold = asyncio.Event()
        workers = await asyncio.gather(*(account.worker() for _ in range(8)))
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"\n")
        await server.spent.wait()
        for worker in workers[:4]:  # whichever of them began it: the token is spent, and nothing is written
            worker.kill()
        server.hold.set()
        told = [await account.told(worker) for worker in workers[4:]]
        assert {answer.get("token") for answer in told} == {account.read().access_token}, told
        assert (server.refreshes, server.asked) == (1, 1)

    async def test_all_killed_in_that_moment_the_next_one_finds_the_new_token(
        self, account: Account, server: OAuthServer
    ) -> None:
        before = account.sign_in()
        server.hold = asyncio.Event()
        workers = await asyncio.gather(*(account.worker() for _ in range(8)))
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"\n")
        await server.spent.wait()
        for worker in workers:
            worker.kill()
        server.hold.set()
        assert (await account.token())["token"] == account.read().access_token != before.access_token
        assert server.refreshes == server.asked == 1

    @pytest.mark.parametrize("point", ["lock", "fence", "write"])
    async def test_the_refresher_itself_killed_nothing_is_lost(
        self, account: Account, server: OAuthServer, point: str
    ) -> None:
        account.sign_in()
        workers = await asyncio.gather(*(account.worker() for _ in range(3)))
        dying = await account.helper(DYING, point)
        assert await dying.wait() == -signal.SIGKILL
        told = await account.ask(*workers)
        assert {answer.get("token") for answer in told} == {account.read().access_token}, told
        assert (server.refreshes, server.asked, account.read().pending_since) == (1, 1, None)


class TestTheMomentThatCannotBeSaved:
    """The refresher killed between the server's answer and the write: the new token was in its memory only."""

    async def test_a_server_with_grace_gives_another(self, account: Account, server: OAuthServer) -> None:
        server.grace = True
        account.sign_in()
        dying = await account.helper(DYING, "answer")
        assert await dying.wait() == -signal.SIGKILL
        assert account.read().pending_since is not None
        workers = await asyncio.gather(*(account.worker() for _ in range(3)))
        told = await account.ask(*workers)
        assert {answer.get("token") for answer in told} == {account.read().access_token}, told
        assert server.asked == 2

    async def test_a_server_without_is_asked_once_more_and_then_a_person_is(
        self, account: Account, server: OAuthServer
    ) -> None:
        account.sign_in()
        dying = await account.helper(DYING, "answer")
        assert await dying.wait() == -signal.SIGKILL
        workers = await asyncio.gather(*(account.worker() for _ in range(3)))
        told = await account.ask(*workers)
        assert {answer["kind"] for answer in told} == {"auth"}
        assert all("a process was killed" in a["error"] and "atomizer login openai" in a["error"] for a in told)
        assert (server.asked, server.refused) == (2, 1), "they ask a server that says no once"
        await account.token()
        assert server.asked == 2, "and never again"


class TestRefusals:
    async def test_a_token_used_by_another_program_is_named_and_not_asked_for_again(
        self, account: Account, server: OAuthServer
    ) -> None:
        used = account.sign_in()
        await asyncio.to_thread(refresh, account.file, account.settings)
        account.file.write(used)  # as if another program had refreshed a copy
        told = await account.token()
        assert "another program has used" in told["error"]
        assert "refresh_token_reused" in told["error"]
        asked = server.asked
        await account.token()
        assert server.asked == asked
        assert used.refresh_token not in str(told)

    async def test_refused_before_the_end_the_old_access_token_is_used_to_its_end(
        self, account: Account, server: OAuthServer
    ) -> None:
        good = account.sign_in(lasts=200.0)
        account.file.write(msgspec.structs.replace(good, refresh_token="rt-unknown"))
        assert (await account.token())["token"] == good.access_token
        assert "atomizer login openai" in account.read().refused
        assert (await account.token())["token"] == good.access_token
        assert server.asked == 1

    async def test_nobody_signed_in(self, account: Account) -> None:
        with pytest.raises(NotSignedIn, match="atomizer login openai"):
            refresh_apart(account.home, account.settings)


class TestTrouble:
    async def test_it_is_refreshed_before_its_end(self, account: Account, server: OAuthServer) -> None:
        before = account.sign_in(lasts=200.0)
        assert (await account.token())["token"] != before.access_token
        assert server.refreshes == 1

    async def test_a_token_with_time_left_is_used_and_nobody_is_asked(
        self, account: Account, server: OAuthServer
    ) -> None:
        before = account.sign_in(lasts=3600.0)
        assert (await account.token())["token"] == before.access_token
        assert server.asked == 0

    @pytest.mark.parametrize("status", [403, 429, 500, 503])  # 403: a proxy's, for it has no word of OAuth's
    async def test_a_server_in_trouble_costs_nothing_and_is_asked_again(
        self, account: Account, server: OAuthServer, status: int
    ) -> None:
        account.sign_in()
        server.fail_with = status
        assert (await account.token())["kind"] == "network"
        assert account.read().refused == ""
        assert (account.read().pending_since is None) == (status not in (403, 500))
        server.fail_with = 0
        assert (await account.token())["token"] == account.read().access_token

    async def test_a_server_that_is_gone_leaves_no_fence(self, account: Account, server: OAuthServer) -> None:
        before = account.sign_in()
        await server.stop()
        told = await account.token()
        assert (told["kind"], server.url in told["error"]) == ("network", True)
        assert account.read() == before

    async def test_rejected_before_its_time_it_is_replaced_unless_another_process_did(
        self, account: Account, server: OAuthServer
    ) -> None:
        before = account.sign_in(lasts=3600.0)
        rejected = hash_of(before.access_token)
        for _ in range(2):
            await asyncio.to_thread(refresh_apart, account.home, account.settings, rejected=rejected)
        assert server.refreshes == 1

    async def test_it_does_not_end_at_sigterm(self, account: Account, server: OAuthServer) -> None:
        account.sign_in()
        server.hold = asyncio.Event()
        helper = await account.helper()
        await server.spent.wait()
        helper.terminate()
        helper.send_signal(signal.SIGINT)
        server.hold.set()
        assert await helper.wait() == 0
        assert account.read().expires_at is not None
        assert account.read().works(time.time())

    async def test_a_damaged_file_is_named_with_its_mend(self, account: Account) -> None:
        account.sign_in()
        account.file.path.write_text("{")
        told = await account.token()
        assert told["kind"] == "auth"
        assert "oauth.json is damaged; run `atomizer login openai`" in told["error"]

    async def test_nothing_that_is_printed_holds_a_token(self, account: Account) -> None:
        credential = account.sign_in()
        assert credential.refresh_token not in repr(credential)
        helper = await account.helper()
        assert helper.stdout is not None
        said = (await helper.stdout.read()).decode()
        after = account.read()
        for secret in (credential.access_token, credential.refresh_token, after.access_token, after.refresh_token):
            assert secret not in said
