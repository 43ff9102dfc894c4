package store

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// planned is what follows an attempt's end, for the execution's row.
type planned struct {
	scheduled time.Time // zero leaves it as it is
	due       time.Time // zero: parked, or final
	parkedOn  *string
	picked    agented.Picked // why it is parked
	retry     time.Time      // when the next attempt is expected; zero: not, or not known
	giveUp    time.Time
}

// none is the plan of an execution that has ended; what was found out about the
// account stays.
func (planned) none() planned { return planned{} }

// Bounds of the circuit breaker and of throttles of the address.
const (
	breakerAfter  = 5                // failures of a provider in a row
	breakerPause  = time.Minute      // first rest; it doubles
	breakerLimit  = 15 * time.Minute // longest
	roomPause     = 5 * time.Second  // until a start that met a full disk is tried again; it doubles
	roomLimit     = 5 * time.Minute  // longest
	addressWindow = 2 * time.Minute  // two accounts that are throttled within it mean the address
)

// plan decides what an attempt's end means for its account and its backend, and
// whether and when another attempt follows. It fills in the end's Next and
// Reason. asked says that somebody wants the execution to end.
func (tx *tx) plan(end *AttemptEnd, at time.Time, asked bool) (planned, error) {
	var out planned
	a := &end.Attempt
	list, err := loadBrief(tx, []agented.ExecutionID{a.Execution})
	if err != nil {
		return out, err
	}
	e := &list[0]
	i := slices.IndexFunc(e.Attempts, func(x agented.Attempt) bool { return x.Number == a.Number })
	if i < 0 {
		return out, fmt.Errorf("%s has no attempt %d", e.ID, a.Number)
	}
	row := e.Attempts[i]
	a.Account, a.Backend = row.Account, row.Backend
	began := orTime(e.Attempts[0].StartedAt, orTime(a.StartedAt, at))

	class := a.Class
	if end.NotStarted {
		a.Class = "" // not theirs
	}
	strikes, err := tx.judge(end, e, at)
	a.Class = class
	if err != nil {
		return out, err
	}
	like, charged := 1, 0
	for j := i - 1; j >= 0 && e.Attempts[j].Class == a.Class; j-- {
		like++
	}
	for _, x := range e.Attempts[:i] {
		if x.Class.Charged() {
			charged++
		}
	}
	if a.Class.Charged() {
		charged++
	}
	if strikes > 0 {
		like = strikes
	}
	next, again := end.Retry.Next(agented.Ended{
		Class: a.Class, Until: end.Limit.Until, Charged: charged, Like: like, Began: began,
	}, at, end.Jitter)
	if a.SessionGone && row.ResumedFrom != "" {
		next, again = at, true // nobody's fault: the same task, from its start
	}
	if end.NoRoom {
		next, again = at.Add(min(roomPause<<min(like-1, 10), roomLimit)), true // nobody's fault either
	}
	if e.Probes != "" || asked {
		again = false
	}
	if !again {
		if a.Class != "" && e.AttemptNo > 1 && e.Probes == "" && !asked {
			end.Reason = fmt.Sprintf("%s; gave up after %s", end.Reason, plural(e.AttemptNo, "attempt"))
			end.Error = end.Reason
		}
		return out, nil
	}
	end.Next, end.Error = agented.StatePending, ""
	out.giveUp = end.Retry.Deadline(began)
	if !waits(a.Class) && !a.SessionGone {
		out.scheduled, out.due, out.retry = next, next, next
		end.Reason += "; tries again at " + next.Format("2006-01-02 15:04:05") + " UTC"
		return out, nil
	}
	// What rests is known now: whoever may go on elsewhere does so at once, in
	// the place in the queue that it has had.
	c := candidate{id: e.ID, number: e.AttemptNo, backend: e.Backend, probes: e.Probes}
	if err := tx.row(`SELECT lane FROM execution WHERE id = $1`, e.ID).Scan(&c.lane); err != nil {
		return out, err
	}
	if c.lane == "" {
		c.lane = laneOf([]agented.Choice{{Backend: e.Backend}})
	}
	scene, err := tx.scene(at)
	if err != nil {
		return out, err
	}
	p, err := tx.pick(&c, scene)
	if err != nil {
		return out, err
	}
	switch {
	case p.OK:
		out.due, out.retry = e.ScheduledAt, at
		if a.SessionGone {
			end.Reason += "; begins afresh"
		} else {
			end.Reason += "; goes on with account " + p.Account.Label()
		}
	default:
		out.parkedOn, out.picked = &c.lane, p
		if !p.Guess {
			out.retry = p.At
		}
	}
	return out, nil
}

