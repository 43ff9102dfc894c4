package notices

import (
	"time"

	"github.com/agented/agented"
)

// Ended is an execution that ended in the period of a digest.
type Ended struct {
	ID      agented.ExecutionID
	Trigger string
	State   agented.State
	Reason  string
	Result  string // its beginning
}

// NextRun is a run that is due next.
type NextRun struct {
	Trigger string
	At      time.Time
}

// Summary is what a digest reports.
type Summary struct {
	Counts  map[agented.State]int
	CostUSD float64
	Unknown int     // attempts whose cost is unknown
	Failed  []Ended // the latest ones
	Succeed []Ended // the latest one of each trigger
	Waiting []string
	Parked  int
	Next    []NextRun
}

// Limits of the lists of a digest.
const (
	maxEnded  = 15
	maxNext   = 5
	maxResult = 2000                // bytes of a result that are read
	maxAge    = 31 * 24 * time.Hour // executions that were created earlier are not listed
)

// Summarize returns what happened after since until until.
func Summarize(q Querier, since, until time.Time) (*Summary, error) {
	s := &Summary{Counts: map[agented.State]int{}}
	from, to := since.UnixMicro(), until.UnixMicro()
	// The index on the time of creation bounds what is read.
	created := since.Add(-maxAge).UnixMicro()
	// +status: else the whole history is read in the order of its states.
	type count struct {
		state agented.State
		n     int
	}
	rows, err := q.Query(`SELECT status || '', COUNT(*) FROM execution WHERE created_at > $3 AND finished_at > $1 AND finished_at <= $2 GROUP BY status || ''`, from, to, created)
	counts, err := collect(rows, err, func(c *count, scan func(...any) error) error { return scan(&c.state, &c.n) })
	if err != nil {
		return nil, err
	}
	for _, c := range counts {
		s.Counts[c.state] = c.n
	}
	err = q.Row(`SELECT COALESCE(SUM(cost_usd), 0), COUNT(*) - COUNT(cost_usd) FROM spending WHERE at > $1 AND at <= $2`, from, to).Scan(&s.CostUSD, &s.Unknown)
	if err != nil {
		return nil, err
	}
	const ended = `SELECT e.id, e.trigger_name, e.status, CASE WHEN e.error <> '' THEN e.error ELSE e.reason END, substr(t.result, 1, $3)
		FROM execution e JOIN execution_text t ON t.execution_id = e.id WHERE e.created_at > $5 AND e.finished_at > $1 AND e.finished_at <= $2 `
	scanEnded := func(e *Ended, scan func(...any) error) error {
		return scan(&e.ID, &e.Trigger, &e.State, &e.Reason, &e.Result)
	}
	rows, err = q.Query(ended+`AND e.status IN ('failed', 'timeout', 'interrupted') ORDER BY e.finished_at DESC LIMIT $4`, from, to, maxResult, maxEnded, created)
	if s.Failed, err = collect(rows, err, scanEnded); err != nil {
		return nil, err
	}
	rows, err = q.Query(ended+`AND e.id IN (SELECT MAX(id) FROM execution
			WHERE created_at > $5 AND finished_at > $1 AND finished_at <= $2 AND status = 'success' GROUP BY trigger_id, trigger_name)
		ORDER BY e.finished_at DESC LIMIT $4`, from, to, maxResult, maxEnded, created)
	if s.Succeed, err = collect(rows, err, scanEnded); err != nil {
		return nil, err
	}
	if err := s.readWaiting(q); err != nil {
		return nil, err
	}
	rows, err = q.Query(`SELECT t.name, MIN(s.next_run) FROM schedule s JOIN trigger_ t ON t.id = s.trigger_id
		WHERE t.enabled AND s.next_run > $1 GROUP BY t.id, t.name ORDER BY 2 LIMIT $2`, to, maxNext)
	s.Next, err = collect(rows, err, func(r *NextRun, scan func(...any) error) error {
		var at int64
		err := scan(&r.Trigger, &at)
		r.At = time.UnixMicro(at).UTC()
		return err
	})
	return s, err
}

// readWaiting reads what waits for a person, and how many executions are parked.
func (s *Summary) readWaiting(q Querier) error {
	text := func(v *string, scan func(...any) error) error { return scan(v) }
	rows, err := q.Query(`SELECT e.trigger_name || ': ' || p.reason FROM pause p JOIN execution e ON e.id = p.execution_id
		WHERE p.question <> '' ORDER BY p.paused_at LIMIT $1`, maxEnded)
	if s.Waiting, err = collect(rows, err, text); err != nil {
		return err
	}
	rows, err = q.Query(`SELECT 'account ' || backend || '/' || name || ' needs a login' FROM account WHERE enabled AND state = 'needs_login' ORDER BY backend, name LIMIT $1`, maxEnded)
	logins, err := collect(rows, err, text)
	if err != nil {
		return err
	}
	s.Waiting = append(s.Waiting, logins...)
	rows, err = q.Query(`SELECT e.trigger_name || ': ' || REPLACE(p.kind, '_', ' ') || ' for ' || p.repository || ' waits for an approval'
		FROM publication p JOIN execution e ON e.id = p.execution_id WHERE p.status = 'held' ORDER BY p.created_at LIMIT $1`, maxEnded)
	held, err := collect(rows, err, text)
	if err != nil {
		return err
	}
	s.Waiting = append(s.Waiting, held...)
	return q.Row(`SELECT COUNT(*) FROM execution WHERE parked_on IS NOT NULL`).Scan(&s.Parked)
}

// DigestsDue returns the channels whose digest is due.
func DigestsDue(q Querier, now time.Time) ([]Channel, error) {
	rows, err := q.Query(`SELECT `+channelColumns+` FROM channel WHERE enabled AND digest_at <= $1`, now.UnixMicro())
	return collect(rows, err, scanChannel)
}

// AppendDigest stores the digest of a channel up to now, and when the next one is due; an empty
// text stores none. It does nothing if the digest was stored meanwhile.
func AppendDigest(tx Tx, c *Channel, text string, now, next time.Time) error {
	n, err := tx.Affected(`UPDATE channel SET digest_at = $2, digest_of = $3 WHERE id = $1 AND enabled AND digest_at = $4`,
		c.ID, micros(next), micros(now), micros(c.DigestAt))
	if err != nil || n == 0 || text == "" {
		return err
	}
	return insert(tx, c.ID, agented.Notice{Kind: KindDigest, Text: text, At: now}, now, false, maxDigest)
}

const maxDigest = 12_000
