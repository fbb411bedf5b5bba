"""One agent's models: which is asked, whether it can be, and its answers. What the rest of the gateway uses."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random as dice
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec

from gateway.models.anthropic import AnthropicProvider
from gateway.models.bounds import Bound, upper_bound
from gateway.models.catalogue import Catalogue, Standing
from gateway.models.credentials import NOT_SIGNED_IN, OFFLINE, Credentials
from gateway.models.failover import Candidate, Failover, Marks
from gateway.models.gemini import GeminiProvider
from gateway.models.offline import MODELS as OFFLINE_MODELS
from gateway.models.openai import OpenAIProvider
from gateway.models.pictures import ask_with_pictures, without_pictures
from gateway.models.prices import Prices
from gateway.models.provider import Answer, ErrorKind, Provider, ProviderError, Request, Reset, Spent, TextDelta
from protocols.control import ModelChanged
from protocols.errors import ProtocolError
from protocols.runs import Usage
from protocols.status import ModelChoice, ModelStatus
from runtime.config import Cluster, ConfigError, Instance, split_model
from runtime.home import explain_os_error
from runtime.oauth.settings import OAuthError
from runtime.overrides import OverridesBusy, change_overrides
from runtime.secrets import Secrets

DEFAULT_WINDOW = 200_000
LOCAL_WINDOW = 32_768
"""Assumed of a model on a server of one's own that the catalogue does not know."""


class _Selection(msgspec.Struct, frozen=True):
    """What the next turn asks, resolved from configuration, profile, override and end dates."""

    wanted: str
    """As configured or chosen, before any end date."""
    origin: str
    standing: Standing
    fallbacks: list[str]

    @property
    def active(self) -> str:
        return self.standing.model


