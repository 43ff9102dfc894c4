package doctor

import (
	"context"
	"time"

	"github.com/agented/agented"
)

// timeForAccounts bounds the question about accounts.
const timeForAccounts = 5 * time.Second

// checkAccounts says how each account stands. A server that does not answer is
// a finding of its own, so here it is none.
func checkAccounts(ctx context.Context, o Options) []Finding {
	if o.Accounts == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeForAccounts)
	defer cancel()
	list, err := o.Accounts(ctx)
	if err != nil {
		return nil
	}
	var out []Finding
	for i := range list {
		a := &list[i]
		f := Finding{ID: "account." + string(a.ID), Area: AreaCLIs, Name: "account " + a.Label(), Status: OK, Text: "ready"}
		switch {
		case !a.Enabled:
			f.Text = "disabled: nothing runs on it"
		case a.State == agented.AccountCooling:
			f.Status = Warn
			f.Text = "rests until " + a.Until.UTC().Format("2006-01-02 15:04 UTC") + ": " + a.Evidence
			f.Mend = "wait: it goes on by itself; or, if you know better, agented account reset " + string(a.ID)
		case a.State == agented.AccountNeedsLogin:
			f.Status = Warn
			f.Text = "needs a login, and nothing runs on it: " + a.Evidence
			f.Mend = "log in anew or set its credentials, then agented account probe " + string(a.ID)
		case a.State == agented.AccountOutOfCredit:
			f.Status = Warn
			f.Text = "is out of credit, and nothing runs on it: " + a.Evidence
			f.Mend = "add credit at the provider, then agented account probe " + string(a.ID)
		}
		out = append(out, f)
	}
	return out
}
