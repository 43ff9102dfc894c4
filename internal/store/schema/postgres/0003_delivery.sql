-- +goose Up

-- The rules by which calls from outside fire triggers.
CREATE TABLE webhook (
	id         TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	trigger_id TEXT COLLATE "C"    NOT NULL REFERENCES trigger_ (id) ON DELETE CASCADE,
	place      BIGINT  NOT NULL, -- in the trigger's list, from 0
	source     TEXT COLLATE "C"    NOT NULL,
	enabled    BOOLEAN NOT NULL,
	supersede  BOOLEAN NOT NULL,
	auth       TEXT COLLATE "C"    NOT NULL DEFAULT '', -- JSON
	match_     TEXT COLLATE "C"    NOT NULL DEFAULT '', -- JSON
	secret     TEXT COLLATE "C"    NOT NULL DEFAULT '' -- sealed
);

CREATE INDEX webhook_trigger ON webhook (trigger_id, place);

-- Every call from outside. Ids sort by the time of receipt.
CREATE TABLE delivery (
	id           TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	endpoint     TEXT COLLATE "C"   NOT NULL, -- github, any, or a trigger's id
	dedup_key    TEXT COLLATE "C", -- the sender's id for it; NULL when it gave none, and for whatever is not the first of its kind
	received_at  BIGINT NOT NULL,
	address      TEXT COLLATE "C"   NOT NULL DEFAULT '',
	headers      TEXT COLLATE "C"   NOT NULL DEFAULT '', -- JSON, without secrets
	event        TEXT COLLATE "C"   NOT NULL DEFAULT '',
	action       TEXT COLLATE "C"   NOT NULL DEFAULT '',
	size         BIGINT NOT NULL DEFAULT 0, -- of the body as it came
	verdict      TEXT COLLATE "C"   NOT NULL,
	reason       TEXT COLLATE "C"   NOT NULL DEFAULT '',
	proof        TEXT COLLATE "C"   NOT NULL DEFAULT '', -- server: the server's own secret verified it
	duplicate_of TEXT COLLATE "C"   NOT NULL DEFAULT '',
	replay_of    TEXT COLLATE "C"   NOT NULL DEFAULT '',
	actor        TEXT COLLATE "C"   NOT NULL DEFAULT '', -- who asked for a replay
	body_bytes   BIGINT -- that delivery_body takes; NULL when there is none, or none any more
);

-- What makes a delivery unique; it outlives the body.
CREATE UNIQUE INDEX delivery_key ON delivery (endpoint, dedup_key) WHERE dedup_key IS NOT NULL;
CREATE INDEX delivery_verdict ON delivery (verdict, id);
CREATE INDEX delivery_event ON delivery (event, id);
CREATE INDEX delivery_body_bytes ON delivery (id, body_bytes) WHERE body_bytes IS NOT NULL;

CREATE TABLE delivery_body (
	delivery_id TEXT COLLATE "C"    NOT NULL PRIMARY KEY REFERENCES delivery (id) ON DELETE CASCADE,
	zstd        BOOLEAN NOT NULL,
	body        BYTEA    NOT NULL
);

-- What a delivery meant for each trigger that it could have fired.
CREATE TABLE delivery_trigger (
	delivery_id  TEXT COLLATE "C"    NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
	trigger_id   TEXT COLLATE "C"    NOT NULL,
	trigger_name TEXT COLLATE "C"    NOT NULL,
	webhook_id   TEXT COLLATE "C"    NOT NULL,
	fired        BOOLEAN NOT NULL,
	rule         TEXT COLLATE "C"    NOT NULL DEFAULT '', -- what said no
	reason       TEXT COLLATE "C"    NOT NULL DEFAULT '',
	execution_id TEXT COLLATE "C"    NOT NULL DEFAULT '',
	place        BIGINT  NOT NULL,
	PRIMARY KEY (delivery_id, trigger_id)
);

CREATE INDEX delivery_trigger_trigger ON delivery_trigger (trigger_id, delivery_id);

-- What an execution is about (owner/name#7), so that a newer event about the
-- same can replace it.
ALTER TABLE execution ADD COLUMN subject TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE INDEX execution_subject ON execution (trigger_id, subject) WHERE subject <> '' AND finished_at IS NULL;
