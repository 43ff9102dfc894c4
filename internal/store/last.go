package store

import (
	"context"
	"strings"

	"github.com/agented/agented"
)

// lastOfTrigger is the id of a trigger's newest execution. The index has them by
// status: the newest of each is one look, and the newest of these is it.
var lastOfTrigger = func() string {
	parts := make([]string, len(agented.States))
	for i, s := range agented.States {
		parts[i] = `SELECT * FROM (SELECT created_at, id FROM execution WHERE trigger_id = $1 AND status = '` + string(s) +
			`' ORDER BY created_at DESC, id DESC LIMIT 1) AS s` + string(rune('a'+i))
	}
	return `SELECT id FROM (` + strings.Join(parts, " UNION ALL ") + `) AS newest ORDER BY created_at DESC, id DESC LIMIT 1`
}()

// LastExecutions returns the newest execution of each of the triggers that has
// one, without snapshot, prompt and result.
func (db *DB) LastExecutions(ctx context.Context, triggers []agented.TriggerID) (map[agented.TriggerID]agented.Execution, error) {
	out := make(map[agented.TriggerID]agented.Execution, len(triggers))
	err := db.read(ctx, "last executions", func(r *reader) error {
		var ids []agented.ExecutionID
		for _, t := range triggers {
			var id agented.ExecutionID
			switch err := r.row(lastOfTrigger, t).Scan(&id); {
			case missing(err):
			case err != nil:
				return err
			default:
				ids = append(ids, id)
			}
		}
		list, err := loadBrief(r, ids)
		for _, e := range list {
			out[e.Trigger] = e
		}
		return err
	})
	return out, err
}
