-- +goose Up

-- How long servers have watched for missing successes, in microseconds. Time in which no
-- server ran, and jumps of the clock, are not part of it.
CREATE TABLE watch_clock (
	id      BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
	watched BIGINT NOT NULL,
	at      BIGINT NOT NULL -- time of the last look; 0: none
);

INSERT INTO watch_clock (id, watched, at) VALUES (1, 0, 0);

-- The dead man's switch of a trigger that has expect_every.
CREATE TABLE deadman (
	trigger_id TEXT    NOT NULL PRIMARY KEY REFERENCES trigger_ (id) ON DELETE CASCADE,
	every      BIGINT  NOT NULL,               -- microseconds
	due        BIGINT,                         -- on the watch clock; NULL: the trigger is disabled
	since      BIGINT  NOT NULL,               -- time of the last success, or since when one is expected
	begin_at   BIGINT  NOT NULL,               -- the same on the watch clock
	succeeded  BOOLEAN NOT NULL DEFAULT FALSE, -- since is the time of a success
	raised     BIGINT  NOT NULL DEFAULT 0,     -- notifications since then
	raised_at  BIGINT                          -- of the last of them
);

CREATE INDEX deadman_due ON deadman (due) WHERE due IS NOT NULL;
