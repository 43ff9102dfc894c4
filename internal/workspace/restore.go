package workspace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

// trustedName is the file next to the checkout with the agent files of the default branch and
// git's settings of the checkout.
const trustedName = "trusted.json"

// Limits of the files from the default branch.
const (
	maxTrustedFiles = 2000
	maxTrustedBytes = 16 << 20
)

// trusted is the state to which a checkout of an untrusted repository is reset before each
// attempt.
type trusted struct {
	Commit string            `json:"commit"` // of the default branch; empty if there is none
	Files  []trustedFile     `json:"files"`
	Git    map[string][]byte `json:"git"` // original files in .git
}

type trustedFile struct {
	Path       string `json:"path"` // slash-separated
	Executable bool   `json:"executable,omitempty"`
	Content    []byte `json:"content"`
}

// protect records the agent files of the default branch, writes them to the new checkout in dir,
// and removes all others and every symbolic link that leads out of it. The checkout has not been
// used yet.
func (j *job) protect(ctx context.Context, dir string, c Checkout) error {
	t := trusted{Git: map[string][]byte{}}
	var err error
	if t.Commit, err = j.defaultCommit(ctx, c); err != nil {
		return err
	}
	if t.Commit != "" {
		if t.Files, err = j.agentFilesOf(ctx, t.Commit); err != nil {
			return err
		}
	}
	changed, err := t.restore(dir)
	if err != nil {
		return failed("the agent files of the checkout could not be replaced: "+plain(err), err)
	}
	if err := removeEscapes(dir); err != nil {
		return failed("the symbolic links of the checkout could not be checked: "+plain(err), err)
	}
	if err := j.hide(ctx, dir, changed); err != nil {
		return err
	}
	for _, name := range gitSettings {
		b, err := os.ReadFile(filepath.Join(dir, ".git", name))
		if err == nil {
			t.Git[name] = b
		} else if !errors.Is(err, fs.ErrNotExist) {
			return failed("the checkout's git settings could not be read: "+plain(err), err)
		}
	}
	text, err := json.Marshal(t)
	if err == nil {
		err = disk.ReplaceFile(filepath.Join(filepath.Dir(c.Dir), trustedName), text, 0o600)
	}
	if err != nil {
		return failed("the agent files of the default branch could not be stored: "+plain(err), err)
	}
	if len(changed) > 0 {
		j.r.Say("Agent files come from the default branch: " + names(changed) + ".")
	}
	return nil
}

// defaultCommit returns the commit of the default branch, or "" if there is none.
func (j *job) defaultCommit(ctx context.Context, c Checkout) (string, error) {
	if j.r.Workspace.Ref == "" {
		return c.Commit, nil
	}
	commit, err := j.fetchRef(ctx, "HEAD")
	var e *Error
	switch {
	case err == nil:
		return commit, nil
	case errors.Is(err, errNoRef):
		return "", nil
	case errors.As(err, &e) && e.Class == agented.ClassNetwork:
		if have, haveErr := j.commitOf(ctx, localRef("HEAD")); haveErr == nil {
			return have, nil
		}
	}
	return "", err
}

