package dispatch

import (
	"context"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// onDisk is what a file takes on the disk.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
