-- +goose Up

-- What an execution was given to work in.
CREATE TABLE checkout (
	execution_id TEXT COLLATE "C"   NOT NULL PRIMARY KEY REFERENCES execution (id) ON DELETE CASCADE,
	repository   TEXT COLLATE "C"   NOT NULL,
	ref          TEXT COLLATE "C"   NOT NULL, -- '' is the default branch
	commit_id    TEXT COLLATE "C"   NOT NULL,
	made_at      BIGINT NOT NULL
);

-- Running executions that stand still.
CREATE TABLE pause (
	execution_id TEXT COLLATE "C"   NOT NULL PRIMARY KEY REFERENCES execution (id) ON DELETE CASCADE,
	paused_at    BIGINT NOT NULL,
	paused_until BIGINT NOT NULL,
	reason       TEXT COLLATE "C"   NOT NULL DEFAULT '',
	paused_by    TEXT COLLATE "C"   NOT NULL DEFAULT '', -- '' is the server
	question     TEXT COLLATE "C"   NOT NULL DEFAULT '',
	spent_usd    DOUBLE PRECISION NOT NULL DEFAULT 0,
	limit_usd    DOUBLE PRECISION NOT NULL DEFAULT 0
);

-- Ceilings that were raised while an execution ran.
CREATE TABLE ceiling (
	execution_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES execution (id) ON DELETE CASCADE,
	usd          DOUBLE PRECISION NOT NULL -- 0 is none
);

-- What each attempt used, for itself alone. It outlives the execution: what was
-- spent stays spent.
CREATE TABLE spending (
	execution_id       TEXT COLLATE "C"    NOT NULL,
	attempt            BIGINT  NOT NULL,
	at                 BIGINT  NOT NULL, -- end of the attempt
	trigger_id         TEXT COLLATE "C"    NOT NULL, -- '' for an ad-hoc execution
	trigger_name       TEXT COLLATE "C"    NOT NULL,
	account            TEXT COLLATE "C"    NOT NULL, -- '' is none
	backend            TEXT COLLATE "C"    NOT NULL,
	model              TEXT COLLATE "C"    NOT NULL, -- '' is not known
	input_tokens       BIGINT,
	output_tokens      BIGINT,
	cache_read_tokens  BIGINT,
	cache_write_tokens BIGINT,
	cost_usd           DOUBLE PRECISION, -- NULL is not known
	estimated          BOOLEAN NOT NULL DEFAULT FALSE, -- worked out from a list of prices
	PRIMARY KEY (execution_id, attempt)
);

CREATE INDEX spending_at ON spending (at, cost_usd);
CREATE INDEX spending_trigger ON spending (trigger_id, at, cost_usd);
CREATE INDEX spending_account ON spending (account, at, cost_usd);

-- What a CLI's session had counted as a whole when an attempt in it ended.
CREATE TABLE session_total (
	backend            TEXT COLLATE "C"   NOT NULL,
	session_id         TEXT COLLATE "C"   NOT NULL,
	at                 BIGINT NOT NULL,
	input_tokens       BIGINT,
	output_tokens      BIGINT,
	cache_read_tokens  BIGINT,
	cache_write_tokens BIGINT,
	cost_usd           DOUBLE PRECISION,
	PRIMARY KEY (backend, session_id)
);

CREATE TABLE budget (
	id           TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	name         TEXT COLLATE "C"    NOT NULL,
	name_key     TEXT COLLATE "C"    NOT NULL, -- the name in lower case
	enabled      BOOLEAN NOT NULL,
	scope        TEXT COLLATE "C"    NOT NULL,
	target       TEXT COLLATE "C"    NOT NULL DEFAULT '',
	period       TEXT COLLATE "C"    NOT NULL,
	limit_usd    DOUBLE PRECISION NOT NULL,
	hard         BOOLEAN NOT NULL,
	pauses       BOOLEAN NOT NULL DEFAULT FALSE,
	warn_percent BIGINT  NOT NULL DEFAULT 0,
	since        BIGINT, -- of the period that spent_usd is for; NULL: count anew
	spent_usd    DOUBLE PRECISION NOT NULL DEFAULT 0,
	unknown      BIGINT  NOT NULL DEFAULT 0, -- attempts without a known cost
	told         BIGINT  NOT NULL DEFAULT 0, -- in this period: 1 that it is near, 2 that it is reached
	created_at   BIGINT  NOT NULL,
	updated_at   BIGINT  NOT NULL
);

CREATE UNIQUE INDEX budget_name ON budget (name_key);

-- The budget that a pending execution waits for, else NULL.
ALTER TABLE execution ADD COLUMN budget_id TEXT COLLATE "C";

CREATE INDEX execution_budget ON execution (budget_id) WHERE budget_id IS NOT NULL;
