"""The HTTP kit: every way to ask wrongly has its own plain answer."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import logging
import re
from collections.abc import AsyncIterator

import pytest

from protocols.errors import ProtocolError
from runtime.secrets import token_hash
from runtime.service import auth as auth_module
from runtime.service.auth import MAX_FAILURES, WINDOW_SECONDS, Auth
from runtime.service.openapi import describe
from tests.openapi import check_openapi
from tests.runtime.service import LIMIT, TOKENS, Clock, Service, service

HOOK = b'{"message": "x"}'


@pytest.fixture
async def server() -> AsyncIterator[Service]:
    async with service() as running:
        yield running


def padded(size: int) -> bytes:
    """A hook of exactly `size` bytes."""
    return b'{"message": "' + b"x" * (size - 15) + b'"}'


class TestWhoCalls:
    async def test_the_token_says_it(self, server: Service) -> None:
        for owner, token in TOKENS.items():
            assert (await server.say("GET", "/anyone", token=token)).json["outcome"] == owner
            own = {"X-Atomizer-Token": token}
            assert (await server.say("GET", "/anyone", token=None, headers=own)).json["outcome"] == owner

    async def test_the_scheme_may_be_written_in_any_case(self, server: Service) -> None:
        answer = await server.say("GET", "/anyone", headers={"Authorization": f"bearer  {TOKENS['viewer']}"})
        assert answer.json["outcome"] == "viewer"

    @pytest.mark.parametrize("value", ["absent", "Bearer", "Bearer ", "Bearer wrong", "Basic b3A6", "operator-token"])
    async def test_without_a_known_one_it_is_401(self, server: Service, value: str) -> None:
        answer = await server.say("GET", "/anyone", headers={"Authorization": value})
        assert answer.refused == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "atomizer token" in answer.message

    async def test_bytes_that_are_no_text_are_a_wrong_token(self, server: Service) -> None:
        answer = await server.say("GET", "/anyone", headers={"Authorization": "Bearer \xff\xfe"})
        assert answer.refused == (401, "unauthorized")

    async def test_open_calls_ask_for_none(self, server: Service) -> None:
        assert (await server.say("GET", "/health", token=None)).json["ok"] is True

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/anyone", {"operator", "viewer", "webster"}),
            ("GET", "/watch", {"operator", "viewer"}),
            ("POST", "/hooks/agent", {"operator", "webster"}),
            ("PUT", "/control", {"operator"}),
        ],
    )
    async def test_each_call_has_those_who_may(
        self, server: Service, method: str, path: str, allowed: set[str]
    ) -> None:
        body = HOOK if method == "POST" else None
        for owner, token in TOKENS.items():
            answer = await server.say(method, path, body, token=token)
            assert (answer.status < 300) == (owner in allowed), owner
            assert owner in allowed or answer.refused[0] == 403

    @pytest.mark.parametrize("name", ["token", "access_token"])
    async def test_a_token_in_the_query_is_refused_even_beside_a_good_one(self, server: Service, name: str) -> None:
        answer = await server.say("GET", f"/anyone?{name}={TOKENS['operator']}")
        assert answer.refused == (400, "token_in_query")
        assert TOKENS["operator"] not in answer.message


class TestGuessing:
    async def test_after_20_failures_it_is_429_and_a_valid_token_still_passes(self, server: Service) -> None:
        for _ in range(MAX_FAILURES):
            assert (await server.say("GET", "/anyone", token="guess")).status == 401
        answer = await server.say("GET", "/anyone", token="guess")
        assert answer.refused == (429, "too_many_failures")
        assert 1 <= int(answer.headers["retry-after"]) <= WINDOW_SECONDS + 1
        assert (await server.say("GET", "/anyone")).status == 200
        server.clock.now += int(answer.headers["retry-after"])
        assert (await server.say("GET", "/anyone", token="guess")).status == 401

    def test_one_address_does_not_throttle_another(self) -> None:
        auth = Auth({}, clock=Clock())
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(ProtocolError) as caught:
                auth.identify({}, "10.0.0.1")
        assert caught.value.status == 429
        with pytest.raises(ProtocolError) as other:
            auth.identify({}, "10.0.0.2")
        assert other.value.status == 401

    def test_addresses_are_forgotten_in_time(self) -> None:
        auth = Auth({}, clock=Clock())
        for number in range(5000):
            with pytest.raises(ProtocolError):
                auth.identify({}, f"address-{number}")
        assert len(auth._failures) <= auth_module._MAX_ADDRESSES

    def test_every_known_hash_is_compared_in_constant_time_whichever_fits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[tuple[str, str]] = []
        real = hmac.compare_digest

        def counting(a: str, b: str) -> bool:
            compared.append((a, b))
            return real(a, b)

        monkeypatch.setattr(auth_module.hmac, "compare_digest", counting)
        auth = Auth({token_hash(token): owner for owner, token in TOKENS.items()})
        for token in TOKENS.values():
            compared.clear()
            auth.identify({"Authorization": f"Bearer {token}"}, "x")
            assert len(compared) == len(TOKENS), "no early way out tells which one it was"
            assert all(len(a) == len(b) == 64 for a, b in compared), "hashes, so that lengths tell nothing"

    def test_a_reload_forgets_old_tokens(self) -> None:
        auth = Auth({token_hash("old"): "webster"})
        auth.reload({token_hash("new"): "webster"})
        assert auth.identify({"X-Atomizer-Token": "new"}, "x") == "webster"
        with pytest.raises(ProtocolError):
            auth.identify({"X-Atomizer-Token": "old"}, "x")


class TestHost:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]", "[::1]:18828", "127.9.9.9:1"])
    async def test_loopback_is_served(self, server: Service, host: str) -> None:
        assert (await server.say("GET", "/health", headers={"Host": host})).status == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:18828", "localhost.evil.example", "10.0.0.1", "", "[::2]", "127.0.0.1.nip.io"],
    )
    async def test_another_is_421(self, server: Service, host: str) -> None:
        answer = await server.say("GET", "/health", headers={"Host": host})
        assert answer.refused == (421, "wrong_host")
        assert "allowed_hosts" in answer.message

    async def test_a_configured_one_is_served_in_any_case(self, server: Service) -> None:
        server.allowed_hosts = ["Lab.Example"]
        assert (await server.say("GET", "/health", headers={"Host": "lab.example:18828"})).status == 200


class TestBodies:
    async def test_a_good_one_arrives(self, server: Service) -> None:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        assert (await server.say("POST", "/hooks/agent", HOOK, headers=kind)).status == 202
        assert server.bodies[0].message == "x"

    async def test_one_of_exactly_256_kib_is_taken(self, server: Service) -> None:
        assert (await server.say("POST", "/hooks/agent", padded(LIMIT))).status == 202

    @pytest.mark.parametrize("size", [LIMIT + 1, 300 * 1024, 20_000_000])
    async def test_a_larger_one_that_says_so_is_413_unread(self, server: Service, size: int) -> None:
        request = "POST /hooks/agent HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator-token\r\n"
        request += f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        answer = await server.raw(request.encode())
        assert answer.refused == (413, "too_large")
        assert "256 KiB" in answer.message

    async def test_a_larger_one_that_is_sent_is_413(self, server: Service) -> None:
        assert (await server.say("POST", "/hooks/agent", padded(300 * 1024))).refused == (413, "too_large")

    async def test_a_larger_one_in_chunks_is_413(self, server: Service) -> None:
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        head = b"POST /hooks/agent HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator-token\r\n"
        head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await server.raw(head + chunk * 19 + b"0\r\n\r\n")).refused == (413, "too_large")

    async def test_one_that_unpacks_to_more_is_413(self, server: Service) -> None:
        small = gzip.compress(padded(5_000_000))
        assert len(small) < LIMIT
        answer = await server.say("POST", "/hooks/agent", small, headers={"Content-Encoding": "gzip"})
        assert answer.refused == (413, "too_large")

    async def test_one_that_does_not_unpack_is_400(self, server: Service) -> None:
        answer = await server.say("POST", "/hooks/agent", b"no gzip at all", headers={"Content-Encoding": "gzip"})
        assert answer.status == 400

    @pytest.mark.parametrize(
        "kind", ["text/plain", "absent", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
    )
    async def test_another_type_is_415(self, server: Service, kind: str) -> None:
        answer = await server.say("POST", "/hooks/agent", HOOK, headers={"Content-Type": kind})
        assert answer.refused == (415, "unsupported_media_type")
        assert "send application/json" in answer.message

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b'{"message": "x", "wakemode": "now"}', "unknown field `wakemode`; did you mean `wakeMode`?"),
            (b"{}", "field `message` is required"),
            (b'{"message": " "}', "field `message`"),
            (
                b'{"message": "x", "wakeMode": "soon"}',
                "field `wakeMode`: got 'soon', expected one of: now, next-heartbeat",
            ),
            (b'{"message": ', "is not JSON"),
            (b"", "is not JSON"),
            (b"\xff", "is not JSON"),
        ],
    )
    async def test_a_wrong_one_is_400_naming_the_call_and_the_field(
        self, server: Service, body: bytes, says: str
    ) -> None:
        answer = await server.say("POST", "/hooks/agent", body)
        assert answer.refused == (400, "bad_request")
        assert answer.message.startswith("POST /hooks/agent: ")
        assert says in answer.message

    async def test_a_caller_who_hangs_up_in_the_middle_is_no_failure_of_ours(
        self, server: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = "POST /hooks/agent HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator-token\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        await writer.drain()
        writer.transport.abort()
        assert (await server.say("GET", "/health")).status == 200
        await asyncio.sleep(0.05)
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


class TestRouting:
    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("GET", "/hooks/agent", "POST"),
            ("POST", "/health", "GET"),
            ("POST", "/control", "DELETE, PUT"),
            ("OPTIONS", "/anyone", "GET"),
            ("PATCH", "/anyone", "GET"),
        ],
    )
    @pytest.mark.parametrize("token", [TOKENS["operator"], None])
    async def test_a_wrong_method_is_405_with_allow(
        self, server: Service, method: str, path: str, allow: str, token: str | None
    ) -> None:
        answer = await server.say(method, path, token=token)
        assert answer.refused == (405, "method_not_allowed")
        assert answer.headers["allow"] == allow

    @pytest.mark.parametrize("path", ["/", "/nothing", "/health/", "/hooks", "/../etc/passwd", "/%2e%2e/x", "//health"])
    async def test_what_is_not_served_is_404_in_json(self, server: Service, path: str) -> None:
        assert (await server.say("GET", path)).refused == (404, "not_found")

    async def test_a_path_s_variable_may_hold_colons_and_slashes(self, server: Service) -> None:
        answer = await server.say("GET", "/items/agent:webster:discord%3Achannel/1%20x")
        assert answer.body == b"agent:webster:discord:channel/1 x"

    @pytest.mark.parametrize("value", ["0", "6", "-1", "nan", "inf", "x", "", "1e9", "9" * 400])
    async def test_a_number_out_of_bounds_is_400_naming_it(self, server: Service, value: str) -> None:
        answer = await server.say("GET", f"/anyone?limit={value}")
        assert answer.refused == (400, "bad_query")
        assert "query `limit`" in answer.message
        assert "1 to 5" in answer.message


class TestFailures:
    @pytest.mark.parametrize("how", ["storage", "ledger"])
    async def test_a_full_disk_is_507(self, server: Service, how: str) -> None:
        assert (await server.say("POST", f"/fail/{how}", b"{}")).refused == (507, "storage_full")

    async def test_a_refusal_keeps_its_headers(self, server: Service) -> None:
        answer = await server.say("POST", "/fail/refused", b"{}")
        assert answer.refused == (409, "stale")
        assert answer.headers["x-more"] == "yes"

    async def test_a_bug_is_500_logged_and_tells_nothing_of_the_inside(
        self, server: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = await server.say("POST", "/fail/bug", b"{}")
        assert answer.refused == (500, "internal")
        assert b"inside" not in answer.body
        assert "POST /fail/bug failed" in caplog.text


class TestOpenApi:
    def test_every_route_is_there_with_its_access_parameters_and_body(self) -> None:
        routes = Service(0).routes()
        document = describe(routes, title="t", version="1")
        described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert described == {(route.method, re.sub(r":[^}]*}", "}", route.path)) for route in routes}
        hook = document["paths"]["/hooks/agent"]["post"]
        assert hook["security"] == [{"bearer": []}]
        assert hook["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/AgentHook")
        assert "security" not in document["paths"]["/health"]["get"]
        assert [p["name"] for p in document["paths"]["/items/{key}"]["get"]["parameters"]] == ["key"]
        assert [p["name"] for p in document["paths"]["/anyone"]["get"]["parameters"]] == ["limit"]
        check_openapi(document)
