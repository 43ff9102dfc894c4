-- +goose Up

-- What the broker of an attempt did: JSON; empty if it had none, has not ended, or
-- an older version ran it.
ALTER TABLE attempt ADD COLUMN broker TEXT COLLATE "C" NOT NULL DEFAULT '';
