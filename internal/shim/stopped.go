package shim

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// haltEvery is the interval at which a command is checked for a stop by a signal. Two checks must
// agree, because a shell stops and continues jobs briefly. Tests shorten it.
var haltEvery = 5 * time.Second

const (
	// maxContinues is how often a stopped command is continued.
	maxContinues = 3
	// wrappers is the maximum number of programs that wrap the stopped one.
	wrappers = 5
)

// halt is the state of a command that a signal has stopped: SIGSTOP to itself, or SIGTTIN or
// SIGTTOU from a terminal on which it runs in the background.
type halt struct {
	check     time.Time // time of the next check
	pid       int       // process found stopped at the last check; 0 means none
	continued int       // number of continuations
}

// checkStopped continues a command that a signal has stopped, and ends one that is stopped
// repeatedly. Otherwise it would stay stopped unnoticed.
func (k *supervisor) checkStopped(now time.Time) {
	if now.Before(k.halt.check) {
		return
	}
	k.halt.check = now.Add(haltEvery)
	p, stopped := k.tree.stoppedCommand()
	if !stopped || p.pid != k.halt.pid {
		if k.halt.pid = 0; stopped {
			k.halt.pid = p.pid
		}
		return
	}
	if k.halt.continued == maxContinues {
		k.end(agented.CauseStopped, fmt.Sprintf("a signal (SIGSTOP, SIGTTIN or SIGTTOU) stopped it again after it had been continued %d times", maxContinues))
		return
	}
	k.halt.pid = 0
	k.halt.continued++
	k.logf("The command was stopped by a signal (SIGSTOP, SIGTTIN or SIGTTOU) and is being continued.")
	_ = p.signal(unix.SIGCONT)
}

// stoppedCommand returns the stopped command, or the stopped program that the command waits for.
func (t *tree) stoppedCommand() (process, bool) {
	t.reap.mu.Lock()
	pid, reaped := t.reap.leader, t.reap.reaped
	t.reap.mu.Unlock()
	for range wrappers {
		p, ok := lookUp(pid)
		switch {
		case !ok || reaped || p.group != t.reap.leader:
			return process{}, false
		case p.stopped:
			return p, true
		}
		if pid = onlyChild(pid); pid == 0 {
			return process{}, false
		}
	}
	return process{}, false
}
