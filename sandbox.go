package agented

import (
	"fmt"
	"slices"
)

// Sandbox is the level of isolation of an agent's processes from the server and the machine; see
// docs/concepts/security-model.md.
type Sandbox string

// The sandbox levels.
const (
	SandboxOff   Sandbox = "off"   // the agent can read what the server's user can read
	SandboxGuard Sandbox = "guard" // the agent cannot reach the server, its data and other executions
	// SandboxStrict also takes away the network, and everything is read-only except the working
	// directory, paths and a home folder of the execution's own.
	SandboxStrict Sandbox = "strict"
)

// Sandboxes lists the levels from the weakest to the strongest.
var Sandboxes = []Sandbox{SandboxOff, SandboxGuard, SandboxStrict}

// Problem returns why a spec or the server's settings cannot contain the level, or "". The empty
// level is valid: it means the server's default.
func (s Sandbox) Problem() string {
	if s == "" || slices.Contains(Sandboxes, s) {
		return ""
	}
	return fmt.Sprintf("must be one of %s", join(Sandboxes))
}

// Stronger reports whether the level isolates more than another one. The empty level, which stands
// for the server's default, is the weakest here.
func (s Sandbox) Stronger(than Sandbox) bool {
	return slices.Index(Sandboxes, s) > slices.Index(Sandboxes, than)
}

func join[T ~string](all []T) string {
	text := ""
	for i, s := range all {
		if i > 0 {
			text += ", "
		}
		text += string(s)
	}
	return text
}
