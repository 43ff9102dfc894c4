package store

import (
	"context"
	"time"

	"github.com/agented/agented"
)

// Chain is what one cause set going.
type Chain struct {
	ID      string
	CostUSD *float64 // known cost of its executions; nil: none is known
	Links   []ChainLink
	Cut     bool // there are more
}

// ChainLink is one message or execution of a chain.
type ChainLink struct {
	Kind      string // message or execution
	ID        string
	Parent    string
	Depth     int
	Title     string          // subject of a message, name of an execution's trigger
	From, To  agented.Address // of a message
	State     agented.State   // of an execution
	CreatedAt time.Time
}

// maxLinks bounds what is shown of a chain; a chain's own limit is less unless
// somebody raised it.
const maxLinks = 2000

// Chain returns the chain that a message or an execution is in, in the order of
// times. NotFound when there is neither.
func (db *DB) Chain(ctx context.Context, id string) (Chain, error) {
	var c Chain
	err := db.read(ctx, "chain", func(r *reader) error {
		err := r.row(`SELECT CASE WHEN chain_id = '' THEN id ELSE chain_id END FROM execution WHERE id = $1
			UNION ALL SELECT chain_id FROM message WHERE id = $1`, id).Scan(&c.ID)
		if missing(err) {
			return agented.Errorf(agented.NotFound, "no message or execution %q", clip(id, 80))
		}
		if err != nil {
			return err
		}
		err = r.row(`SELECT SUM(cost_usd) FROM (SELECT cost_usd FROM execution WHERE chain_id = $1 AND chain_id <> ''
			UNION ALL SELECT cost_usd FROM execution WHERE id = $1) AS e`, c.ID).Scan(&c.CostUSD)
		if err != nil {
			return err
		}
		rows, err := r.query(`SELECT 'execution', id, chain_parent, chain_depth, trigger_name, '', '', status, created_at FROM execution WHERE chain_id = $1 AND chain_id <> ''
			UNION ALL SELECT 'execution', id, '', 0, trigger_name, '', '', status, created_at FROM execution WHERE id = $1
			UNION ALL SELECT 'message', id, chain_parent, chain_depth, subject, sender, recipient, '', created_at FROM message WHERE chain_id = $1
			ORDER BY 9, 4, 2 LIMIT $2`, c.ID, maxLinks+1)
		c.Links, err = collect(rows, err, func(l *ChainLink, scan func(...any) error) error {
			return scan(&l.Kind, &l.ID, &l.Parent, &l.Depth, &l.Title, toAddress{&l.From}, toAddress{&l.To}, &l.State, toTime{&l.CreatedAt})
		})
		if len(c.Links) > maxLinks {
			c.Links, c.Cut = c.Links[:maxLinks], true
		}
		return err
	})
	return c, err
}

// AddressNames returns the names of agents, users and triggers by their
// addresses.
func (db *DB) AddressNames(ctx context.Context) (map[agented.Address]string, error) {
	type one struct {
		a    agented.Address
		name string
	}
	rows, err := db.r.QueryContext(ctx, `SELECT 'agent:' || id, name FROM agent UNION ALL SELECT 'user:' || id, name FROM user_
		UNION ALL SELECT 'trigger:' || id, name FROM trigger_`)
	list, err := collect(rows, err, func(v *one, scan func(...any) error) error { return scan(toAddress{&v.a}, &v.name) })
	out := make(map[agented.Address]string, len(list))
	for _, v := range list {
		out[v.a] = v.name
	}
	return out, db.explain("names", err)
}

// LastInboxSeq is the number of the last message of an inbox; 0 when it has
// none.
func (db *DB) LastInboxSeq(ctx context.Context, owner agented.Address) (int64, error) {
	var n int64
	err := db.r.QueryRowContext(ctx, `SELECT last_seq FROM inbox WHERE owner = $1`, owner.String()).Scan(&n)
	if missing(err) {
		return 0, nil
	}
	return n, db.explain("inbox", err)
}
