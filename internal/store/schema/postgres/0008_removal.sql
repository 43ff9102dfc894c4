-- +goose Up

-- Folders that are still to be removed: written in the transaction that decides
-- it, deleted when the files are gone. A folder that could not be removed stays
-- with the error and is tried again.
CREATE TABLE folder_removal (
	id        TEXT COLLATE "C"    NOT NULL PRIMARY KEY, -- an execution or a conversation
	bytes     BIGINT  NOT NULL DEFAULT 0,   -- what the folder takes on the disk
	attempts  INTEGER NOT NULL DEFAULT 0,   -- failed ones
	failed_at BIGINT,                       -- the first failure
	error     TEXT COLLATE "C"    NOT NULL DEFAULT ''   -- of the last one
);

INSERT INTO folder_removal (id) SELECT execution_id FROM removal;
DROP TABLE removal;