// agentFilesOf reads the agent files of a commit. A symbolic link is replaced by its target in
// the same commit.
func (j *job) agentFilesOf(ctx context.Context, commit string) ([]trustedFile, error) {
	out, err := j.git.run(ctx, call{dir: j.mirror(), args: []string{"ls-tree", "-r", "-z", "--full-tree", commit}, limit: quickTime, most: 256 << 20})
	if err != nil {
		return nil, err
	}
	type blob struct{ mode, id string }
	all := map[string]blob{}
	var wanted []string
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		meta, name, ok := strings.Cut(line, "\t")
		f := strings.Fields(meta)
		if !ok || len(f) != 3 || f[1] != "blob" {
			continue
		}
		all[name] = blob{f[0], f[2]}
		if protectedPath(name, f[0] == "120000") != "" && !neverRestored(name) && len(wanted) < maxTrustedFiles {
			wanted = append(wanted, name)
		}
	}
	read := func(id string) ([]byte, error) {
		out, err := j.git.run(ctx, call{dir: j.mirror(), args: []string{"cat-file", "blob", id}, limit: quickTime, most: maxTrustedBytes})
		return []byte(out), err
	}
	var files []trustedFile
	size := 0
	for _, name := range wanted {
		b := all[name]
		for at, hops := name, 0; b.mode == "120000"; hops++ {
			target, err := read(b.id)
			if err != nil {
				return nil, err
			}
			at = path.Join(path.Dir(at), string(target))
			if b = all[at]; hops == 10 || path.IsAbs(string(target)) {
				b = blob{}
			}
		}
		if b.id == "" {
			continue // its target is missing, a folder, or outside of the repository
		}
		content, err := read(b.id)
		if err != nil {
			return nil, err
		}
		if size += len(content); size > maxTrustedBytes {
			return nil, failed("the agent files of the default branch exceed "+strconv.Itoa(maxTrustedBytes>>20)+" MiB: set trust_repository to use those of the checkout", nil)
		}
		files = append(files, trustedFile{Path: name, Executable: b.mode == "100755", Content: content})
	}
	return files, nil
}

// hide keeps restored files out of the agent's commits: git treats tracked files as unchanged and
// ignores the others.
func (j *job) hide(ctx context.Context, dir string, changed []string) error {
	if len(changed) == 0 {
		return nil
	}
	out, err := j.git.run(ctx, call{dir: dir, args: []string{"ls-files", "-z"}, limit: quickTime, most: 256 << 20})
	if err != nil {
		return err
	}
	var tracked, others strings.Builder
	known := map[string]bool{}
	for name := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		known[name] = true
		if slices.ContainsFunc(changed, func(c string) bool { return name == c || strings.HasPrefix(name, c+"/") }) {
			tracked.WriteString(name + "\x00")
		}
	}
	for _, name := range changed {
		if !known[name] {
			others.WriteString("/" + strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "\n", "?").Replace(name) + "\n")
		}
	}
	if tracked.Len() > 0 {
		if err := j.git.feed(ctx, dir, tracked.String(), "update-index", "--skip-worktree", "-z", "--stdin"); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".git", "info", "exclude"), []byte(others.String()), 0o600); err != nil {
		return failed("the checkout's list of ignored files could not be written: "+plain(err), err)
	}
	return nil
}

// gitSettings are the files in .git that can make git run commands. commondir would make git read
// its settings from another folder.
var gitSettings = []string{"config", "config.worktree", "info/attributes", "commondir"}

// Restore resets the agent files of the execution's checkout to those of the default branch
// before an attempt, and returns the changed ones. With settings it also resets git's settings
// and hooks in the checkout, which an agent without a shell has no reason to change. A trusted
// checkout is not changed.
func (m *Manager) Restore(id agented.ExecutionID, settings bool) ([]string, error) {
	c, ok := m.Existing(id)
	if !ok {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(m.o.Layout.Execution(id), trustedName))
	if errors.Is(err, fs.ErrNotExist) {
		// The checkout was created while the repository was trusted: no content is known to be
		// safe, so none is kept.
		text, err = []byte(`{}`), nil
		settings = false
	}
	var t trusted
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	var changed []string
	if err == nil {
		changed, err = t.restore(c.Dir)
	}
	if err == nil && settings {
		err = t.restoreGit(c.Dir)
	}
	if err != nil {
		return nil, failed("the agent files of the workspace could not be reset to those of the default branch: "+plain(err)+"; set trust_repository to use them unchanged", err)
	}
	return changed, nil
}

