package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
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

const (
	// everyDiskUse is the pause between two measurements of an attempt's files.
	everyDiskUse = 2 * time.Second
	// diskUseShare is the part of a processor that a measurement uses, so that large trees cost
	// time and not processors.
	diskUseShare = 0.05
)

// watchDiskUse measures the files of an attempt that has a limit, until ctx is done. What exceeds
// the limit is measured again without pauses, because files that move during a slow measurement
// can count twice.
func (k *supervisor) watchDiskUse(ctx context.Context) {
	limit, folders := k.spec.MaxDisk, k.spec.DiskFolders
	if limit <= 0 || len(folders) == 0 {
		return
	}
	go func() {
		for wait := time.NewTicker(everyDiskUse); ; {
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
			if k.paused.Load() != nil {
				continue
			}
			used, err := disk.Usage(ctx, folders, limit, diskUseShare)
			if err == nil && used > limit {
				used, err = disk.Usage(ctx, folders, limit, 0)
			}
			why := ""
			switch {
			case errors.Is(err, disk.ErrDepth):
				why = "the size of its files could not be measured for its limit (limits.disk or AGENTED_MAX_DISK): " + err.Error()
			case err == nil && used > limit:
				why = "its files used more disk space than its limit of " + format.Bytes(limit) + " (limits.disk or AGENTED_MAX_DISK)"
			default:
				continue
			}
			wait.Stop()
			select {
			case k.filled <- why:
			case <-ctx.Done():
			}
			return
		}
	}()
}
