-- +goose Up

-- What the server writes to a forge for an execution. A pending row is work to do: it is
-- stored with the end of the execution, and updated after the write.
CREATE TABLE publication (
	execution_id TEXT COLLATE "C"   NOT NULL REFERENCES execution (id) ON DELETE CASCADE,
	number       BIGINT NOT NULL,
	attempt      BIGINT NOT NULL,
	trigger_id   TEXT COLLATE "C"   NOT NULL,
	kind         TEXT COLLATE "C"   NOT NULL,
	status       TEXT COLLATE "C"   NOT NULL,
	rule         TEXT COLLATE "C"   NOT NULL DEFAULT '', -- that refused it
	reason       TEXT COLLATE "C"   NOT NULL DEFAULT '',
	repository   TEXT COLLATE "C"   NOT NULL,            -- owner/name
	subject      BIGINT NOT NULL DEFAULT 0,  -- number of the pull request or issue; 0: none
	sha          TEXT COLLATE "C"   NOT NULL DEFAULT '', -- that must still be the head of the pull request
	title        TEXT COLLATE "C"   NOT NULL,
	proposal     TEXT COLLATE "C"   NOT NULL,            -- JSON
	url          TEXT COLLATE "C"   NOT NULL DEFAULT '',
	remote_id    BIGINT NOT NULL DEFAULT 0,
	branch       TEXT COLLATE "C"   NOT NULL DEFAULT '',
	commit_id    TEXT COLLATE "C"   NOT NULL DEFAULT '',
	tries        BIGINT NOT NULL DEFAULT 0,
	hold         BOOLEAN NOT NULL DEFAULT FALSE,
	decided_by   TEXT COLLATE "C"   NOT NULL DEFAULT '',
	decided_at   BIGINT,
	due_at       BIGINT,                     -- NULL unless pending
	give_up_at   BIGINT,
	created_at   BIGINT NOT NULL,
	updated_at   BIGINT NOT NULL,
	PRIMARY KEY (execution_id, number)
);

CREATE INDEX publication_open ON publication (created_at, execution_id, number) WHERE status IN ('pending', 'held');
CREATE INDEX publication_written ON publication (trigger_id, repository, subject, kind) WHERE status = 'published';