// waits reports whether an end of the class is followed by waiting for an
// account or a provider, rather than for a time of its own.
func waits(c agented.Class) bool {
	return c.OfAccount() || c == agented.ClassThrottle || c == agented.ClassOverload
}

// judge writes down what an attempt's end says about its account and its
// backend, and returns how many ends in a row of this kind they have seen; 0
// when that is not theirs to count.
func (tx *tx) judge(end *AttemptEnd, e *agented.Execution, at time.Time) (strikes int, err error) {
	a := &end.Attempt
	if a.Account == "" {
		return 0, nil
	}
	failures, err := tx.judgeBackend(end, e, at)
	if err != nil {
		return 0, err
	}
	acc, err := tx.account(a.Account)
	if agented.KindOf(err) == agented.NotFound {
		return failures, nil // deleted meanwhile
	}
	if err != nil {
		return 0, err
	}
	var probe agented.ExecutionID
	if err := tx.row(`SELECT probe FROM account WHERE id = $1`, a.Account).Scan(&probe); err != nil {
		return 0, err
	}
	use := agented.Use{
		Class: a.Class, Evidence: a.Evidence, Told: end.Limit.Until.After(at), Worked: end.Worked,
		Probe: probe == e.ID || e.Probes != "" && (end.Worked || a.Class.OfAccount() || a.Class == agented.ClassThrottle),
	}
	if use.Evidence == "" {
		use.Evidence = clip(a.Reason, agented.MaxEvidence)
	}
	strikes = acc.Strikes + 1
	// The account is everybody's: its rest does not depend on this trigger.
	use.Until, _ = agented.RetryPolicy{}.Next(agented.Ended{Class: a.Class, Until: end.Limit.Until, Like: strikes}, at, end.Jitter)
	after := acc.After(use, at)
	holder := probe
	if !after.Probing {
		holder = ""
	}
	err = tx.exec(`UPDATE account SET state = $2, until = $3, evidence = $4, cause = $5, strikes = $6, probe = $7 WHERE id = $1`,
		acc.ID, after.State, micros(after.Until), clip(after.Evidence, agented.MaxEvidence), after.Cause, after.Strikes, holder)
	if err != nil {
		return 0, err
	}
	if after.State != acc.State || !after.Until.Equal(acc.Until) || after.Probing != acc.Probing {
		if err := tx.wakeLanes(at); err != nil {
			return 0, err
		}
	}
	if a.Class == agented.ClassThrottle {
		if err := tx.judgeAddress(acc, after.Until, at); err != nil {
			return 0, err
		}
	}
	if a.Class == agented.ClassAccountLimit || a.Class == agented.ClassThrottle {
		return max(after.Strikes, 1), nil
	}
	return failures, nil
}

