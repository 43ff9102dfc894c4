-- +goose Up

-- Names of tables and columns from the field. Only names change.
ALTER TABLE lane RENAME TO account_queue;
ALTER TABLE account_queue RENAME COLUMN looks_at TO check_at; -- when its first execution is checked again; NULL: after a change
ALTER TABLE account_queue RENAME COLUMN why TO reason;
ALTER TABLE account_queue RENAME COLUMN room TO waits_for_slot; -- the end of an attempt may release what it waits for
DROP INDEX lane_looks;
CREATE INDEX account_queue_check ON account_queue (check_at) WHERE check_at IS NOT NULL;

ALTER TABLE execution RENAME COLUMN lane TO account_queue; -- JSON of the choices; '' needs no account
ALTER TABLE execution RENAME COLUMN probes TO probe_account;
ALTER TABLE execution RENAME COLUMN untidied TO cleanup_due_at; -- finished_at until its files are cleaned up, else NULL
DROP INDEX execution_untidied;
CREATE INDEX execution_cleanup ON execution (cleanup_due_at) WHERE cleanup_due_at IS NOT NULL;

ALTER TABLE backend_rest RENAME TO backend_cooldown;
ALTER TABLE backend_cooldown RENAME COLUMN why TO reason;

ALTER TABLE account RENAME COLUMN strikes TO consecutive_limits;
ALTER TABLE account RENAME COLUMN former TO previous_credentials; -- those that running attempts may still use

ALTER TABLE inbox_item RENAME COLUMN taken_by TO claimed_by; -- the execution whose prompt contains it, until it ends
ALTER TABLE budget RENAME COLUMN told TO notified; -- in this period: 1 near the limit, 2 limit reached
