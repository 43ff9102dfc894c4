-- +goose Up
-- A key ends with the user who made it, and at a time if it has one.
ALTER TABLE api_key ADD COLUMN owner TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN expires_at BIGINT;
CREATE INDEX api_key_owner ON api_key (owner) WHERE owner <> '' AND revoked_at IS NULL;
