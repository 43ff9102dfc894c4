-- +goose Up

-- Whether an attempt met the outcome contract of its execution: met or not_met; empty
-- if there is none, or it was not evaluated.
ALTER TABLE attempt ADD COLUMN contract TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE INDEX attempt_class ON attempt (class, execution_id) WHERE class <> '';

-- The evaluation of an outcome contract after an attempt.
CREATE TABLE outcome (
	execution_id TEXT COLLATE "C"   NOT NULL REFERENCES execution (id) ON DELETE CASCADE,
	attempt      BIGINT NOT NULL,
	clauses      TEXT COLLATE "C"   NOT NULL, -- JSON list
	output       TEXT COLLATE "C"   NOT NULL DEFAULT '', -- the result as JSON, if it meets the schema
	PRIMARY KEY (execution_id, attempt)
);
