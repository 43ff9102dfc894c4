package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/klauspost/compress/zstd"
)

// DeliveryAdmission is a request to store a verified call with the executions
// that it fires.
type DeliveryAdmission struct {
	Delivery agented.Delivery // Verdict, Reason and Triggers are filled in
	Body     []byte
	Rules    string           // HookVersion of the evaluated rules; empty: not checked
	Triggers []DeliveryFiring // results of the rules, in their order

	// CausedBy is the execution that the event names as its cause, and Repository that of the event.
	// If it published there, the executions join its chain within the Limits.
	CausedBy   agented.ExecutionID
	Repository string
	Limits     agented.ChainLimits
}

// DeliveryFiring is the result of a delivery for one trigger. It fires if it
// has an Admission.
type DeliveryFiring struct {
	agented.DeliveryTrigger
	Admission *Admission
}

// DeliveryResult is the result of a DeliveryAdmission.
type DeliveryResult struct {
	Delivery  agented.Delivery // as stored; for a duplicate the first delivery
	Duplicate bool
	Stale     bool                  // the rules have changed: nothing was stored, evaluate them again
	Replaced  []agented.ExecutionID // running executions that were requested to stop
}

// Verdict returns the verdict for the sender: that of the delivery, or duplicate
// if it was received before.
func (r DeliveryResult) Verdict() agented.DeliveryVerdict {
	if r.Duplicate {
		return agented.VerdictDuplicate
	}
	return r.Delivery.Verdict
}

// AdmitDelivery atomically stores a delivery and its executions. When it
// returns, they are durable. A delivery whose key was already used at the same
// endpoint fires nothing: the result is the first delivery, however old, and
// the repetition is stored as its own row.
func (db *DB) AdmitDelivery(ctx context.Context, a DeliveryAdmission, now time.Time) (DeliveryResult, error) {
	body, packed := pack(a.Body)
	return inGroup(ctx, db, "admit delivery", func(tx *tx) (DeliveryResult, error) { return tx.admitDelivery(a, body, packed, now) })
}

