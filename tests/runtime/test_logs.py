"""Logs: JSON lines, rotated, redacted, with the run they belong to; a full disk loses a line and nothing more."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.events import LogEvent
from runtime import logs as module
from runtime.logs import Logs, logging_run, tail
from runtime.secrets import Redactor
from tests.runtime.conftest import fill

SECRET = "a-secret-of-some-length"
log = logging.getLogger("test.logs")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The process's own logging, as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    made = Logs("webster", tmp_path / "logs", Redactor([SECRET]), "debug")
    yield made
    made.close()


def lines(logs: Logs) -> list[dict[str, object]]:
    return [json.loads(line) for line in logs.path.read_text().splitlines() if line]


class TestLines:
    def test_one_json_object_each(self, logs: Logs) -> None:
        log.warning("first %d", 1)
        with logging_run("run-0001"):
            log.info("second")
        log.debug("third")
        first, second, third = lines(logs)
        assert set(first) == {"at", "level", "logger", "message"}
        assert (first["level"], first["logger"], first["message"]) == ("warning", "test.logs", "first 1")
        assert second["runId"] == "run-0001"
        assert "runId" not in third

    def test_a_traceback_is_part_of_its_line(self, logs: Logs) -> None:
        try:
            raise ValueError("deep")
        except ValueError:
            log.exception("it failed")
        (line,) = lines(logs)
        assert line["level"] == "error"
        assert str(line["message"]).startswith("it failed\nTraceback")
        assert str(line["message"]).endswith("ValueError: deep")

    def test_secrets_are_redacted_in_messages_arguments_and_tracebacks(self, logs: Logs) -> None:
        log.info("%s", {"token": SECRET})
        try:
            raise ValueError(SECRET)
        except ValueError:
            log.exception("with %s", SECRET)
        assert SECRET not in logs.path.read_text()
        assert logs.path.read_text().count("[redacted]") == 3

    def test_a_secret_across_the_cut_leaves_no_half(self, logs: Logs) -> None:
        log.info("x" * (module.MAX_MESSAGE - 10) + SECRET)
        message = str(lines(logs)[0]["message"])
        assert SECRET[:5] not in message
        assert message.rstrip("x").endswith("[redacted]") or "cut)" in message

    def test_a_long_message_is_cut_visibly(self, logs: Logs) -> None:
        log.info("y" * 20_000)
        assert str(lines(logs)[0]["message"]).endswith("… (12000 characters cut)")

    def test_half_a_surrogate_in_a_file_s_name_is_no_reason_to_lose_the_line(self, logs: Logs) -> None:
        root = logging.getLogger()
        root.handlers[:] = [kept for kept in root.handlers if type(kept).__module__ == module.__name__]  # not pytest's
        log.info("cannot read %s", b"caf\xe9".decode("utf-8", "surrogateescape"))
        assert lines(logs)[0]["message"] == "cannot read caf\\udce9"

    def test_every_line_is_published_as_an_event_too(self, logs: Logs) -> None:
        seen: list[LogEvent] = []
        logs.publish_to(seen.append)
        with logging_run("run-0002"):
            log.error("with %s", SECRET)
        logs.publish_to(None)
        log.error("unseen")
        assert [(e.agent, e.level, e.message, e.run_id) for e in seen] == [
            ("webster", "error", "with [redacted]", "run-0002")
        ]

    def test_the_level_can_be_changed_while_running(self, logs: Logs) -> None:
        logs.set_level("error")
        log.warning("not this")
        logs.set_level("info")
        log.info("this")
        assert [line["message"] for line in lines(logs)] == ["this"]

    def test_threads_never_mix_their_lines(self, logs: Logs) -> None:
        threads = [threading.Thread(target=lambda n=n: [log.info("%d", n) for _ in range(50)]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lines(logs)) == 200


class TestRotation:
    @pytest.fixture(autouse=True)
    def small_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_BYTES", 2000)

    def test_old_files_are_few_and_small_and_the_newest_lines_stay(self, logs: Logs) -> None:
        for number in range(200):
            log.info("line %d", number)
        files = sorted(path.name for path in logs.path.parent.iterdir())
        assert files == ["gateway.jsonl", *(f"gateway.jsonl.{n}" for n in range(1, module.BACKUPS + 1))]
        assert all(path.stat().st_size <= 2000 for path in logs.path.parent.iterdir())
        assert [line.message for line in tail(logs.path, limit=60)] == [f"line {n}" for n in range(140, 200)]

    def test_tail_goes_through_rotated_files_by_level_time_and_number(self, logs: Logs) -> None:
        for number in range(60):
            log.log(logging.ERROR if number % 10 == 0 else logging.INFO, "line %d", number)
        errors = tail(logs.path, level="error")
        assert [line.message for line in errors] == [f"line {n}" for n in range(0, 60, 10)]
        assert [line.message for line in tail(logs.path, level="error", limit=2)] == ["line 40", "line 50"]
        since = errors[3].at
        assert [line.message for line in tail(logs.path, level="error", since=since)] == [
            "line 30",
            "line 40",
            "line 50",
        ]


class TestTail:
    def test_no_file_is_no_lines(self, tmp_path: Path) -> None:
        assert tail(tmp_path / "none.jsonl") == []

    def test_lines_that_are_none_are_passed_over(self, logs: Logs) -> None:
        log.info("good")
        with logs.path.open("a") as file:
            file.write("not json\n\n{}\n[1]\n")
        log.info("also good")
        with logs.path.open("a") as file:
            file.write('{"at": 1, "level": "in')
        assert [line.message for line in tail(logs.path)] == ["good", "also good"]

    def test_lines_longer_than_a_block_are_read_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        texts = ["é" * size for size in (10, 70_000, 3, 140_000)]
        path.write_text(
            "".join(json.dumps({"at": 1.0, "level": "info", "logger": "x", "message": t}) + "\n" for t in texts)
        )
        assert [line.message for line in tail(path)] == texts


def test_a_full_disk_loses_the_line_and_not_the_process(tiny_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = Logs("webster", tiny_disk / "logs", Redactor())
    seen: list[LogEvent] = []
    logs.publish_to(seen.append)
    log.info("before")
    ballast = fill(tiny_disk)
    for number in range(5):
        log.info("lost %d %s", number, "x" * 5000)
    assert len(seen) == 6, "the console still gets them"
    assert capsys.readouterr().err.count("log file:") == 1, "said once"
    ballast.unlink()
    log.info("after")
    log.info("and on")
    logs.close()
    assert [line.message for line in tail(logs.path)] == ["before", "after", "and on"]
