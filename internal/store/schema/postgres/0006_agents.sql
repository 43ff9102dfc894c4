-- +goose Up

CREATE TABLE agent (
	id         TEXT COLLATE "C"    NOT NULL PRIMARY KEY,
	name       TEXT COLLATE "C"    NOT NULL,
	name_key   TEXT COLLATE "C"    NOT NULL, -- the name in lower case
	role       TEXT COLLATE "C"    NOT NULL DEFAULT '',
	goals      TEXT COLLATE "C"    NOT NULL DEFAULT '',
	enabled    BOOLEAN NOT NULL,
	spec       TEXT COLLATE "C"    NOT NULL, -- JSON
	created_at BIGINT  NOT NULL,
	updated_at BIGINT  NOT NULL
);

CREATE UNIQUE INDEX agent_name ON agent (name_key);

-- A conversation outlives its agent, so agent_id is no foreign key.
CREATE TABLE conversation (
	id         TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	agent_id   TEXT COLLATE "C"   NOT NULL,
	agent_name TEXT COLLATE "C"   NOT NULL,
	title      TEXT COLLATE "C"   NOT NULL DEFAULT '',
	state      TEXT COLLATE "C"   NOT NULL,
	resume     TEXT COLLATE "C"   NOT NULL DEFAULT '', -- JSON: where the next turn goes on
	turn       TEXT COLLATE "C"   NOT NULL DEFAULT '', -- the execution under way
	source     BIGINT NOT NULL DEFAULT 0, -- last line of its log that became events
	posts      BIGINT NOT NULL DEFAULT 0, -- number of the last post
	last_seq   BIGINT NOT NULL DEFAULT 0, -- number of the last event
	compacted  BIGINT NOT NULL DEFAULT 0, -- number of the last event that is gone
	actor      TEXT COLLATE "C"   NOT NULL DEFAULT '',
	created_at BIGINT NOT NULL,
	active_at  BIGINT NOT NULL,
	closed_at  BIGINT
);

CREATE INDEX conversation_active ON conversation (active_at, id);
CREATE INDEX conversation_agent ON conversation (agent_id, active_at, id);
CREATE INDEX conversation_open ON conversation (state, active_at);
CREATE INDEX conversation_turn ON conversation (turn) WHERE turn <> '';

-- What people say; one without an execution waits for its turn.
CREATE TABLE conversation_post (
	conversation_id TEXT COLLATE "C"   NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
	number          BIGINT NOT NULL, -- from 1
	dedup_key       TEXT COLLATE "C", -- of who said it; NULL: none
	text            TEXT COLLATE "C"   NOT NULL,
	files           TEXT COLLATE "C"   NOT NULL DEFAULT '', -- JSON: names of attachments
	actor           TEXT COLLATE "C"   NOT NULL DEFAULT '',
	execution_id    TEXT COLLATE "C", -- NULL while it waits; '' when it was taken back
	created_at      BIGINT NOT NULL,
	PRIMARY KEY (conversation_id, number)
);

CREATE UNIQUE INDEX conversation_post_key ON conversation_post (conversation_id, dedup_key) WHERE dedup_key IS NOT NULL;
CREATE INDEX conversation_post_waiting ON conversation_post (conversation_id, number) WHERE execution_id IS NULL;

CREATE TABLE conversation_event (
	conversation_id TEXT COLLATE "C"   NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
	seq             BIGINT NOT NULL,
	kind            TEXT COLLATE "C"   NOT NULL,
	data            TEXT COLLATE "C"   NOT NULL, -- JSON
	execution_id    TEXT COLLATE "C"   NOT NULL DEFAULT '',
	source          BIGINT NOT NULL DEFAULT 0,
	at              BIGINT NOT NULL,
	PRIMARY KEY (conversation_id, seq)
);

