package workspace

import (
	"context"
	"path/filepath"
)

// repack makes the many packs of a mirror one, now and then. Nothing is lost by
// it: checkouts borrow objects that no ref of the mirror names any more.
func (j *job) repack(ctx context.Context) {
	packs, _ := filepath.Glob(filepath.Join(j.mirror(), "objects", "pack", "*.pack")) // the pattern is good
	if len(packs) < manyPacks {
		return
	}
	if err := j.git.local(ctx, j.mirror(), "repack", "-a", "-d", "--keep-unreachable", "--quiet"); err != nil {
		j.m.o.Log.Warn("repack a mirror", "mirror", j.name, "err", err)
	}
}
