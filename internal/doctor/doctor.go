// Package doctor looks at an installation and says what is wrong with it and
// how to mend it. It changes nothing and does not disturb a running server.
package doctor

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// Status says how bad a finding is.
type Status string

// The statuses. Warn is something that a person should know or that does not
// work yet; Fail keeps a server from doing its work.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is one thing that was looked at.
type Finding struct {
	// ID names what was looked at for scripts, such as data.disk; it stays the
	// same over versions.
	ID     string `json:"id"`
	Area   string `json:"area"` // the heading that it belongs under
	Name   string `json:"name"`
	Status Status `json:"status"`
	Text   string `json:"text"`           // what was found and what that means
	Mend   string `json:"mend,omitempty"` // what to do, a command where there is one
}

// Areas in the order in which they are shown.
const (
	AreaCLIs     = "Agent CLIs"
	AreaSettings = "Settings"
	AreaData     = "Data"
	AreaServer   = "Server"
	AreaSystem   = "System"
)

// Options say what is looked at.
type Options struct {
	// Config is the settings of a server started here, or, if those cannot be
	// loaded, the settings of client commands; nil if not even these can.
	Config *config.Config
	// ConfigErr is why the settings of a server cannot be loaded.
	ConfigErr error
	// Server asks the server on this machine whether it is ready. It returns
	// the server's address as far as it is known. Nil asks nobody.
	Server func(context.Context) (address string, err error)
	// States asks a running server where executions stand; those that it does
	// not know are left out. Nil asks nobody.
	States func(context.Context, []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error)
	// Accounts asks a running server how accounts stand. Nil asks nobody.
	Accounts func(context.Context) ([]agented.Account, error)
	// Systemctl asks systemd; nil runs systemctl.
	Systemctl func(ctx context.Context, args ...string) ([]byte, error)
	// Now is the time; nil is time.Now.
	Now func() time.Time
	// Root is put before the paths of the system, such as /proc; for tests.
	Root string
}

// Check looks at everything and returns what it found, in the order of areas.
// It takes about as long as the slowest agent CLI needs to say its version, at
// most some ten seconds.
func Check(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	var clis, rest []Finding
	var wg sync.WaitGroup
	if o.Config != nil {
		wg.Go(func() { clis = checkCLIs(ctx, o.Config) })
	}
	var accounts []Finding
	wg.Go(func() { accounts = checkAccounts(ctx, o) })
	rest = append(rest, checkSettings(o)...)
	holder := 0
	if o.Config != nil && o.ConfigErr == nil {
		var data []Finding
		data, holder = checkData(ctx, o.Config, o.Now())
		rest = append(rest, data...)
		rest = append(rest, checkBundles(ctx, o, holder)...)
		rest = append(rest, checkServer(ctx, o, holder)...)
		rest = append(rest, checkPort(o, holder)...)
	}
	rest = append(rest, checkSystem(ctx, o, holder)...)
	wg.Wait()
	return named(slices.Concat(clis, accounts, rest))
}

// named gives an id to what has none: its heading and its name.
func named(list []Finding) []Finding {
	for i, f := range list {
		if f.ID == "" {
			area := map[string]string{AreaCLIs: "cli", AreaSettings: "settings", AreaData: "data", AreaServer: "server", AreaSystem: "system"}[f.Area]
			list[i].ID = area + "." + strings.Trim(strings.ReplaceAll(f.Name, " ", "_"), ".")
		}
	}
	return list
}

// Failed reports whether any finding is a failure.
func Failed(list []Finding) bool {
	for _, f := range list {
		if f.Status == Fail {
			return true
		}
	}
	return false
}