func (tx *tx) admitDelivery(a DeliveryAdmission, body []byte, packed bool, now time.Time) (DeliveryResult, error) {
	d := a.Delivery
	if a.Rules != "" {
		if v, err := tx.hookVersion(); err != nil {
			return DeliveryResult{}, err
		} else if v != a.Rules {
			// A repeated call returns the first result, whatever the rules are
			// now.
			first, err := tx.firstDelivery(d.Endpoint, d.Key)
			if first != nil {
				return tx.repeatedDelivery(d, first)
			}
			return DeliveryResult{Stale: true}, err
		}
	}
	if err := tx.joinChain(&a); err != nil {
		return DeliveryResult{}, err
	}
	d.Verdict, d.Triggers = agented.VerdictIgnored, nil
	if d.Reason == "" {
		d.Reason = ignoredReason(a.Triggers)
	}
	for _, t := range a.Triggers {
		if t.Admission != nil {
			d.Verdict, d.Reason = agented.VerdictAccepted, ""
		}
	}
	size := int64(len(body))
	isNew, err := tx.insertDelivery(&d, &size)
	if err != nil {
		return DeliveryResult{}, err
	}
	if !isNew {
		first, err := tx.firstDelivery(d.Endpoint, d.Key)
		if err != nil {
			return DeliveryResult{}, err
		}
		if first == nil {
			return DeliveryResult{}, fmt.Errorf("delivery %s: its key is in use, but no delivery has it", d.ID)
		}
		return tx.repeatedDelivery(a.Delivery, first)
	}
	if err := tx.exec(`INSERT INTO delivery_body (delivery_id, zstd, body) VALUES ($1, $2, $3)`, d.ID, packed, body); err != nil {
		return DeliveryResult{}, err
	}
	var got DeliveryResult
	for i, t := range a.Triggers {
		dt := t.DeliveryTrigger
		if t.Admission != nil {
			e, replaced, err := tx.enqueue(*t.Admission, now)
			if err != nil {
				return DeliveryResult{}, err
			}
			dt.Fired, dt.Execution = true, e.ID
			if e.State.Final() {
				dt.Reason = e.Reason // overlap skip
			}
			got.Replaced = append(got.Replaced, replaced...)
		}
		err := tx.exec(`INSERT INTO delivery_trigger (delivery_id, trigger_id, trigger_name, webhook_id, fired, rule, reason, execution_id, place)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			d.ID, dt.Trigger, dt.TriggerName, dt.Webhook, dt.Fired, dt.Rule, format.Truncate(dt.Reason, maxSentence), dt.Execution, i)
		if err != nil {
			return DeliveryResult{}, err
		}
		d.Triggers = append(d.Triggers, dt)
	}
	d.BodyKept = true
	got.Delivery = d
	return got, nil
}

// joinChain puts the executions of a delivery into the chain of the execution that caused it. What
// the limits of the chain do not allow does not fire.
func (tx *tx) joinChain(a *DeliveryAdmission) error {
	if a.CausedBy == "" {
		return nil
	}
	c, published, err := publishingChain(tx, a.CausedBy, a.Repository)
	if err != nil || !published {
		return err
	}
	list := slices.Clone(a.Triggers)
	for i, t := range list {
		if t.Admission == nil {
			continue
		}
		next := c.Next(string(a.CausedBy))
		err := tx.mayFollow(next, a.Limits)
		if errors.Is(err, agented.Conflict) {
			list[i].Admission, list[i].Rule, list[i].Reason = nil, "chain", agented.Message(err)
			continue
		}
		if err != nil {
			return err
		}
		admission, e := *t.Admission, *t.Admission.Execution
		e.Chain, admission.Execution = next, &e
		list[i].Admission = &admission
	}
	a.Triggers = list
	return nil
}

// repeatedDelivery stores a repeated call as its own row.
func (tx *tx) repeatedDelivery(d agented.Delivery, first *agented.Delivery) (DeliveryResult, error) {
	d.Key, d.Verdict, d.DuplicateOf = "", agented.VerdictDuplicate, first.ID
	d.Reason = "the same delivery was received before, as " + string(first.ID)
	_, err := tx.insertDelivery(&d, nil)
	return DeliveryResult{Delivery: *first, Duplicate: true}, err
}

// ignoredReason returns why nothing fired.
func ignoredReason(list []DeliveryFiring) string {
	switch len(list) {
	case 0:
		return "no trigger accepts such calls"
	case 1:
		return fmt.Sprintf("trigger %q: %s", list[0].TriggerName, list[0].Reason)
	}
	return fmt.Sprintf("none of %d triggers fires; trigger %q: %s", len(list), list[0].TriggerName, list[0].Reason)
}

// RejectDelivery stores a rejected call. It has no body and no key, so that the
// same delivery may be sent again and be accepted.
func (db *DB) RejectDelivery(ctx context.Context, d agented.Delivery) error {
	d.Key, d.Verdict = "", agented.VerdictRejected
	return db.write(ctx, "reject delivery", func(tx *tx) error {
		_, err := tx.insertDelivery(&d, nil)
		return err
	})
}

// insertDelivery writes a delivery unless its key was already used at the same
// endpoint.
func (tx *tx) insertDelivery(d *agented.Delivery, bodyBytes *int64) (isNew bool, _ error) {
	headers, err := json.Marshal(d.Headers)
	if err != nil {
		return false, err
	}
	var key *string
	if d.Key != "" {
		key = &d.Key
	}
	proof, source := "", ""
	if d.ServerProof {
		proof = "server"
	}
	if d.Pulled {
		source = "pulled"
	}
	d.ReceivedAt = stored(d.ReceivedAt)
	n, err := tx.affected(`INSERT INTO delivery (id, endpoint, dedup_key, received_at, address, headers, event, action, size, verdict, reason, proof,
			duplicate_of, replay_of, actor, body_bytes, source)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		ON CONFLICT (endpoint, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING`,
		d.ID, d.Endpoint, key, micros(d.ReceivedAt), d.Address, string(headers), d.Event, d.Action, d.Size, d.Verdict, format.Truncate(d.Reason, maxSentence), proof,
		d.DuplicateOf, d.ReplayOf, d.Actor, bodyBytes, source)
	return n > 0, err
}

// firstDelivery returns the delivery with that key, nil if there is none.
func (tx *tx) firstDelivery(endpoint, key string) (*agented.Delivery, error) {
	if key == "" {
		return nil, nil
	}
	var d agented.Delivery
	err := scanDelivery(&d, tx.row(`SELECT `+deliveryColumns+` FROM delivery WHERE endpoint = $1 AND dedup_key = $2`, endpoint, key).Scan)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := []agented.Delivery{d}
	err = loadDeliveryTriggers(tx, list)
	return &list[0], err
}

const deliveryColumns = `id, endpoint, COALESCE(dedup_key, ''), received_at, address, headers, event, action, size, verdict, reason, proof,
	duplicate_of, replay_of, actor, body_bytes IS NOT NULL, source`

func scanDelivery(d *agented.Delivery, scan func(...any) error) error {
	var headers, proof, source string
	err := scan(&d.ID, &d.Endpoint, &d.Key, toTime{&d.ReceivedAt}, &d.Address, &headers, &d.Event, &d.Action, &d.Size, &d.Verdict, &d.Reason, &proof,
		&d.DuplicateOf, &d.ReplayOf, &d.Actor, &d.BodyKept, &source)
	if err != nil {
		return err
	}
	d.ServerProof, d.Pulled = proof != "", source == "pulled"
	if headers == "" {
		return nil
	}
	return json.Unmarshal([]byte(headers), &d.Headers)
}

type deliveryTriggerRow struct {
	delivery agented.DeliveryID
	agented.DeliveryTrigger
}

// loadDeliveryTriggers loads the results of deliveries for triggers.
func loadDeliveryTriggers(q querier, list []agented.Delivery) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.DeliveryID]int, len(list))
	ids := make([]agented.DeliveryID, len(list))
	for i := range list {
		ids[i], place[list[i].ID] = list[i].ID, i
	}
	var w where
	rows, err := q.query(`SELECT delivery_id, trigger_id, trigger_name, webhook_id, fired, rule, reason, execution_id
		FROM delivery_trigger WHERE delivery_id IN `+in(&w, ids)+` ORDER BY delivery_id, place`, w.Args()...)
	all, err := collect(rows, err, func(r *deliveryTriggerRow, scan func(...any) error) error {
		return scan(&r.delivery, &r.Trigger, &r.TriggerName, &r.Webhook, &r.Fired, &r.Rule, &r.Reason, &r.Execution)
	})
	for _, r := range all {
		d := &list[place[r.delivery]]
		d.Triggers = append(d.Triggers, r.DeliveryTrigger)
	}
	return err
}

// supersede ends the trigger's pending and running executions about the same
// subject in favour of e. It returns their number and the running ones, which
// were requested to stop.
func (tx *tx) supersede(e *agented.Execution, subject string, now time.Time) (int, []agented.ExecutionID, error) {
	type one struct {
		id    agented.ExecutionID
		state agented.State
	}
	rows, err := tx.query(`SELECT id, status FROM execution
		WHERE trigger_id = $1 AND subject = $2 AND subject <> '' AND finished_at IS NULL ORDER BY created_at, id`, e.Trigger, subject)
	list, err := collect(rows, err, func(v *one, scan func(...any) error) error { return scan(&v.id, &v.state) })
	if err != nil {
		return 0, nil, err
	}
	var running []agented.ExecutionID
	for _, v := range list {
		if v.state == agented.StatePending {
			err = tx.cancelPending(v.id, "superseded by "+string(e.ID)+", which is newer and about the same subject", "", now)
		} else {
			running = append(running, v.id)
			err = tx.requestCancel(v.id, "is being stopped: superseded by "+string(e.ID), "a newer event about "+subject+" ("+string(e.ID)+")")
		}
		if err != nil {
			return 0, nil, err
		}
	}
	if n := len(list) - len(running); n > 0 {
		err = tx.release(e.Trigger, n)
	}
	return len(list), running, err
}

// subjectOf returns the subject of a new execution; a retry has the subject of
// the original.
func (tx *tx) subjectOf(e *agented.Execution, subject string) (string, error) {
	if subject != "" || e.RetryOf == "" {
		return subject, nil
	}
	err := tx.row(`SELECT subject FROM execution WHERE id = $1`, e.RetryOf).Scan(&subject)
	if missing(err) {
		return "", nil
	}
	return subject, err
}

// pack compresses a body if that makes it smaller.
func pack(body []byte) ([]byte, bool) {
	if len(body) < 512 {
		if body == nil {
			body = []byte{} // NULL means no body
		}
		return body, false
	}
	out := packer().EncodeAll(body, make([]byte, 0, len(body)/2))
	return out, true
}

// Created on first use: the shim is the same program and needs neither.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		return must1(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true)))
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		return must1(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(256<<20)))
	})
)

// must1 is for constant arguments.
func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// DeliveryFilter filters a list of deliveries. Zero fields match all.
type DeliveryFilter struct {
	Verdict  agented.DeliveryVerdict
	Endpoint string
	Trigger  agented.TriggerID // deliveries that could have fired it
	Event    string
	After    time.Time // received at this time or later
	Before   time.Time // received before this time
}

// Deliveries returns a page of deliveries, newest first, with their results for
// triggers, and the cursor of the next page, empty if there is none.
func (db *DB) Deliveries(ctx context.Context, f DeliveryFilter, p Page) ([]agented.Delivery, string, error) {
	after, err := pageKey(p, "delivery", 1)
	if err != nil {
		return nil, "", err
	}
	var w where
	if after != nil {
		if !agented.ValidID("dlv", after[0]) {
			return nil, "", badCursor()
		}
		w.And(`id < $?`, after[0])
	}
	if f.Verdict != "" {
		w.And(`verdict = $?`, f.Verdict)
	}
	if f.Endpoint != "" {
		w.And(`endpoint = $?`, f.Endpoint)
	}
	if f.Event != "" {
		w.And(`event = $?`, f.Event)
	}
	if f.Trigger != "" {
		w.And(`id IN (SELECT delivery_id FROM delivery_trigger WHERE trigger_id = $?)`, f.Trigger)
	}
	// Ids sort by time to the millisecond: they limit the search, and the exact
	// time decides.
	if !f.After.IsZero() {
		w.And(`id >= $? AND received_at >= $?`, idFloor(f.After), micros(f.After))
	}
	if !f.Before.IsZero() {
		w.And(`id < $? AND received_at < $?`, idFloor(f.Before.Add(time.Millisecond)), micros(f.Before))
	}
	limit := p.Size()
	var list []agented.Delivery
	err = db.read(ctx, "deliveries", func(r *reader) error {
		rows, err := r.query(`SELECT `+deliveryColumns+` FROM delivery`+w.SQL()+` ORDER BY id DESC LIMIT `+fmt.Sprint(limit+1), w.Args()...)
		if list, err = collect(rows, err, scanDelivery); err != nil {
			return err
		}
		return loadDeliveryTriggers(r, list)
	})
	if err != nil {
		return nil, "", err
	}
	return cut(p, list, "delivery", func(last *agented.Delivery) []string { return []string{string(last.ID)} })
}

// idFloor sorts before the delivery ids of that millisecond and after those of
// the previous one.
func idFloor(t time.Time) string { return agented.NewID("dlv", t)[:len("dlv-")+10] }

// Delivery returns one delivery with its results for triggers, or NotFound.
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

// KnownDeliveries returns which of the keys were received at an endpoint before.
func (db *DB) KnownDeliveries(ctx context.Context, endpoint string, keys []string) (map[string]bool, error) {
	known := map[string]bool{}
	for part := range slices.Chunk(keys, 500) {
		err := db.read(ctx, "known deliveries", func(r *reader) error {
			var w where
			w.And(`endpoint = $?`, endpoint)
			rows, err := r.query(`SELECT dedup_key FROM delivery`+w.SQL()+` AND dedup_key IN `+in(&w, part), w.Args()...)
			list, err := collect(rows, err, func(key *string, scan func(...any) error) error { return scan(key) })
			for _, key := range list {
				known[key] = true
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return known, nil
}

func noDelivery(id agented.DeliveryID) error {
	return agented.Errorf(agented.NotFound, "no delivery %q", id)
}

// DeliveryBody returns the body of a delivery as received. It returns NotFound
// if the delivery was rejected or its body was pruned.
func (db *DB) DeliveryBody(ctx context.Context, id agented.DeliveryID) ([]byte, error) {
	var packed bool
	var body []byte
	err := db.row(ctx, `SELECT zstd, body FROM delivery_body WHERE delivery_id = $1`, id).Scan(&packed, &body)
	if missing(err) {
		return nil, agented.Errorf(agented.NotFound, "the body of %s is not stored: rejected and repeated calls have none, and other bodies are removed after some time", id)
	}
	if err != nil {
		return nil, explain("delivery body", err)
	}
	if !packed {
		return body, nil
	}
	if body, err = unpacker().DecodeAll(body, nil); err != nil {
		return nil, agented.Errorf(agented.Internal, "the body of %s is damaged", id).Because(err)
	}
	return body, nil
}

// DeliveryLimits limit the stored deliveries.
type DeliveryLimits struct {
	Before   time.Time // bodies of deliveries before this time are removed
	MaxBytes int64     // stored bytes of all bodies; the oldest are removed first
	MaxRows  int       // rejected and repeated calls, each; the oldest are removed first
}

// pruneStep is how many rows one transaction removes, so that other writers do
// not wait long.
const pruneStep = 200

// PruneDeliveries removes bodies, rejected calls and repetitions beyond the
// limits, and the results of triggers that did not fire. Accepted and ignored
// deliveries remain with their keys and executions, so that repetitions are
// always detected. It returns the number of removed bodies.
func (db *DB) PruneDeliveries(ctx context.Context, l DeliveryLimits) (int, error) {
	total := 0
	var sum int64 // size of the bodies; read once, since it reads an entry for each
	err := db.row(ctx, `SELECT COALESCE(SUM(body_bytes), 0) FROM delivery WHERE body_bytes IS NOT NULL`).Scan(&sum)
	if err != nil {
		return 0, explain("prune deliveries", err)
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

// oldBodies returns the first deliveries whose bodies are too old or exceed the
// size limit, and subtracts them from the sum.
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

// pruneRows removes rejected calls and repetitions that are too old or too
// many.
func (db *DB) pruneRows(ctx context.Context, l DeliveryLimits) error {
	for _, verdict := range []agented.DeliveryVerdict{agented.VerdictRejected, agented.VerdictDuplicate} {
		floor := idFloor(l.Before)
		var id string
		err := db.row(ctx, `SELECT id FROM delivery WHERE verdict = $1 ORDER BY id DESC LIMIT 1 OFFSET $2`, verdict, l.MaxRows).Scan(&id)
		if err != nil && !missing(err) {
			return explain("prune deliveries", err)
		}
		if id > floor {
			floor = id + "!" // including it
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
