package sandbox

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Probe creates a sandbox that runs a program which does nothing. The error is an [Impossible].
func Probe(ctx context.Context, f Facts) error {
	args := append(f.Command(), "--", "/proc/self/exe", "--version")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"LC_ALL=C"}
	var text strings.Builder
	cmd.Stderr = &text
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &Impossible{Level: f.Level, Why: "bwrap did not end in time: try again when the machine is less busy", Passing: true}
	}
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		return &Impossible{Level: f.Level, Why: "bwrap could not be started (" + err.Error() + "): install the package bubblewrap again"}
	}
	return explain(f.Level, text.String(), namespacesAllowed())
}

// Levels are the levels that this machine provides.
type Levels struct {
	Best    agented.Sandbox // the strongest one; off if there is no other
	Program string          // path of bwrap, if Best is not off
	// Next is why the level after Best is not provided. It is nil if all are.
	Next *Impossible
}

// probeTime bounds the probe of one level.
const probeTime = 10 * time.Second

// Examine finds the levels that this machine provides by creating a sandbox of each. The level of
// the request is ignored.
func Examine(ctx context.Context, r Request) Levels {
	l := Levels{Best: agented.SandboxOff}
	for _, level := range agented.Sandboxes[1:] {
		r.Level = level
		facts, err := Resolve(r)
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, probeTime)
			err = Probe(ctx, facts)
			cancel()
		}
		if err != nil {
			if !errors.As(err, &l.Next) {
				l.Next = &Impossible{Level: level, Why: err.Error()}
			}
			return l
		}
		l.Best, l.Program = level, facts.Program
	}
	return l
}

// Default returns the level of executions whose settings name none, if the server's setting is
// auto: guard, unless this machine cannot provide it. A cause that can pass by itself does not
// turn sandboxes off: programs can create it.
func (l Levels) Default() agented.Isolation {
	if l.Best == agented.SandboxOff && l.Next != nil && !l.Next.Passing {
		return agented.Isolation{Level: agented.SandboxOff, Reason: "this machine provides no sandbox: " + l.Next.Why}
	}
	return agented.Isolation{Level: agented.SandboxGuard, Reason: "default of the server"}
}

// DefaultOf is Default for a value of AGENTED_SANDBOX.
func (l Levels) DefaultOf(setting agented.Sandbox) agented.Isolation {
	if setting != agented.SandboxAuto {
		return agented.Isolation{Level: setting, Reason: "AGENTED_SANDBOX of the server"}
	}
	return l.Default()
}
