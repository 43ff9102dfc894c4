-- +goose Up

-- Each file is that of ../sqlite with the same name, in the dialect of PostgreSQL: texts sort by
-- bytes (COLLATE "C"), BLOB is BYTEA, and WITHOUT ROWID is omitted.

-- Times are microseconds since 1970, UTC; NULL is "not yet".

-- Each transaction with events updates a row: free space keeps that within its page.
CREATE TABLE counter (
	name  TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	value BIGINT NOT NULL
) WITH (fillfactor = 50);

INSERT INTO counter (name, value) VALUES
	('event', 0), ('success', 0), ('failed', 0), ('timeout', 0), ('cancelled', 0), ('interrupted', 0);

CREATE TABLE setting (
	key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	value TEXT COLLATE "C" NOT NULL
);

-- "trigger" is a reserved word.
CREATE TABLE trigger_ (
	id         TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	name       TEXT COLLATE "C"    NOT NULL,
	name_key   TEXT COLLATE "C"    NOT NULL, -- the name in lower case
	enabled    BOOLEAN NOT NULL,
	spec       TEXT COLLATE "C"    NOT NULL, -- JSON
	created_at BIGINT  NOT NULL,
	updated_at BIGINT  NOT NULL
);

CREATE UNIQUE INDEX trigger_name ON trigger_ (name_key);

-- An execution outlives its trigger, so trigger_id is no foreign key.
CREATE TABLE execution (
	id                 TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	trigger_id         TEXT COLLATE "C"    NOT NULL, -- '' for an ad-hoc execution
	trigger_name       TEXT COLLATE "C"    NOT NULL,
	name_key           TEXT COLLATE "C"    NOT NULL, -- trigger_name in lower case
	backend            TEXT COLLATE "C"    NOT NULL,
	status             TEXT COLLATE "C"    NOT NULL,
	reason             TEXT COLLATE "C"    NOT NULL DEFAULT '',
	source             TEXT COLLATE "C"    NOT NULL,
	actor              TEXT COLLATE "C"    NOT NULL DEFAULT '',
	retry_of           TEXT COLLATE "C"    NOT NULL DEFAULT '',
	attempt_no         BIGINT  NOT NULL DEFAULT 0,
	last_seq           BIGINT  NOT NULL DEFAULT 0,
	lease_owner        TEXT COLLATE "C", -- NULL unless running
	lease_token        BIGINT  NOT NULL DEFAULT 0,
	lease_expires_at   BIGINT,
	cancel_asked       BOOLEAN NOT NULL DEFAULT FALSE,
	cancel_by          TEXT COLLATE "C"    NOT NULL DEFAULT '',
	exit_code          BIGINT,
	error              TEXT COLLATE "C"    NOT NULL DEFAULT '',
	input_tokens       BIGINT,
	output_tokens      BIGINT,
	cache_read_tokens  BIGINT,
	cache_write_tokens BIGINT,
	cost_usd           DOUBLE PRECISION,
	cumulative         BOOLEAN NOT NULL DEFAULT FALSE,
	event_seq          BIGINT  NOT NULL,
	admit_no           BIGINT  NOT NULL, -- its first event_seq: the order of admission
	max_concurrent     BIGINT  NOT NULL, -- of its trigger; 0 is no limit
	due_at             BIGINT, -- scheduled_at of a pending one that its trigger does not hold back, else NULL
	held_by            TEXT COLLATE "C", -- the trigger whose limit holds a pending one back, else NULL
	untidied           BIGINT, -- finished_at until its files are tidied, else NULL
	created_at         BIGINT  NOT NULL,
	scheduled_at       BIGINT  NOT NULL,
	started_at         BIGINT,
	finished_at        BIGINT
);

