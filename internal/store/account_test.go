package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/policy"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/testrun/pgtest"
)

// withAccounts creates accounts of claude instead of the default one.
func withAccounts(t testing.TB, db *DB, names ...string) []agented.AccountID {
	t.Helper()
	var ids []agented.AccountID
	if err := db.write(t.Context(), "no default", func(tx *tx) error { return tx.exec(`UPDATE account SET enabled = FALSE WHERE is_default`) }); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		a := &agented.Account{Backend: agented.BackendClaude, Name: name, Enabled: true, Config: "/" + name, CreatedAt: start}
		if err := db.CreateAccount(t.Context(), a, "ann"); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.ID)
	}
	return ids
}

func agent(a *Admission) {
	a.Execution.Backend, a.Execution.Snapshot.Backend, a.MaxConcurrent = agented.BackendClaude, agented.BackendClaude, 0
}

// endAs ends an attempt with a class and the default policy.
func endAs(t testing.TB, db *DB, e *agented.Execution, class agented.Class, until, now time.Time) Plan {
	t.Helper()
	state := agented.StateFailed
	if class == "" {
		state = agented.StateSuccess
	}
	end := ended(e, state, now)
	end.Attempt.Class, end.Attempt.Reason, end.Reason = class, "it said no", "it said no"
	end.Retry, end.Worked = &agented.RetryPolicy{}, class == ""
	end.Limit = agented.Limit{Class: class, Until: until}
	return must(db.EndAttempt(t.Context(), end, e.Lease, now))(t)
}

func account(t testing.TB, db *DB, id agented.AccountID) *agented.Account {
	t.Helper()
	return must(db.Account(t.Context(), id))(t)
}

