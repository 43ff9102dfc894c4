package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/policy"
	"github.com/agented/agented/internal/testrun"
)

// simAccount is the provider's side of an account: an amount of work in each
// window of five hours, and in the week.
type simAccount struct {
	id      agented.AccountID
	offset  time.Duration // of its windows
	budget  time.Duration // of work in a window
	week    time.Duration // work in the whole week; 0 means no limit
	most    int           // concurrent attempts
	vague   int           // one in so many limits prints no reset time; 0: none
	used    time.Duration // in the window that began at since
	total   time.Duration
	since   time.Time
	told    time.Time // the latest printed reset time
	probing agented.ExecutionID
	trusted time.Time
}

const window = 5 * time.Hour

// begun returns the start of the window of at.
func (a *simAccount) begun(epoch, at time.Time) time.Time {
	n := (at.Sub(epoch) + window - a.offset) / window
	return epoch.Add(n*window - window + a.offset)
}

// left returns how much work the account accepts now, and when it accepts more.
func (a *simAccount) left(epoch, at time.Time) (time.Duration, time.Time) {
	if b := a.begun(epoch, at); !b.Equal(a.since) {
		a.since, a.used = b, 0
	}
	if a.week > 0 && a.total >= a.week {
		return 0, epoch.Add(7 * 24 * time.Hour)
	}
	left := a.budget - a.used
	if a.week > 0 {
		left = min(left, a.week-a.total)
	}
	return left, a.since.Add(window)
}

// simRun is an attempt that runs.
type simRun struct {
	e       *agented.Execution
	account *simAccount
}

type simulation struct {
	t        *testing.T
	db       *DB
	rand     *rand.Rand
	epoch    time.Time
	now      time.Time
	accounts []*simAccount
	work     map[agented.ExecutionID]time.Duration // remaining work
	running  []simRun
	done     map[agented.ExecutionID]time.Time
	order    []agented.ExecutionID
	calls    int
	probes   int
}

func (s *simulation) account(id agented.AccountID) *simAccount {
	for _, a := range s.accounts {
		if a.id == id {
			return a
		}
	}
	s.t.Fatalf("no account %s", id)
	return nil
}

func (s *simulation) on(a *simAccount) (n int) {
	for _, r := range s.running {
		if r.account == a {
			n++
		}
	}
	return n
}

// claimAll starts all executions that can start, and checks that no cooling
// account is used.
func (s *simulation) claimAll() {
	for {
		e, err := s.db.Claim(s.t.Context(), "node-a", 100, s.now, 30*24*time.Hour)
		if err != nil {
			s.t.Fatal(err)
		}
		if e == nil {
			return
		}
		a := s.account(e.Attempts[len(e.Attempts)-1].Account)
		if s.now.Before(a.told) {
			s.t.Errorf("%s was called at %v, and rests until %v", a.id, s.now, a.told)
		}
		switch stands := must(s.db.Account(s.t.Context(), a.id))(s.t); {
		case stands.State == agented.AccountCooling && a.probing != "" && s.now.Before(a.trusted):
			s.t.Errorf("%s was called at %v beside its probe", a.id, s.now)
		case stands.State == agented.AccountCooling:
			a.probing, a.trusted = e.ID, s.now.Add(policy.ProbeTrust)
			s.probes++
		default:
			a.probing = ""
		}
		s.calls++
		s.running = append(s.running, simRun{e, a})
		if n := s.on(a); n > a.most {
			s.t.Errorf("%s runs %d", a.id, n)
		}
	}
}

// step advances to the next event.
func (s *simulation) step() {
	next := time.Time{}
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if _, at, err := s.db.Due(s.t.Context(), s.now); err != nil {
		s.t.Fatal(err)
	} else if !at.IsZero() {
		sooner(at)
	}
	for _, a := range s.accounts {
		if n := s.on(a); n > 0 {
			left, more := a.left(s.epoch, s.now)
			sooner(s.now.Add(max(left/time.Duration(n), time.Microsecond)))
			if more.After(s.now) {
				sooner(more)
			}
		}
	}
	for _, r := range s.running {
		sooner(s.now.Add(max(s.work[r.e.ID], time.Microsecond)))
	}
	if next.IsZero() {
		s.t.Fatalf("nothing happens any more at %v, and %d of %d are done", s.now, len(s.done), len(s.work))
	}
	passed := next.Sub(s.now)
	for _, r := range s.running {
		r.account.used += passed
		r.account.total += passed
		s.work[r.e.ID] -= passed
	}
	s.now = next
	var goOn []simRun
	ended := s.running
	s.running = nil
	for _, r := range ended {
		left, more := r.account.left(s.epoch, s.now)
		switch {
		case s.work[r.e.ID] <= time.Millisecond:
			s.end(r, agented.StateSuccess, "", time.Time{})
			s.done[r.e.ID] = s.now
			s.order = append(s.order, r.e.ID)
		case left <= time.Millisecond:
			r.account.told = more
			if r.account.vague > 0 && s.rand.IntN(r.account.vague) == 0 {
				r.account.told, more = time.Time{}, time.Time{}
			}
			s.end(r, agented.StateFailed, agented.ClassAccountLimit, more)
		default:
			goOn = append(goOn, r)
		}
	}
	s.running = append(s.running, goOn...)
}

