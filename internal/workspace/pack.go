package workspace

import (
	"context"
	"path/filepath"
)

// repack combines the packs of a mirror from time to time. It loses nothing, because checkouts
// borrow objects that no ref of the mirror names any more.
func (j *job) repack(ctx context.Context) {
	packs, _ := filepath.Glob(filepath.Join(j.mirror(), "objects", "pack", "*.pack")) // the pattern is valid
	if len(packs) < manyPacks {
		return
	}
	if err := j.git.local(ctx, j.mirror(), "repack", "-a", "-d", "--keep-unreachable", "--quiet"); err != nil {
		j.m.o.Log.Warn("repack a mirror", "mirror", j.name, "err", err)
	}
}
