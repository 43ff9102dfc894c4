package store

import (
	"context"
	"strings"

	"github.com/agented/agented"
)

type messageRuleRow struct {
	trigger agented.TriggerID
	rule    agented.MessageRule
}

// setMessageRules replaces the messages that fire a trigger by those that it
// holds. The addresses of agents are their ids.
func (tx *tx) setMessageRules(t *agented.Trigger) error {
	if err := tx.exec(`DELETE FROM message_rule WHERE trigger_id = $1`, t.ID); err != nil {
		return err
	}
	for i, r := range t.Messages {
		if r.To.Kind == agented.ToAgent {
			a, err := findAgent(tx, r.To.Name)
			if err != nil {
				return err
			}
			r.To.Name = string(a.ID)
		}
		types := make([]string, len(r.Types))
		for i, one := range r.Types {
			types[i] = string(one)
		}
		err := tx.exec(`INSERT INTO message_rule (trigger_id, place, address, types, enabled) VALUES ($1, $2, $3, $4, $5)`,
			t.ID, i, r.To.String(), strings.Join(types, " "), r.Enabled)
		if err != nil {
			return err
		}
	}
	return nil
}

// loadMessageRules fills in the messages that fire triggers.
func loadMessageRules(q querier, list []agented.Trigger) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.TriggerID]int, len(list))
	ids := make([]agented.TriggerID, len(list))
	for i := range list {
		ids[i], place[list[i].ID] = list[i].ID, i
	}
	var w where
	rows, err := q.query(`SELECT trigger_id, address, types, enabled FROM message_rule WHERE trigger_id IN `+in(&w, ids)+` ORDER BY trigger_id, place`, w.args...)
	all, err := collect(rows, err, func(r *messageRuleRow, scan func(...any) error) error {
		var types string
		if err := scan(&r.trigger, toAddress{&r.rule.To}, &types, &r.rule.Enabled); err != nil {
			return err
		}
		for one := range strings.FieldsSeq(types) {
			r.rule.Types = append(r.rule.Types, agented.MessageType(one))
		}
		return nil
	})
	for _, r := range all {
		t := &list[place[r.trigger]]
		t.Messages = append(t.Messages, r.rule)
	}
	return err
}

// MessageTriggers returns the enabled triggers that a message to an address may
// fire, because of the address itself or of an inbox that it reaches, in the
// order of their ids, and the version of the rules that were asked.
func (db *DB) MessageTriggers(ctx context.Context, to agented.Address) ([]agented.Trigger, string, error) {
	var list []agented.Trigger
	version := "0"
	err := db.read(ctx, "message rules", func(r *reader) error {
		err := r.row(`SELECT value FROM setting WHERE key = $1`, hookVersion).Scan(&version)
		if err != nil && !missing(err) {
			return err
		}
		owners, err := recipients(r, to)
		if err != nil {
			return err
		}
		addresses := []string{to.String()}
		for _, o := range owners {
			addresses = append(addresses, o.String())
		}
		for len(addresses) > 0 {
			part := addresses[:min(len(addresses), 500)]
			addresses = addresses[len(part):]
			var w where
			rows, err := r.query(`SELECT `+triggerColumns+` FROM trigger_ WHERE enabled AND id IN
				(SELECT trigger_id FROM message_rule WHERE enabled AND address IN `+in(&w, part)+`) ORDER BY id`, w.args...)
			more, err := collect(rows, err, scanTrigger)
			if err != nil {
				return err
			}
			list = append(list, more...)
		}
		return loadMessageRules(r, list)
	})
	return list, version, err
}
