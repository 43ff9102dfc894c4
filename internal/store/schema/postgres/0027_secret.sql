-- +goose Up

-- A named secret. Triggers, agents and accounts refer to it by its name.
CREATE TABLE secret (
	name         TEXT COLLATE "C"   NOT NULL PRIMARY KEY,
	name_key     TEXT COLLATE "C"   NOT NULL, -- the name in lower case
	source       TEXT COLLATE "C"   NOT NULL, -- stored, file or command
	path         TEXT COLLATE "C"   NOT NULL, -- of a file
	command      TEXT COLLATE "C"   NOT NULL, -- JSON list
	triggers     TEXT COLLATE "C"   NOT NULL, -- JSON list of patterns; [] is every one
	repositories TEXT COLLATE "C"   NOT NULL, -- JSON list of patterns; [] is every one
	version      BIGINT NOT NULL,
	created_at   BIGINT NOT NULL,
	created_by   TEXT COLLATE "C"   NOT NULL,
	updated_at   BIGINT NOT NULL
);

CREATE UNIQUE INDEX secret_name ON secret (name_key);

CREATE TABLE secret_version (
	secret     TEXT COLLATE "C"   NOT NULL REFERENCES secret (name) ON DELETE CASCADE,
	number     BIGINT NOT NULL,
	sealed     TEXT COLLATE "C"   NOT NULL, -- '' unless the source is stored
	created_at BIGINT NOT NULL,
	created_by TEXT COLLATE "C"   NOT NULL,
	used_at    BIGINT,
	used_by    TEXT COLLATE "C"   NOT NULL DEFAULT '', -- an execution
	PRIMARY KEY (secret, number)
);

-- The values that the attempts of an execution received, sealed, until it ends: its
-- output is masked with them, whatever becomes of the secret.
CREATE TABLE secret_use (
	execution_id TEXT COLLATE "C"   NOT NULL REFERENCES execution (id) ON DELETE CASCADE,
	attempt      BIGINT NOT NULL,
	secret       TEXT COLLATE "C"   NOT NULL,
	sealed       TEXT COLLATE "C"   NOT NULL,
	PRIMARY KEY (execution_id, attempt, secret)
);
