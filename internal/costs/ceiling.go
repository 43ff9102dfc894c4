package costs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// ceilingOf returns the ceiling of an execution in US dollars; 0 means none.
func (g *Guard) ceilingOf(ctx context.Context, e *agented.Execution) float64 {
	if usd, set, err := g.o.DB.Ceiling(ctx, e.ID); err == nil && set {
		return usd
	}
	return e.Snapshot.CeilingUSD
}

// spentBefore returns the known cost of the attempts before the current one.
func spentBefore(e *agented.Execution) (usd float64) {
	for _, a := range e.Attempts {
		if a.Number != e.AttemptNo && a.Usage.CostUSD != nil {
			usd += *a.Usage.CostUSD
		}
	}
	return usd
}

// Remaining returns the amount that an attempt may spend before the execution reaches its ceiling,
// for a CLI that can enforce it; 0 means no limit. resumed is the session that it resumes, if any.
//
// A CLI may count the total of a resumed session, so for such an attempt only the guard enforces
// the ceiling. The same holds for an execution that has already reached its ceiling: it is paused
// at once.
func (g *Guard) Remaining(ctx context.Context, e *agented.Execution, resumed string) float64 {
	ceiling := g.ceilingOf(ctx, e)
	if ceiling <= 0 || resumed != "" {
		return 0
	}
	return max(ceiling-spentBefore(e), 0)
}

// Judge completes the end of an attempt of an execution with a ceiling. If the CLI stopped at the
// ceiling, another attempt follows in the same session, which the guard pauses before it does anything, so that a user is asked. A cost above the ceiling or an unknown cost is stated
// in the reason.
func (g *Guard) Judge(e *agented.Execution, exit agented.Exit, r *agented.Result, end *store.AttemptEnd, m *agentcli.Meter) {
	ceiling := g.ceilingOf(context.Background(), e)
	if ceiling <= 0 || !r.Usage.Known() || exit.Cause != agented.CauseExit && exit.Cause != "" {
		return
	}
	u := r.Usage
	if u.CumulativeSession && r.SessionID != "" {
		before, err := g.o.DB.SessionTotal(context.Background(), end.Attempt.Backend, r.SessionID)
		if err != nil {
			g.o.Log.Warn("compare the cost of an attempt with its ceiling", "execution", e.ID, "err", err)
			return
		}
		u = u.Since(before)
	}
	cost, known := 0.0, u.CostUSD != nil
	if known {
		cost = *u.CostUSD
	} else {
		cost, _, known = g.o.Prices.Estimate(m.Model(), u)
	}
	note := ""
	switch total := spentBefore(e) + cost; {
	case r.OverBudget && known && cost > 0 && g.budgetIsOurs(e):
		note = fmt.Sprintf("the cost has reached %s and the ceiling was %s", agented.Dollars(total), agented.Dollars(ceiling))
		policy := *end.Retry
		policy.OnInterrupted = true
		end.Retry = &policy
		end.Attempt.Class, end.Limit = agented.ClassInterrupted, agented.Limit{}
		end.Attempt.State, end.Next = agented.StateInterrupted, agented.StateInterrupted
	case known && total > ceiling:
		note = fmt.Sprintf("the cost reached %s: the ceiling of %s could not be enforced", agented.Dollars(total), agented.Dollars(ceiling))
		if like := m.Like(); like != "" {
			note += fmt.Sprintf(" (an estimate: model %q has no price, that of %s was used)", m.Model(), like)
		}
	case !known:
		note = fmt.Sprintf("the ceiling of %s could not be enforced: model %q has no price", agented.Dollars(ceiling), m.Model())
	}
	if note == "" {
		return
	}
	end.Reason = strings.TrimPrefix(end.Reason+"; "+note, "; ")
	end.Attempt.Reason = end.Reason
	if end.Next != agented.StateSuccess {
		end.Error = end.Reason
	}
}

// budgetIsOurs reports whether the attempt was started with a budget that the trigger's own
// arguments do not contain.
func (g *Guard) budgetIsOurs(e *agented.Execution) bool {
	budget := func(a string) bool { return strings.HasPrefix(a, "--max-budget-usd") }
	spec, err := shim.ReadSpec(g.o.Layout.Attempt(e.ID, e.AttemptNo))
	return err == nil && slices.ContainsFunc(spec.Args, budget) && !slices.ContainsFunc(e.Snapshot.Args, budget)
}
