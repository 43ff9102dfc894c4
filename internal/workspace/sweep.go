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

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/remove"
)

// Keep holds the limits for checkouts of ended executions.
type Keep struct {
	Age     time.Duration // since the end; 0 means no limit
	Count   int           // number of checkouts; 0 means no limit
	MinFree int64         // free bytes below which the oldest are removed; 0 means no limit
}

// Standing is the state of an execution for the sweep.
type Standing struct {
	Needed bool      // it or a later execution may still use the checkout
	Ended  time.Time // zero means long ago
}

// use is a checkout that borrows from a mirror.
type use struct {
	id     agented.ExecutionID
	mirror string
	Standing
}

// Sweep removes expired checkouts, then the mirrors that no checkout uses. ask returns the state
// of an execution, or NotFound for an unknown one. Sweep returns the number of removed checkouts.
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
			break // the following ones ended later
		}
		if err := m.remove(u); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(append(errs, m.sweepMirrors(ctx, keep))...)
}

// tight reports whether the disk has too little free space.
func (m *Manager) tight(free int64) bool {
	if free == 0 {
		return false
	}
	space, err := disk.Measure(m.root())
	return err == nil && space.Free < free
}

// uses lists the existing checkouts.
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

// remove removes a checkout. After a crash the next sweep finds the rest.
func (m *Manager) remove(u use) error {
	home := m.o.Layout.Execution(u.id)
	err := os.Remove(filepath.Join(home, marker))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = remove.All(m.o.Layout.Work(u.id))
	}
	if left, _ := filepath.Glob(filepath.Join(home, "work-new-*")); err == nil {
		for _, path := range left {
			err = errors.Join(err, remove.All(path))
		}
	}
	if err == nil {
		err = os.Remove(filepath.Join(m.root(), u.mirror, "used", string(u.id)))
	}
	return err
}

// sweepMirrors removes the mirrors that no checkout uses and that were not used for as long as
// checkouts are kept, or at once if the disk is full. The lock file is kept, because a process
// may be waiting for it.
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
	defer filelock.Release(f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	old := keep.Age > 0 && m.o.Now().Sub(info.ModTime()) >= keep.Age
	if !old && !m.tight(keep.MinFree) || filelock.Try(f) != nil {
		return nil
	}
	used, err := os.ReadDir(filepath.Join(home, "used"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(used) > 0 {
		return err
	}
	return remove.All(filepath.Join(home, "mirror.git"))
}
