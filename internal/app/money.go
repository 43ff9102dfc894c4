package app

import (
	"os"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/workspace"
)

// readPrices returns the list of prices: that of a file, if there is one, before
// the one that comes with this version.
func readPrices(c *config.Config) (*agented.Prices, error) {
	if c.PricesFile == "" {
		return backend.DefaultPrices(), nil
	}
	text, err := os.ReadFile(c.PricesFile)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_PRICES: %s cannot be read: check the path", c.PricesFile).Because(err)
	}
	p, err := agented.ParsePrices(text)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_PRICES: %s", agented.Message(err)).Because(err)
	}
	return p.Over(backend.DefaultPrices()), nil
}

// zone is that of budgets and of schedules that name none.
func zone(c *config.Config) *time.Location {
	if c.Zone != nil {
		return c.Zone
	}
	return time.Local
}

// workspaces makes what gives executions their checkouts.
func (a *App) workspaces() *workspace.Manager {
	c := a.o.Config
	return workspace.New(workspace.Options{
		Layout: a.layout, Protocols: c.WorkspaceProtocols, Timeout: c.WorkspaceTimeout, MinFree: int64(c.WorkspaceMinFreeMB) << 20,
		Lookup: func(name string) (string, bool) { return a.config.Load().Variable(name) },
		Mask:   func(secret, text string) string { return redact.New(append(a.toMask(), secret)).MaskString(text) },
		Log:    a.o.Log,
	})
}

func keepWorkspaces(c *config.Config) workspace.Keep {
	return workspace.Keep{Age: time.Duration(c.WorkspaceKeepDays) * 24 * time.Hour, Count: c.WorkspaceKeepCount, MinFree: int64(c.WorkspaceMinFreeMB) << 20}
}