-- Messages. In addresses the names of agents, users and triggers are their ids.
CREATE TABLE message (
	id           TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	dedup_key    TEXT COLLATE "C", -- of the sender; NULL: none
	type         TEXT COLLATE "C"   NOT NULL,
	priority     TEXT COLLATE "C"   NOT NULL,
	sender       TEXT COLLATE "C"   NOT NULL, -- address
	recipient    TEXT COLLATE "C"   NOT NULL, -- address
	subject      TEXT COLLATE "C"   NOT NULL DEFAULT '',
	body         TEXT COLLATE "C"   NOT NULL DEFAULT '',
	reply_to     TEXT COLLATE "C"   NOT NULL DEFAULT '',
	chain_id     TEXT COLLATE "C"   NOT NULL, -- its own id if it began the chain
	chain_depth  BIGINT NOT NULL,
	chain_parent TEXT COLLATE "C"   NOT NULL DEFAULT '',
	expires_at   BIGINT,
	created_at   BIGINT NOT NULL
);

CREATE UNIQUE INDEX message_key ON message (sender, dedup_key) WHERE dedup_key IS NOT NULL;
CREATE INDEX message_created ON message (created_at, id);
CREATE INDEX message_chain ON message (chain_id);
CREATE INDEX message_parent ON message (chain_parent) WHERE chain_parent <> '';

-- The address of each that has received something, and how much.
CREATE TABLE inbox (
	owner    TEXT COLLATE "C"   NOT NULL PRIMARY KEY, -- address of an agent or a user
	last_seq BIGINT NOT NULL
);

CREATE TABLE inbox_item (
	owner        TEXT COLLATE "C"   NOT NULL,
	seq          BIGINT NOT NULL,
	message_id   TEXT COLLATE "C"   NOT NULL REFERENCES message (id) ON DELETE CASCADE,
	state        TEXT COLLATE "C"   NOT NULL,
	expires_at   BIGINT, -- of the message, until it is read or expired
	delivered_at BIGINT,
	read_at      BIGINT,
	taken_by     TEXT COLLATE "C", -- the execution whose prompt holds it, until it ends
	PRIMARY KEY (owner, seq)
);

CREATE INDEX inbox_item_taken ON inbox_item (taken_by) WHERE taken_by IS NOT NULL;
CREATE INDEX inbox_item_message ON inbox_item (message_id);
CREATE INDEX inbox_item_unread ON inbox_item (owner, state, seq) WHERE read_at IS NULL;
CREATE INDEX inbox_item_expires ON inbox_item (expires_at) WHERE expires_at IS NOT NULL;

-- Who gets what is sent to a group or a topic.
CREATE TABLE member (
	list  TEXT COLLATE "C" NOT NULL, -- address of a group or a topic
	owner TEXT COLLATE "C" NOT NULL, -- address of an agent or a user
	PRIMARY KEY (list, owner)
);

CREATE INDEX member_owner ON member (owner);

-- The messages that fire a trigger.
CREATE TABLE message_rule (
	trigger_id TEXT COLLATE "C"    NOT NULL REFERENCES trigger_ (id) ON DELETE CASCADE,
	place      BIGINT  NOT NULL,
	address    TEXT COLLATE "C"    NOT NULL, -- of an agent, a group or a topic
	types      TEXT COLLATE "C"    NOT NULL DEFAULT '', -- separated by spaces; empty: all
	enabled    BOOLEAN NOT NULL,
	PRIMARY KEY (trigger_id, place)
);

CREATE INDEX message_rule_address ON message_rule (address);

-- What an execution was caused by; '' when it began its chain.
ALTER TABLE execution ADD COLUMN chain_id TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE execution ADD COLUMN chain_depth BIGINT NOT NULL DEFAULT 0;
ALTER TABLE execution ADD COLUMN chain_parent TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE INDEX execution_chain ON execution (chain_id) WHERE chain_id <> '';
CREATE INDEX execution_chain_parent ON execution (chain_parent) WHERE chain_parent <> '';
