-- +goose Up

-- The rhythms in which triggers fire. What is over, or disabled, or belongs to a
-- disabled trigger, has no next_due.
CREATE TABLE schedule (
	id         TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	trigger_id TEXT COLLATE "C"    NOT NULL REFERENCES trigger_ (id) ON DELETE CASCADE,
	place      BIGINT  NOT NULL, -- in the trigger's list, from 0
	spec       TEXT COLLATE "C"    NOT NULL, -- JSON
	enabled    BOOLEAN NOT NULL,
	next_due   BIGINT, -- the first due time that has not been decided
	next_run   BIGINT, -- next_due with its jitter
	created_at BIGINT  NOT NULL
);

CREATE INDEX schedule_trigger ON schedule (trigger_id, place);
CREATE INDEX schedule_next ON schedule (next_run, id) WHERE next_run IS NOT NULL;

-- What was done about each due time, once. Ticks outlive their schedule.
CREATE TABLE tick (
	schedule_id  TEXT COLLATE "C"   NOT NULL,
	due_at       BIGINT NOT NULL,
	trigger_id   TEXT COLLATE "C"   NOT NULL,
	outcome      TEXT COLLATE "C"   NOT NULL,
	reason       TEXT COLLATE "C"   NOT NULL DEFAULT '',
	execution_id TEXT COLLATE "C"   NOT NULL DEFAULT '',
	decided_at   BIGINT NOT NULL,
	PRIMARY KEY (schedule_id, due_at)
);

CREATE INDEX tick_due ON tick (due_at, schedule_id);
CREATE INDEX tick_trigger ON tick (trigger_id, due_at, schedule_id);
-- Most ticks fired; the others are what people look for.
CREATE INDEX tick_outcome ON tick (outcome, due_at, schedule_id) WHERE outcome <> 'fired';

-- What fired an execution that nobody fired by hand, as JSON.
ALTER TABLE execution ADD COLUMN cause TEXT COLLATE "C" NOT NULL DEFAULT '';
