package doctor

import (
	"os"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sandbox"
)

// checkSandbox reports which sandbox levels this machine provides, by creating sandboxes. It fails
// only if the settings require a level that is impossible.
func checkSandbox(o Options) Finding {
	f := Finding{Area: AreaSystem, Name: "sandbox", Status: OK}
	required := agented.SandboxOff
	r := sandbox.Request{Root: os.Geteuid() == 0, UID: os.Getuid()}
	if c := o.Config; c != nil {
		r.Path, r.Home = c.Path, c.Home
		r.Secret, r.Runtime = c.Hidden()
		if c.DataDir != "" {
			r.Secret = append(r.Secret, c.DataDir)
		}
		required = agented.Sandbox(c.Sandbox)
	}
	possible, program := agented.SandboxOff, ""
	var err error
	for _, level := range agented.Sandboxes[1:] {
		r.Level = level
		var facts sandbox.Facts
		if facts, err = sandbox.Resolve(r); err == nil {
			err = sandbox.Probe(facts)
		}
		if err != nil {
			break
		}
		possible, program = level, facts.Program
	}
	switch possible {
	case agented.SandboxStrict:
		f.Text = "the levels off, guard and strict are possible, with " + program
	case agented.SandboxGuard:
		f.Text = "the levels off and guard are possible, with " + program + "; strict is not: " + err.Error()
	default:
		f.Text = "only the level off is possible: " + err.Error()
	}
	f.Text += "; AGENTED_SANDBOX is " + string(required)
	if required.Stronger(possible) {
		f.Status, f.Fix = Fail, "sudo apt-get install bubblewrap, or set AGENTED_SANDBOX=off"
	}
	return f
}
