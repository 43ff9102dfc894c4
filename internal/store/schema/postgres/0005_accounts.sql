-- +goose Up

-- Sets of credentials by backend. Those of the server's environment have a row,
-- too: limits hit them as others.
CREATE TABLE account (
	id             TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	backend        TEXT COLLATE "C"    NOT NULL,
	name           TEXT COLLATE "C"    NOT NULL,
	name_key       TEXT COLLATE "C"    NOT NULL, -- the name in lower case
	is_default     BOOLEAN NOT NULL DEFAULT FALSE,
	enabled        BOOLEAN NOT NULL DEFAULT TRUE,
	place          BIGINT  NOT NULL DEFAULT 0, -- lower is taken first
	max_concurrent BIGINT  NOT NULL DEFAULT 0, -- 0 is no limit
	config         TEXT COLLATE "C"    NOT NULL DEFAULT '', -- folder with the CLI's own login
	credentials    TEXT COLLATE "C"    NOT NULL DEFAULT '', -- JSON: variable to sealed value
	former         TEXT COLLATE "C"    NOT NULL DEFAULT '', -- likewise: what attempts that run may still have
	state          TEXT COLLATE "C"    NOT NULL DEFAULT 'ready',
	until          BIGINT,
	evidence       TEXT COLLATE "C"    NOT NULL DEFAULT '',
	cause          TEXT COLLATE "C"    NOT NULL DEFAULT '', -- class of the end that State was read from
	strikes        BIGINT  NOT NULL DEFAULT 0, -- limits in a row
	probe          TEXT COLLATE "C"    NOT NULL DEFAULT '', -- the execution that finds out whether it is ready again
	probed_at      BIGINT,
	throttled_at   BIGINT,
	used_at        BIGINT,
	created_at     BIGINT  NOT NULL,
	updated_at     BIGINT  NOT NULL
);

CREATE UNIQUE INDEX account_name ON account (backend, name_key);

INSERT INTO account (id, backend, name, name_key, is_default, created_at, updated_at) VALUES
	('default-claude', 'claude', 'default', 'default', TRUE, 0, 0),
	('default-codex', 'codex', 'default', 'default', TRUE, 0, 0),
	('default-gemini', 'gemini', 'default', 'default', TRUE, 0, 0),
	('default-opencode', 'opencode', 'default', 'default', TRUE, 0, 0);

-- What rests for all accounts of a backend: provider (overload, circuit
-- breaker) or address (throttle).
CREATE TABLE backend_rest (
	backend  TEXT COLLATE "C"   NOT NULL,
	kind     TEXT COLLATE "C"   NOT NULL,
	failures BIGINT NOT NULL DEFAULT 0, -- in a row
	until    BIGINT, -- NULL: it does not rest
	why      TEXT COLLATE "C"   NOT NULL DEFAULT '',
	probe    TEXT COLLATE "C"   NOT NULL DEFAULT '', -- the execution that finds out whether it is over
	PRIMARY KEY (backend, kind)
);

-- Executions that may run on the same wait in one lane: what is found out about
-- its first one holds for all of them.
CREATE TABLE lane (
	key      TEXT COLLATE "C"    NOT NULL PRIMARY KEY, -- JSON of the choices
	looks_at BIGINT, -- when its first one looks again; NULL: when somebody changes something
	until    BIGINT, -- the same for people; NULL: not known
	why      TEXT COLLATE "C"    NOT NULL,
	room     BOOLEAN NOT NULL -- the end of an attempt may make room
);

CREATE INDEX lane_looks ON lane (looks_at) WHERE looks_at IS NOT NULL;

ALTER TABLE execution ADD COLUMN lane TEXT COLLATE "C" NOT NULL DEFAULT ''; -- JSON of what it may run on; '' needs no account
ALTER TABLE execution ADD COLUMN parked_on TEXT COLLATE "C"; -- lane of a pending one that waits there, else NULL
ALTER TABLE execution ADD COLUMN account_id TEXT COLLATE "C"; -- account of a running one, else NULL
ALTER TABLE execution ADD COLUMN probes TEXT COLLATE "C" NOT NULL DEFAULT ''; -- account that it is to try, whatever its state
ALTER TABLE execution ADD COLUMN give_up_at BIGINT; -- of a pending one that has had attempts, else NULL

CREATE INDEX execution_parked ON execution (parked_on, scheduled_at, admit_no) WHERE parked_on IS NOT NULL;
CREATE INDEX execution_account ON execution (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX execution_give_up ON execution (give_up_at) WHERE give_up_at IS NOT NULL;

ALTER TABLE attempt ADD COLUMN model TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN class TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN evidence TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN unknown_limit BOOLEAN NOT NULL DEFAULT FALSE; -- no rule knows the wording of evidence
ALTER TABLE attempt ADD COLUMN retry_at BIGINT;
ALTER TABLE attempt ADD COLUMN resumed_from TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN session_gone BOOLEAN NOT NULL DEFAULT FALSE;

CREATE INDEX attempt_unknown ON attempt (finished_at) WHERE unknown_limit;
