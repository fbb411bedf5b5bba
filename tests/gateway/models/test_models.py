"""One agent's models on a real home: selection, swap, readiness and answers from servers in the providers' place."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.models.failover import ATTEMPTS
from gateway.models.models import Models
from gateway.models.offline import OfflineProvider
from gateway.models.provider import ErrorKind, ProviderError
from protocols.errors import ProtocolError
from runtime import config
from runtime.config import load_cluster, load_instance, load_overrides, save_overrides
from runtime.home import Home
from runtime.oauth.credential import Credential, CredentialFile
from runtime.secrets import Secrets
from tests.gateway.models.conftest import ask, collect
from tests.standins.models import KEY, Fault, Match, ModelServer, Reply, Tokens

CLAUDE, GEMINI = "anthropic/claude-opus-4-6", "google/gemini-3.8-flash"


class House:
    """A home with one agent, whose configuration the test writes."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.now = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
        self.slept: list[float] = []
        self.secrets = Secrets(self.home)
        self.home.instance("webster").mkdir(parents=True)
        self.home.workspace("webster").mkdir(parents=True)
        self.profile, self.primary, self.fallbacks, self.extra = "live", CLAUDE, [GEMINI], ""
        self.models: Models | None = None

    def write(self) -> None:
        self.home.cluster_toml.write_text(
            f'[models]\nprofile = "{self.profile}"\n[agents.webster]\n[authority]\n{self.extra}'
        )
        self.home.instance_toml("webster").write_text(
            f'[agent]\ntitle = "Webster"\n[model]\nprimary = "{self.primary}"\nfallbacks = {self.fallbacks}\n'
        )

    def at(self, server: ModelServer) -> House:
        self.extra = "".join(f'[providers.{name}]\nbase_url = "{server.url}"\n' for name in ("anthropic", "google"))
        return self

    def keys(self, *providers: str, key: str = KEY) -> House:
        for provider in providers:
            self.secrets.set(provider, "api-key", key)
        return self

    def open(self) -> Models:
        self.write()
        cluster = load_cluster(self.home)
        self.models = Models(
            load_instance(cluster, "webster"),
            cluster,
            self.secrets,
            make_offline=lambda name: OfflineProvider(),
            clock=lambda: self.now,
            sleep=self._sleep,
            random=lambda: 0.5,
        )
        return self.models

    def reload(self) -> None:
        self.write()
        cluster = load_cluster(self.home)
        assert self.models is not None
        self.models.reload(load_instance(cluster, "webster"), cluster)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    built = House(tmp_path)
    yield built
    if built.models is not None:
        await built.models.close()


