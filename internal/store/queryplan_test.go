package store

import (
	"strings"
	"testing"
)

// The planner has no statistics, so its choice depends only on the statement:
// the queries of a claim must use a small index.
func TestQueue_query_plans(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for _, c := range []struct{ statement, index string }{
		{queueQuery, "execution_due"},
		{queueQuery, "execution_give_up"},
		{`SELECT e.id FROM execution e WHERE e.due_at <= $1 ORDER BY e.due_at, e.admit_no LIMIT 1`, "execution_due"},
		{queueQuery, "account_queue_check"},
		{`SELECT e.id FROM execution e WHERE e.held_by = $1 ORDER BY e.scheduled_at, e.admit_no LIMIT 1`, "execution_held"},
		{`SELECT COUNT(*) FROM execution WHERE lease_owner = $1`, "execution_owner"},
		{staleQuery, "execution_lease"},
		{ownQuery, "execution_owner (lease_owner=?); UNION ALL; SEARCH execution USING INDEX execution_lease (lease_expires_at<?)"},
		{`SELECT e.id FROM execution e WHERE e.parked_on = $1 ORDER BY e.scheduled_at, e.admit_no LIMIT 1`, "execution_parked"},
		{`SELECT key FROM account_queue WHERE check_at <= $1`, "account_queue_check"},
		{`SELECT COUNT(*) FROM execution e WHERE e.account_id = $1`, "execution_account"},
		{`SELECT id FROM execution WHERE give_up_at <= $1 LIMIT 5`, "execution_give_up"},
		{`SELECT COUNT(*) FROM execution o WHERE o.trigger_id = $1 AND o.status = 'running'`, "execution_trigger (trigger_id=? AND status=?)"},
		{lastOfTrigger, "execution_trigger (trigger_id=? AND status=?)"},
		{`SELECT id FROM execution WHERE cleanup_due_at IS NOT NULL ORDER BY cleanup_due_at LIMIT $1`, "execution_cleanup"},
		{`SELECT id FROM execution WHERE event_seq > $1 ORDER BY event_seq LIMIT 5`, "execution_event"},
		{`SELECT id, status FROM execution WHERE trigger_id = $1 AND subject = '2' AND subject <> '' AND finished_at IS NULL ORDER BY created_at, id`, "execution_subject"},
		{`SELECT id FROM delivery WHERE endpoint = $1 AND dedup_key = '2'`, "delivery_key"},
		{`SELECT COALESCE(SUM(body_bytes), 0) FROM delivery WHERE body_bytes IS NOT NULL AND id > $1`, "COVERING INDEX delivery_body_bytes"},
		{`SELECT COALESCE(SUM(body_bytes), 0) + 0 * $1 FROM delivery WHERE body_bytes IS NOT NULL`, "COVERING INDEX delivery_body_bytes"},
		{`SELECT id FROM delivery WHERE verdict = $1 AND id < '2' ORDER BY id DESC LIMIT 5`, "delivery_verdict"},
		{`SELECT id FROM delivery WHERE event = $1 AND id < '2' ORDER BY id DESC LIMIT 5`, "delivery_event"},
		{`SELECT id FROM delivery WHERE id IN (SELECT delivery_id FROM delivery_trigger WHERE trigger_id = $1) ORDER BY id DESC LIMIT 5`, "delivery_trigger_trigger"},
	} {
		args := []any{1, 2}[:1+strings.Count(c.statement, "$2")]
		if text := queryPlan(t, db, c.statement, args...); !strings.Contains(text, c.index) {
			t.Errorf("%s\n\t%s", c.statement, text)
		}
	}
}
