-- +goose Up

-- Why an attempt ran at the level of its column sandbox, for display.
ALTER TABLE attempt ADD COLUMN sandbox_reason TEXT COLLATE "C" NOT NULL DEFAULT '';
