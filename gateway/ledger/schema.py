"""The ledger's tables and their migrations. The number of the newest migration is the file's `user_version`."""

from __future__ import annotations

import sqlite3

from protocols.errors import AtomizerError

_V1 = """
CREATE TABLE runs(
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  priority INTEGER NOT NULL,
  source TEXT NOT NULL,
  name TEXT NOT NULL,
  caller TEXT NOT NULL,
  people INTEGER NOT NULL,
  session_key TEXT NOT NULL,
  message TEXT NOT NULL,
  options TEXT NOT NULL,
  held INTEGER NOT NULL DEFAULT 0,
  idempotency_key TEXT,
  parent_run_id TEXT,
  depth INTEGER NOT NULL DEFAULT 0,
  deadline REAL,
  created_at REAL NOT NULL,
  started_at REAL,
  finished_at REAL,
  attempts INTEGER NOT NULL DEFAULT 0,
  stalled INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  text TEXT NOT NULL DEFAULT '',
  error TEXT,
  model TEXT,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cache_read_tokens INTEGER NOT NULL DEFAULT 0,
  cache_write_tokens INTEGER NOT NULL DEFAULT 0,
  cost_usd REAL,
  cost_unknown INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX runs_once ON runs(caller, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_ready ON runs(attempts = 0, priority, seq) WHERE state = 'queued' AND held = 0;
CREATE INDEX runs_held ON runs(seq) WHERE held = 1;
CREATE INDEX runs_deadline ON runs(deadline) WHERE state = 'queued' AND deadline IS NOT NULL;
CREATE INDEX runs_active ON runs(session_key) WHERE state IN ('running', 'waiting');
CREATE INDEX runs_interrupted ON runs(session_key) WHERE state = 'queued' AND attempts > 0;
CREATE INDEX runs_created ON runs(created_at);
CREATE INDEX runs_parent ON runs(parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE TABLE messages(
  seq INTEGER PRIMARY KEY,
  session_key TEXT NOT NULL,
  run_id TEXT NOT NULL,
  role TEXT NOT NULL,
  content TEXT NOT NULL,
  at REAL NOT NULL
);
CREATE INDEX messages_session ON messages(session_key, seq);
CREATE INDEX messages_run ON messages(run_id);
CREATE TABLE steps(
  run_id TEXT NOT NULL,
  idx INTEGER NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  name TEXT NOT NULL,
  call_id TEXT,
  input TEXT,
  output TEXT,
  is_error INTEGER NOT NULL DEFAULT 0,
  started_at REAL NOT NULL,
  finished_at REAL,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cache_read_tokens INTEGER,
  cache_write_tokens INTEGER,
  cost_usd REAL,
  PRIMARY KEY(run_id, idx)
) WITHOUT ROWID;
CREATE INDEX steps_spent ON steps(finished_at) WHERE kind = 'model';
CREATE TABLE effects(
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  run_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  target TEXT,
  payload TEXT NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at REAL NOT NULL,
  detail TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL,
  finished_at REAL
);
CREATE INDEX effects_due ON effects(next_at) WHERE state = 'pending';
CREATE INDEX effects_run ON effects(run_id);
CREATE INDEX effects_dead ON effects(state) WHERE state IN ('dead', 'unknown');
CREATE TABLE children(
  run_id TEXT PRIMARY KEY,
  parent_run_id TEXT NOT NULL,
  agent TEXT NOT NULL,
  task TEXT NOT NULL,
  state TEXT NOT NULL,
  text TEXT NOT NULL DEFAULT '',
  error TEXT,
  created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX children_parent ON children(parent_run_id);
CREATE TABLE sessions(
  key TEXT PRIMARY KEY,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  route TEXT
) WITHOUT ROWID;
CREATE TABLE notes(
  id INTEGER PRIMARY KEY,
  text TEXT NOT NULL,
  sender TEXT NOT NULL,
  at REAL NOT NULL,
  run_id TEXT
);
CREATE TABLE beats(
  id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  outcome TEXT NOT NULL,
  run_id TEXT
);
"""

