package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/agented/agented"
)

// Values of the column contract of an attempt.
const (
	contractMet    = "met"
	contractNotMet = "not_met"
)

// shortOutput is the maximum size of an output in lists and events, in bytes.
const shortOutput = 4 << 10

func contractState(c *agented.Contract) string {
	switch {
	case c == nil:
		return ""
	case c.Met:
		return contractMet
	}
	return contractNotMet
}

// toContract scans the output of contractState.
type toContract struct{ c **agented.Contract }

// Scan implements sql.Scanner.
func (s toContract) Scan(v any) error {
	text, _ := v.(string)
	if *s.c = nil; text != "" {
		*s.c = &agented.Contract{Met: text == contractMet}
	}
	return nil
}

// storeContract stores the evaluation of an outcome contract.
func (tx *tx) storeContract(a *agented.Attempt) error {
	if a.Contract == nil {
		return nil
	}
	clauses, err := json.Marshal(a.Contract.Clauses)
	if err != nil {
		return err
	}
	return tx.exec(`INSERT INTO outcome (execution_id, attempt, clauses, output) VALUES ($1, $2, $3, $4)`,
		a.Execution, a.Number, string(clauses), string(a.Contract.Output))
}

// contracts returns the attempts with the evaluation of a contract, by execution and number.
func contracts(ids *[]agented.ExecutionID, e *agented.Execution, out map[agented.ExecutionID]map[int]*agented.Contract) {
	for i := range e.Attempts {
		a := &e.Attempts[i]
		if a.Contract == nil {
			continue
		}
		if out[e.ID] == nil {
			out[e.ID] = map[int]*agented.Contract{}
			*ids = append(*ids, e.ID)
		}
		out[e.ID][a.Number] = a.Contract
	}
}

// loadOutputs loads the short outputs of executions.
func loadOutputs(q querier, list []agented.Execution) error {
	var ids []agented.ExecutionID
	found := map[agented.ExecutionID]map[int]*agented.Contract{}
	for i := range list {
		contracts(&ids, &list[i], found)
	}
	return fillContracts(q, ids, found, fmt.Sprintf(`'' AS clauses, CASE WHEN LENGTH(output) <= %d THEN output ELSE '' END`, shortOutput))
}

// loadContracts loads the evaluations of the contracts of executions.
func loadContracts(q querier, place map[agented.ExecutionID]*agented.Execution) error {
	var ids []agented.ExecutionID
	found := map[agented.ExecutionID]map[int]*agented.Contract{}
	for _, e := range place {
		contracts(&ids, e, found)
	}
	return fillContracts(q, ids, found, `clauses, output`)
}

func fillContracts(q querier, ids []agented.ExecutionID, into map[agented.ExecutionID]map[int]*agented.Contract, columns string) error {
	if len(ids) == 0 {
		return nil
	}
	type row struct {
		id              agented.ExecutionID
		number          int
		clauses, output string
	}
	var w where
	rows, err := q.query(`SELECT execution_id, attempt, `+columns+` FROM outcome WHERE execution_id IN `+in(&w, ids), w.Args()...)
	list, err := collect(rows, err, func(r *row, scan func(...any) error) error {
		return scan(&r.id, &r.number, &r.clauses, &r.output)
	})
	if err != nil {
		return err
	}
	for _, r := range list {
		c := into[r.id][r.number]
		if c == nil {
			continue
		}
		if r.output != "" {
			c.Output = json.RawMessage(r.output)
		}
		if r.clauses == "" {
			continue
		}
		if err := json.Unmarshal([]byte(r.clauses), &c.Clauses); err != nil {
			return fmt.Errorf("the outcome of %s: %w", r.id, err)
		}
	}
	return nil
}

// judgePublished evaluates the clause published of an execution's contract again when its
// publication has its final status, and notifies if it was not written. The execution, which has
// ended, keeps its status.
func (tx *tx) judgePublished(p *agented.Publication, at time.Time) error {
	if !p.Status.Final() {
		return nil
	}
	var text, snapshot []byte
	err := tx.row(`SELECT o.clauses, t.snapshot FROM outcome o JOIN execution_text t ON t.execution_id = o.execution_id
		WHERE o.execution_id = $1 AND o.attempt = $2`, p.Execution, p.Attempt).Scan(&text, &snapshot)
	if missing(err) {
		return nil // it has no contract
	}
	if err != nil {
		return err
	}
	var spec struct {
		Expect *agented.Expect `json:"expect"`
	}
	var clauses []agented.Clause
	if err := json.Unmarshal(snapshot, &spec); err != nil {
		return fmt.Errorf("the snapshot of %s: %w", p.Execution, err)
	}
	if err := json.Unmarshal(text, &clauses); err != nil {
		return fmt.Errorf("the outcome of %s: %w", p.Execution, err)
	}
	i := slices.IndexFunc(clauses, func(c agented.Clause) bool { return c.Name == agented.ClausePublished && c.Pending })
	if i < 0 || spec.Expect == nil || spec.Expect.Published != p.Kind {
		return nil
	}
	clauses[i] = p.Clause()
	changed, err := json.Marshal(clauses)
	if err != nil {
		return err
	}
	if err := tx.exec(`UPDATE outcome SET clauses = $3 WHERE execution_id = $1 AND attempt = $2`, p.Execution, p.Attempt, string(changed)); err != nil {
		return err
	}
	if clauses[i].Met {
		return nil
	}
	if err := tx.exec(`UPDATE attempt SET contract = $3 WHERE execution_id = $1 AND number = $2`, p.Execution, p.Attempt, contractNotMet); err != nil {
		return err
	}
	if p.Status == agented.PublicationSuperseded {
		return nil // the execution for the newer commits counts
	}
	n := agented.Notice{Kind: agented.NotifyNoEffect, Execution: p.Execution, Text: clauses[i].Text, At: at}
	if p.Reason != "" {
		n.Text += ": " + p.Reason
	}
	return tx.notify(n)
}
