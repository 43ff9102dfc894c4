-- +goose Up

-- A channel: where notifications are sent.
CREATE TABLE channel (
	id         TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	name       TEXT COLLATE "C"    NOT NULL,
	name_key   TEXT COLLATE "C"    NOT NULL, -- the name in lower case
	kind       TEXT COLLATE "C"    NOT NULL, -- webhook, slack, ...
	enabled    BOOLEAN NOT NULL,
	settings   TEXT COLLATE "C"    NOT NULL, -- JSON; secrets in it are sealed
	events     TEXT COLLATE "C"    NOT NULL, -- JSON list of the kinds that it wants from every trigger
	digest     TEXT COLLATE "C"    NOT NULL DEFAULT '', -- JSON; '' is no digest
	digest_at  BIGINT, -- when the next digest is due
	digest_of  BIGINT, -- up to when the last digest reported
	failures   BIGINT  NOT NULL DEFAULT 0, -- consecutive attempts that failed
	created_at BIGINT  NOT NULL,
	created_by TEXT COLLATE "C"    NOT NULL,
	updated_at BIGINT  NOT NULL
);

CREATE UNIQUE INDEX channel_name ON channel (name_key);

-- A notification to one channel. Those of a channel are sent in the order of position.
CREATE TABLE notification (
	id           TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	seq          BIGINT NOT NULL, -- order of storing
	channel_id   TEXT COLLATE "C"   NOT NULL REFERENCES channel (id) ON DELETE CASCADE,
	kind         TEXT COLLATE "C"   NOT NULL, -- a kind of notification, digest or test
	trigger_id   TEXT COLLATE "C"   NOT NULL DEFAULT '',
	trigger_name TEXT COLLATE "C"   NOT NULL DEFAULT '',
	execution_id TEXT COLLATE "C"   NOT NULL DEFAULT '',
	subject      TEXT COLLATE "C"   NOT NULL DEFAULT '',
	text         TEXT COLLATE "C"   NOT NULL,
	at           BIGINT NOT NULL, -- when it happened
	more         BIGINT NOT NULL DEFAULT 0, -- further events of the kind that are not listed
	collects     BOOLEAN NOT NULL DEFAULT FALSE, -- further events are counted in it until it is sent
	status       TEXT COLLATE "C"   NOT NULL, -- pending, sent or gave_up
	position     BIGINT, -- of a pending one: when it may be sent at the earliest, else NULL
	retry_at     BIGINT, -- of a pending one that failed
	attempts     BIGINT NOT NULL DEFAULT 0,
	answer       TEXT COLLATE "C"   NOT NULL DEFAULT '', -- what the other side answered last
	settled_at   BIGINT
);

CREATE UNIQUE INDEX notification_seq ON notification (seq);
CREATE INDEX notification_queue ON notification (channel_id, position, seq) WHERE position IS NOT NULL;
CREATE INDEX notification_channel ON notification (channel_id, seq);
CREATE INDEX notification_recent ON notification (channel_id, kind, at);

-- Since when a parked execution has been waiting.
CREATE TABLE parked (
	execution_id TEXT COLLATE "C"   NOT NULL PRIMARY KEY REFERENCES execution (id) ON DELETE CASCADE,
	since        BIGINT NOT NULL
);
