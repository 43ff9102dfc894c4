-- +goose Up

-- The set of files that a trigger or an agent was created from by apply; empty
-- for everything that was made otherwise. Only these are pruned.
ALTER TABLE trigger_ ADD COLUMN applied_set TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE agent ADD COLUMN applied_set TEXT COLLATE "C" NOT NULL DEFAULT '';
