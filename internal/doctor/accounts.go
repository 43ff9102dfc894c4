package doctor

import (
	"context"
	"strings"
	"time"

	"github.com/agented/agented"
)

// timeForAccounts bounds the request for accounts.
const timeForAccounts = 5 * time.Second

// checkAccounts reports the state of each account. It returns nothing if the server does not
// answer, which is a finding of its own.
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
			f.Text = "disabled: no execution uses it"
		case a.State == agented.AccountReady && a.Hint != "":
			f.Text, f.Fix = "not usable yet: "+a.Hint, a.Fix
			if !a.Default || !strings.Contains(a.Hint, "not installed") { // the check of the CLI reports this for default accounts
				f.Status = Warn
			}
		case a.State == agented.AccountCooling:
			f.Status = Warn
			f.Text = "cooling down until " + a.Until.UTC().Format("2006-01-02 15:04 UTC") + ": " + a.Evidence
			f.Fix = "wait until then, or if the limit is lifted earlier: agented account reset " + string(a.ID)
		case a.State == agented.AccountNeedsLogin:
			f.Status = Warn
			f.Text = "needs a login, and no execution uses it: " + a.Evidence
			f.Fix = a.LoginFix()
		case a.State == agented.AccountOutOfCredit:
			f.Status = Warn
			f.Text = "is out of credit, and no execution uses it: " + a.Evidence
			f.Fix = "add credit at the provider, then run agented account reset " + a.Label()
		}
		out = append(out, f)
	}
	return out
}
