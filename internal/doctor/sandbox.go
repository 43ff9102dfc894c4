package doctor

import (
	"os"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/sandbox"
)

// checkSandbox reports which sandbox levels this machine provides, by creating a sandbox. It fails
// only if the settings require a level that is impossible.
func checkSandbox(o Options) Finding {
	f := Finding{Area: AreaSystem, Name: "sandbox", Status: OK}
	level := agented.SandboxOff
	r := sandbox.Request{Root: os.Geteuid() == 0, UID: os.Getuid()}
	if c := o.Config; c != nil {
		r.Path, r.Home = c.Path, c.Home
		r.Secret, r.Runtime = c.Hidden()
		if c.DataDir != "" {
			r.Secret = append(r.Secret, c.DataDir)
		}
		level = agented.Sandbox(c.Sandbox)
	}
	facts, err := sandbox.Resolve(r)
	if err == nil {
		err = sandbox.Probe(facts)
	}
	if err == nil {
		f.Text = "the levels off and guard are possible, with " + facts.Program + "; AGENTED_SANDBOX is " + string(level)
		return f
	}
	f.Text = "only the level off is possible: " + err.Error()
	if level != agented.SandboxOff {
		f.Status, f.Fix = Fail, "sudo apt-get install bubblewrap, or set AGENTED_SANDBOX=off"
	}
	return f
}
