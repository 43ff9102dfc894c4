package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/agented/agented/internal/agentcli"
)

// ModelUse is the usage of a model in the last 30 days.
type ModelUse struct {
	Model     string // as its CLI reports it
	Attempts  int64
	Unknown   int64 // attempts whose cost is unknown
	Estimated int64 // attempts whose cost was computed from the price list
}

// checkPrices reports models in use without a price. A CLI that reports costs needs no price,
// unless the cost of a message must be known while it runs, as with Claude.
func checkPrices(ctx context.Context, o Options) []Finding {
	if o.Models == nil || o.Config == nil {
		return nil
	}
	prices, err := agentcli.ReadPrices(o.Config.PricesFile)
	if err != nil {
		return []Finding{{Area: AreaSettings, Name: "prices", Status: Fail, Text: err.Error(), Fix: "correct the file, or unset AGENTED_PRICES"}}
	}
	ctx, cancel := context.WithTimeout(ctx, timeForAccounts)
	defer cancel()
	list, err := o.Models(ctx)
	if err != nil {
		return nil // a server that does not answer is a finding of its own
	}
	var out []Finding
	for _, m := range list {
		if _, priced := prices.Of(m.Model); priced || m.Model == "" {
			continue
		}
		near, found := prices.Nearest(m.Model)
		if m.Unknown == 0 && m.Estimated == 0 && !strings.HasPrefix(near.Model, "claude") {
			continue // its CLI reports the cost
		}
		text := fmt.Sprintf("none: ceilings and budgets with --pause pause executions at their first use of the model, and the cost of %d of %d attempts in the last 30 days is unknown",
			m.Unknown, m.Attempts)
		if found {
			text = "none: estimates use that of " + near.Model
		}
		out = append(out, Finding{
			ID: "prices." + m.Model, Area: AreaSettings, Name: "price of " + m.Model, Status: Warn, Text: text,
			Fix: "add the model to the file of AGENTED_PRICES (docs/concepts/budgets.md), and restart the server",
		})
	}
	return out
}
