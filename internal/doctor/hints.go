package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// TriggerHint is a problem that keeps a valid trigger from firing.
type TriggerHint struct {
	Trigger string // its name
	Text    string
	Fix     string
}

// maxNamed bounds the triggers that a finding names.
const maxNamed = 5

// checkHints reports problems that keep triggers from firing. Triggers with the same
// problem and fix share a finding.
func checkHints(ctx context.Context, o Options) []Finding {
	if o.Hints == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeForAccounts)
	defer cancel()
	list, err := o.Hints(ctx)
	if err != nil {
		return nil // a server that does not answer is a finding of its own
	}
	var out []Finding
	var names [][]string
	for _, h := range list {
		at := slices.IndexFunc(out, func(f Finding) bool { return f.Text == h.Text && f.Fix == h.Fix })
		if at < 0 {
			at = len(out)
			out = append(out, Finding{ID: fmt.Sprintf("triggers.hint_%d", at+1), Area: AreaTriggers, Status: Warn, Text: h.Text, Fix: h.Fix})
			names = append(names, nil)
		}
		if !slices.Contains(names[at], h.Trigger) {
			names[at] = append(names[at], h.Trigger)
		}
	}
	for i := range out {
		some := names[i][:min(len(names[i]), maxNamed)]
		if out[i].Name = strings.Join(some, ", "); len(some) < len(names[i]) {
			out[i].Name += fmt.Sprintf(" and %d more", len(names[i])-len(some))
		}
	}
	return out
}
