-- +goose Up
-- JSON arrays; empty: no limit. A key can be limited to triggers and to networks.
ALTER TABLE api_key ADD COLUMN triggers TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN addresses TEXT COLLATE "C" NOT NULL DEFAULT '';