func (s *simulation) end(r simRun, state agented.State, class agented.Class, until time.Time) {
	if r.account.probing == r.e.ID {
		r.account.probing = ""
	}
	end := ended(r.e, state, s.now)
	end.Attempt.Class, end.Attempt.SessionID = class, string(r.e.ID)
	end.Attempt.Reason, end.Reason = "reached its limit", "reached its limit"
	end.Retry, end.Jitter, end.Worked = &agented.RetryPolicy{}, s.rand.Float64(), class == ""
	end.Limit = agented.Limit{Class: class, Until: until, Evidence: "limit"}
	if err := endAttempt(s.db, s.t.Context(), end, r.e.Lease, s.now); err != nil {
		s.t.Fatal(err)
	}
}

// best is a lower bound of every schedule: the sum of the times at which work
// could be done if only the accounts' quotas limited it, running one execution
// at a time.
func (s *simulation) best(n int, each time.Duration) (sum time.Duration) {
	const grain = time.Minute
	type state struct {
		*simAccount
		used, total time.Duration
		since       time.Time
	}
	var list []*state
	for _, a := range s.accounts {
		list = append(list, &state{simAccount: a})
	}
	var work time.Duration
	done := 0
	for at := s.epoch; done < n; at = at.Add(grain) {
		for _, a := range list {
			if b := a.begun(s.epoch, at); !b.Equal(a.since) {
				a.since, a.used = b, 0
			}
			do := min(time.Duration(a.most)*grain, a.budget-a.used)
			if a.week > 0 && at.Before(s.epoch.Add(7*24*time.Hour)) {
				do = min(do, a.week-a.total)
			}
			a.used += do
			a.total += do
			work += do
		}
		for done < n && time.Duration(done+1)*each <= work {
			done++
			sum += at.Sub(s.epoch) + grain - each
		}
	}
	return sum
}

func TestSimulation_week_of_limits(t *testing.T) {
	t.Parallel()
	n := testrun.Size(100, 200, 500)
	const each = 50 * time.Minute
	for _, vague := range []int{0, 20} {
		t.Run(fmt.Sprintf("one limit in %d without a time", vague), func(t *testing.T) {
			t.Parallel()
			n := n
			if vague > 0 {
				n = 125 // with fewer, a single unnecessary wait would be too large a share
			}
			s := &simulation{
				t: t, db: openNew(t), rand: rand.New(rand.NewPCG(7, 9)), epoch: start, now: start,
				work: map[agented.ExecutionID]time.Duration{}, done: map[agented.ExecutionID]time.Time{},
			}
			if err := s.db.write(t.Context(), "no default", func(tx *tx) error {
				return tx.exec(`UPDATE account SET enabled = FALSE`)
			}); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				a := &simAccount{
					id:     agented.AccountID(agented.NewID("acc", start)),
					offset: time.Duration(i) * 50 * time.Minute, budget: time.Duration(120+35*i) * time.Minute, most: 1 + i%2, vague: vague,
				}
				if i == 3 {
					a.week = 30 * time.Hour
				}
				s.accounts = append(s.accounts, a)
				err := s.db.CreateAccount(t.Context(), &agented.Account{
					ID: a.id, Backend: agented.BackendClaude, Name: fmt.Sprint("a", i), Enabled: true, MaxConcurrent: a.most, Config: "/x", CreatedAt: start,
				}, "")
				if err != nil {
					t.Fatal(err)
				}
			}
			var ids []agented.ExecutionID
			for range n {
				e := newExecution("", start)
				e.Backend, e.Snapshot.Backend = agented.BackendClaude, agented.BackendClaude
				if _, err := s.db.Admit(t.Context(), Admission{Execution: e}, start); err != nil {
					t.Fatal(err)
				}
				s.work[e.ID] = each
				ids = append(ids, e.ID)
			}
			for len(s.done) < n {
				s.claimAll()
				s.step()
			}
			var waited time.Duration
			for _, id := range ids {
				waited += s.done[id].Sub(start) - each
			}
			best := s.best(n, each)
			t.Logf("%d executions were done after %v: %d calls, %d of them probes; waited %v in all, the best is %v: %.2f %% more",
				n, s.now.Sub(start), s.calls, s.probes, waited.Round(time.Hour), best.Round(time.Hour), 100*(float64(waited)/float64(best)-1))
			if float64(waited) > 1.05*float64(best) {
				t.Errorf("waited %v, the best schedule waits %v", waited, best)
			}
			// Executions are served in order of arrival, except for running
			// ones.
			for place, id := range s.order {
				if came := slices.Index(ids, id); place-came > 25 {
					t.Errorf("the %d. to come was the %d. to be done", came+1, place+1)
				}
			}
		})
	}
}
