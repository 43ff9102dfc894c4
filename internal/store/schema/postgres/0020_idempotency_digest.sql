-- +goose Up

-- What a key was first used with, to refuse it with anything else. Empty for keys of
-- older versions.
ALTER TABLE idempotency ADD COLUMN digest TEXT COLLATE "C" NOT NULL DEFAULT '';
