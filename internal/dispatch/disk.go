package dispatch

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

// Disk is the free space for new executions.
type Disk struct {
	Free  int64 // bytes
	Files int64 // free inodes; -1 if the file system does not report them
	Need  int64 // minimum free bytes to start executions
	Low   bool
}

const (
	minFiles  = 1000            // an execution creates about a dozen, plus the agent's files
	diskAgain = 5 * time.Second // interval of checks while executions wait for space
)

// statDisk returns the free space and inodes at path.
func statDisk(path string) (free, files int64, err error) {
	space, err := disk.Measure(path)
	return space.Free, space.Files, err
}

// Disk measures the free space. An error counts as enough space; writes will report a full disk.
func (d *Dispatcher) Disk() Disk {
	ask := d.o.StatDisk
	if ask == nil {
		ask = statDisk
	}
	free, files, err := ask(d.o.Layout.Root)
	if err != nil {
		return Disk{Files: -1, Need: d.o.Reserve}
	}
	s := Disk{Free: free, Files: files, Need: d.o.Reserve}
	need := s.Need
	if d.waitsForRoom.Load() != nil {
		need += need / 8 // hysteresis: do not start and stop at the edge
	}
	s.Low = free < need || files >= 0 && files < minFiles && s.Need > 0
	return s
}

// noRoom reports whether new executions must wait for disk space, and records the reason for
// those at the head of the queue.
func (d *Dispatcher) noRoom(ctx context.Context) bool {
	if d.o.Reserve <= 0 {
		return false
	}
	s := d.Disk()
	said := d.waitsForRoom.Load()
	if !s.Low {
		if said != nil {
			d.waitsForRoom.Store(nil)
			d.o.Log.Info("enough disk space is free again", "free", s.Free)
		}
		return false
	}
	if said == nil {
		// The recorded figures stay unchanged, because each write would need disk space.
		text := fmt.Sprintf("waits for disk space: %d MiB are free on the data disk, and %d MiB are required (AGENTED_MIN_FREE)", s.Free>>20, s.Need>>20)
		if s.Free >= s.Need {
			text = fmt.Sprintf("waits for disk space: only %d more files can be created on the data disk", s.Files)
		}
		said = &text
		d.waitsForRoom.Store(said)
		d.o.Log.Error("new executions wait: the disk is nearly full", "free", s.Free, "needed", s.Need, "files", s.Files)
	}
	if err := d.o.DB.SetWaitReason(ctx, *said, d.now()); err != nil && ctx.Err() == nil {
		d.o.Log.Warn("record why executions wait", "err", err)
	}
	return true
}

// full reports whether an error means that disk space, inodes or the user's quota are used up.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// putBack returns an execution to the queue if the disk was full when it started. Nothing of it
// has run.
func (d *Dispatcher) putBack(ctx context.Context, e *agented.Execution, cause error) {
	text := "the data disk is full: nothing was started"
	if errors.Is(cause, syscall.EDQUOT) {
		text = "the disk quota of the server's user is used up: nothing was started"
	}
	d.o.Log.Error("an execution waits again: "+text, "execution", e.ID, "attempt", e.AttemptNo, "err", cause)
	exit := noStart(agented.CauseNoStart, text, d.now())
	end, _ := d.classify(ctx, e, exit)
	end.Reason, end.Error, end.Attempt.Reason, end.Attempt.Class, end.NoRoom = text, text, text, "", true
	d.end(ctx, e, exit, end)
}
