package doctor

import (
	"context"
	"testing"

	"github.com/agented/agented"
)

func TestSandbox_states_of_server(t *testing.T) {
	t.Parallel()
	const why = "bubblewrap is not installed: install the package bubblewrap, for example with apt-get install bubblewrap"
	all := agented.Sandboxes
	for _, c := range []struct {
		state  SandboxState
		status Status
		parts  []string
	}{
		{SandboxState{Setting: "auto", Default: "guard", Available: all}, OK, []string{"levels off, guard and strict", "the default is guard (AGENTED_SANDBOX=auto)"}},
		{SandboxState{Setting: "auto", Default: "guard", Available: all[:2], Missing: "strict", Fix: "x"}, OK, []string{"levels off and guard", "strict is not: x"}},
		{SandboxState{Setting: "auto", Default: "off", Available: all[:1], Missing: "guard", Fix: why, Problem: "p"}, Warn, []string{"only the level off is possible", "sudo apt-get install bubblewrap, then agented reload"}},
		{SandboxState{Setting: "off", Default: "off", Available: all[:1], Missing: "guard", Fix: why}, OK, []string{"AGENTED_SANDBOX=off"}},
		{SandboxState{Setting: "strict", Default: "strict", Available: all[:2], Missing: "strict", Fix: "allow it", Problem: "p"}, Fail, []string{"allow it, then agented reload"}},
	} {
		f := checkSandbox(t.Context(), Options{Sandbox: func(context.Context) (SandboxState, error) { return c.state, nil }})
		f.Text += "\n" + f.Fix
		expect(t, f, c.status, c.parts...)
	}
}
