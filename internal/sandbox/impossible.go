package sandbox

import (
	"os"
	"strings"

	"github.com/agented/agented"
)

// Impossible is the error of a level that this machine does not provide. Its text is a message for
// users.
type Impossible struct {
	Level   agented.Sandbox
	Why     string // the cause and the fix
	Passing bool   // the cause can pass by itself: a limit that is reached, a machine that is too busy
}

func (e *Impossible) Error() string { return Refusal(e.Level, e.Why) }

// Explain returns why a sandbox could not be created and how to fix it: one sentence from what
// bwrap printed.
func Explain(level agented.Sandbox, printed string) string {
	return explain(level, printed, namespacesAllowed()).Error()
}

// explain is Explain for a system that allows a number of user namespaces, or for one that does not.
func explain(level agented.Sandbox, printed string, allowed bool) *Impossible {
	line, _, _ := strings.Cut(strings.TrimSpace(printed), "\n")
	line = strings.TrimPrefix(line, "bwrap: ")
	fix, passing := "", false
	switch {
	case strings.Contains(line, "ENOSPC") || strings.Contains(line, "No space left on device") && strings.Contains(line, "namespace"):
		fix = "the system allows no user namespaces: set the sysctl user.max_user_namespaces to a positive number"
		if allowed {
			fix, passing = "as many user namespaces as the sysctl user.max_user_namespaces allows are in use: end processes that use them, or increase it", true
		}
	case strings.Contains(line, "Resource temporarily unavailable") || strings.Contains(line, "Cannot allocate memory"):
		fix, passing = "the system is out of processes or memory: try again later", true
	case strings.Contains(line, "namespace") || strings.Contains(line, "uid map"):
		fix = "the system does not let this user create namespaces: set the sysctl kernel.unprivileged_userns_clone to 1 or " +
			"kernel.apparmor_restrict_unprivileged_userns to 0, or allow it in the settings of the container"
	case strings.Contains(line, "mount proc"):
		fix = "the system hides a part of /proc, as containers and some units of systemd do: allow it with " +
			"--security-opt systempaths=unconfined, or without ProtectProc=, ProcSubset= and ProtectKernelTunables= in the unit"
	case strings.Contains(line, "nknown option"):
		fix = "this version of bubblewrap is too old: version 0.5 or newer is required"
	case line == "":
		line, fix = "bwrap ended without a message", "run `agented doctor`"
	default:
		fix = "run `agented doctor`"
	}
	return &Impossible{Level: level, Why: line + "; " + fix, Passing: passing}
}

// namespacesAllowed reports whether the system allows user namespaces, if it tells.
func namespacesAllowed() bool {
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// Refusal is the message of an attempt that was not started because its sandbox is impossible.
// why ends with the fix.
func Refusal(level agented.Sandbox, why string) string {
	return "sandbox " + string(level) + " is not available on this machine (" + why +
		"), and the execution does not run without it: fix this, or set sandbox to off"
}
