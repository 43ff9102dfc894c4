-- +goose Up

-- How a delivery reached the server: pulled from GitHub's list of deliveries, or as a call (empty).
ALTER TABLE delivery ADD COLUMN source TEXT COLLATE "C" NOT NULL DEFAULT '';

-- How far the deliveries of a webhook have been pulled.
CREATE TABLE pull_source (
	name       TEXT COLLATE "C"   NOT NULL PRIMARY KEY, -- app, owner/name, or the name of an organization
	position   BIGINT NOT NULL DEFAULT 0,   -- deliveries before this time of GitHub's clock are handled
	success_at BIGINT NOT NULL DEFAULT 0,   -- when all deliveries were last handled
	pulled     BIGINT NOT NULL DEFAULT 0,   -- deliveries that were stored
	lost       BIGINT NOT NULL DEFAULT 0    -- deliveries whose body was no longer available
);