// clone makes n copies of an execution in its current state.
func clone(t testing.TB, db *DB, id agented.ExecutionID, n int) {
	t.Helper()
	err := db.write(t.Context(), "clone", func(tx *tx) error {
		source := `pragma_table_info('execution')`
		if pgtest.Selected() {
			source = `(SELECT column_name::text AS name FROM information_schema.columns WHERE table_name = 'execution') AS c`
		}
		rows, err := tx.query(`SELECT name FROM ` + source + ` WHERE name NOT IN ('id', 'event_seq', 'admit_no')`)
		columns, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
		if err != nil {
			return err
		}
		list := strings.Join(columns, ", ")
		const number = `WITH RECURSIVE k (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < $2) `
		const made = `substr(e.id, 1, 21) || substr(CAST(10000000000 + k.i AS TEXT), 2)`
		for _, q := range []string{
			`INSERT INTO execution (id, event_seq, admit_no, ` + list + `) ` + number + `SELECT ` + made + `, 1000000 + k.i, 1000000 + k.i, ` + list + ` FROM execution e, k WHERE e.id = $1`,
			`INSERT INTO execution_text (execution_id, snapshot, prompt) ` + number + `SELECT ` + made + `, x.snapshot, x.prompt FROM execution e JOIN execution_text x ON x.execution_id = e.id, k WHERE e.id = $1`,
		} {
			if err := tx.exec(q, id, n); err != nil {
				return err
			}
		}
		return tx.exec(`UPDATE counter SET value = 2000000 WHERE name = 'event'`)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAccount_check(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ids := withAccounts(t, db, "work")
	check := func(want agented.AccountCheck, reason string) {
		t.Helper()
		a := account(t, db, ids[0])
		if got := a.Check(); got != want || a.Used.Reason != reason {
			t.Errorf("check %s, %+v; want %s, %q", got, a.Used, want, reason)
		}
	}
	check(agented.CheckNotTried, "")
	for _, c := range []struct {
		class  agented.Class
		want   agented.AccountCheck
		reason string
	}{
		{agented.ClassInterrupted, agented.CheckNotTried, ""},
		{"", agented.CheckWorks, ""},
		{agented.ClassAgentFailure, agented.CheckRefused, "it said no"},
		{"", agented.CheckWorks, ""},
		{agented.ClassAuth, agented.CheckRefused, "it said no"},
	} {
		admit(t, db, "", start, agent)
		e := claim(t, db, start)
		if e == nil {
			t.Fatalf("%q: nothing to claim", c.class)
		}
		endAs(t, db, e, c.class, time.Time{}, start)
		check(c.want, c.reason)
	}
	// New credentials have not been tried.
	a := account(t, db, ids[0])
	a.Config = "/other"
	if err := db.UpdateAccount(t.Context(), a, "ann"); err != nil {
		t.Fatal(err)
	}
	check(agented.CheckNotTried, "")
}

func TestClaim_parked_executions(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	a := withAccounts(t, db, "a")[0]
	const n = 10_000
	until := start.Add(5 * time.Hour)
	admit(t, db, "", start, agent)
	second := admit(t, db, "", start.Add(time.Millisecond), agent)
	endAs(t, db, claim(t, db, start), agented.ClassAccountLimit, until, start)
	if e := claim(t, db, start.Add(time.Second)); e != nil {
		t.Fatalf("claimed %s on a cooling account", e.ID)
	}
	if e := must(db.Execution(t.Context(), second.ID))(t); e.WaitingOn == "" || !e.ParkedUntil.Equal(until) {
		t.Fatalf("%s is not parked: %+v", e.ID, e)
	}
	clone(t, db, second.ID, n)
	events := func() int64 { return must(db.LastEventSeq(t.Context()))(t) }
	before := events()
	one := admit(t, db, "", start)
	if e := claim(t, db, start); e == nil || e.ID != one.ID {
		t.Fatalf("claimed %v, want the command", e)
	}
	if got := events() - before; got != 2 {
		t.Errorf("a claim beside %d that wait changed %d executions", n, got-1)
	}
	_, at, err := db.Due(t.Context(), start)
	if err != nil || !at.Equal(until) {
		t.Errorf("looks again at %v, %v", at, err)
	}
	before = events()
	probe := claim(t, db, until)
	if probe == nil || claim(t, db, until) != nil {
		t.Fatalf("the probe is %v, or not the only one", probe)
	}
	if got := events() - before; got > markWindow+1 {
		t.Errorf("waking changed %d executions", got)
	}
	endAs(t, db, probe, "", time.Time{}, until)
	before = events()
	for range 50 {
		if e := claim(t, db, until); e == nil || e.Attempts[len(e.Attempts)-1].Account != a {
			t.Fatalf("claimed %v once the account was ready", e)
		}
	}
	if got := events() - before; got > 50+markWindow {
		t.Errorf("50 claims changed %d executions", got)
	}
	if list, _, err := db.Executions(t.Context(), ExecutionFilter{States: []agented.State{agented.StatePending}}, Page{Limit: 5}); err != nil || list[0].WaitingOn == "" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestClaim_account_limit(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	id := withAccounts(t, db, "a")[0]
	a := account(t, db, id)
	a.MaxConcurrent = 3
	if err := db.UpdateAccount(t.Context(), a, "ann"); err != nil {
		t.Fatal(err)
	}
	const n = 30
	for range n {
		admit(t, db, "", start, agent)
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for {
				if done.Load() == n {
					return
				}
				e, err := db.Claim(t.Context(), agented.NodeID(fmt.Sprint("node-", g)), 1000, start, ttl)
				if err != nil {
					t.Error(err)
					return
				}
				if e == nil {
					runtime.Gosched()
					continue
				}
				if acc, err := db.Account(t.Context(), id); err != nil || acc.Running > 3 {
					t.Errorf("%d run, %v", acc.Running, err)
				}
				end := ended(e, agented.StateSuccess, start)
				end.Retry, end.Worked = &agented.RetryPolicy{}, true
				if err := endAttempt(db, t.Context(), end, e.Lease, start); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if acc := account(t, db, id); acc.Running != 0 {
		t.Errorf("%d run in the end", acc.Running)
	}
}

func TestClaim_probe(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	id := withAccounts(t, db, "a")[0]
	for range 4 {
		admit(t, db, "", start, agent)
	}
	until := start.Add(time.Hour)
	first := claim(t, db, start)
	p := endAs(t, db, first, agented.ClassAccountLimit, until, start)
	if p.Next != agented.StatePending || !p.ParkedUntil.Equal(until) || !strings.HasPrefix(p.Reason, "it said no; resumes at ") {
		t.Errorf("plan %+v", p)
	}
	if claim(t, db, until.Add(-time.Second)) != nil {
		t.Error("claimed before the time")
	}
	probe := claim(t, db, until)
	if probe == nil || probe.ID != first.ID {
		t.Fatalf("the probe is %v, want the one that has waited longest", probe)
	}
	if claim(t, db, until.Add(policy.ProbeTrust-time.Second)) != nil {
		t.Error("a second one went beside the probe")
	}
	// It is limited again, without a reset time: longer than before, and again
	// one probe.
	now := until.Add(time.Second)
	p = endAs(t, db, probe, agented.ClassAccountLimit, time.Time{}, now)
	a := account(t, db, id)
	if a.ConsecutiveLimits != 2 || !a.Until.After(now.Add(4*time.Minute)) || !p.ParkedUntil.Equal(a.Until) {
		t.Errorf("account %+v, plan %+v", a, p)
	}
	now = a.Until
	if probe = claim(t, db, now); probe == nil || claim(t, db, now) != nil {
		t.Fatal("not one probe")
	}
	// The probe runs for a long time: the others need not wait for its end.
	now = now.Add(policy.ProbeTrust)
	for range 2 {
		if claim(t, db, now) == nil {
			t.Error("the others wait for the end of a probe that works")
		}
	}
	endAs(t, db, probe, "", time.Time{}, now)
	if a := account(t, db, id); a.State != agented.AccountReady || a.ConsecutiveLimits != 0 {
		t.Errorf("account %+v", a)
	}
}

func TestClaim_early_probe(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	id := withAccounts(t, db, "a")[0]
	for range 3 {
		admit(t, db, "", start, agent)
	}
	one, two := claim(t, db, start), claim(t, db, start)
	endAs(t, db, one, agented.ClassAccountLimit, start.Add(5*time.Hour), start)
	now := start.Add(20 * time.Minute)
	endAs(t, db, two, "", time.Time{}, now)
	if claim(t, db, now) == nil {
		t.Fatal("nobody looks although another execution succeeded on the account")
	}
	if claim(t, db, now) != nil {
		t.Error("more than one looks")
	}
	if a := account(t, db, id); !a.Probing {
		t.Errorf("account %+v", a)
	}
}

func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	db := openAt(t, path)
	withAccounts(t, db, "a", "b")
	for range 9 {
		admit(t, db, "", start, agent)
	}
	now := start
	for i := range 5 {
		e := claim(t, db, now)
		if e == nil {
			t.Fatalf("nothing to claim after %d failures", i)
		}
		p := endAs(t, db, e, agented.ClassNetwork, time.Time{}, now)
		if p.Next != agented.StatePending || !strings.Contains(p.Reason, "tries again at") {
			t.Errorf("plan %+v", p)
		}
	}
	if e := claim(t, db, now); e != nil {
		t.Fatalf("claimed %s while the breaker is open", e.ID)
	}
	// The state is stored: it survives a killed server.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, path)
	cooldowns := must(db.BackendCooldowns(t.Context()))(t)
	if len(cooldowns) != 1 || cooldowns[0].Failures != 5 || !strings.Contains(cooldowns[0].Reason, "5 times in a row") {
		t.Fatalf("cooldowns %+v", cooldowns)
	}
	now = cooldowns[0].Until
	trial := claim(t, db, now)
	if trial == nil || claim(t, db, now) != nil {
		t.Fatal("not one tries first")
	}
	endAs(t, db, trial, agented.ClassNetwork, time.Time{}, now)
	again := must(db.BackendCooldowns(t.Context()))(t)
	if len(again) != 1 || again[0].Until.Sub(now) != 2*time.Minute {
		t.Fatalf("cooldowns %+v after another failure, want twice as long", again)
	}
	now = again[0].Until
	if trial = claim(t, db, now); trial == nil {
		t.Fatal("nobody tries")
	}
	endAs(t, db, trial, "", time.Time{}, now)
	if len(must(db.BackendCooldowns(t.Context()))(t)) != 0 || claim(t, db, now) == nil || claim(t, db, now) == nil {
		t.Error("a success does not close the breaker")
	}
}

func TestOverload_backend_cooldown(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	withAccounts(t, db, "a", "b")
	if err := db.CreateAccount(t.Context(), &agented.Account{Backend: agented.BackendCodex, Name: "c", Enabled: true, Config: "/c"}, "ann"); err != nil {
		t.Fatal(err)
	}
	one := admit(t, db, "", start, agent)
	two := admit(t, db, "", start, agent, func(a *Admission) {
		a.Execution.Snapshot.Fallback = []agented.Choice{{Backend: agented.BackendCodex, Model: "m"}}
	})
	e := claim(t, db, start)
	if p := endAs(t, db, e, agented.ClassOverload, time.Time{}, start); p.Next != agented.StatePending || p.ParkedUntil.IsZero() || e.ID != one.ID {
		t.Errorf("%s: plan %+v", e.ID, p)
	}
	e = claim(t, db, start)
	if e == nil || e.ID != two.ID || e.Attempts[0].Backend != agented.BackendCodex || e.Attempts[0].Model != "m" {
		t.Errorf("claimed %+v", e)
	}
}

func TestThrottle_address_cooldown(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	withAccounts(t, db, "a", "b", "c")
	for range 3 {
		admit(t, db, "", start, agent)
	}
	one, two := claim(t, db, start), claim(t, db, start)
	endAs(t, db, one, agented.ClassThrottle, start.Add(10*time.Minute), start)
	if cooldowns := must(db.BackendCooldowns(t.Context()))(t); len(cooldowns) != 0 {
		t.Errorf("one throttled account made all cool down: %+v", cooldowns)
	}
	endAs(t, db, two, agented.ClassThrottle, start.Add(10*time.Minute), start.Add(time.Second))
	cooldowns := must(db.BackendCooldowns(t.Context()))(t)
	if len(cooldowns) != 1 || cooldowns[0].Kind != cooldownAddress {
		t.Fatalf("cooldowns %+v", cooldowns)
	}
	if e := claim(t, db, start.Add(2*time.Second)); e != nil {
		t.Errorf("claimed %s from an address that is throttled", e.ID)
	}
}

func TestPark_deadline(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	withAccounts(t, db, "a")
	admit(t, db, "", start, agent)
	e := claim(t, db, start)
	endAs(t, db, e, agented.ClassAuth, time.Time{}, start)
	_, at, err := db.Due(t.Context(), start)
	if want := start.Add(agented.DefaultGiveUp * time.Second); err != nil || !at.Equal(want) {
		t.Fatalf("next at %v, %v; want %v", at, err, want)
	}
	if claim(t, db, at.Add(-time.Second)) != nil || claim(t, db, at) != nil {
		t.Error("claimed on an account that needs a login")
	}
	got := must(db.Execution(t.Context(), e.ID))(t)
	if got.State != agented.StateFailed || !strings.Contains(got.Reason, "it said no") || !strings.Contains(got.Reason, "gave up") {
		t.Errorf("%s: %s", got.State, got.Reason)
	}
}

func TestPark_trigger_limit(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	withAccounts(t, db, "a")
	var ids []agented.ExecutionID
	for range 4 {
		ids = append(ids, admit(t, db, "trg-a", start, agent, func(a *Admission) { a.MaxConcurrent = 1 }).ID)
	}
	until := start.Add(time.Hour)
	endAs(t, db, claim(t, db, start), agented.ClassAccountLimit, until, start)
	if claim(t, db, start) != nil {
		t.Fatal("claimed on a cooling account")
	}
	for i, id := range ids {
		e := claim(t, db, until)
		if e == nil || e.ID != id || claim(t, db, until) != nil {
			t.Fatalf("the %d. is %v, want %s alone", i+1, e, id)
		}
		endAs(t, db, e, "", time.Time{}, until)
	}
}

func TestAccounts_names_and_deletion(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	id := withAccounts(t, db, "a")[0]
	wantKind(t, db.CreateAccount(t.Context(), &agented.Account{Backend: agented.BackendClaude, Name: "A"}, "ann"), agented.Conflict)
	wantKind(t, db.DeleteAccount(t.Context(), agented.DefaultAccount(agented.BackendClaude), "ann"), agented.Conflict)
	admit(t, db, "", start, agent)
	e := claim(t, db, start)
	wantKind(t, db.DeleteAccount(t.Context(), id, "ann"), agented.Conflict)
	a := account(t, db, id)
	a.Credentials = map[string]string{"K": "one"}
	if err := db.UpdateAccount(t.Context(), a, "ann"); err != nil {
		t.Fatal(err)
	}
	a.Credentials = map[string]string{"K": "two"}
	if err := db.UpdateAccount(t.Context(), a, "ann"); err != nil {
		t.Fatal(err)
	}
	if former := must(db.FormerCredentials(t.Context(), id))(t); former["K"] != "one" {
		t.Errorf("former credentials %v", former)
	}
	endAs(t, db, e, agented.ClassAuth, time.Time{}, start)
	if a := account(t, db, id); a.State != agented.AccountNeedsLogin || a.Evidence == "" {
		t.Errorf("account %+v", a)
	}
	if a := must(db.ResetAccount(t.Context(), id, "ann", start))(t); a.State != agented.AccountReady {
		t.Errorf("account %+v", a)
	}
	if e := claim(t, db, start); e == nil {
		t.Error("a reset wakes nobody")
	} else {
		endAs(t, db, e, "", time.Time{}, start)
	}
	if err := db.DeleteAccount(t.Context(), id, "ann"); err != nil {
		t.Error(err)
	}
	_, err := db.Account(t.Context(), id)
	wantKind(t, err, agented.NotFound)
}

// planCrashEnv makes the test binary a process that ends an attempt with a
// limit and wakes it, and kills itself before the statement numbered by
// tickKillEnv.
const planCrashEnv = "AGENTED_TEST_PLAN_DB"

func planUntilKilled(path string) {
	ctx := context.Background()
	fail := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	db, err := Open(ctx, path, Options{})
	if err != nil {
		fail(err)
	}
	list, err := db.TakeOver(ctx, "node-a", start, ttl)
	if err != nil || len(list) != 1 {
		fail(fmt.Errorf("took over %d: %w", len(list), err))
	}
	at, _ := strconv.Atoi(os.Getenv(tickKillEnv))
	n := 0
	db.engine.Trace(func(string) {
		if n++; n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if err := endLimited(ctx, db, list[0]); err != nil {
		fail(err)
	}
	if _, err := db.Claim(ctx, "node-a", 10, start.Add(time.Hour), ttl); err != nil {
		fail(err)
	}
	os.Exit(0)
}

func endLimited(ctx context.Context, db *DB, e *agented.Execution) error {
	end := ended(e, agented.StateFailed, start)
	end.Attempt.Class, end.Attempt.SessionID = agented.ClassAccountLimit, "session"
	end.Retry, end.Limit = &agented.RetryPolicy{}, agented.Limit{Class: agented.ClassAccountLimit, Until: start.Add(time.Hour)}
	return endAttempt(db, ctx, end, e.Lease, start)
}

func TestPlan_kill_between_statements(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	model := filepath.Join(dir, "model.db")
	db := openAt(t, model)
	id := withAccounts(t, db, "a")[0]
	e := admit(t, db, "", start, agent)
	other := admit(t, db, "", start, agent)
	if got := claim(t, db, start); got.ID != e.ID {
		t.Fatalf("claimed %s", got.ID)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	step := testrun.Size(8, 4, 1)
	for at := 1 + testrun.Rand(t).IntN(step); ; at += step {
		path := filepath.Join(dir, fmt.Sprintf("%d.db", at))
		copyOf(t, model, path)
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), planCrashEnv+"="+locate(t, path), tickKillEnv+"="+strconv.Itoa(at))
		out, err := cmd.CombinedOutput()
		if strings.HasPrefix(string(out), "error") {
			t.Fatal(string(out))
		}
		db = openAt(t, path)
		a := account(t, db, id)
		x := must(db.Execution(t.Context(), e.ID))(t)
		limited, probing := a.State == agented.AccountCooling, a.Probing
		ended := x.Attempts[0].Class == agented.ClassAccountLimit && x.Attempts[0].SessionID == "session"
		switch {
		case !limited && !ended && x.State == agented.StateRunning && x.AttemptNo == 1 && a.Running == 1:
			// The next server finds the exit record and repeats the work.
			list := must(db.TakeOver(t.Context(), "node-a", start, ttl))(t)
			if len(list) != 1 {
				t.Fatalf("killed before statement %d: %d to take over", at, len(list))
			}
			if err := endLimited(t.Context(), db, list[0]); err != nil {
				t.Fatal(err)
			}
		case limited && ended && !probing && x.State == agented.StatePending && x.WaitingOn != "" && a.Running == 0:
		case limited && ended && probing && x.State == agented.StateRunning && x.AttemptNo == 2 && a.Running == 1:
		default:
			t.Errorf("killed before statement %d: account %+v, execution %+v", at, a, x)
		}
		// The next server ends both, each with at most one more attempt.
		now := start.Add(time.Hour)
		for _, e := range must(db.TakeOver(t.Context(), "node-a", now, ttl))(t) {
			endAs(t, db, e, "", time.Time{}, now)
		}
		for e := claim(t, db, now); e != nil; e = claim(t, db, now) {
			endAs(t, db, e, "", time.Time{}, now)
		}
		for _, id := range []agented.ExecutionID{e.ID, other.ID} {
			if x := must(db.Execution(t.Context(), id))(t); x.State != agented.StateSuccess || x.AttemptNo > 2 {
				t.Errorf("killed before statement %d: %s is %s after %d attempts: %s", at, id, x.State, x.AttemptNo, x.Reason)
			}
		}
		if a := account(t, db, id); a.State != agented.AccountReady || a.Running != 0 || a.Probing {
			t.Errorf("killed before statement %d: account %+v", at, a)
		}
		if cerr := db.Close(); cerr != nil {
			t.Error(cerr)
		}
		if err == nil {
			if at < 20 {
				t.Fatalf("only %d statements: %s", at, out)
			}
			t.Logf("killed before every statement of %d, %d apart", at-1, step)
			return
		}
	}
}
