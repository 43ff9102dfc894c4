package doctor

import (
	"context"
	"os"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sandbox"
)

// SandboxState is what a running server reports about sandboxes.
type SandboxState struct {
	Setting, Default agented.Sandbox
	Available        []agented.Sandbox
	Missing          agented.Sandbox // weakest level that is not available; empty: none
	Fix              string          // why, and the fix
	Problem          string          // set if executions run without a sandbox, or fail
}

// checkSandbox reports which sandbox levels the running server can create; without a server, those
// that this process can create. Executions that run without a sandbox are a warning unless the
// settings ask for it; settings that require an impossible level are a failure.
func checkSandbox(ctx context.Context, o Options) Finding {
	f := Finding{Area: AreaSystem, Name: "sandbox", Status: OK}
	state, subject := SandboxState{}, "the running server can create the levels "
	if o.Sandbox != nil {
		ctx, cancel := context.WithTimeout(ctx, timeForAccounts)
		defer cancel()
		state, _ = o.Sandbox(ctx) // a server that does not answer is a finding of its own
	}
	if state.Default == "" || len(state.Available) == 0 {
		state, subject = examineSandboxes(ctx, o), "a server can create the levels "
	}
	switch n := len(state.Available); {
	case n <= 1:
		f.Text = "only the level off is possible"
	default:
		f.Text = subject + join(state.Available[:n-1]) + " and " + string(state.Available[n-1])
	}
	if state.Missing != "" {
		f.Text += "; " + string(state.Missing) + " is not: " + state.Fix
	}
	f.Text += "; the default is " + string(state.Default) + " (AGENTED_SANDBOX=" + string(state.Setting) + ")"
	if state.Problem == "" {
		return f
	}
	f.Status = Warn
	if state.Setting != agented.SandboxAuto {
		f.Status = Fail
	}
	if f.Fix = state.Fix; strings.Contains(f.Fix, "is not installed") {
		f.Fix = "sudo apt-get install bubblewrap"
	}
	f.Fix += ", then agented reload; or set AGENTED_SANDBOX=off to run agents without a sandbox"
	return f
}

// examineSandboxes creates sandboxes.
func examineSandboxes(ctx context.Context, o Options) SandboxState {
	r := sandbox.Request{Root: os.Geteuid() == 0, UID: os.Getuid()}
	setting := agented.SandboxAuto
	if c := o.Config; c != nil {
		r.Path, r.Home = c.Path, c.Home
		r.Secret, r.Runtime = c.Hidden()
		if c.DataDir != "" {
			r.Secret = append(r.Secret, c.DataDir)
		}
		setting = agented.Sandbox(c.Sandbox)
	}
	levels := sandbox.Examine(ctx, r)
	state := SandboxState{Setting: setting, Default: levels.DefaultOf(setting).Level}
	for _, level := range agented.Sandboxes {
		if !level.Stronger(levels.Best) {
			state.Available = append(state.Available, level)
		}
	}
	if levels.Next != nil {
		state.Missing, state.Fix = levels.Next.Level, levels.Next.Why
	}
	if setting != agented.SandboxOff && (state.Default.Stronger(levels.Best) || levels.Best == agented.SandboxOff) {
		state.Problem = "executions run without a sandbox, or fail"
	}
	return state
}

func join(levels []agented.Sandbox) string {
	var out []string
	for _, level := range levels {
		out = append(out, string(level))
	}
	return strings.Join(out, ", ")
}
