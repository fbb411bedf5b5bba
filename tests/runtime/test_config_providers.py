"""`[providers.NAME]`: which names and tables are taken."""

from __future__ import annotations

import pytest

from runtime.config import ConfigError, load_cluster
from runtime.config_providers import openai_like
from tests.conftest import ClusterHome


@pytest.fixture
def home(make_home: object) -> ClusterHome:
    assert callable(make_home)
    made: ClusterHome = make_home("webster")
    return made


def add(home: ClusterHome, text: str) -> None:
    path = home.home.cluster_toml
    path.write_text(path.read_text() + text)


def test_servers_of_ones_own_stand_side_by_side(home: ClusterHome) -> None:
    for name in ("workshop", "lab-2"):
        add(home, f'[providers.{name}]\nkind = "openai"\nbase_url = "http://127.0.0.1:8000/v1"\n')
    add(home, '[providers.openai.oauth]\nredirect_port = 0\nscopes = ["openid"]\n')
    cluster = load_cluster(home.home)
    assert openai_like(cluster.file.providers) == ["workshop", "lab-2"]
    assert cluster.file.providers["openai"].oauth.scopes == ["openid"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[providers.opneai]\nbase_url = "x"\n', "unknown provider `opneai`; did you mean `openai`?"),
        ('[providers.workshop]\nbase_url = "x"\n', "a name of your own with kind and base_url"),
        ('[providers.workshop]\nkind = "openai"\n', "needs its address: base_url in [providers.workshop]"),
        ('[providers.webster]\nkind = "openai"\nbase_url = "x"\n', "`webster` cannot name a provider"),
        ('[providers.offline]\nkind = "openai"\nbase_url = "x"\n', "`offline` cannot name a provider"),
        ('[providers.Work_Shop]\nkind = "openai"\nbase_url = "x"\n', "`Work_Shop` cannot name a provider"),
        ('[providers.google]\nkind = "openai"\n', "google is what it is"),
        ('[providers.openai.oauth]\ntoken = "x"\n', "token"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_line(home: ClusterHome, text: str, said: str) -> None:
    add(home, text)
    with pytest.raises(ConfigError) as refused:
        load_cluster(home.home)
    assert said in str(refused.value)
    assert "cluster.toml:" in str(refused.value)
