package changes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/remove"
)

// start is the state of a working tree before an attempt.
type start struct {
	Root   string          `json:"root"`   // of the working tree
	Git    string          `json:"git"`    // the repository's git directory
	Common string          `json:"common"` // the one that it shares with other working trees
	SHA256 bool            `json:"sha256,omitempty"`
	Head   string          `json:"head"`
	Tree   string          `json:"tree"`
	Sparse bool            `json:"sparse,omitempty"` // some tracked files are not in the working tree
	Heavy  map[string]stat `json:"heavy,omitempty"`  // files that are compared by size and time
	Reason string          `json:"reason,omitempty"` // why there is no tree
}

// stat identifies the content of a file without reading it.
type stat struct {
	Size  int64  `json:"size"`
	Nanos int64  `json:"mtime"`
	Inode uint64 `json:"inode"`
}

const startName = "start.json"

// Take stores the state of the working tree that contains dir. It returns false if dir is in no git
// repository. An error is also stored, and becomes the reason in the record. If keep is set and an
// earlier state exists, that one is kept.
func Take(ctx context.Context, f Folders, dir string, g Git, l Limits, keep bool) (bool, error) {
	l = l.Defaults()
	if keep {
		if s, err := readStart(f); err == nil && s.Reason == "" {
			return true, nil
		}
	}
	if err := remove.All(f.start()); err != nil {
		return false, err
	}
	s, ok := findRepository(dir)
	if !ok {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.Time)
	defer cancel()
	r := &repo{git: g, dir: f.start(), state: s}
	err := r.begin(ctx, l)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the state before the attempt was not recorded within %s", l.Time)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return true, err
	}
	if err != nil {
		s.Reason = sentence(err)
	}
	b, encodeErr := json.Marshal(s)
	if encodeErr != nil {
		return true, encodeErr
	}
	if writeErr := os.MkdirAll(r.dir, 0o700); writeErr != nil {
		return true, writeErr
	}
	return true, errors.Join(err, disk.ReplaceFile(filepath.Join(r.dir, startName), b, 0o600))
}

func readStart(f Folders) (*start, error) {
	b, err := os.ReadFile(filepath.Join(f.start(), startName))
	if err != nil {
		return nil, err
	}
	s := &start{}
	return s, json.Unmarshal(b, s)
}

// RemoveStart removes the private git directory, and what the attempts left in their folders.
func RemoveStart(f Folders) error {
	return errors.Join(remove.All(f.start()), remove.All(f.Outs()))
}

// findRepository searches dir and its parents for a repository with a working tree. It runs nothing.
func findRepository(dir string) (*start, bool) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, false
	}
	for {
		if s, ok := repositoryAt(dir); ok {
			return s, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, false
		}
		dir = parent
	}
}

