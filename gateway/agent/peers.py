"""The other agents, as far as the registry knows them: where they listen, and how to call them with our token."""

from __future__ import annotations

import aiohttp

from protocols.client import GatewayClient
from runtime.config import Cluster


class Peers:
    """Clients of the other agents, made with this agent's own token: the receiver knows who calls."""

    def __init__(self, agent: str, cluster: Cluster, token: str) -> None:
        self._agent = agent
        self._cluster = cluster
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    def reload(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def names(self) -> list[str]:
        """The agents this one may delegate to."""
        return self._cluster.authority.reachable(self._agent, self._cluster.agents)

    def deciders(self, target: str) -> list[str]:
        """The other agents that may delegate to `target`, the one with the widest authority first."""
        agents, authority = self._cluster.agents, self._cluster.authority
        able = [name for name in agents if name != self._agent and authority.verdict(name, target).allowed]
        return sorted(able, key=lambda name: -len(authority.reachable(name, agents)))

    def known(self) -> list[str]:
        return list(self._cluster.agents)

    def client(self, agent: str, timeout: float = 10.0) -> GatewayClient:
        """A client of `agent`; raises KeyError if the cluster has no such agent."""
        spec = self._cluster.agents[agent]
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=30))
        host = "127.0.0.1" if spec.host in ("0.0.0.0", "::", "127.0.0.1") else spec.host
        return GatewayClient(self._session, spec.port, self._token, host=host, timeout=timeout)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
