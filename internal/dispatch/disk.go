package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// Disk is how much room there is for new executions.
type Disk struct {
	Free  int64 // bytes
	Files int64 // that can still be made; -1 where the file system does not say
	Need  int64 // bytes below which executions wait
	Low   bool
}

const (
	minFiles  = 1000            // an execution makes a dozen, and what the agent makes
	diskAgain = 5 * time.Second // how soon it is looked again while executions wait for room
)

// statDisk is the room where path is.
func statDisk(path string) (free, files int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	files = -1
	if st.Files > 0 {
		files = int64(st.Ffree)
	}
	return int64(st.Bavail) * int64(st.Bsize), files, nil
}

// Disk looks how much room there is now. A disk that cannot be asked counts as
// one with room: what writes to it finds out.
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
		need += need / 8 // not to start and stop at the edge
	}
	s.Low = free < need || files >= 0 && files < minFiles && s.Need > 0
	return s
}

// noRoom reports whether new executions have to wait for room on the disk, and
// tells those in front of the queue.
func (d *Dispatcher) noRoom(ctx context.Context) bool {
	if d.o.Reserve <= 0 {
		return false
	}
	s := d.Disk()
	said := d.waitsForRoom.Load()
	if !s.Low {
		if said != nil {
			d.waitsForRoom.Store(nil)
			d.o.Log.Info("there is room on the disk again", "free", s.Free)
		}
		return false
	}
	if said == nil {
		// The figure of this moment stays: to write a new one each time would take
		// room that is not there.
		text := fmt.Sprintf("waits for room on the disk: %d MiB are free where the data is, and %d MiB have to be (AGENTED_MIN_FREE)", s.Free>>20, s.Need>>20)
		if s.Free >= s.Need {
			text = fmt.Sprintf("waits for room on the disk: only %d more files can be made where the data is", s.Files)
		}
		said = &text
		d.waitsForRoom.Store(said)
		d.o.Log.Error("new executions wait: the disk is nearly full", "free", s.Free, "needed", s.Need, "files", s.Files)
	}
	if err := d.o.DB.SayWhyWaiting(ctx, *said, d.now()); err != nil && ctx.Err() == nil {
		d.o.Log.Warn("say why executions wait", "err", err)
	}
	return true
}

// full reports whether an error is for want of room: on the disk, of its files,
// or of what this user may have of it.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// putBack lets an execution whose start met a full disk wait in the queue again.
// Nothing of it has run.
func (d *Dispatcher) putBack(ctx context.Context, e *agented.Execution, cause error) {
	text := "the disk is full where the data is: nothing was started"
	if errors.Is(cause, syscall.EDQUOT) {
		text = "the server may not take more of the disk where the data is (its quota is used up): nothing was started"
	}
	d.o.Log.Error("an execution waits again: "+text, "execution", e.ID, "attempt", e.AttemptNo, "err", cause)
	exit := noStart(agented.CauseNoStart, text, d.now())
	end := d.classify(e, exit)
	end.Reason, end.Error, end.Attempt.Reason, end.Attempt.Class, end.NoRoom = text, text, text, "", true
	d.end(ctx, e, exit, end)
}

// onDisk is what a file takes on the disk.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
