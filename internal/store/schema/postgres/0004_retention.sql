-- +goose Up

-- Who wants an execution kept whatever the limits of retention say.
ALTER TABLE execution ADD COLUMN pinned_at BIGINT;
ALTER TABLE execution ADD COLUMN pinned_by TEXT COLLATE "C" NOT NULL DEFAULT '';
-- What its folder takes once it is tidied; NULL while nobody has measured it.
ALTER TABLE execution ADD COLUMN bytes BIGINT;
-- When retention took its folder, with the log.
ALTER TABLE execution ADD COLUMN log_removed_at BIGINT;

-- What retention may take next, the ones that ended first in front: of those
-- that have their folder, and of all.
CREATE INDEX execution_kept ON execution (finished_at, id)
	WHERE finished_at IS NOT NULL AND untidied IS NULL AND pinned_at IS NULL AND log_removed_at IS NULL;
CREATE INDEX execution_ended ON execution (finished_at, id)
	WHERE finished_at IS NOT NULL AND untidied IS NULL AND pinned_at IS NULL;

INSERT INTO counter (name, value) VALUES ('bytes', 0);

-- Folders of executions that are still to be removed: written in the transaction
-- that decides it, taken out when the files are gone.
CREATE TABLE removal (
	execution_id TEXT COLLATE "C" NOT NULL PRIMARY KEY
);
