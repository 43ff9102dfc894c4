package costs

import (
	"context"
	"errors"
	"fmt"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// follower reads the log of a running attempt from its first line.
type follower struct {
	g      *Guard
	a      *Attempt
	cli    agentcli.CLI
	meter  *agentcli.Meter
	broker *brokerMeter // nil if the attempt has no broker
	last   agented.Seq
	begun  bool
	open   runlog.Joiner
	whole  *agented.Usage // for a session that reports its total usage: the usage before this attempt
	cost   float64        // known cost of the attempt so far
}

// readNew reads the lines printed, and the answers that the broker has reported, since the last
// call.
func (f *follower) readNew(ctx context.Context) error {
	if f.broker != nil {
		if err := f.broker.read(); err != nil {
			return err
		}
	}
	r, err := runlog.OpenReader(f.g.o.Layout.Execution(f.a.Execution.ID))
	if errors.Is(err, agented.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if !f.begun {
		spec, err := shim.ReadSpec(f.g.o.Layout.Attempt(f.a.Execution.ID, f.a.Execution.AttemptNo))
		if err != nil {
			return err
		}
		f.begun, f.last, f.open = true, max(spec.FirstSeq-1, 0), runlog.Joiner{Max: maxLine}
	}
	if err := r.SeekAfter(f.last); err != nil {
		return err
	}
	var batch []agented.LogLine
	for ctx.Err() == nil {
		if batch, err = r.Next(batch[:0], 1000, 4<<20); err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		f.a.Text.Refresh(f.a.Execution.AttemptNo)
		for _, l := range batch {
			f.last = l.Seq
			if l.Attempt == f.a.Execution.AttemptNo && l.Stream == agented.Stdout {
				if line, ok := f.open.Add(l.Part, l.Stream, f.a.Text.Line(ctx, &l)); ok {
					f.meter.Add(agentcli.Decode(f.cli, l.Stream, line))
				}
			}
		}
	}
	f.add(ctx)
	return nil
}

// add computes the cost of the attempt.
func (f *follower) add(ctx context.Context) {
	u := f.meter.Usage()
	if u.CumulativeSession {
		if f.whole == nil {
			before, err := f.g.o.DB.SessionTotal(ctx, f.a.Backend, f.meter.Session())
			if err != nil {
				return
			}
			f.whole = &before
		}
		u = u.Since(*f.whole)
	}
	if u.CostUSD != nil {
		f.cost = *u.CostUSD
	} else if usd, _, ok := f.g.o.Prices.Estimate(f.meter.Model(), u); ok {
		f.cost = usd
	}
}

// question returns the question of an attempt that has reached a limit, or nil if it may continue.
// over is a budget that is reached, or nil; blind is a model whose limits cannot be enforced, or
// empty.
func (f *follower) question(spent, ceiling float64, blind string, over *agented.Budget) *agented.Pause {
	p := new(agented.Pause)
	switch {
	case ceiling > 0 && spent >= ceiling:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionCeiling, spent, ceiling
		p.Reason = fmt.Sprintf("the cost has reached %s and the ceiling is %s: continue it with a higher ceiling, or cancel it", agented.Dollars(spent), agented.Dollars(ceiling))
		if model, like := f.estimated(); like != "" {
			p.Reason += fmt.Sprintf(" (an estimate: model %q has no price, that of %s was used)", model, like)
		}
	case over != nil:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionBudget, over.Spent, over.Limit
		p.Reason = over.Sentence() + ": continue it anyway, or cancel it"
	case blind != "" && ceiling > 0:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionCeiling, spent, ceiling
		p.Reason = fmt.Sprintf("model %q has no price, so the ceiling of %s cannot be enforced: add the price to the file of AGENTED_PRICES, or continue it with a ceiling_usd of 0 (none) or another value to accept that, or cancel it",
			blind, agented.Dollars(ceiling))
	case blind != "":
		p.Question, p.SpentUSD = agented.QuestionBudget, spent
		p.Reason = fmt.Sprintf("model %q has no price, so its budgets cannot be enforced: add the price to the file of AGENTED_PRICES, continue it to accept that, or cancel it", blind)
	default:
		return nil
	}
	return p
}
