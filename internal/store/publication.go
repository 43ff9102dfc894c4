package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

const publicationColumns = `execution_id, number, attempt, trigger_id, kind, status, rule, reason, repository, subject, sha, title, proposal, url, remote_id,
	branch, commit_id, tries, hold, decided_by, decided_at, due_at, give_up_at, created_at, updated_at`

func scanPublication(p *agented.Publication, scan func(...any) error) error {
	return scan(&p.Execution, &p.Number, &p.Attempt, &p.Trigger, &p.Kind, &p.Status, &p.Rule, &p.Reason, &p.Repository, &p.Subject, &p.SHA, &p.Title,
		&p.Proposal, &p.URL, &p.RemoteID, &p.Branch, &p.Commit, &p.Tries, &p.Hold, &p.DecidedBy, toTime{&p.DecidedAt}, toTime{&p.DueAt}, toTime{&p.GiveUpAt},
		toTime{&p.CreatedAt}, toTime{&p.UpdatedAt})
}

// insertPublications stores what an execution publishes, in the transaction of its end.
func (tx *tx) insertPublications(id agented.ExecutionID, list []agented.Publication, at time.Time) error {
	if len(list) == 0 {
		return nil
	}
	var trigger agented.TriggerID
	if err := tx.row(`SELECT trigger_id FROM execution WHERE id = $1`, id).Scan(&trigger); err != nil {
		return err
	}
	for i, p := range list {
		var due time.Time
		if p.Status == agented.PublicationPending {
			due = at
		}
		err := tx.exec(`INSERT INTO publication (execution_id, number, attempt, trigger_id, kind, status, rule, reason, repository, subject, sha, title, proposal,
				branch, hold, due_at, give_up_at, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18)`,
			id, i+1, p.Attempt, trigger, p.Kind, p.Status, p.Rule, format.Truncate(p.Reason, maxSentence), p.Repository, p.Subject, p.SHA, p.Title, string(p.Proposal),
			p.Branch, p.Hold, micros(due), micros(p.GiveUpAt), micros(at))
		if err != nil {
			return err
		}
	}
	return nil
}

// loadPublications loads the publications of executions, without their proposals.
func loadPublications(q querier, list []agented.Execution) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.ExecutionID]*agented.Execution, len(list))
	ids := make([]agented.ExecutionID, len(list))
	for i := range list {
		ids[i], place[list[i].ID] = list[i].ID, &list[i]
	}
	var w where
	rows, err := q.query(`SELECT `+strings.Replace(publicationColumns, "proposal,", "'',", 1)+` FROM publication WHERE execution_id IN `+in(&w, ids)+`
		ORDER BY execution_id, number`, w.Args()...)
	all, err := collect(rows, err, scanPublication)
	for _, p := range all {
		e := place[p.Execution]
		e.Publications = append(e.Publications, p)
	}
	return err
}

// Publications returns what an execution publishes, in order.
func (db *DB) Publications(ctx context.Context, id agented.ExecutionID) ([]agented.Publication, error) {
	rows, err := db.query(ctx, `SELECT `+publicationColumns+` FROM publication WHERE execution_id = $1 ORDER BY number`, id)
	list, err := collect(rows, err, scanPublication)
	return list, explain("publications", err)
}

// OpenPublications returns the publications that are pending, and then those that are held, at most
// limit: first the oldest of each repository, then the second of each, so that many of one repository
// do not delay the others.
func (db *DB) OpenPublications(ctx context.Context, limit int) ([]agented.Publication, error) {
	rows, err := db.query(ctx, `SELECT `+publicationColumns+` FROM (
			SELECT *, ROW_NUMBER() OVER (PARTITION BY status, LOWER(repository) ORDER BY created_at, execution_id, number) AS place
			FROM publication WHERE status IN ('pending', 'held')) AS open
		ORDER BY status = 'held', place, created_at, execution_id, number LIMIT $1`, limit)
	list, err := collect(rows, err, scanPublication)
	return list, explain("open publications", err)
}

