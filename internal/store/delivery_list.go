package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// DeliveryFilter narrows a list of deliveries. Zero fields do not.
type DeliveryFilter struct {
	Verdict  agented.Verdict
	Endpoint string
	Trigger  agented.TriggerID // those that could have fired it
	Event    string
	After    time.Time // received at this time or later
	Before   time.Time // received before this time
}

// Deliveries returns a page of deliveries, the newest first, with what they
// meant for triggers, and the cursor of the next page, empty when there is none.
func (db *DB) Deliveries(ctx context.Context, f DeliveryFilter, p Page) ([]agented.Delivery, string, error) {
	after, err := p.after("delivery", 1)
	if err != nil {
		return nil, "", err
	}
	var w where
	if after != nil {
		if !agented.ValidID("dlv", after[0]) {
			return nil, "", badCursor()
		}
		w.and(`id < $?`, after[0])
	}
	if f.Verdict != "" {
		w.and(`verdict = $?`, f.Verdict)
	}
	if f.Endpoint != "" {
		w.and(`endpoint = $?`, f.Endpoint)
	}
	if f.Event != "" {
		w.and(`event = $?`, f.Event)
	}
	if f.Trigger != "" {
		w.and(`id IN (SELECT delivery_id FROM delivery_trigger WHERE trigger_id = $?)`, f.Trigger)
	}
	// Ids sort by time to the millisecond: they bound the search, and the exact
	// time decides.
	if !f.After.IsZero() {
		w.and(`id >= $? AND received_at >= $?`, idFloor(f.After), micros(f.After))
	}
	if !f.Before.IsZero() {
		w.and(`id < $? AND received_at < $?`, idFloor(f.Before.Add(time.Millisecond)), micros(f.Before))
	}
	limit := p.limit()
	var list []agented.Delivery
	err = db.read(ctx, "deliveries", func(r *reader) error {
		rows, err := r.query(`SELECT `+deliveryColumns+` FROM delivery`+w.sql()+` ORDER BY id DESC LIMIT `+fmt.Sprint(limit+1), w.args...)
		if list, err = collect(rows, err, scanDelivery); err != nil {
			return err
		}
		return loadDeliveryTriggers(r, list)
	})
	if err != nil {
		return nil, "", err
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("delivery", string(list[limit-1].ID)), nil
}

// idFloor sorts before the ids of deliveries of that millisecond and after
// those of the one before.
func idFloor(t time.Time) string { return agented.NewID("dlv", t)[:len("dlv-")+10] }

// Delivery returns one delivery with what it meant for triggers, or NotFound.
func (db *DB) Delivery(ctx context.Context, id agented.DeliveryID) (*agented.Delivery, error) {
	var list []agented.Delivery
	err := db.read(ctx, "delivery", func(r *reader) error {
		rows, err := r.query(`SELECT `+deliveryColumns+` FROM delivery WHERE id = $1`, id)
		if list, err = collect(rows, err, scanDelivery); err != nil {
			return err
		}
		return loadDeliveryTriggers(r, list)
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, noDelivery(id)
	}
	return &list[0], nil
}

func noDelivery(id agented.DeliveryID) error {
	return agented.Errorf(agented.NotFound, "no delivery %q", id)
}

// DeliveryBody returns the body of a delivery as it came. NotFound when there is
// none: it was refused, or its body has been pruned.
func (db *DB) DeliveryBody(ctx context.Context, id agented.DeliveryID) ([]byte, error) {
	var packed bool
	var body []byte
	err := db.r.QueryRowContext(ctx, `SELECT zstd, body FROM delivery_body WHERE delivery_id = $1`, id).Scan(&packed, &body)
	if missing(err) {
		return nil, agented.Errorf(agented.NotFound, "the body of %s is not kept: calls that were refused and repetitions have none, and those of others are removed after a while", id)
	}
	if err != nil {
		return nil, db.explain("delivery body", err)
	}
	if !packed {
		return body, nil
	}
	if body, err = unpacker().DecodeAll(body, nil); err != nil {
		return nil, agented.Errorf(agented.Internal, "the body of %s is damaged", id).Because(err)
	}
	return body, nil
}

// DeliveryLimits bound what deliveries keep.
type DeliveryLimits struct {
	Before   time.Time // bodies of deliveries before this time go
	MaxBytes int64     // of all bodies as they are stored; the oldest go first
	MaxRows  int       // refused ones and repetitions that are kept, each; the oldest go first
}

// pruneStep is how many rows go in one transaction, so that nobody waits long
// for the writer.
const pruneStep = 200

// PruneDeliveries removes bodies, refused calls and repetitions beyond the
// limits, and what old deliveries did not mean for triggers. The deliveries
// that were accepted or ignored stay with their keys and executions, so that a
// repetition is known for ever. It returns how many bodies went.
func (db *DB) PruneDeliveries(ctx context.Context, l DeliveryLimits) (int, error) {
	total := 0
	var sum int64 // of the bodies; looked up once, since it reads an entry of each
	err := db.r.QueryRowContext(ctx, `SELECT COALESCE(SUM(body_bytes), 0) FROM delivery WHERE body_bytes IS NOT NULL`).Scan(&sum)
	if err != nil {
		return 0, db.explain("prune deliveries", err)
	}
	for {
		ids, err := db.oldBodies(ctx, l, &sum)
		if err != nil || len(ids) == 0 {
			if err == nil {
				err = db.pruneRows(ctx, l)
			}
			return total, err
		}
		err = db.write(ctx, "prune deliveries", func(tx *tx) error {
			for _, id := range ids {
				for _, q := range []string{
					`DELETE FROM delivery_body WHERE delivery_id = $1`,
					`DELETE FROM delivery_trigger WHERE delivery_id = $1 AND fired = FALSE`,
					`UPDATE delivery SET body_bytes = NULL WHERE id = $1`,
				} {
					if err := tx.exec(q, id); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return total, err
		}
		total += len(ids)
	}
}

// oldBodies lists the first deliveries whose bodies are too old, or too many,
// and takes them off the sum.
func (db *DB) oldBodies(ctx context.Context, l DeliveryLimits, sum *int64) ([]agented.DeliveryID, error) {
	type one struct {
		id    agented.DeliveryID
		bytes int64
	}
	var out []agented.DeliveryID
	err := db.read(ctx, "old bodies", func(r *reader) error {
		rows, err := r.query(`SELECT id, body_bytes FROM delivery WHERE body_bytes IS NOT NULL ORDER BY id LIMIT $1`, pruneStep)
		list, err := collect(rows, err, func(v *one, scan func(...any) error) error { return scan(&v.id, &v.bytes) })
		floor := agented.DeliveryID(idFloor(l.Before))
		for _, v := range list {
			if v.id >= floor && *sum <= l.MaxBytes {
				break
			}
			*sum -= v.bytes
			out = append(out, v.id)
		}
		return err
	})
	return out, err
}

// pruneRows removes refused calls and repetitions that are too old or too many.
func (db *DB) pruneRows(ctx context.Context, l DeliveryLimits) error {
	for _, verdict := range []agented.Verdict{agented.VerdictRejected, agented.VerdictDuplicate} {
		floor := idFloor(l.Before)
		var id string
		err := db.r.QueryRowContext(ctx, `SELECT id FROM delivery WHERE verdict = $1 ORDER BY id DESC LIMIT 1 OFFSET $2`, verdict, l.MaxRows).Scan(&id)
		if err != nil && !missing(err) {
			return db.explain("prune deliveries", err)
		}
		if id > floor {
			floor = id + "!" // with it
		}
		for {
			var n int64
			err := db.write(ctx, "prune deliveries", func(tx *tx) (err error) {
				n, err = tx.affected(`DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE verdict = $1 AND id < $2 ORDER BY id LIMIT $3)`,
					verdict, floor, pruneStep)
				return err
			})
			if err != nil {
				return err
			}
			if n < pruneStep {
				break
			}
		}
	}
	return nil
}
