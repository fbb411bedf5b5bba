"""Secrets: files that only their owner reads, values that appear nowhere else."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.home import Home
from runtime.secrets import API_KEY, TOKEN, Redactor, SecretError, Secrets, token_hash

VALUE = "a-value-that-nobody-may-see"


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return Secrets(Home(tmp_path))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFiles:
    def test_files_are_0600_and_folders_0700_whatever_they_were(self, secrets: Secrets, tmp_path: Path) -> None:
        (tmp_path / "secrets" / "anthropic").mkdir(parents=True)
        for folder in (tmp_path / "secrets", tmp_path / "secrets" / "anthropic"):
            folder.chmod(0o755)
        before = os.umask(0)
        try:
            secrets.set("anthropic", API_KEY, VALUE)
            secrets.ensure_tokens(["operator", "webster"])
        finally:
            os.umask(before)
        for path in (tmp_path / "secrets").rglob("*"):
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path
        assert mode(tmp_path / "secrets") == 0o700

    def test_white_space_around_a_value_is_not_part_of_it(self, secrets: Secrets) -> None:
        secrets.set("google", API_KEY, f"  {VALUE}\n")
        assert secrets.get("google", API_KEY) == VALUE

    @pytest.mark.parametrize("value", ["", "  \n", "two\nlines", "a\rb", "a\x00b", "a\x1b[0m"])
    def test_what_is_no_line_of_text_changes_nothing(self, secrets: Secrets, value: str) -> None:
        secrets.set("google", API_KEY, VALUE)
        with pytest.raises(SecretError, match="nothing was changed") as caught:
            secrets.set("google", API_KEY, value)
        assert not value.strip() or value not in str(caught.value)
        assert secrets.get("google", API_KEY) == VALUE

    @pytest.mark.parametrize("word", ["", "..", "a/b", "../x", "A", ".hidden", "a\n", "a b"])
    def test_a_name_cannot_leave_the_folder(self, secrets: Secrets, word: str) -> None:
        for owner, name in ((word, TOKEN), ("webster", word)):
            with pytest.raises(SecretError, match="cannot name a secret"):
                secrets.path(owner, name)

    def test_the_list_has_names_and_never_values(self, secrets: Secrets) -> None:
        assert secrets.list() == []
        secrets.set("anthropic", API_KEY, VALUE)
        secrets.ensure_tokens(["webster"])
        assert secrets.list() == [("anthropic", API_KEY), ("webster", TOKEN)]

    def test_an_agent_s_own_key_comes_before_the_cluster_s(self, secrets: Secrets) -> None:
        secrets.set("anthropic", API_KEY, "the-cluster-s")
        secrets.set("webster", "anthropic", "webster-s-own")
        assert secrets.api_key("anthropic", "webster") == "webster-s-own"
        assert secrets.api_key("anthropic", "manager") == secrets.api_key("anthropic") == "the-cluster-s"
        assert secrets.api_key("google", "webster") is None


class TestTokens:
    def test_each_owner_has_one_of_its_own_and_keeps_it(self, secrets: Secrets) -> None:
        secrets.ensure_tokens(["operator", "viewer", "webster"])
        tokens = {owner: secrets.token(owner) for owner in ("operator", "viewer", "webster")}
        assert len(set(tokens.values())) == 3
        assert all(len(token) >= 43 for token in tokens.values())
        secrets.ensure_tokens(["operator", "viewer", "webster", "manager"])
        assert {owner: secrets.token(owner) for owner in tokens} == tokens

    def test_the_register_knows_hashes_only(self, secrets: Secrets, tmp_path: Path) -> None:
        secrets.ensure_tokens(["operator", "webster"])
        register = (tmp_path / "secrets" / "tokens.json").read_text()
        assert secrets.token("webster") not in register
        assert secrets.callers()[token_hash(secrets.token("webster"))] == "webster"

    def test_a_forgotten_owner_is_nobody(self, secrets: Secrets) -> None:
        secrets.ensure_tokens(["operator", "webster"])
        secrets.forget("webster")
        assert set(secrets.callers().values()) == {"operator"}

    def test_a_missing_token_names_the_known_owners(self, secrets: Secrets) -> None:
        secrets.ensure_tokens(["operator"])
        with pytest.raises(SecretError, match="no token for 'webstr'; known owners: operator"):
            secrets.token("webstr")

    @pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
    def test_a_damaged_register_is_said_and_made_anew_with_the_tokens_as_they_are(
        self, secrets: Secrets, tmp_path: Path, damage: bytes
    ) -> None:
        secrets.ensure_tokens(["operator", "webster"])
        before, token = secrets.callers(), secrets.token("webster")
        (tmp_path / "secrets" / "tokens.json").write_bytes(damage)
        with pytest.raises(SecretError, match="is damaged; run `atomizer init` to rebuild it"):
            secrets.callers()
        secrets.ensure_tokens(["operator"])
        assert secrets.callers() == before
        assert secrets.token("webster") == token

    def test_two_owners_never_share_a_token(self, secrets: Secrets) -> None:
        secrets.ensure_tokens(["operator", "webster"])
        register = secrets.callers()
        secrets.set("manager", TOKEN, secrets.token("operator"))
        with pytest.raises(SecretError, match="operator and manager have the same token"):
            secrets.ensure_tokens(["manager"])
        assert secrets.callers() == register

    def test_a_token_that_is_no_text_is_said(self, secrets: Secrets) -> None:
        secrets.ensure_tokens(["webster"])
        secrets.path("webster", TOKEN).write_bytes(b"\xff\xfe")
        with pytest.raises(SecretError, match="is no text"):
            secrets.token("webster")

    def test_no_value_is_in_a_repr_or_an_error(self, secrets: Secrets) -> None:
        secrets.set("webster", TOKEN, VALUE)
        secrets.set("operator", TOKEN, VALUE)
        shown = repr(secrets) + str(secrets) + repr(vars(secrets))
        with pytest.raises(SecretError) as caught:
            secrets.ensure_tokens(["webster", "operator"])
        with pytest.raises(SecretError) as other:
            secrets.set("webster", TOKEN, VALUE + "\n" + VALUE)
        assert VALUE not in shown + repr(caught.value) + str(caught.value) + str(other.value)

    def test_any_header_has_a_hash(self) -> None:
        assert token_hash("\udcff") != token_hash("\udcfe")


values = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=8, max_size=60).filter(
    lambda value: value not in "[redacted]"
)


class TestRedactor:
    @given(values, st.text(max_size=30), st.text(max_size=30))
    def test_a_registered_secret_never_survives(self, value: str, before: str, after: str) -> None:
        assert value not in Redactor([value])(f"{before}{value}{after}{value}")

    @given(st.lists(values, min_size=1, max_size=4))
    def test_nor_does_one_of_several(self, several: list[str]) -> None:
        redact = Redactor()
        for value in several:
            redact.know([value])
        text = redact(" | ".join(several))
        assert all(value not in text for value in several)

    @given(st.text(st.characters(codec="ascii", categories=("L",)), max_size=40))
    def test_plain_words_stay(self, text: str) -> None:
        assert Redactor([VALUE])(text) == text

    @pytest.mark.parametrize(
        "key",
        [
            "sk-ant-api03-" + "a1B2" * 20,
            "sk-proj-" + "x" * 40,
            "AIza" + "Sy" * 18,
            "xoxb-1234567890-abcdefghij",
            "Bearer " + "t" * 32,
        ],
    )
    def test_well_known_kinds_of_key_are_known_unregistered(self, key: str) -> None:
        assert Redactor()(f"with {key}, it failed") == "with [redacted], it failed"

    def test_the_token_of_another_is_known_by_its_hash(self, secrets: Secrets) -> None:
        secrets.ensure_tokens(["operator", "webster"])
        redact = Redactor([], secrets.callers())
        assert redact(f"curl -H 'X: {secrets.token('webster')}'") == "curl -H 'X: [redacted]'"
        assert redact("A" * 43) == "A" * 43

    @pytest.mark.parametrize("secret", ["hunter2hunter2", "correct horse battery staple", "correct horse horse horse"])
    def test_of_a_text_that_grows_no_part_of_a_secret_is_shown_before_it_is_whole(self, secret: str) -> None:
        redactor = Redactor([secret])
        text = f"it is correct: {secret} and nothing else"
        shown = [redactor.so_far(text[:end]) for end in range(len(text) + 1)]
        assert all("horse" not in one and "hunter2" not in one for one in shown)
        assert shown[-1] == "it is correct: [redacted] and nothing "

    def test_the_register_itself_is_json(self, secrets: Secrets, tmp_path: Path) -> None:
        secrets.ensure_tokens(["webster"])
        assert list(json.loads((tmp_path / "secrets" / "tokens.json").read_text())) == ["webster"]
