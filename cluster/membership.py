"""Adding agents to a cluster and taking them out again, without touching a file that a person writes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from string import Template

from cluster.foundation import FIRST_PORT, FoundationError, locked
from protocols.errors import AtomizerError
from protocols.registry import (
    ROSTER,
    AgentName,
    PortFamily,
    check_families,
    check_reserved,
    next_free_family,
    parse_agent_name,
)
from runtime.config import (
    Cluster,
    Placements,
    PlacementTable,
    load_cluster,
    load_placements,
    save_placements,
    split_model,
)
from runtime.home import Home, explain_os_error, shipped_instances, write_atomic
from runtime.overrides import change_overrides
from runtime.secrets import Secrets

DEFAULT_MODEL = "anthropic/claude-sonnet-5-5"
DOCUMENTS = ("SOUL.md", "AGENTS.md", "HEARTBEAT.md", "MEMORY.md")


class MembershipError(AtomizerError):
    """An agent that cannot be added or removed, and why; nothing was changed."""


def add(
    cluster: Cluster,
    name: str,
    *,
    title: str | None = None,
    like: str | None = None,
    model: str | None = None,
    port: int | None = None,
) -> tuple[AgentName, int]:
    """Write a whole new agent; answers its name and port.

    A shipped agent that was removed comes back as shipped; otherwise it is made from the template, or `like` another.
    Raises MembershipError, RegistryError, ConfigError or FoundationError; nothing is then half there.
    """
    home = cluster.home
    agent = parse_agent_name(name)
    if agent in cluster.agents:
        raise MembershipError(f"{agent} is an agent already; `atomizer agent enable {agent}` switches it on")
    if model is not None:
        try:
            split_model(model)
        except ValueError as error:
            raise MembershipError(str(error)) from None
    files = _documents(cluster, agent, title, like, model)
    with locked(home):
        placements = load_placements(home)
        stands = cluster.file.agents.get(agent)
        if stands is not None and port is not None and stands.port not in (None, port):
            raise MembershipError(f"{agent} has port {stands.port} in {home.cluster_toml}; change it there")
        base = _base(cluster, agent, port, stands)
        for folder in (home.instance(agent), home.workspace(agent)):
            if folder.exists():
                raise MembershipError(f"{folder} is in the way; move it to {home.trash} first")
        try:
            _write(home, agent, files)
            placements.removed = [other for other in placements.removed if other != agent]
            if stands is None:
                placements.agents[agent] = PlacementTable(port=base, enabled=True)
            elif not stands.enabled:
                change_overrides(home, agent, enabled=True)
            Secrets(home).ensure_tokens([agent])
            save_placements(home, placements)
        except OSError as error:
            for folder in (home.instance(agent), home.workspace(agent)):
                shutil.rmtree(folder, ignore_errors=True)
            raise FoundationError(explain_os_error(error, f"cannot add {agent}")) from None
    load_cluster(home)
    return agent, base


def remove(cluster: Cluster, name: str) -> Path:
    """Move the agent's folders to the trash and forget its token; answers where they are now.

    Its gateway must have been stopped. Raises ConfigError (no such agent) or FoundationError.
    """
    agent = cluster.agent(name).name
    home = cluster.home
    with locked(home):
        placements = load_placements(home)
        target = home.trash / f"{agent}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            target.mkdir(parents=True)
            # First out of the cluster: if what follows fails, an agent is gone that can be added again.
            removed = [*placements.removed, agent] if agent in cluster.file.agents else placements.removed
            agents = {other: placed for other, placed in placements.agents.items() if other != agent}
            if agent not in removed and _in_authority(cluster, agent):
                removed = [*removed, agent]
            save_placements(home, Placements(agents=agents, removed=removed))
            secrets = Secrets(home)
            secrets.forget(agent)
            for source, kind in (
                (home.instance(agent), "instance"),
                (home.workspace(agent), "workspace"),
            ):
                if source.exists():
                    shutil.move(source, target / kind)
            shutil.rmtree(home.secrets / agent, ignore_errors=True)
        except OSError as error:
            raise FoundationError(explain_os_error(error, f"cannot remove {agent}")) from None
    return target


def enable(cluster: Cluster, name: str, enabled: bool) -> None:
    """Switch the agent on or off in its overrides; raises ConfigError or FoundationError."""
    agent = cluster.agent(name).name
    try:
        change_overrides(cluster.home, agent, enabled=enabled)
    except OSError as error:
        raise FoundationError(explain_os_error(error, f"cannot change {agent}")) from None


def _base(cluster: Cluster, agent: str, port: int | None, stands: PlacementTable | None) -> int:
    taken: dict[str, int] = {spec.name: spec.port for spec in cluster.agents.values()}
    shipped = {str(entry.name): entry.port for entry in ROSTER}
    if port is None and stands is not None:
        port = stands.port
    if port is None and agent in shipped and _apart(shipped[agent], taken.values()):
        port = shipped[agent]
    if port is not None:
        check_families({**taken, agent: port})
        check_reserved({**taken, agent: port})
        return port
    reserved = [*taken.values(), *shipped.values()]
    while True:
        base = next_free_family(reserved, start=min(taken.values(), default=FIRST_PORT))
        if _unused(base):
            return base
        reserved.append(base)  # another program's


def _apart(base: int, others: Iterable[int]) -> bool:
    used = {port for other in others for port in PortFamily(other).ports}
    return not used.intersection(PortFamily(base).ports)


def _unused(base: int) -> bool:
    for port in PortFamily(base).ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _in_authority(cluster: Cluster, agent: str) -> bool:
    rules = cluster.file.authority
    return agent in rules or any(agent == entry.removeprefix("!") for entries in rules.values() for entry in entries)


def _documents(cluster: Cluster, agent: str, title: str | None, like: str | None, model: str | None) -> dict[str, str]:
    """File name -> text of the new agent: `instance.toml` and its workspace documents."""
    home = cluster.home
    shipped = shipped_instances() / agent
    name = title or " ".join(word.capitalize() for word in agent.split("-"))
    if like is not None:
        other = cluster.agent(like).name
        old = _title(home.instance_toml(other))
        texts = {"instance.toml": home.instance_toml(other).read_text()}
        for document in DOCUMENTS[:3]:  # its memory is its own
            path = home.workspace(other) / document
            if path.exists():
                texts[document] = path.read_text().replace(old, name)
        texts["MEMORY.md"] = f"# Memory of {name}\n"
    elif shipped.is_dir():
        texts = {path.name: path.read_text() for path in shipped.iterdir() if path.suffix in (".toml", ".md")}
        name = title or _title(shipped / "instance.toml")
    else:
        folder = Path(__file__).parent / "template"
        words = {"title": name, "model": json.dumps(model or DEFAULT_MODEL)}
        texts = {document: Template((folder / document).read_text()).substitute(words) for document in DOCUMENTS}
        words["title"] = json.dumps(name, ensure_ascii=False)
        texts["instance.toml"] = Template((folder / "instance.toml").read_text()).substitute(words)
    texts["instance.toml"] = _set(texts["instance.toml"], "title", name)
    if model is not None:
        texts["instance.toml"] = _set(texts["instance.toml"], "primary", model)
    return texts


def _set(toml: str, key: str, value: str) -> str:
    line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
    return re.sub(rf"^{key}\s*=.*$", lambda _: line, toml, count=1, flags=re.M)


def _title(path: Path) -> str:
    import tomllib

    return str(tomllib.loads(path.read_text())["agent"]["title"])


def _write(home: Home, agent: str, files: dict[str, str]) -> None:
    home.instance(agent).mkdir(parents=True)
    home.logs(agent).mkdir(mode=0o700)
    (home.workspace(agent) / "memory").mkdir(parents=True)
    for name, text in files.items():
        write_atomic(home.instance_toml(agent) if name == "instance.toml" else home.workspace(agent) / name, text)