_V2 = """
ALTER TABLE runs ADD COLUMN merged_into TEXT;
CREATE INDEX runs_merged ON runs(merged_into) WHERE merged_into IS NOT NULL;
ALTER TABLE steps ADD COLUMN prompt_hash TEXT;
ALTER TABLE steps ADD COLUMN volatile TEXT;
CREATE TABLE prompts(
  hash TEXT PRIMARY KEY,
  text TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE approvals(
  id TEXT PRIMARY KEY,
  run_id TEXT NOT NULL,
  call_key TEXT NOT NULL UNIQUE,
  tool TEXT NOT NULL,
  question TEXT NOT NULL,
  detail TEXT NOT NULL,
  state TEXT NOT NULL,
  revision INTEGER NOT NULL DEFAULT 1,
  created_at REAL NOT NULL,
  expires_at REAL,
  answered_at REAL,
  answered_by TEXT,
  reason TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX approvals_pending ON approvals(created_at) WHERE state = 'pending';
CREATE INDEX approvals_run ON approvals(run_id);
CREATE TABLE schedules(
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  spec TEXT NOT NULL,
  tz TEXT NOT NULL,
  message TEXT NOT NULL,
  session_key TEXT,
  target TEXT,
  missed TEXT NOT NULL,
  enabled INTEGER NOT NULL DEFAULT 1,
  created_by TEXT NOT NULL,
  created_at REAL NOT NULL,
  next_at REAL,
  last_at REAL,
  last_run_id TEXT
) WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules(next_at) WHERE enabled = 1 AND next_at IS NOT NULL;
CREATE TABLE compactions(
  id INTEGER PRIMARY KEY,
  session_key TEXT NOT NULL,
  upto_seq INTEGER NOT NULL,
  summary TEXT NOT NULL,
  checkpoint TEXT NOT NULL,
  tokens_before INTEGER NOT NULL,
  tokens_after INTEGER NOT NULL,
  at REAL NOT NULL
);
CREATE INDEX compactions_session ON compactions(session_key, id);
ALTER TABLE children ADD COLUMN read_at REAL;
ALTER TABLE beats ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN pinned TEXT NOT NULL DEFAULT '[]';
DROP INDEX steps_spent;
CREATE INDEX steps_spent ON steps(finished_at) WHERE input_tokens IS NOT NULL
"""

_V3 = """
CREATE INDEX steps_prompt ON steps(prompt_hash) WHERE prompt_hash IS NOT NULL;
CREATE INDEX runs_queued ON runs(seq) WHERE state = 'queued';
CREATE INDEX runs_open ON runs(caller) WHERE state IN ('queued', 'running', 'waiting');
CREATE INDEX runs_failed ON runs(seq) WHERE state = 'failed';
CREATE TABLE posts(
  key TEXT NOT NULL,
  idx INTEGER NOT NULL,
  target TEXT NOT NULL,
  nonce TEXT NOT NULL,
  text TEXT NOT NULL,
  tried_at REAL NOT NULL,
  place TEXT,
  message_id TEXT,
  final INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(key, idx)
) WITHOUT ROWID;
CREATE INDEX posts_message ON posts(message_id) WHERE message_id IS NOT NULL;
CREATE TABLE marks(
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID
"""

_V4 = """
ALTER TABLE children ADD COLUMN awaited INTEGER NOT NULL DEFAULT 0
"""

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4)
"""Append only: a file at version n gets the scripts from n on."""


class SchemaError(AtomizerError):
    """The file is of a newer version than this program."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file up to date, inside the caller's transaction; raises SchemaError."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise SchemaError(
            f"the ledger is of version {version}, this program knows up to {len(MIGRATIONS)}; "
            "install the newer program again, or restore an older state.db"
        )
    for script in MIGRATIONS[version:]:
        for statement in script.split(";"):
            if statement.strip():
                connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
