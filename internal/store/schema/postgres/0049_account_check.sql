-- +goose Up

-- Whether an account worked when it was last used: the end of the latest attempt that
-- shows it (NULL: none since the credentials changed), its result, why the account was
-- refused, and the execution.
ALTER TABLE account ADD COLUMN checked_at BIGINT;
ALTER TABLE account ADD COLUMN check_works BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE account ADD COLUMN check_reason TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN check_execution TEXT COLLATE "C" NOT NULL DEFAULT '';
