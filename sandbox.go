package agented

import (
	"cmp"
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

// Limits bounds what all processes of one execution together use. A value of 0 is the server's
// default.
type Limits struct {
	Memory    int `json:"memory,omitempty" doc:"MiB of memory. Beyond it the kernel kills the largest of the processes"`
	Swap      int `json:"swap,omitempty" doc:"MiB of swap in addition to memory; counts only together with a limit of memory"`
	PIDs      int `json:"pids,omitempty" doc:"Concurrent processes and threads. Beyond it none can be started"`
	CPUWeight int `json:"cpu_weight,omitempty" doc:"Share of the processors when they are busy, from 1 to 10000; the system's default is 100"`
}

// The largest values of Limits.
const (
	MaxLimitMiB  = 100_000_000
	MaxLimitPIDs = 4_000_000
	MaxCPUWeight = 10_000
)

// validate reports every field that is out of range.
func (l Limits) validate(refuse func(path, format string, args ...any)) {
	for _, f := range []struct {
		name       string
		value, max int
	}{{"memory", l.Memory, MaxLimitMiB}, {"swap", l.Swap, MaxLimitMiB}, {"pids", l.PIDs, MaxLimitPIDs}, {"cpu_weight", l.CPUWeight, MaxCPUWeight}} {
		if f.value < 0 || f.value > f.max {
			refuse("limits."+f.name, "must be from 0 (the server's default) to %d", f.max)
		}
	}
}

// Lower returns the lower of both values of each limit.
func (l Limits) Lower(than Limits) Limits {
	lower := func(a, b int) int {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	return Limits{lower(l.Memory, than.Memory), lower(l.Swap, than.Swap), lower(l.PIDs, than.PIDs), lower(l.CPUWeight, than.CPUWeight)}
}

// Or returns the limits with those that are 0 taken from other ones.
func (l Limits) Or(other Limits) Limits {
	return Limits{cmp.Or(l.Memory, other.Memory), cmp.Or(l.Swap, other.Swap), cmp.Or(l.PIDs, other.PIDs), cmp.Or(l.CPUWeight, other.CPUWeight)}
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
