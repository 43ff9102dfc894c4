-- +goose Up

-- What an attempt changed in its repository: JSON of counts; empty if nothing was
-- recorded. The details are in files of the execution's folder.
ALTER TABLE attempt ADD COLUMN changes TEXT COLLATE "C" NOT NULL DEFAULT '';