func repositoryAt(root string) (*start, bool) {
	git := filepath.Join(root, ".git")
	info, err := os.Stat(git)
	if err != nil {
		return nil, false
	}
	if !info.IsDir() {
		text, err := readSmall(git)
		to, ok := strings.CutPrefix(strings.TrimSpace(text), "gitdir: ")
		if err != nil || !ok {
			return nil, false
		}
		git = absolute(root, to)
	}
	if _, err := os.Lstat(filepath.Join(git, "HEAD")); err != nil {
		return nil, false
	}
	s := &start{Root: root, Git: git, Common: git}
	if text, err := readSmall(filepath.Join(git, "commondir")); err == nil {
		s.Common = absolute(git, strings.TrimSpace(text))
	}
	return s, true
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// readSmall reads a regular file of at most 64 KiB.
func readSmall(path string) (string, error) {
	f, err := openRegular(path, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(b), err
}

// openRegular opens a regular file for reading. It does not wait for a named pipe.
func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// begin stores the state in the private git directory.
func (r *repo) begin(ctx context.Context, l Limits) error {
	head, err := r.head(ctx)
	if err != nil {
		return err
	}
	s := r.state
	s.Head, s.SHA256 = head, len(head) == 64
	if err := r.configure(); err != nil {
		return err
	}
	for from, to := range map[string]string{filepath.Join(s.Common, "shallow"): "shallow", filepath.Join(s.Common, "info", "exclude"): "info/exclude"} {
		if text, err := readSmall(from); err == nil {
			if err := os.WriteFile(filepath.Join(r.dir, to), []byte(text), 0o600); err != nil {
				return err
			}
		}
	}
	if err := r.copyIndex(ctx); err != nil {
		return err
	}
	if s.Tree, s.Heavy, err = r.snapshot(ctx, l, nil); err != nil {
		return err
	}
	return nil
}

// head returns the commit that is checked out; empty if there is none yet.
func (r *repo) head(ctx context.Context) (string, error) {
	c := call{args: []string{"--git-dir=" + r.state.Git, "rev-parse", "--verify", "--quiet", "HEAD"}}
	cmd := r.git.command(ctx, os.DevNull, c.args)
	cmd.Dir = "/"
	out, err := runGit(ctx, cmd, c)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	id := strings.TrimSpace(string(out))
	if err == nil && objectName(id) {
		return id, nil
	}
	if text, readErr := readSmall(filepath.Join(r.state.Git, "HEAD")); readErr == nil && strings.HasPrefix(text, "ref: ") {
		return "", nil // a branch without commits
	}
	return "", errors.New("the commit that is checked out could not be read")
}

// copyIndex copies the repository's index, in which git keeps the times of unchanged files, so that
// only changed files are read. If that index cannot be used, one is created from the commit.
func (r *repo) copyIndex(ctx context.Context) error {
	index := filepath.Join(r.dir, "index")
	usable := r.copyFile(filepath.Join(r.state.Git, "index"), index) == nil
	var flagged []byte
	if usable {
		var err error
		if flagged, err = r.run(ctx, call{tree: true, args: []string{"ls-files", "-v", "-z"}, most: 128 << 20}); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			usable = false
		}
	}
	if !usable {
		if err := os.Remove(index); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if r.state.Head == "" {
			return nil
		}
		_, err := r.run(ctx, call{args: []string{"read-tree", r.state.Head}})
		return err
	}
	return r.clearFlags(ctx, flagged)
}

// clearFlags removes the flags of an index that hide changes of files. list is the output of
// ls-files -v. Files that a sparse checkout left out keep their flag.
func (r *repo) clearFlags(ctx context.Context, list []byte) error {
	var assumed, present bytes.Buffer
	for entry := range bytes.SplitSeq(list, []byte{0}) {
		if len(entry) < 3 {
			continue
		}
		tag, path := entry[0], entry[2:]
		if tag >= 'a' && tag <= 'z' {
			assumed.Write(append(slices.Clone(path), 0))
			tag -= 'a' - 'A'
		}
		if tag != 'S' {
			continue
		}
		if _, err := os.Lstat(filepath.Join(r.state.Root, string(path))); err == nil {
			present.Write(append(slices.Clone(path), 0))
		} else {
			r.state.Sparse = true
		}
	}
	for flag, paths := range map[string]*bytes.Buffer{"--no-assume-unchanged": &assumed, "--no-skip-worktree": &present} {
		if paths.Len() == 0 {
			continue
		}
		if _, err := r.run(ctx, call{tree: true, args: []string{"update-index", flag, "-z", "--stdin"}, in: paths}); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a regular file with its time of modification.
func (r *repo) copyFile(from, to string) error {
	in, err := openRegular(from, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxIndex {
		return fmt.Errorf("it has more than %d MiB", maxIndex>>20)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, io.LimitReader(in, maxIndex)); err != nil {
		_ = os.Remove(to)
		return err
	}
	// Git compares file times with the time of the index.
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}

// snapshot writes the working tree to the private objects and returns its tree, and the files that
// were not read because of their size. add receives notes about files that are left out.
func (r *repo) snapshot(ctx context.Context, l Limits, note func(string)) (tree string, heavy map[string]stat, err error) {
	if note == nil {
		note = func(string) {}
	}
	p, err := r.changedPaths(ctx, l)
	if err != nil {
		return "", nil, err
	}
	for text, n := range map[string]int{"cannot be read": p.unreadable, "are repositories of their own": p.nested, "are neither files nor symbolic links": p.special} {
		if n > 0 {
			note(fmt.Sprintf("Left out: %d paths that %s.", n, text))
		}
	}
	if p.gone.Len() > 0 {
		if _, err := r.run(ctx, call{tree: true, args: []string{"update-index", "--force-remove", "-z", "--stdin"}, in: &p.gone}); err != nil {
			return "", nil, err
		}
	}
	if p.update.Len() > 0 {
		// Beyond the threshold git writes into one pack instead of a file for each object.
		args := []string{"-c", "core.bigFileThreshold=1", "update-index", "--add", "--remove", "--replace", "-z", "--stdin"}
		if _, err := r.run(ctx, call{tree: true, args: args, in: &p.update}); err != nil {
			return "", nil, err
		}
	}
	out, err := r.run(ctx, call{args: []string{"write-tree", "--missing-ok"}})
	if err != nil {
		return "", nil, err
	}
	if tree = strings.TrimSpace(string(out)); !objectName(tree) {
		return "", nil, errors.New("git write-tree printed no tree")
	}
	return tree, p.heavy, nil
}

// maxPathBytes bounds a list of paths that git prints. An agent chooses number and length of the
// paths, and a list is held in memory.
const maxPathBytes = 32 << 20

// maxIndex bounds the repository's index, which an agent can write.
const maxIndex = 512 << 20

// paths are the changed and untracked paths of a working tree.
type paths struct {
	update, gone                bytes.Buffer // separated by NUL
	heavy                       map[string]stat
	unreadable, nested, special int
}

// changedPaths lists the paths whose content differs from the private index.
func (r *repo) changedPaths(ctx context.Context, l Limits) (*paths, error) {
	out, err := r.run(ctx, call{
		tree: true, most: maxPathBytes,
		args: []string{"ls-files", "-z", "-t", "--modified", "--deleted", "--others", "--exclude-standard"},
	})
	if err != nil {
		return nil, err
	}
	p := &paths{heavy: map[string]stat{}}
	last, count, total := "", 0, int64(0)
	links := linkedFolders{root: r.state.Root}
	for entry := range bytes.SplitSeq(out, []byte{0}) {
		if len(entry) < 3 {
			continue
		}
		path := string(entry[2:])
		if path == last {
			continue // deleted paths are also listed as modified
		}
		if last = path; count >= l.Paths {
			return nil, fmt.Errorf("more than %d paths have changed or are not tracked", l.Paths)
		}
		count++
		if strings.HasSuffix(path, "/") {
			p.nested++
			continue
		}
		if links.contain(filepath.Dir(path)) {
			p.gone.WriteString(path + "\x00") // git refuses paths beyond a symbolic link
			continue
		}
		info, err := os.Lstat(filepath.Join(r.state.Root, path))
		switch {
		case err == nil && info.IsDir() && isRepository(filepath.Join(r.state.Root, path)):
			p.update.WriteString(path + "\x00") // a submodule: git reads its commit, and runs nothing in it
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), err == nil && info.IsDir():
			p.gone.WriteString(path + "\x00")
		case err != nil:
			p.unreadable++
		case info.Mode()&fs.ModeSymlink != 0:
			p.update.WriteString(path + "\x00")
		case !info.Mode().IsRegular():
			p.special++
			p.gone.WriteString(path + "\x00")
		case info.Size() > l.FileBytes || total+info.Size() > l.TotalBytes:
			p.heavy[path] = statOf(info)
		case unix.Access(filepath.Join(r.state.Root, path), unix.R_OK) != nil:
			p.unreadable++
		default:
			total += info.Size()
			p.update.WriteString(path + "\x00")
		}
	}
	return p, nil
}

// linkedFolders finds folders of a working tree that are symbolic links, or are below one.
type linkedFolders struct {
	root  string
	known map[string]bool
}

func (l *linkedFolders) contain(dir string) bool {
	if dir == "." {
		return false
	}
	if linked, ok := l.known[dir]; ok {
		return linked
	}
	linked := l.contain(filepath.Dir(dir))
	if !linked {
		info, err := os.Lstat(filepath.Join(l.root, dir))
		linked = err == nil && info.Mode()&fs.ModeSymlink != 0
	}
	if l.known == nil {
		l.known = map[string]bool{}
	}
	l.known[dir] = linked
	return linked
}

func isRepository(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, ".git"))
	return err == nil
}

func statOf(info fs.FileInfo) stat {
	s := stat{Size: info.Size(), Nanos: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Inode = sys.Ino
	}
	return s
}

// sentence converts an error to a sentence for users.
func sentence(err error) string {
	text := strings.TrimSuffix(printable(err.Error()), ".")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