CREATE UNIQUE INDEX execution_event ON execution (event_seq);
CREATE INDEX execution_created ON execution (created_at, id);
CREATE INDEX execution_status ON execution (status, created_at, id);
CREATE INDEX execution_trigger ON execution (trigger_id, status, created_at, id);
CREATE INDEX execution_name ON execution (name_key, created_at, id);
CREATE INDEX execution_source ON execution (source, created_at, id);
-- The queue and what runs, apart from the history: columns that are NULL for all
-- else, so that there is but one index to take and it is as small as the queue.
CREATE INDEX execution_due ON execution (due_at, admit_no) WHERE due_at IS NOT NULL;
CREATE INDEX execution_held ON execution (held_by, scheduled_at, admit_no) WHERE held_by IS NOT NULL;
CREATE INDEX execution_owner ON execution (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX execution_lease ON execution (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX execution_untidied ON execution (untidied) WHERE untidied IS NOT NULL;

-- What is long and does not change with every step of an execution's life.
CREATE TABLE execution_text (
	execution_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES execution (id) ON DELETE CASCADE,
	snapshot     TEXT COLLATE "C" NOT NULL, -- JSON
	prompt       TEXT COLLATE "C" NOT NULL,
	result       TEXT COLLATE "C" NOT NULL DEFAULT ''
);

CREATE TABLE attempt (
	execution_id       TEXT COLLATE "C"    NOT NULL REFERENCES execution (id) ON DELETE CASCADE,
	number             BIGINT  NOT NULL,
	backend            TEXT COLLATE "C"    NOT NULL,
	account            TEXT COLLATE "C"    NOT NULL DEFAULT '',
	cli_version        TEXT COLLATE "C"    NOT NULL DEFAULT '',
	status             TEXT COLLATE "C"    NOT NULL,
	exit_code          BIGINT,
	signal             TEXT COLLATE "C"    NOT NULL DEFAULT '',
	reason             TEXT COLLATE "C"    NOT NULL DEFAULT '',
	session_id         TEXT COLLATE "C"    NOT NULL DEFAULT '',
	input_tokens       BIGINT,
	output_tokens      BIGINT,
	cache_read_tokens  BIGINT,
	cache_write_tokens BIGINT,
	cost_usd           DOUBLE PRECISION,
	cumulative         BOOLEAN NOT NULL DEFAULT FALSE,
	started_at         BIGINT,
	finished_at        BIGINT,
	PRIMARY KEY (execution_id, number)
);

CREATE TABLE idempotency (
	scope        TEXT COLLATE "C" NOT NULL, -- trigger id, '' for ad-hoc executions
	key          TEXT COLLATE "C" NOT NULL,
	execution_id TEXT COLLATE "C" NOT NULL REFERENCES execution (id) ON DELETE CASCADE,
	PRIMARY KEY (scope, key)
);

CREATE INDEX idempotency_execution ON idempotency (execution_id);

CREATE TABLE user_ (
	id            TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	name          TEXT COLLATE "C"    NOT NULL,
	name_key      TEXT COLLATE "C"    NOT NULL,
	password_hash TEXT COLLATE "C"    NOT NULL,
	role          TEXT COLLATE "C"    NOT NULL,
	disabled      BOOLEAN NOT NULL DEFAULT FALSE,
	created_at    BIGINT  NOT NULL
);

CREATE UNIQUE INDEX user_name ON user_ (name_key);

CREATE TABLE session (
	id         TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	hash       TEXT COLLATE "C"   NOT NULL, -- hex; the cookie's value itself is nowhere
	user_id    TEXT COLLATE "C"   NOT NULL REFERENCES user_ (id) ON DELETE CASCADE,
	created_at BIGINT NOT NULL,
	seen_at    BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	address    TEXT COLLATE "C"   NOT NULL DEFAULT '',
	user_agent TEXT COLLATE "C"   NOT NULL DEFAULT ''
);

CREATE UNIQUE INDEX session_hash ON session (hash);
CREATE INDEX session_by_user ON session (user_id, created_at);
CREATE INDEX session_expires ON session (expires_at);

CREATE TABLE api_key (
	id         TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	name       TEXT COLLATE "C"   NOT NULL,
	name_key   TEXT COLLATE "C"   NOT NULL,
	hash       TEXT COLLATE "C"   NOT NULL, -- hex; the key itself is nowhere
	prefix     TEXT COLLATE "C"   NOT NULL, -- what people see of it
	role       TEXT COLLATE "C"   NOT NULL,
	created_by TEXT COLLATE "C"   NOT NULL DEFAULT '',
	created_at BIGINT NOT NULL,
	used_at    BIGINT,
	revoked_at BIGINT
);

CREATE UNIQUE INDEX api_key_hash ON api_key (hash);
CREATE UNIQUE INDEX api_key_name ON api_key (name_key) WHERE revoked_at IS NULL;

CREATE TABLE audit (
	id      TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	at      BIGINT NOT NULL,
	actor   TEXT COLLATE "C"   NOT NULL,
	action  TEXT COLLATE "C"   NOT NULL,
	subject TEXT COLLATE "C"   NOT NULL DEFAULT '',
	detail  TEXT COLLATE "C"   NOT NULL DEFAULT '',
	address TEXT COLLATE "C"   NOT NULL DEFAULT ''
);

CREATE INDEX audit_at ON audit (at, id);