class Models:
    """The models of one agent. Clients are opened when first asked, and anew when their key or address changes."""

    def __init__(
        self,
        instance: Instance,
        cluster: Cluster,
        secrets: Secrets,
        *,
        make_offline: Callable[[str], Provider],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = dice.random,
        catalogue: Catalogue | None = None,
        learn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`make_offline(name)` gives the provider of `offline/<name>`; `learn` is told of secrets that come up."""
        self._instance = instance
        self._cluster = cluster
        self._secrets = secrets
        self._make_offline = make_offline
        self._clock = clock
        self._catalogue = catalogue or Catalogue.shipped()
        self._learn = learn
        self._override = instance.overrides.model
        self._credentials = self._read_credentials()
        self._prices = Prices(clock)
        self._marks = Marks()
        self._failover = Failover(self._provider, self._prepare, self._marks, clock=clock, sleep=sleep, random=random)
        self._opened: dict[str, tuple[tuple[str | None, ...], Provider]] = {}
        self._replaced: list[Provider] = []
        self._last_used: str | None = None

    # What is asked

    async def stream(
        self, request: Request, *, model: str | None = None
    ) -> AsyncGenerator[TextDelta | Reset | Answer, None]:
        """Deltas, Resets and one Answer with its model and cost; raises ProviderError.

        `request.model` is ignored. `model` is a run's own choice: only it is asked, never a fallback.
        """
        answering = ask_with_pictures(request, self._instance.workspace, lambda asked: self._answers(asked, model))
        async with contextlib.aclosing(answering) as items:
            async for item in items:
                yield item

    async def bound(self, request: Request, *, model: str | None = None) -> Bound | None:
        """What `stream` with the same arguments may use at most; None if it costs nothing."""
        return await upper_bound(self._names(model), request, self._catalogue, self._prices, by_plan=self._paid_by_plan)

    @property
    def offline(self) -> bool:
        """Would an offline model answer next?"""
        return self._select().active.startswith(f"{OFFLINE}/")

    def context_window(self) -> int:
        """Tokens the active model can read and write in one conversation."""
        active = self._select().active
        known = self._catalogue.find(active)
        if known is not None:
            return known.window
        return LOCAL_WINDOW if self._is_local(active) else DEFAULT_WINDOW

    # What can be asked

    def status(self) -> ModelStatus:
        selection = self._select()
        problem = self.usable()
        retires = selection.standing.retires
        return ModelStatus(
            configured=self._instance.file.model.primary,
            active=selection.active,
            origin=selection.origin,
            usable=problem is None,
            reason=problem or self._notice(selection),
            fallbacks=selection.fallbacks,
            retires=retires.isoformat() if retires else None,
            successor=selection.standing.successor,
            offline=selection.active.startswith(f"{OFFLINE}/"),
            last_used=self._last_used,
            choices=[self._choice(model) for model in self._offered()],
        )

    def usable(self) -> str | None:
        """None, or why the agent is not ready. A missing key is told even while a fallback answers."""
        selection = self._select()
        problem = self._credentials.problem(selection.active)
        standby = next((f for f in selection.fallbacks if self._hard_mark(f) is None), None)
        if problem is not None:
            meanwhile = f"; {standby} answers in its place" if standby else ""
            return f"{selection.active}: {problem.message}{meanwhile}"
        reason = self._hard_mark(selection.active)
        return None if reason is None or standby else f"{selection.active}: {reason}"

    def check(self, model: str) -> None:
        """Raises ProtocolError if `model` could not be asked: no such provider, or no key."""
        problem = self._credentials.problem(model)
        if problem is not None:
            raise ProtocolError(problem.status, problem.code, f"{model}: {problem.message}")

    # Changing it

    def swap(self, model: str | None) -> ModelChanged:
        """From the next turn on ask `model`; None goes back to the configured one. Raises ProtocolError.

        The choice is on disk before it is in force; other overrides are kept.
        """
        if model is not None:
            self.check(model)
        before, undo = self._select().active, self._override
        home, agent = self._cluster.home, self._instance.spec.name
        try:
            change_overrides(home, agent, model=model)
        except ConfigError as error:
            raise ProtocolError(409, "overrides_damaged", f"{error}; the model was not changed") from None
        except OverridesBusy as error:
            raise ProtocolError(503, "overrides_busy", f"{error}; the model was not changed") from None
        except OSError as error:
            message = explain_os_error(error, "the model was not changed, because the choice cannot be written")
            raise ProtocolError(507, "cannot_write", message) from None
        self._override = model
        return ModelChanged(ok=True, model=self._select().active, previous=before, undo=undo)

    def reload(self, instance: Instance, cluster: Cluster) -> None:
        """Take over a new configuration; models that were passed over get a new chance."""
        self._instance = instance
        self._cluster = cluster
        self._override = instance.overrides.model
        self._credentials = self._read_credentials()
        self._marks.forget()

    async def close(self) -> None:
        """Close every client; streams that still run break off."""
        providers = [*self._replaced, *(provider for _, provider in self._opened.values())]
        self._replaced.clear()
        self._opened.clear()
        for provider in providers:
            await provider.close()

    # Inside

    def _read_credentials(self) -> Credentials:
        name = self._instance.spec.name
        return Credentials(self._secrets, self._cluster, name, clock=self._clock, learn=self._learn)

    async def _answers(self, request: Request, model: str | None) -> AsyncGenerator[TextDelta | Reset | Answer, None]:
        chain = [self._candidate(name) for name in self._names(model)]
        try:
            async with contextlib.aclosing(self._failover.stream(chain, request)) as items:
                async for item in items:
                    if isinstance(item, Answer):
                        self._last_used = item.model
                        item = await self._priced(item)
                    yield item
        except ProviderError as error:
            if error.lost:
                error.spent = await self._spent(error.lost)
            raise

    async def _priced(self, answer: Answer) -> Answer:
        """The answer with its cost, and with what the calls before it used that were cut off."""
        cost, usage = answer.cost_usd, answer.usage
        if cost is None:
            cost = await self._prices.cost(answer.model, usage)
        if answer.lost:
            before = await self._spent(answer.lost)
            usage = usage.plus(before.usage)
            cost = None if cost is None or before.cost_usd is None else cost + before.cost_usd
        return msgspec.structs.replace(answer, cost_usd=cost, usage=usage, lost=())

    async def _spent(self, lost: Sequence[tuple[str, Usage]]) -> Spent:
        total, cost = Usage(), 0.0
        unknown = False
        for model, usage in lost:
            price = await self._prices.cost(model, usage)
            total, cost, unknown = total.plus(usage), cost + (price or 0.0), unknown or price is None
        return Spent(lost[-1][0], total, None if unknown else cost)

    def _names(self, model: str | None) -> list[str]:
        """Those that may answer, in order: a run's own choice alone, else the active one and its fallbacks."""
        if model is not None:
            return [self._catalogue.standing(model, self._today()).model]
        selection = self._select()
        return [selection.active, *selection.fallbacks]

    def _today(self) -> datetime.date:
        return datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).date()

    def _select(self) -> _Selection:
        """An override wins over the profile, the profile over the configuration, an end date over all three."""
        models, table = self._cluster.file.models, self._instance.file.model
        if self._override is not None:
            wanted, origin = self._override, "override"
        elif models.profile == "offline":
            wanted, origin = models.offline_model, "profile"
        else:
            wanted, origin = table.primary, "configured"
        today = self._today()
        standing = self._catalogue.standing(wanted, today)
        fallbacks: list[str] = []
        if not wanted.startswith(f"{OFFLINE}/"):
            for name in table.fallbacks:
                model = self._catalogue.standing(name, today).model
                if model in (standing.model, *fallbacks) or model.startswith(f"{OFFLINE}/"):
                    continue
                if self._credentials.problem(model) is None:
                    fallbacks.append(model)
        return _Selection(wanted, "successor" if standing.model != wanted else origin, standing, fallbacks)

    def _candidate(self, model: str) -> Candidate:
        problem = self._credentials.problem(model)
        if problem is not None:
            kind = ErrorKind.AUTH if problem.code == NOT_SIGNED_IN else ErrorKind.CONFIG
            return Candidate(model, problem.message, kind)
        provider = split_model(model)[0]
        opened = self._opened.get(provider)
        if opened is not None and opened[0] != self._settings(provider):
            self._replaced.append(self._opened.pop(provider)[1])  # a run may still be reading from it
            self._marks.forget(provider)
        return Candidate(model)

    def _settings(self, provider: str) -> tuple[str | None, ...]:
        """What a client is made with: another key, account or address makes another client."""
        table = self._credentials.table(provider)
        account = self._credentials.account(provider)
        where = account.settings.base_url if account is not None else table.base_url
        signed_in = account.settings.client_id if account is not None else None
        return self._credentials.key(provider), where, table.api_version, table.api, signed_in

    def _paid_by_plan(self, model: str) -> bool:
        try:
            return self._credentials.account(model.partition("/")[0]) is not None
        except OAuthError:
            return False  # wrong settings: the model is not asked at all

    def _provider(self, model: str) -> Provider:
        """The provider of `model`, opened on first use."""
        provider, name = split_model(model)
        slot = model if provider == OFFLINE else provider
        if slot not in self._opened:
            settings = () if provider == OFFLINE else self._settings(provider)
            self._opened[slot] = (settings, self._make(provider, name))
        return self._opened[slot][1]

    def _make(self, provider: str, name: str) -> Provider:
        catalogue, clock = self._catalogue, self._clock
        if provider == OFFLINE:
            return self._make_offline(name)
        table, key = self._credentials.table(provider), self._credentials.key(provider) or ""
        if provider == "anthropic":
            return AnthropicProvider(key, base_url=table.base_url, catalogue=catalogue, clock=clock)
        if provider == "google":
            version = table.api_version
            return GeminiProvider(key, base_url=table.base_url, api_version=version, catalogue=catalogue, clock=clock)
        account = self._credentials.account(provider)
        where = account.settings.base_url if account is not None else table.base_url
        return OpenAIProvider(
            account or key, name=provider, base_url=where, api=table.api, catalogue=catalogue, clock=clock
        )

    def _prepare(self, model: str, request: Request) -> Request:
        """The request as `model` can take it."""
        known = self._catalogue.find(model)
        most = known.max_output if known and known.max_output else request.max_output_tokens
        if not self._sees(model):
            request = msgspec.structs.replace(
                request, messages=without_pictures(request.messages, "this model sees none")
            )
        return msgspec.structs.replace(
            request, model=split_model(model)[1], max_output_tokens=min(request.max_output_tokens, most)
        )

    def _sees(self, model: str) -> bool:
        """Does it take images? Of a server of one's own, nobody knows unless the catalogue does."""
        known = self._catalogue.find(model)
        return known.sees if known is not None else not (model.startswith(f"{OFFLINE}/") or self._is_local(model))

    def _is_local(self, model: str) -> bool:
        return self._credentials.table(model.partition("/")[0]).base_url is not None

    def _hard_mark(self, model: str) -> str | None:
        """Why `model` is passed over until somebody mends something, or None."""
        mark = self._marks.get(model, self._clock())
        return mark.reason if mark is not None and not mark.kind.transient else None

    def _notice(self, selection: _Selection) -> str:
        """What to know about a model that works: its end date, or what answers while it is passed over."""
        told = []
        if not selection.active.startswith(f"{OFFLINE}/") and (
            about := self._credentials.notice(selection.active.partition("/")[0])
        ):
            told.append(about)
        mark = self._marks.get(selection.active, self._clock())
        if mark is not None and selection.fallbacks:
            told.append(f"{selection.active} is passed over: {mark.reason}")
        if retires := selection.standing.retires:
            known = self._catalogue.find(selection.wanted)
            note = f" ({known.note})" if known and known.note else ""
            successor = selection.standing.successor
            if selection.origin == "successor":
                told.append(f"{selection.wanted} ended on {retires}; {selection.active} answers in its place")
            else:
                follows = f", then {successor} answers" if successor else ""
                told.append(f"{selection.wanted} ends on {retires}{follows}{note}")
        return "; ".join(told)

    def _offered(self) -> list[str]:
        """Configured models first, then the catalogue's, then the offline ones; each once."""
        table = self._instance.file.model
        own = [table.primary, *table.fallbacks, *([self._override] if self._override else [])]
        offline = [f"{OFFLINE}/{name}" for name in OFFLINE_MODELS]
        return list(dict.fromkeys([*own, *self._catalogue.choices(self._today()), *offline]))

    def _choice(self, model: str) -> ModelChoice:
        problem = self._credentials.problem(model)
        standing = self._catalogue.standing(model, self._today())
        reason = problem.message if problem else self._hard_mark(standing.model) or ""
        if not reason and standing.model != model:
            reason = f"ended on {standing.retires}; {standing.model} answers in its place"
        return ModelChoice(
            id=model,
            available=problem is None,
            reason=reason,
            retires=standing.retires.isoformat() if standing.retires else None,
            successor=standing.successor,
        )
