package store

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
)

// DeliveryAdmission asks for a genuine call to be stored with the executions
// that it fires.
type DeliveryAdmission struct {
	Delivery agented.Delivery // Verdict, Reason and Triggers are filled in
	Body     []byte
	Rules    string           // HookVersion of the rules that were asked; empty does not matter
	Triggers []DeliveryFiring // what the rules said, in their order
}

// DeliveryFiring is what a delivery means for one trigger. With an Admission it
// fires.
type DeliveryFiring struct {
	agented.DeliveryTrigger
	Admission *Admission
}

// DeliveryResult is what became of a DeliveryAdmission.
type DeliveryResult struct {
	Delivery  agented.Delivery // as stored; of a duplicate the first one
	Duplicate bool
	Stale     bool                  // the rules have changed meanwhile: nothing was stored, ask them again
	Replaced  []agented.ExecutionID // running ones that have been asked to stop
}

// AdmitDelivery stores a delivery and its executions, all or nothing. When it
// returns, they survive a power cut. A delivery whose key has been seen at the
// same endpoint fires nothing: the result is the first one, however long ago
// that was, and the repetition is a row of its own.
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
			// What came before is answered as it was then, whatever the rules are now.
			first, err := tx.firstDelivery(d.Endpoint, d.Key)
			if first != nil {
				return tx.repeatedDelivery(d, first)
			}
			return DeliveryResult{Stale: true}, err
		}
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
			return DeliveryResult{}, fmt.Errorf("delivery %s: its key is taken and by nobody", d.ID)
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
			e, replaced, err := tx.place(*t.Admission, now)
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
			d.ID, dt.Trigger, dt.TriggerName, dt.Webhook, dt.Fired, dt.Rule, clip(dt.Reason, maxSentence), dt.Execution, i)
		if err != nil {
			return DeliveryResult{}, err
		}
		d.Triggers = append(d.Triggers, dt)
	}
	d.BodyKept = true
	got.Delivery = d
	return got, nil
}

// repeatedDelivery stores a call whose key was seen before, as the row of its own
// that a repetition is.
func (tx *tx) repeatedDelivery(d agented.Delivery, first *agented.Delivery) (DeliveryResult, error) {
	d.Key, d.Verdict, d.DuplicateOf = "", agented.VerdictDuplicate, first.ID
	d.Reason = "the same delivery came before, as " + string(first.ID)
	_, err := tx.insertDelivery(&d, nil)
	return DeliveryResult{Delivery: *first, Duplicate: true}, err
}

// ignoredReason says for people why nothing fired.
func ignoredReason(list []DeliveryFiring) string {
	switch len(list) {
	case 0:
		return "no trigger takes such calls"
	case 1:
		return fmt.Sprintf("trigger %q: %s", list[0].TriggerName, list[0].Reason)
	}
	return fmt.Sprintf("none of %d triggers fires; trigger %q: %s", len(list), list[0].TriggerName, list[0].Reason)
}

// RejectDelivery stores a call that was refused. It has no body and no key: the
// same delivery may come again and be accepted.
func (db *DB) RejectDelivery(ctx context.Context, d agented.Delivery) error {
	d.Key, d.Verdict = "", agented.VerdictRejected
	return db.write(ctx, "reject delivery", func(tx *tx) error {
		_, err := tx.insertDelivery(&d, nil)
		return err
	})
}

// insertDelivery writes a delivery, unless its key has been seen at the same
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
	proof := ""
	if d.ServerProof {
		proof = "server"
	}
	d.ReceivedAt = stored(d.ReceivedAt)
	n, err := tx.affected(`INSERT INTO delivery (id, endpoint, dedup_key, received_at, address, headers, event, action, size, verdict, reason, proof,
			duplicate_of, replay_of, actor, body_bytes)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (endpoint, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING`,
		d.ID, d.Endpoint, key, micros(d.ReceivedAt), d.Address, string(headers), d.Event, d.Action, d.Size, d.Verdict, clip(d.Reason, maxSentence), proof,
		d.DuplicateOf, d.ReplayOf, d.Actor, bodyBytes)
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
	duplicate_of, replay_of, actor, body_bytes IS NOT NULL`

func scanDelivery(d *agented.Delivery, scan func(...any) error) error {
	var headers, proof string
	err := scan(&d.ID, &d.Endpoint, &d.Key, toTime{&d.ReceivedAt}, &d.Address, &headers, &d.Event, &d.Action, &d.Size, &d.Verdict, &d.Reason, &proof,
		&d.DuplicateOf, &d.ReplayOf, &d.Actor, &d.BodyKept)
	if err != nil {
		return err
	}
	d.ServerProof = proof != ""
	if headers == "" {
		return nil
	}
	return json.Unmarshal([]byte(headers), &d.Headers)
}

type deliveryTriggerRow struct {
	delivery agented.DeliveryID
	agented.DeliveryTrigger
}

// loadDeliveryTriggers fills in what deliveries meant for triggers.
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
		FROM delivery_trigger WHERE delivery_id IN `+in(&w, ids)+` ORDER BY delivery_id, place`, w.args...)
	all, err := collect(rows, err, func(r *deliveryTriggerRow, scan func(...any) error) error {
		return scan(&r.delivery, &r.Trigger, &r.TriggerName, &r.Webhook, &r.Fired, &r.Rule, &r.Reason, &r.Execution)
	})
	for _, r := range all {
		d := &list[place[r.delivery]]
		d.Triggers = append(d.Triggers, r.DeliveryTrigger)
	}
	return err
}

// supersede ends what the trigger has under way about the same subject, in
// favour of e. It returns how many there were, and those that run and have been
// asked to stop.
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
			err = tx.cancelPending(v.id, "superseded by "+string(e.ID)+", which is about the same and newer", "", now)
		} else {
			running = append(running, v.id)
			err = tx.askCancel(v.id, "is being stopped: superseded by "+string(e.ID), "a newer event about "+subject+" ("+string(e.ID)+")")
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

// subjectOf is what a new execution is about; a retry is about the same as the
// one that it repeats.
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

// pack compresses a body when that makes it smaller.
func pack(body []byte) ([]byte, bool) {
	if len(body) < 512 {
		if body == nil {
			body = []byte{} // NULL is not a body
		}
		return body, false
	}
	out := packer().EncodeAll(body, make([]byte, 0, len(body)/2))
	return out, true
}

// Made when first used: the shim is the same program and needs neither.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		return must1(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true)))
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		return must1(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(256<<20)))
	})
)

// must1 is for arguments that are constants.
func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
