package workspace

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// Keep says how long checkouts stay after their executions have ended.
type Keep struct {
	Age     time.Duration // since the end; 0 is for ever
	Count   int           // checkouts of ended executions; 0 is any number
	MinFree int64         // free bytes below which the oldest go; 0 is no limit
}

// Standing is what the sweep has to know of an execution.
type Standing struct {
	Needed bool      // it may still run, or something that may goes on in its checkout
	Ended  time.Time // zero is long ago
}

// use is a checkout that borrows from a mirror.
type use struct {
	id     agented.ExecutionID
	mirror string
	Standing
}

// Sweep removes the checkouts that are kept no longer, then the mirrors from
// which nothing borrows. Ask says how an execution stands; one that is not known
// any more is NotFound. It returns how many checkouts went.
func (m *Manager) Sweep(ctx context.Context, keep Keep, ask func(context.Context, agented.ExecutionID) (Standing, error)) (int, error) {
	uses, err := m.uses()
	if err != nil {
		return 0, err
	}
	var idle []use
	for _, u := range uses {
		if u.Standing, err = ask(ctx, u.id); errors.Is(err, agented.NotFound) {
			u.Standing = Standing{}
		} else if err != nil {
			return 0, err
		}
		if !u.Needed {
			idle = append(idle, u)
		}
	}
	slices.SortFunc(idle, func(a, b use) int {
		return cmp.Or(a.Ended.Compare(b.Ended), cmp.Compare(a.id, b.id))
	})
	removed := 0
	var errs []error
	for i, u := range idle {
		if ctx.Err() != nil {
			break
		}
		old := keep.Age > 0 && m.o.Now().Sub(u.Ended) >= keep.Age
		many := keep.Count > 0 && len(idle)-i > keep.Count
		if !old && !many && !m.tight(keep.MinFree) {
			break // those that follow ended later
		}
		if err := m.remove(u); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(append(errs, m.sweepMirrors(ctx, keep))...)
}

// tight reports whether the disk has too little room.
func (m *Manager) tight(free int64) bool {
	if free == 0 {
		return false
	}
	have, err := freeBytes(m.root())
	return err == nil && have < free
}

// uses lists the checkouts that there are.
func (m *Manager) uses() ([]use, error) {
	files, err := filepath.Glob(filepath.Join(m.root(), "*", "used", "exec-*"))
	if err != nil {
		return nil, err
	}
	out := make([]use, 0, len(files))
	for _, path := range files {
		if id := filepath.Base(path); agented.ValidID("exec", id) {
			out = append(out, use{id: agented.ExecutionID(id), mirror: filepath.Base(filepath.Dir(filepath.Dir(path)))})
		}
	}
	return out, nil
}

// remove removes a checkout. A crash on the way leaves what the next sweep
// finds again.
func (m *Manager) remove(u use) error {
	home := m.o.Layout.Execution(u.id)
	err := os.Remove(filepath.Join(home, marker))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = removeAll(m.o.Layout.Work(u.id))
	}
	if left, _ := filepath.Glob(filepath.Join(home, "work-new-*")); err == nil {
		for _, path := range left {
			err = errors.Join(err, removeAll(path))
		}
	}
	if err == nil {
		err = os.Remove(filepath.Join(m.root(), u.mirror, "used", string(u.id)))
	}
	return err
}

// removeAll is os.RemoveAll that gets into folders which whoever made them has
// closed, as some build caches do.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// sweepMirrors removes the mirrors that nothing borrows from and that nobody
// has used for as long as checkouts are kept, or any time when the disk is
// full. The lock's file stays: somebody may be waiting for it.
func (m *Manager) sweepMirrors(ctx context.Context, keep Keep) error {
	homes, err := filepath.Glob(filepath.Join(m.root(), "*", "mirror.git"))
	if err != nil {
		return err
	}
	var errs []error
	for _, mirror := range homes {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, m.sweepMirror(filepath.Dir(mirror), keep))
	}
	return errors.Join(errs...)
}

func (m *Manager) sweepMirror(home string, keep Keep) error {
	f, err := os.OpenFile(filepath.Join(home, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	old := keep.Age > 0 && m.o.Now().Sub(info.ModTime()) >= keep.Age
	if !old && !m.tight(keep.MinFree) || unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	used, err := os.ReadDir(filepath.Join(home, "used"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(used) > 0 {
		return err
	}
	return removeAll(filepath.Join(home, "mirror.git"))
}
