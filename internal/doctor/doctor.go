// Package doctor diagnoses problems of an installation and proposes fixes. It changes nothing and
// does not affect a running server.
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

// Status is the severity of a finding.
type Status string

// Severities of findings. Warn marks a risk, or a feature that does not work yet; Fail keeps a
// server from working.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is the result of one check.
type Finding struct {
	// ID identifies the check for scripts, such as data.disk; it stays the same across versions.
	ID     string `json:"id"`
	Area   string `json:"area"` // heading of the finding
	Name   string `json:"name"`
	Status Status `json:"status"`
	Text   string `json:"text"`          // the result and what it means
	Fix    string `json:"fix,omitempty"` // how to fix it, as a command where possible
}

// Areas in the order of output.
const (
	AreaCLIs     = "Agent CLIs"
	AreaSettings = "Settings"
	AreaData     = "Data"
	AreaServer   = "Server"
	AreaSystem   = "System"
	AreaTriggers = "Triggers"
)

// Options holds the inputs of the checks.
type Options struct {
	// Config is the settings of a server started here. If those cannot be loaded, it is the
	// settings of client commands, or nil if these cannot be loaded either.
	Config *config.Config
	// ConfigErr is the error that keeps a server's settings from being loaded.
	ConfigErr error
	// Server checks whether the server on this machine is ready, and returns its address if it is
	// known. If nil, no server is contacted.
	Server func(context.Context) (address string, err error)
	// Listens returns the listen address of that server as a URL or unix:/path, or "" if it is
	// unknown. If nil, the address that Server returns is used.
	Listens func() string
	// States returns the statuses of executions from a running server; it omits those that the
	// server does not know. If nil, no server is contacted.
	States func(context.Context, []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error)
	// FailedRemovals returns the folders that retention could not remove: errors by the id of the
	// execution or conversation. If nil, no server is contacted.
	FailedRemovals func(context.Context) (map[string]string, error)
	// Accounts returns the accounts of a running server. If nil, no server is contacted.
	Accounts func(context.Context) ([]agented.Account, error)
	// Hints returns the problems that keep triggers of a running server from firing. If nil, no
	// server is contacted.
	Hints func(context.Context) ([]TriggerHint, error)
	// Pulls returns the webhooks whose missed deliveries a running server fetches. If nil, no server
	// is contacted.
	Pulls func(context.Context) ([]PullSource, error)
	// Models returns the models that a running server has used in the last 30 days. If nil, no
	// server is contacted.
	Models func(context.Context) ([]ModelUse, error)
	// Sandbox returns the state of sandboxes of a running server. If nil, no server is contacted.
	Sandbox func(context.Context) (SandboxState, error)
	// Systemctl runs systemctl; if nil, the program is executed.
	Systemctl func(ctx context.Context, args ...string) ([]byte, error)
	// Now returns the current time; if nil, time.Now is used.
	Now func() time.Time
	// Root is a prefix for system paths such as /proc, for tests.
	Root string
}

// Check runs all checks and returns their findings in the order of areas. It takes about as long
// as the slowest agent CLI needs to print its version, about ten seconds at most.
func Check(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	var clis, rest []Finding
	var wg sync.WaitGroup
	if o.Config != nil {
		wg.Go(func() { clis = checkCLIs(ctx, o.Config) })
	}
	var accounts, hints, prices, hub []Finding
	wg.Go(func() { hub = append(checkGitHub(ctx, o), checkPulls(ctx, o)...) })
	wg.Go(func() { accounts = checkAccounts(ctx, o) })
	wg.Go(func() { hints = checkHints(ctx, o) })
	wg.Go(func() { prices = checkPrices(ctx, o) })
	rest = append(rest, checkSettings(o)...)
	holder := 0
	if o.Config != nil && o.ConfigErr == nil {
		var data []Finding
		data, holder = checkData(ctx, o.Config, o.Now())
		rest = append(rest, data...)
		rest = append(rest, checkBundles(ctx, o, holder)...)
		server, listens := checkServer(ctx, o, holder)
		rest = append(rest, server...)
		if listens != "" {
			rest = append(rest, checkListens(listens))
		} else {
			rest = append(rest, checkPort(o, holder)...)
		}
	}
	rest = append(rest, checkSystem(ctx, o, holder)...)
	wg.Wait()
	return named(slices.Concat(clis, accounts, prices, rest, hub, hints))
}

// named sets the id of findings that have none, from area and name.
func named(list []Finding) []Finding {
	for i, f := range list {
		if f.ID == "" {
			area := map[string]string{AreaCLIs: "cli", AreaSettings: "settings", AreaData: "data", AreaServer: "server", AreaSystem: "system", AreaTriggers: "triggers"}[f.Area]
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