def refused(action: Callable[[], object]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        action()
    return caught.value


class TestSelection:
    def test_the_configured_model_with_its_fallback(self, house: House) -> None:
        status = house.keys("anthropic", "google").open().status()
        assert (status.active, status.origin, status.fallbacks) == (CLAUDE, "configured", [GEMINI])
        assert (status.usable, status.reason, status.offline) == (True, "", False)

    def test_the_offline_profile_answers_for_the_configured_one_without_fallbacks(self, house: House) -> None:
        house.profile = "offline"
        status = house.keys("google").open().status()
        assert (status.configured, status.active, status.origin) == (CLAUDE, "offline/retrieval", "profile")
        assert (status.fallbacks, status.offline, status.usable) == ([], True, True)

    def test_an_override_wins_over_the_profile(self, house: House) -> None:
        house.profile = "offline"
        models = house.keys("google").open()
        models.swap(GEMINI)
        assert (models.status().active, models.status().origin) == (GEMINI, "override")

    def test_a_fallback_without_a_key_is_left_out_and_offline_is_never_one(self, house: House) -> None:
        house.fallbacks = [GEMINI, "offline/retrieval", "anthropic/claude-sonnet-5-5", CLAUDE]
        assert house.keys("anthropic").open().status().fallbacks == ["anthropic/claude-sonnet-5-5"]

    def test_a_server_of_ones_own_needs_no_key(self, house: House) -> None:
        house.primary = "anthropic/qwen3:8b"
        house.extra = '[providers.anthropic]\nbase_url = "http://127.0.0.1:11434"\n'
        models = house.open()
        assert models.usable() is None
        assert models.context_window() == 32_768

    def test_context_windows(self, house: House) -> None:
        models = house.keys("anthropic").open()
        assert models.context_window() == 1_000_000
        models.swap("anthropic/claude-of-the-future")
        assert models.context_window() == 200_000


class TestEndDates:
    def test_an_ending_model_is_announced(self, house: House) -> None:
        house.primary = "google/gemini-2.5-pro"
        status = house.keys("google").open().status()
        assert (status.active, status.retires, status.successor) == ("google/gemini-2.5-pro", "2026-12-01", GEMINI)
        assert "ends on 2026-12-01" in status.reason
        assert "closed to accounts" in status.reason
        assert status.usable

    async def test_from_that_day_the_successor_answers_visibly_without_a_failing_call(
        self, house: House, server: ModelServer
    ) -> None:
        house.primary = "anthropic/claude-sonnet-4-5"
        models = house.at(server).keys("anthropic").open()
        house.now = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
        status = models.status()
        assert (status.active, status.origin) == ("anthropic/claude-sonnet-5-5", "successor")
        assert "ended on 2026-11-30; anthropic/claude-sonnet-5-5 answers in its place" in status.reason
        server.script.add(Reply(text="ok"))
        _, answer = await collect(models.stream(ask()))
        assert answer.model == "anthropic/claude-sonnet-5-5"
        assert [seen.model for seen in server.seen] == ["claude-sonnet-5-5"]


class TestReadiness:
    def test_a_missing_key_is_told_with_the_command_that_mends_it(self, house: House) -> None:
        models = house.open()
        told = models.usable()
        assert told == f"{CLAUDE}: no key: run `atomizer secrets set anthropic`"
        assert (models.status().usable, models.status().reason) == (False, told)

    def test_it_is_told_even_while_a_fallback_answers(self, house: House) -> None:
        told = house.keys("google").open().usable()
        assert told is not None
        assert told.endswith(f"; {GEMINI} answers in its place")

    def test_a_key_works_as_soon_as_it_is_stored(self, house: House) -> None:
        models = house.open()
        assert models.usable() is not None
        house.keys("anthropic")
        assert models.usable() is None

    async def test_an_unknown_model_fails_readiness_if_none_is_left_until_a_reload(
        self, house: House, server: ModelServer
    ) -> None:
        house.fallbacks = []
        models = house.at(server).keys("anthropic").open()
        server.script.add(Reply(fault=Fault(status=404, message="model: claude-opus-4-6")))
        with pytest.raises(ProviderError) as caught:
            await collect(models.stream(ask()))
        assert caught.value.kind is ErrorKind.CONFIG
        assert "not_found_error" in (models.usable() or "")
        house.reload()
        assert models.usable() is None

    async def test_with_a_fallback_it_stays_ready_and_says_so(self, house: House, server: ModelServer) -> None:
        models = house.at(server).keys("anthropic", "google").open()
        server.script.add(
            Reply(fault=Fault(status=404), match=Match(api="anthropic")), Reply(text="ok", match=Match(api="gemini"))
        )
        _, answer = await collect(models.stream(ask()))
        assert answer.model == GEMINI
        assert models.usable() is None
        assert f"{CLAUDE} is passed over: not_found_error" in models.status().reason


class TestSwap:
    @pytest.mark.parametrize(
        ("model", "status", "code", "hint"),
        [
            ("antropic/claude-opus-4-6", 400, "unknown_provider", "did you mean anthropic/claude-opus-4-6?"),
            ("gemini/gemini-3.8-flash", 400, "unknown_provider", "did you mean google/gemini-3.8-flash?"),
            ("claude-opus-4-6", 400, "bad_model", "provider/model"),
            ("offline/retreival", 400, "unknown_model", "retrieval"),
            ("openai/gpt-9", 409, "no_key", "atomizer login openai"),
            ("gpt/gpt-9", 400, "unknown_provider", "did you mean openai/gpt-9?"),
            (GEMINI, 409, "no_key", "atomizer secrets set google"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_with_the_reason(
        self, house: House, model: str, status: int, code: str, hint: str
    ) -> None:
        models = house.keys("anthropic").open()
        error = refused(lambda: models.swap(model))
        assert (error.status, error.code) == (status, code)
        assert hint in error.message
        assert models.status().active == CLAUDE
        assert not house.home.overrides_toml("webster").exists()

    def test_it_is_kept_beside_the_other_overrides_and_can_be_undone(self, house: House) -> None:
        house.write()
        save_overrides(house.home, "webster", config.Overrides(heartbeat_enabled=False))
        models = house.keys("anthropic", "google").open()
        first = models.swap(GEMINI)
        assert (first.model, first.previous, first.undo) == (GEMINI, CLAUDE, None)
        assert load_overrides(house.home, "webster") == config.Overrides(model=GEMINI, heartbeat_enabled=False)
        second = models.swap("anthropic/claude-sonnet-5-5")
        assert (second.previous, second.undo) == (GEMINI, GEMINI)
        back = models.swap(first.undo)
        assert (back.model, models.status().origin) == (CLAUDE, "configured")
        assert load_overrides(house.home, "webster") == config.Overrides(heartbeat_enabled=False)

    def test_it_survives_a_restart(self, house: House) -> None:
        house.keys("anthropic", "google").open().swap(GEMINI)
        assert house.open().status().active == GEMINI

    def test_on_a_full_disk_nothing_changes(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        models = house.keys("anthropic", "google").open()

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "overrides.toml")

        monkeypatch.setattr(config, "write_atomic", full)
        error = refused(lambda: models.swap(GEMINI))
        assert (error.status, error.code) == (507, "cannot_write")
        assert "disk is full" in error.message
        assert models.status().active == CLAUDE

    def test_a_damaged_overrides_file_is_told_and_kept(self, house: House) -> None:
        models = house.keys("anthropic", "google").open()
        house.home.overrides_toml("webster").write_text("model = [")
        assert refused(lambda: models.swap(GEMINI)).status == 409
        assert house.home.overrides_toml("webster").read_text() == "model = ["

    async def test_the_next_turn_asks_the_new_model(self, house: House, server: ModelServer) -> None:
        models = house.at(server).keys("anthropic").open()
        server.script.add(Reply(text="one"), Reply(text="two"))
        await collect(models.stream(ask()))
        models.swap("anthropic/claude-haiku-5-5")
        _, answer = await collect(models.stream(ask()))
        assert answer.model == models.status().last_used == "anthropic/claude-haiku-5-5"


class TestAnswers:
    async def test_an_answer_carries_its_model_and_list_price(self, house: House, server: ModelServer) -> None:
        models = house.at(server).keys("anthropic").open()
        tokens = Tokens(input=1_000, output=2_000, cache_read=10_000, cache_write=4_000)
        server.script.add(Reply(text="ok", tokens=tokens))
        _, answer = await collect(models.stream(ask()))
        assert answer.cost_usd == pytest.approx((1_000 * 5 + 2_000 * 25 + 10_000 * 0.5 + 4_000 * 6.25) / 1e6)

    async def test_an_unknown_model_has_no_price_and_offline_costs_nothing(
        self, house: House, server: ModelServer
    ) -> None:
        house.primary = "anthropic/qwen3:8b"
        models = house.at(server).open()
        house.keys("anthropic")
        server.script.add(Reply(text="ok"))
        _, local = await collect(models.stream(ask()))
        _, offline = await collect(models.stream(ask(), model="offline/echo"))
        assert (local.cost_usd, offline.cost_usd) == (None, 0.0)

    async def test_a_busy_provider_is_waited_for_and_then_the_other_one_answers(
        self, house: House, server: ModelServer
    ) -> None:
        models = house.at(server).keys("anthropic", "google").open()
        server.script.add(
            Reply(fault=Fault(status=429, retry_after="2"), match=Match(api="anthropic")),
            Reply(fault=Fault(status=529), match=Match(api="anthropic"), times=0),
            Reply(text="from Gemini", match=Match(api="gemini")),
        )
        _, answer = await collect(models.stream(ask()))
        assert (answer.message.text, answer.model) == ("from Gemini", GEMINI)
        assert [seen.api for seen in server.seen] == ["anthropic"] * ATTEMPTS + ["gemini"]
        assert house.slept == [2.5, 1.0, 2.0]

    async def test_a_cut_resets_what_was_said(self, house: House, server: ModelServer) -> None:
        models = house.at(server).keys("anthropic").open()
        text = "a text of several pieces, long enough to break"
        server.script.add(Reply(text=text, fault=Fault(breaks="cut")), Reply(text=text))
        deltas, answer = await collect(models.stream(ask()))
        reset = deltas.index("<reset>")
        assert reset > 0
        assert "".join(deltas[reset + 1 :]) == answer.message.text == text

    async def test_a_runs_own_model_is_strict(self, house: House, server: ModelServer) -> None:
        models = house.at(server).keys("anthropic", "google").open()
        server.script.add(Reply(fault=Fault(status=402)), Reply(text="never asked for", match=Match(api="gemini")))
        with pytest.raises(ProviderError) as caught:
            await collect(models.stream(ask(), model="anthropic/claude-haiku-5-5"))
        assert caught.value.kind is ErrorKind.QUOTA
        assert len(server.seen) == 1

    async def test_without_any_key_the_error_names_each_model(self, house: House) -> None:
        models = house.open()
        with pytest.raises(ProviderError) as caught:
            await collect(models.stream(ask()))
        assert caught.value.kind is ErrorKind.CONFIG
        assert str(caught.value) == f"{CLAUDE}: no key: run `atomizer secrets set anthropic`"

    async def test_a_new_key_ends_the_cooldown_of_the_old_one(self, house: House, server: ModelServer) -> None:
        house.fallbacks = []
        models = house.at(server).keys("anthropic", key="a-wrong-key-123").open()
        with pytest.raises(ProviderError):
            await collect(models.stream(ask()))
        assert models.usable() is not None
        house.keys("anthropic")
        server.script.add(Reply(text="ok"))
        _, answer = await collect(models.stream(ask()))
        assert answer.message.text == "ok"
        assert models.usable() is None

    async def test_the_output_limit_fits_the_model(self, house: House, server: ModelServer) -> None:
        models = house.at(server).keys("anthropic").open()
        server.script.add(Reply(text="ok"))
        await collect(models.stream(ask(max_output_tokens=200_000)))
        assert server.bodies[0]["max_tokens"] == 128_000


def test_choices_list_what_cannot_be_used_with_the_reason(house: House) -> None:
    choices = {choice.id: choice for choice in house.keys("anthropic").open().status().choices}
    assert choices[CLAUDE].available
    assert (choices[GEMINI].available, choices[GEMINI].reason) == (False, "no key: run `atomizer secrets set google`")
    assert choices["offline/retrieval"].available
    assert choices["anthropic/claude-sonnet-4-5"].retires == "2026-11-30"
    assert list(choices)[:2] == [CLAUDE, GEMINI]


async def test_what_a_plan_pays_for_reserves_tokens_and_no_dollars(house: House) -> None:
    house.primary, house.fallbacks = "openai/gpt-5.5", []
    models = house.open()
    CredentialFile(house.home, "openai").write(
        Credential("at-1", "rt-1", obtained_at=house.now, expires_at=house.now + 3600)
    )
    by_plan = await models.bound(ask())
    assert by_plan is not None
    assert (by_plan.usd, by_plan.unpriced_tokens, by_plan.tokens > 0) == (0.0, 0, True)
    house.keys("openai")
    by_key = await models.bound(ask())
    assert by_key is not None
    assert by_key.usd > 0