// restore makes the agent files below dir those of t.
func (t *trusted) restore(dir string) ([]string, error) {
	want := map[string]*trustedFile{}
	for i := range t.Files {
		want[t.Files[i].Path] = &t.Files[i]
	}
	var changed []string
	good := map[string]bool{}
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if file == dir {
			return err
		}
		rel, relErr := filepath.Rel(dir, file)
		if relErr != nil {
			return relErr
		}
		name := filepath.ToSlash(rel)
		if name == ".git" {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if protectedPath(name, e.Type()&fs.ModeSymlink != 0) == "" {
			if err != nil && e.IsDir() {
				return fs.SkipDir // the CLI cannot read it either
			}
			return err
		}
		if f := want[name]; f != nil && e.Type().IsRegular() {
			if have, readErr := os.ReadFile(file); readErr == nil && bytes.Equal(have, f.Content) {
				good[name] = true
				return nil
			}
		}
		if e.IsDir() && err == nil && keeps(want, name) {
			return nil // check its content
		}
		changed = append(changed, name)
		if err := removePath(file); err != nil {
			return err
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, f := range t.Files {
		if good[f.Path] || !t.place(root, f.Path) {
			continue
		}
		if err := root.MkdirAll(path.Dir(f.Path), 0o700); err != nil {
			return nil, err
		}
		mode := fs.FileMode(0o600)
		if f.Executable {
			mode = 0o700
		}
		w, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return nil, err
		}
		_, err = w.Write(f.Content)
		if err = errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
		if !slices.Contains(changed, f.Path) {
			changed = append(changed, f.Path)
		}
	}
	return changed, nil
}

// keeps reports whether the default branch has a file below a folder.
func keeps(want map[string]*trustedFile, folder string) bool {
	for name := range want {
		if strings.HasPrefix(name, folder+"/") {
			return true
		}
	}
	return false
}

// place reports whether a file of the default branch can be placed in the checkout: the folder of
// the agent file exists, and no part of its path is a symbolic link.
func (t *trusted) place(root *os.Root, name string) bool {
	top := protectedPath(name, false)
	if top == "" {
		top = name
	}
	for at := path.Dir(top); at != "."; at = path.Dir(at) {
		info, err := root.Lstat(at)
		if err != nil || !info.IsDir() {
			// .github and similar folders may be missing in the checkout.
			if _, shared := sharedFolders[path.Base(at)]; !shared || err == nil {
				return false
			}
		}
	}
	return true
}

// restoreGit resets everything that can make git run commands in the checkout.
func (t *trusted) restoreGit(dir string) error {
	own := filepath.Join(dir, ".git")
	for _, d := range []string{own, filepath.Join(own, "info")} {
		if info, err := os.Lstat(d); err != nil || !info.IsDir() {
			return fmt.Errorf("%s is no longer a folder", filepath.Base(d))
		}
	}
	if err := removePath(filepath.Join(own, "hooks")); err != nil {
		return err
	}
	for _, name := range gitSettings {
		file := filepath.Join(own, name)
		content, kept := t.Git[name]
		info, err := os.Lstat(file)
		if err == nil && (!kept || !info.Mode().IsRegular()) {
			err = removePath(file)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if kept {
			if err := disk.ReplaceFile(file, content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// removePath removes a file or folder, even if a folder in it is not writable. It follows no
// symbolic link.
func removePath(file string) error {
	err := os.RemoveAll(file)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(file, func(p string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(file)
}

// removeEscapes removes the symbolic links of a new checkout that lead out of it, so that a read
// in the checkout stays in the repository.
func removeEscapes(dir string) error {
	home, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for again := true; again; {
		again = false
		err := filepath.WalkDir(home, func(file string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if file == filepath.Join(home, ".git") {
				return fs.SkipDir
			}
			if e.Type()&fs.ModeSymlink == 0 {
				return nil
			}
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			end, err := filepath.EvalSymlinks(file)
			if err != nil { // its target does not exist
				end = filepath.Join(filepath.Dir(file), target)
				if strings.Contains(strings.TrimLeft(filepath.ToSlash(target), "./"), "..") {
					end = "/"
				}
			}
			if !filepath.IsAbs(target) && (end == home || strings.HasPrefix(end, home+string(filepath.Separator))) {
				return nil
			}
			again = true
			return os.Remove(file)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// names formats a few paths for display.
func names(list []string) string {
	const most = 8
	shown := make([]string, 0, most)
	for _, s := range list[:min(len(list), most)] {
		shown = append(shown, oneLine(s))
	}
	text := strings.Join(shown, ", ")
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}

// Names formats a few paths for display.
func Names(list []string) string { return names(list) }