// SetPublication stores the progress of a pending publication: status, reason, what was written,
// and when it is due. It returns Conflict if it is not pending any more.
func (db *DB) SetPublication(ctx context.Context, p *agented.Publication, now time.Time) error {
	return db.write(ctx, "publication", func(tx *tx) error {
		n, err := tx.affected(`UPDATE publication SET status = $3, rule = $4, reason = $5, url = $6, remote_id = $7, branch = $8, commit_id = $9, tries = $10,
				due_at = $11, give_up_at = $12, updated_at = $13
			WHERE execution_id = $1 AND number = $2 AND status = 'pending'`,
			p.Execution, p.Number, p.Status, p.Rule, format.Truncate(p.Reason, maxSentence), p.URL, p.RemoteID, p.Branch, p.Commit, p.Tries,
			micros(p.DueAt), micros(p.GiveUpAt), micros(now))
		if err != nil {
			return err
		}
		if n == 0 {
			return agented.Errorf(agented.Conflict, "publication %d of %s is not pending", p.Number, p.Execution)
		}
		if p.Status == agented.PublicationHeld {
			text := fmt.Sprintf("%s for %s waits for an approval", p.Kind.Noun(), p.Repository)
			if err := tx.notify(agented.Notice{Kind: agented.NotifyHeld, Execution: p.Execution, Text: text, At: now}); err != nil {
				return err
			}
		}
		if err := tx.judgePublished(p, now); err != nil {
			return err
		}
		return tx.touch(p.Execution)
	})
}

// DecidePublication approves or rejects a held publication. It returns NotFound if there is no such
// publication, and Conflict if it is not held.
func (db *DB) DecidePublication(ctx context.Context, id agented.ExecutionID, number int, approve bool, by string, giveUp, now time.Time) (*agented.Publication, error) {
	var p agented.Publication
	err := db.write(ctx, "decide about a publication", func(tx *tx) error {
		err := scanPublication(&p, tx.row(`SELECT `+publicationColumns+` FROM publication WHERE execution_id = $1 AND number = $2`, id, number).Scan)
		switch {
		case missing(err):
			return agented.Errorf(agented.NotFound, "%s has no publication %d", id, number)
		case err != nil:
			return err
		case p.Status != agented.PublicationHeld:
			return agented.Errorf(agented.Conflict, "publication %d of %s is %s: only a held one can be approved or rejected", number, id, p.Status)
		}
		p.DecidedBy, p.DecidedAt, p.UpdatedAt = by, stored(now), stored(now)
		if approve {
			p.Status, p.Reason, p.DueAt, p.GiveUpAt, p.Tries = agented.PublicationPending, byWhom("approved", by), stored(now), stored(giveUp), 0
		} else {
			p.Status, p.Reason = agented.PublicationRejected, byWhom("rejected", by)
		}
		err = tx.exec(`UPDATE publication SET status = $3, reason = $4, decided_by = $5, decided_at = $6, updated_at = $6, due_at = $7, give_up_at = $8, tries = $9
			WHERE execution_id = $1 AND number = $2`,
			id, number, p.Status, p.Reason, p.DecidedBy, micros(now), micros(p.DueAt), micros(p.GiveUpAt), p.Tries)
		if err != nil {
			return err
		}
		if err := tx.judgePublished(&p, now); err != nil {
			return err
		}
		return tx.touch(id)
	})
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// LastPublished returns the forge's id of what a trigger last published about a subject; 0 if there
// is nothing.
func (db *DB) LastPublished(ctx context.Context, p *agented.Publication) (int64, error) {
	var id int64
	err := db.row(ctx, `SELECT remote_id FROM publication
		WHERE trigger_id = $1 AND repository = $2 AND subject = $3 AND kind = $4 AND status = 'published' AND trigger_id <> '' AND remote_id <> 0
		ORDER BY updated_at DESC LIMIT 1`, p.Trigger, p.Repository, p.Subject, p.Kind).Scan(&id)
	if missing(err) {
		return 0, nil
	}
	return id, explain("earlier publication", err)
}

// publishingChain returns the chain of an execution that published something to a repository. It
// returns false if there is none.
func publishingChain(q querier, id agented.ExecutionID, repository string) (agented.Chain, bool, error) {
	var c agented.Chain
	err := q.row(`SELECT e.chain_id, e.chain_depth, e.chain_parent FROM execution e
		WHERE e.id = $1 AND EXISTS (SELECT 1 FROM publication p WHERE p.execution_id = e.id AND LOWER(p.repository) = LOWER($2)
			AND p.status IN ('pending', 'published', 'failed'))`, id, repository).
		Scan(&c.ID, &c.Depth, &c.Parent)
	if missing(err) {
		return c, false, nil
	}
	return c, err == nil, err
}

// PublicationCount is the number of publications of a kind with a status.
type PublicationCount struct {
	Kind   agented.PublicationKind
	Status agented.PublicationStatus
	Count  int64
}

// PublicationCounts counts the open publications.
func (db *DB) PublicationCounts(ctx context.Context) ([]PublicationCount, error) {
	rows, err := db.query(ctx, `SELECT kind, status, COUNT(*) FROM publication WHERE status IN ('pending', 'held') GROUP BY kind, status`)
	list, err := collect(rows, err, func(c *PublicationCount, scan func(...any) error) error { return scan(&c.Kind, &c.Status, &c.Count) })
	return list, explain("count publications", err)
}
