package app

import (
	"time"

	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/workspace"
)

// zone returns the zone of budgets and of schedules without one.
func zone(c *config.Config) *time.Location {
	if c.Zone != nil {
		return c.Zone
	}
	return time.Local
}

// workspaces returns the manager of checkouts.
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
