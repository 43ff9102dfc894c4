package store

import (
	"encoding/json"
	"fmt"

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
