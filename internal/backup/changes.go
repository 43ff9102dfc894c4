package backup

import (
	"archive/tar"
	"context"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/agented/agented"
)

// changes adds the files with what an execution changed.
func (w *writer) changes(ctx context.Context, id agented.ExecutionID) error {
	dir := w.src.Layout.Execution(id)
	return filepath.WalkDir(filepath.Join(dir, "changes"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // most executions have none, and the state before a running attempt is not included
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := logsFolder + "/" + string(id) + "/" + filepath.ToSlash(rel)
		if changesName().MatchString(name) {
			return w.changesFile(ctx, name, path)
		}
		return nil
	})
}

func (w *writer) changesFile(ctx context.Context, name, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		if len(w.report.Warnings) < 10 {
			w.report.Warnings = append(w.report.Warnings, fmt.Sprintf("%s could not be read: %v", name, err))
		}
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	w.report.Manifest.Changes++
	return w.add(ctx, name, st.Size(), io.MultiReader(f, zeros{}))
}

// changes reads a file with what an execution changed.
func (r *reader) changes(ctx context.Context, h *tar.Header, t io.Reader, sum hash.Hash) error {
	if r.report.Head.Format < 3 {
		return bad("it contains the entry %q, which a backup of format %d cannot contain", r.tail, r.report.Head.Format)
	}
	path := filepath.Join(r.dir, filepath.FromSlash(h.Name))
	if err := r.file(ctx, h, t, sum, path); err != nil {
		return err
	}
	r.report.Manifest.Changes++
	if r.keep {
		return nil
	}
	return os.Remove(path)
}
