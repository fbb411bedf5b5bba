"""`GET /status`: everything the console shows about one agent, in one answer."""

from __future__ import annotations

import msgspec

from protocols.hooks import Wire
from protocols.runs import RunSummary, Usage
from protocols.schedules import Schedule


class ModelChoice(Wire):
    """A model the operator could choose; one that cannot be used stays listed, with the reason."""

    id: str
    available: bool
    reason: str = ""
    retires: str | None = None
    """ISO date of the end of life, if known."""
    successor: str | None = None


class ModelStatus(Wire):
    configured: str
    """The primary of `instance.toml`."""
    active: str
    """What the next turn will ask first: an override, the profile's, or a retired model's successor."""
    origin: str
    """`configured`, `override`, `profile` or `successor`."""
    usable: bool
    reason: str = ""
    """Why it is not usable, or what to know about it (an end date, a swap)."""
    fallbacks: list[str] = msgspec.field(default_factory=list)
    retires: str | None = None
    successor: str | None = None
    offline: bool = False
    last_used: str | None = None
    choices: list[ModelChoice] = msgspec.field(default_factory=list)


class HeartbeatStatus(Wire):
    enabled: bool
    every_seconds: float
    state: str
    """`off`, `scheduled`, `beating`, `paused` or `overdue`."""
    last_at: float | None = None
    last_outcome: str = ""
    """`ok`, `alert`, `duplicate` (an alert as it was already told), `failed: ...`, or `skipped: <gate>`."""
    next_at: float | None = None
    failures: int = 0
    reason: str = ""
    last_run_id: str | None = None
    """The last beat that asked a model; what it used is below."""
    last_usage: Usage = msgspec.field(default_factory=Usage)
    last_cost_usd: float | None = None


class QueueStatus(Wire):
    queued: int = 0
    running: int = 0
    waiting: int = 0


class PromptFile(Wire):
    """One workspace file in the prompt."""

    name: str
    chars: int
    tokens: int
    """An estimate: characters divided by four."""
    truncated: bool = False
    missing: bool = False


class BudgetScope(Wire):
    """One UTC day's money: of an agent, or of the whole cluster. A limit of null: none."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    """Set aside for calls under way: what they may cost at most."""
    limit_usd: float | None = None
    spent_tokens: int = 0
    reserved_tokens: int = 0
    limit_tokens: int | None = None


class BudgetStatus(Wire):
    state: str = "none"
    """`none` (nothing is limited), `ok`, or `over` (the next call would pass a limit)."""
    reason: str = ""
    """Which limit, and how it stands."""
    over: str = "wait"
    """What becomes of a run over budget: `wait` or `fail`."""
    waiting: int = 0
    """Runs that wait for money."""
    day: str = ""
    """ISO date, UTC."""
    resets_at: float | None = None
    agent: BudgetScope = msgspec.field(default_factory=BudgetScope)
    cluster: BudgetScope = msgspec.field(default_factory=BudgetScope)


class SkillStatus(Wire):
    """A skill's folder; one that cannot be used stays listed, with the reason."""

    name: str
    source: str
    """`workspace` or `shared`."""
    available: bool
    reason: str = ""
    description: str = ""


class McpServerStatus(Wire):
    name: str
    transport: str
    """`stdio` or `http`."""
    state: str
    """`starting`, `ready` or `failed`."""
    reason: str = ""
    """Why it failed."""
    since: float = 0.0
    """When it came into this state."""
    next_at: float | None = None
    """When it is tried again."""
    starts: int = 0
    tools: list[str] = msgspec.field(default_factory=list)
    """All that it offers, by its own names; the agent has those that `[mcp.NAME] allow` names."""


class ChannelStatus(Wire):
    """A provider through which people talk to the agent."""

    provider: str
    """`discord`."""
    state: str
    """`off` (no token), `connecting`, `ready`, `resuming`, `degraded` (the connection is lost and tried again),
    `auth_failed` or `intents_refused` (both wait for a person)."""
    detail: str = ""
    """Why, and what to do."""
    since: float = 0.0
    """When it came into this state."""
    name: str = ""
    """The bot's name."""
    guilds: int = 0
    """Servers it sees."""
    next_at: float | None = None
    """When it is tried again."""


class AgentStatus(Wire):
    agent: str
    title: str
    state: str
    """`up`, `busy`, `paused`, `degraded` or `draining`."""
    instance: str
    version: str
    pid: int
    port: int
    started_at: float
    now: float
    profile: str
    model: ModelStatus
    heartbeat: HeartbeatStatus
    queue: QueueStatus
    current: list[RunSummary] = msgspec.field(default_factory=list)
    """Runs that are running or waiting, oldest first."""
    usage_today: Usage = msgspec.field(default_factory=Usage)
    cost_today_usd: float | None = None
    budget: BudgetStatus = msgspec.field(default_factory=BudgetStatus)
    runs_today: int = 0
    sessions: int = 0
    can_delegate_to: list[str] = msgspec.field(default_factory=list)
    failing: list[str] = msgspec.field(default_factory=list)
    """What `/ready` would say."""
    last_error: str = ""
    config_error: str = ""
    """Why the last reload was refused; the good configuration before it is still in force."""
    rss_bytes: int = 0
    ledger_bytes: int = 0
    dead_letters: int = 0
    schedules: list[Schedule] = msgspec.field(default_factory=list)
    """The next that are due, at most five."""
    prompt: list[PromptFile] = msgspec.field(default_factory=list)
    tools: list[str] = msgspec.field(default_factory=list)
    channels: list[ChannelStatus] = msgspec.field(default_factory=list)
    skills: list[SkillStatus] = msgspec.field(default_factory=list)
    mcp: list[McpServerStatus] = msgspec.field(default_factory=list)