// judgeAddress notes a throttle. When it hits a second account of the backend
// within a short time, it means this address, and all of them rest.
func (tx *tx) judgeAddress(acc *agented.Account, until, at time.Time) error {
	var others int
	err := tx.row(`SELECT COUNT(*) FROM account WHERE backend = $1 AND id <> $2 AND throttled_at > $3`, acc.Backend, acc.ID, micros(at.Add(-addressWindow))).Scan(&others)
	if err != nil {
		return err
	}
	if err := tx.exec(`UPDATE account SET throttled_at = $2 WHERE id = $1`, acc.ID, micros(at)); err != nil || others == 0 {
		return err
	}
	why := fmt.Sprintf("waits for %s until %s: several of its accounts were told that too many requests come from this address", acc.Backend, agented.Clock(until))
	return tx.exec(`INSERT INTO backend_rest (backend, kind, until, why) VALUES ($1, $2, $3, $4)
		ON CONFLICT (backend, kind) DO UPDATE SET until = excluded.until, why = excluded.why, probe = ''`, acc.Backend, restAddress, micros(until), why)
}

// judgeBackend counts failures of a backend's provider, opens its circuit
// breaker after five in a row, and closes it when an attempt got an answer.
func (tx *tx) judgeBackend(end *AttemptEnd, e *agented.Execution, at time.Time) (failures int, err error) {
	a := &end.Attempt
	rows, err := tx.query(`SELECT `+restColumns+` FROM backend_rest WHERE backend = $1`, a.Backend)
	rests, err := collect(rows, err, scanRest)
	if err != nil {
		return 0, err
	}
	mine := false
	var was BackendRest
	for _, r := range rests {
		mine = mine || r.probe == string(e.ID)
		if r.Kind == restProvider {
			was = r
		}
	}
	switch {
	case a.Class.OfProvider():
		failures = was.Failures
		resting := !was.Until.IsZero() && at.Before(was.Until)
		if !resting || mine {
			failures++ // those that ran beside the first one say nothing new
		}
		until, why := was.Until, was.Why
		switch {
		case resting && !mine:
		case mine && a.Class == agented.ClassNetwork, failures >= breakerAfter:
			pause := min(breakerPause<<min(max(failures-breakerAfter, 0), 10), breakerLimit)
			until = at.Add(pause)
			why = fmt.Sprintf("waits for %s until %s: it failed %s in a row, the last time so: %s", a.Backend, agented.Clock(until), plural(failures, "time"), clip(a.Reason, 300))
		case a.Class == agented.ClassOverload:
			until, _ = agented.RetryPolicy{}.Next(agented.Ended{Class: a.Class, Until: end.Limit.Until, Like: failures}, at, end.Jitter)
			why = fmt.Sprintf("waits for %s until %s: %s", a.Backend, agented.Clock(until), clip(a.Reason, 300))
		}
		probe := was.probe
		if mine {
			probe = ""
		}
		return max(failures, 1), tx.exec(`INSERT INTO backend_rest (backend, kind, failures, until, why, probe) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (backend, kind) DO UPDATE SET failures = excluded.failures, until = excluded.until, why = excluded.why, probe = excluded.probe`,
			a.Backend, restProvider, failures, micros(until), why, probe)
	case len(rests) == 0:
		return 0, nil
	case end.Worked, a.Class.OfAccount(), a.Class == agented.ClassThrottle:
		// It was reached. A rest of the address is over only when a model answered.
		kinds := []string{restProvider}
		if end.Worked {
			kinds = append(kinds, restAddress)
		}
		var w where
		w.and(`backend = $?`, a.Backend)
		w.and(`kind IN ` + in(&w, kinds))
		if err := tx.exec(`DELETE FROM backend_rest`+w.sql(), w.args...); err != nil {
			return 0, err
		}
		return 0, tx.wakeLanes(at)
	case mine: // it found out nothing: the next one does
		if err := tx.exec(`UPDATE backend_rest SET probe = '', until = $2 WHERE backend = $1 AND probe = $3`, a.Backend, micros(at), e.ID); err != nil {
			return 0, err
		}
		return 0, tx.wakeLanes(at)
	}
	return 0, nil
}

// plural writes a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %s", n, strings.TrimSuffix(noun, "s")+"s")
}
