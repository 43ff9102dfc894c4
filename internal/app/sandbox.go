package app

import (
	"context"
	"os"
	"strings"
	"sync"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/sandbox"
	"github.com/agented/agented/internal/store"
)

// sandboxes finds which sandbox levels this machine provides, once.
type sandboxes struct {
	mu     sync.Mutex
	levels *sandbox.Levels // nil until they are known
}

// get returns the levels. The first call creates a sandbox of each level; others wait for it.
func (s *sandboxes) get(c *config.Config) sandbox.Levels {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.levels == nil {
		r := sandbox.Request{Path: c.Path, Home: c.Home, Root: os.Geteuid() == 0, UID: os.Getuid()}
		r.Secret, r.Runtime = c.Hidden()
		r.Secret = append(r.Secret, c.DataDir)
		levels := sandbox.Examine(context.Background(), r)
		s.levels = &levels
	}
	return *s.levels
}

// forget makes the next call of get find the levels again.
func (s *sandboxes) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.levels = nil
}

// examineSandboxes finds the levels while the server starts, and logs a warning if executions run
// without a sandbox or would fail.
func (a *App) examineSandboxes() {
	if agented.Sandbox(a.o.Config.Sandbox) == agented.SandboxOff {
		return
	}
	var done sync.WaitGroup
	done.Go(func() {
		state := a.sandboxState()
		switch {
		case state.Problem != "":
			a.o.Log.Warn(state.Problem)
		case state.Setting != agented.SandboxOff:
			a.o.Log.Info("sandbox", "default", state.Default, "setting", state.Setting)
		}
	})
	a.onClose("examine sandboxes", func() error { done.Wait(); return nil })
}

// keepCommands keeps commands of triggers that an older version created outside of sandboxes,
// unless the settings name a level.
func (a *App) keepCommands(ctx context.Context) error {
	if _, err := a.db.Setting(ctx, store.SettingSandboxDefault); agented.KindOf(err) != agented.NotFound {
		return err
	}
	if agented.Sandbox(a.o.Config.Sandbox) != agented.SandboxAuto {
		return a.db.SetSetting(ctx, store.SettingSandboxDefault, a.o.Config.Sandbox)
	}
	names, err := a.db.KeepCommandsUnsandboxed(ctx)
	if err == nil && len(names) > 0 {
		a.o.Log.Warn("executions run in a sandbox by default from this version on; these triggers run commands and were set to sandbox off, to keep what they can reach",
			"triggers", strings.Join(names, ", "))
	}
	return err
}

// sandboxState describes the levels and the default.
func (a *App) sandboxState() api.SandboxState {
	c := a.config.Load()
	levels := a.sandboxes.get(c)
	is := levels.DefaultOf(agented.Sandbox(c.Sandbox))
	state := api.SandboxState{Setting: agented.Sandbox(c.Sandbox), Default: is.Level, Reason: is.Reason, Available: []agented.Sandbox{}}
	for _, level := range agented.Sandboxes {
		if !level.Stronger(levels.Best) {
			state.Available = append(state.Available, level)
		}
	}
	if levels.Next != nil {
		state.Missing, state.Fix = levels.Next.Level, levels.Next.Why
	}
	switch {
	case state.Setting == agented.SandboxAuto && is.Level == agented.SandboxOff:
		state.Problem = "Executions run without a sandbox, because this machine provides none: " + levels.Next.Why + ". Then run `agented reload`. AGENTED_SANDBOX=off accepts it."
	case is.Level.Stronger(levels.Best):
		state.Problem = "Executions at sandbox level " + string(is.Level) + ", the default, fail: " + levels.Next.Why + ". Then run `agented reload`."
	}
	return state
}

// sandbox returns the default level of executions.
func (a *App) sandbox() agented.Isolation {
	c := a.config.Load()
	if setting := agented.Sandbox(c.Sandbox); setting != agented.SandboxAuto {
		return sandbox.Levels{}.DefaultOf(setting)
	}
	return a.sandboxes.get(c).Default()
}

// forward returns the port in sandboxes without a network that is connected with a socket.
func (a *App) forward() (port int, socket string) { return a.config.Load().Forward() }

// hidden returns what sandboxes hide outside of the data folder.
func (a *App) hidden() (paths []string, runtime string) { return a.config.Load().Hidden() }
