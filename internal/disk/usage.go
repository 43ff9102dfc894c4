package disk

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MaxDepth is the depth of nested folders that Usage measures.
const MaxDepth = 256

// ErrDepth is returned by Usage for folders that are nested deeper than MaxDepth.
var ErrDepth = errors.New("its folders are nested too deeply to be measured")

// usageBatch is the number of entries that are examined without a pause.
const usageBatch = 500

// Usage returns the space that the files below folders use, in bytes, and stops early once that is
// more than limit. Links are not followed, and other file systems, missing folders and folders that
// cannot be read are omitted. A file with several names counts once if all of them are below the
// folders, otherwise in proportion. The number of open files is bounded by MaxDepth.
//
// share is the part of a processor that it uses at most; 0 means all of one. ctx interrupts it.
func Usage(ctx context.Context, folders []string, limit int64, share float64) (int64, error) {
	u := usage{limit: limit, share: share, started: time.Now()}
	for _, path := range folders {
		fd, err := openFolder(unix.AT_FDCWD, path)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			continue
		}
		u.device = uint64(st.Dev)
		if err := u.folder(ctx, fd, path, 1); err != nil {
			return u.bytes, err
		}
		if u.bytes > limit {
			break
		}
	}
	return u.bytes, nil
}

type usage struct {
	limit   int64
	share   float64
	device  uint64
	bytes   int64
	count   int
	started time.Time // of the current batch
}

// openFolder opens a folder that is not a symbolic link.
func openFolder(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// folder adds the files of an open folder, and closes it.
func (u *usage) folder(ctx context.Context, fd int, name string, depth int) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if depth > MaxDepth {
		return ErrDepth
	}
	for {
		names, err := f.Readdirnames(usageBatch)
		for _, name := range names {
			if err := u.entry(ctx, fd, name, depth); err != nil || u.bytes > u.limit {
				return err
			}
		}
		if err != nil || len(names) == 0 {
			return nil // at its end, or it was removed meanwhile
		}
	}
}

// entry adds an entry of a folder.
func (u *usage) entry(ctx context.Context, at int, name string, depth int) error {
	if err := u.pause(ctx); err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || uint64(st.Dev) != u.device {
		return nil
	}
	isFolder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	size := int64(st.Blocks) * 512
	if !isFolder && st.Nlink > 1 {
		size /= int64(st.Nlink)
	}
	u.bytes += size
	if !isFolder {
		return nil
	}
	fd, err := openFolder(at, name)
	if err != nil {
		return nil
	}
	return u.folder(ctx, fd, name, depth+1)
}

// pause waits after each batch as long as the share requires.
func (u *usage) pause(ctx context.Context) error {
	if u.count++; u.count%usageBatch != 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if u.share > 0 && u.share < 1 {
		wait := time.NewTimer(time.Duration(float64(time.Since(u.started)) * (1 - u.share) / u.share))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	u.started = time.Now()
	return nil
}
