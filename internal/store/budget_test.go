package store

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func dollars(v float64) *float64 { return &v }

func tokens(v int64) *int64 { return &v }

// noon is a moment in the middle of a day, a week and a month.
var noon = time.Date(2026, 11, 18, 12, 0, 0, 0, time.UTC)

func moneyDB(t *testing.T) *DB {
	db := openNew(t)
	db.SetZone(time.UTC)
	return db
}

// spendOnce runs an execution of an agent to its end at a time.
func spendOnce(t *testing.T, db *DB, trigger agented.TriggerID, at time.Time, session string, u agented.Usage) *agented.Execution {
	t.Helper()
	e := &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", at)), Trigger: trigger, TriggerName: "t", Backend: agented.BackendCodex,
		Source: agented.SourceManual, Snapshot: agented.Spec{Backend: agented.BackendCodex}, CreatedAt: at, ScheduledAt: at,
	}
	if _, err := db.Admit(t.Context(), Admission{Execution: e}, at); err != nil {
		t.Fatal(err)
	}
	c, err := db.Claim(t.Context(), "node-00000000000000000000000000", 100, at, time.Minute)
	if err != nil || c == nil || c.ID != e.ID {
		t.Fatalf("claim: %v, %v", c, err)
	}
	end := AttemptEnd{
		Attempt: agented.Attempt{Execution: e.ID, Number: c.AttemptNo, State: agented.StateSuccess, SessionID: session, Usage: u, StartedAt: at, FinishedAt: at},
		Next:    agented.StateSuccess,
		Price: func(_, _ string, u agented.Usage) (float64, bool) {
			if u.InputTokens == nil {
				return 0, false
			}
			return float64(*u.InputTokens) / 1000, true
		},
	}
	if err := endAttempt(db, t.Context(), end, c.Lease, at); err != nil {
		t.Fatal(err)
	}
	done, err := db.Execution(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestSpending_resumed_session(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	whole := func(n int64) agented.Usage { return agented.Usage{InputTokens: tokens(n), CumulativeSession: true} }
	for i, c := range []struct {
		session string
		counts  int64
		own     int64
	}{{"s", 13862, 13862}, {"s", 27805, 13943}, {"r", 100, 100}, {"s", 41826, 14021}, {"s", 50, 50}} {
		e := spendOnce(t, db, "", noon.Add(time.Duration(i)*time.Second), c.session, whole(c.counts))
		if got := *e.Usage.InputTokens; got != c.own || *e.Attempts[0].Usage.InputTokens != c.own || !near(*e.Usage.CostUSD, float64(c.own)/1000) || !e.Usage.Estimated {
			t.Errorf("%d: %d tokens, %+v, want %d", i, got, e.Usage, c.own)
		}
	}
	sum := must(db.Usage(t.Context(), UsageByBackend, noon, noon.Add(time.Hour)))(t)
	if len(sum) != 1 || !near(*sum[0].Usage.CostUSD, 41.976) || sum[0].Unknown != 0 {
		t.Errorf("%+v", sum)
	}
}

func TestSpending_unknown_cost(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	e := spendOnce(t, db, "", noon, "", agented.Usage{})
	if e.Usage.CostUSD != nil {
		t.Errorf("it cost %v", *e.Usage.CostUSD)
	}
	spendOnce(t, db, "", noon.Add(time.Second), "", agented.Usage{CostUSD: dollars(2)})
	sums, err := db.Usage(t.Context(), UsageByBackend, noon, noon.Add(time.Hour))
	if err != nil || len(sums) != 1 || sums[0].Unknown != 1 || sums[0].Attempts != 2 || *sums[0].Usage.CostUSD != 2 || sums[0].Usage.InputTokens != nil {
		t.Errorf("%+v %v", sums, err)
	}
	empty, err := db.Usage(t.Context(), UsageByDay, noon.Add(-48*time.Hour), noon.Add(-24*time.Hour))
	if err != nil || len(empty) != 2 || empty[0].Usage.CostUSD != nil || empty[0].Key != "2026-11-16" {
		t.Errorf("days without anything: %+v %v", empty, err)
	}
}

func TestBudget_hard_limit(t *testing.T) {
	t.Parallel()
	for _, scope := range []agented.BudgetScope{agented.BudgetAll, agented.BudgetTrigger, agented.BudgetAccount} {
		t.Run(string(scope), func(t *testing.T) {
			t.Parallel()
			db := moneyDB(t)
			ctx := t.Context()
			trigger := &agented.Trigger{Name: "t", Enabled: true, Spec: agented.Spec{Backend: agented.BackendCodex, Prompt: "x", Overlap: agented.OverlapQueue}}
			if err := db.CreateTrigger(ctx, trigger, "x"); err != nil {
				t.Fatal(err)
			}
			b := &agented.Budget{Name: "B", Enabled: true, Scope: scope, Period: agented.PeriodDay, Limit: 5, Hard: true}
			switch scope {
			case agented.BudgetTrigger:
				b.Target = string(trigger.ID)
			case agented.BudgetAccount:
				b.Target = string(agented.DefaultAccount(agented.BackendCodex))
			}
			if err := db.SaveBudget(ctx, b, "x", noon); err != nil {
				t.Fatal(err)
			}
			spendOnce(t, db, trigger.ID, noon, "", agented.Usage{CostUSD: dollars(4.99)})
			spendOnce(t, db, trigger.ID, noon.Add(time.Second), "", agented.Usage{CostUSD: dollars(0.01)}) // still within
			admit := func(at time.Time) agented.ExecutionID {
				e := &agented.Execution{
					ID: agented.ExecutionID(agented.NewID("exec", at)), Trigger: trigger.ID, TriggerName: "t", Backend: agented.BackendCodex,
					Source: agented.SourceManual, Snapshot: agented.Spec{Backend: agented.BackendCodex}, CreatedAt: at, ScheduledAt: at,
				}
				if _, err := db.Admit(ctx, Admission{Execution: e}, at); err != nil {
					t.Fatal(err)
				}
				return e.ID
			}
			claim := func(at time.Time) *agented.Execution {
				t.Helper()
				e, err := db.Claim(ctx, "node-00000000000000000000000000", 100, at, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				return e
			}
			now := noon.Add(time.Minute)
			first, second := admit(now), admit(now.Add(time.Second))
			if e := claim(now.Add(time.Second)); e != nil {
				t.Fatalf("%s was claimed", e.ID)
			}
			for _, id := range []agented.ExecutionID{first, second} {
				e, err := db.Execution(ctx, id)
				if err != nil || e.State != agented.StatePending || !strings.Contains(e.Reason, `"B"`) || !strings.Contains(e.Reason, "2026-11-19 00:00 UTC") {
					t.Errorf("%s: %s %q %v", id, e.State, e.Reason, err)
				}
			}
			midnight := time.Date(2026, 11, 19, 0, 0, 0, 0, time.UTC)
			if _, next, err := db.Due(ctx, now.Add(time.Minute)); err != nil || !next.Equal(midnight) {
				t.Errorf("next due: %s %v", next, err)
			}
			if e := claim(midnight.Add(-time.Second)); e != nil {
				t.Errorf("%s was claimed before the period's end", e.ID)
			}
			b.Limit = 6
			if err := db.SaveBudget(ctx, b, "x", now.Add(2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if e := claim(now.Add(2 * time.Minute)); e == nil || e.ID != first {
				t.Fatalf("raised: %v", e)
			}
			b.Limit = 5
			if err := db.SaveBudget(ctx, b, "x", now.Add(3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if e := claim(now.Add(3 * time.Minute)); e != nil {
				t.Fatalf("lowered: %v", e.ID)
			}
			if e := claim(midnight.Add(time.Second)); e == nil || e.ID != second {
				t.Fatalf("the next day: %v", e)
			}
			got, err := db.Budget(ctx, b.ID, midnight.Add(time.Second))
			if err != nil || got.Spent != 0 || !got.Since.Equal(midnight) {
				t.Errorf("the next day: %+v %v", got, err)
			}
		})
	}
}

func TestBudget_deleted(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	ctx := t.Context()
	b := &agented.Budget{Name: "B", Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodMonth, Limit: 1, Hard: true}
	if err := db.SaveBudget(ctx, b, "x", noon); err != nil {
		t.Fatal(err)
	}
	spendOnce(t, db, "", noon, "", agented.Usage{CostUSD: dollars(3)})
	e := &agented.Execution{ID: agented.ExecutionID(agented.NewID("exec", noon)), Backend: agented.BackendCodex, Source: agented.SourceManual, Snapshot: agented.Spec{Backend: agented.BackendCodex}, CreatedAt: noon, ScheduledAt: noon}
	if _, err := db.Admit(ctx, Admission{Execution: e}, noon); err != nil {
		t.Fatal(err)
	}
	if c, err := db.Claim(ctx, "node-00000000000000000000000000", 10, noon, time.Minute); c != nil || err != nil {
		t.Fatalf("%v %v", c, err)
	}
	if err := db.DeleteBudget(ctx, b.ID, "x", noon); err != nil {
		t.Fatal(err)
	}
	if c, err := db.Claim(ctx, "node-00000000000000000000000000", 10, noon, time.Minute); c == nil || err != nil {
		t.Fatalf("%v %v", c, err)
	}
	if err := db.DeleteBudget(ctx, b.ID, "x", noon); !errors.Is(err, agented.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestBudget_notifications(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	ctx := t.Context()
	b := &agented.Budget{Name: "B", Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodDay, Limit: 10, Warn: 80}
	if err := db.SaveBudget(ctx, b, "x", noon); err != nil {
		t.Fatal(err)
	}
	var got []string
	tell := func(at time.Time) {
		t.Helper()
		told, err := db.TakeBudgetNotices(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range told {
			got = append(got, fmt.Sprintf("%s %v %.0f", b.Name, b.Reached, b.Spent))
		}
	}
	for i, usd := range []float64{7, 1, 1, 1, 5} {
		at := noon.Add(time.Duration(i) * time.Minute)
		spendOnce(t, db, "", at, "", agented.Usage{CostUSD: dollars(usd)})
		tell(at)
		tell(at)
	}
	tell(noon.Add(24 * time.Hour))
	spendOnce(t, db, "", noon.Add(25*time.Hour), "", agented.Usage{CostUSD: dollars(11)})
	tell(noon.Add(25 * time.Hour))
	if want := "B false 8|B true 10|B true 11"; strings.Join(got, "|") != want {
		t.Errorf("told %q, want %q", strings.Join(got, "|"), want)
	}
	audit, _, err := db.AuditLog(ctx, Page{Limit: 10})
	n := 0
	for _, a := range audit {
		if strings.HasPrefix(a.Action, "budget.near") || strings.HasPrefix(a.Action, "budget.reached") {
			n++
		}
	}
	if err != nil || n != 3 {
		t.Errorf("%d notes in the audit log, %v", n, err)
	}
}

func TestUsage_groups(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	for i := range 5 {
		spendOnce(t, db, agented.TriggerID(fmt.Sprint("trg-", i%2)), noon.Add(time.Duration(i)*24*time.Hour), "", agented.Usage{CostUSD: dollars(float64(i)), InputTokens: tokens(10)})
	}
	days, err := db.Usage(t.Context(), UsageByDay, noon.Truncate(24*time.Hour), noon.Add(5*24*time.Hour))
	if err != nil || len(days) != 6 || *days[4].Usage.CostUSD != 4 || days[5].Attempts != 0 {
		t.Errorf("by day: %+v %v", days, err)
	}
	triggers, err := db.Usage(t.Context(), UsageByTrigger, noon, noon.Add(5*24*time.Hour))
	if err != nil || len(triggers) != 2 || triggers[0].Key != "trg-0" || *triggers[0].Usage.CostUSD != 6 || *triggers[0].Usage.InputTokens != 30 {
		t.Errorf("by trigger: %+v %v", triggers, err)
	}
	accounts, err := db.Usage(t.Context(), UsageByAccount, noon, noon.Add(5*24*time.Hour))
	if err != nil || len(accounts) != 1 || accounts[0].Name != "codex/default" {
		t.Errorf("by account: %+v %v", accounts, err)
	}
	if _, err := db.Usage(t.Context(), UsageByDay, noon, noon.Add(500*24*time.Hour)); !errors.Is(err, agented.Invalid) {
		t.Errorf("too many days: %v", err)
	}
	if _, err := db.Usage(t.Context(), "nothing", noon, noon); !errors.Is(err, agented.Invalid) {
		t.Errorf("by nothing: %v", err)
	}
}

func TestSpending_index(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	for query, index := range map[string]string{
		`SELECT COALESCE(SUM(cost_usd), 0), COUNT(*) - COUNT(cost_usd) FROM spending WHERE at >= 1 AND at < 2`:                      "COVERING INDEX spending_at",
		`SELECT COALESCE(SUM(cost_usd), 0), COUNT(*) - COUNT(cost_usd) FROM spending WHERE at >= 1 AND at < 2 AND trigger_id = 'x'`: "COVERING INDEX spending_trigger",
		`SELECT COALESCE(SUM(cost_usd), 0), COUNT(*) - COUNT(cost_usd) FROM spending WHERE at >= 1 AND at < 2 AND account = 'x'`:    "COVERING INDEX spending_account",
		`SELECT id FROM execution WHERE budget_id = 'x' AND status = 'pending' AND due_at IS NOT NULL`:                              "execution_budget",
	} {
		plan := queryPlan(t, db, query)
		if !strings.Contains(plan, index) {
			t.Errorf("%s\n%s", query, plan)
		}
	}
}

func TestResumesIn(t *testing.T) {
	t.Parallel()
	db := moneyDB(t)
	home := agented.ExecutionID(agented.NewID("exec", noon))
	e := &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", noon)), Backend: agented.BackendCodex, Source: agented.SourceManual, CreatedAt: noon, ScheduledAt: noon,
		Snapshot: agented.Spec{Backend: agented.BackendCodex, Resume: &agented.ResumePoint{Session: "s", Backend: agented.BackendCodex, Execution: home, Dir: "/x"}},
	}
	if _, err := db.Admit(t.Context(), Admission{Execution: e}, noon); err != nil {
		t.Fatal(err)
	}
	if got, err := db.ResumesIn(t.Context()); err != nil || len(got) != 1 || !got[home] {
		t.Errorf("while it waits: %v %v", got, err)
	}
	if _, err := db.RequestCancel(t.Context(), e.ID, "x", noon); err != nil {
		t.Fatal(err)
	}
	if got, err := db.ResumesIn(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("after its end: %v %v", got, err)
	}
}
