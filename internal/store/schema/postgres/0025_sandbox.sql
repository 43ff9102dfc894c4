-- +goose Up

-- The level of the sandbox that an attempt ran in; empty if it did not start or
-- an older version ran it.
ALTER TABLE attempt ADD COLUMN sandbox TEXT COLLATE "C" NOT NULL DEFAULT '';
