package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// checkOut makes the checkout in a folder beside its place and moves it there
// when it is complete.
func (j *job) checkOut(ctx context.Context, c Checkout) error {
	home := filepath.Dir(c.Dir)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return failed("the execution's folder could not be made: "+plain(err), err)
	}
	old, _ := filepath.Glob(filepath.Join(home, "work-new-*")) // the pattern is good
	for _, path := range old {
		_ = os.RemoveAll(path)
	}
	fresh, err := os.MkdirTemp(home, "work-new-")
	if err != nil {
		return failed("the workspace could not be made: "+plain(err), err)
	}
	defer os.RemoveAll(fresh)
	if err := j.fill(ctx, fresh, c); err != nil {
		return err
	}
	mark, err := json.Marshal(c)
	if err == nil {
		err = replaceFile(filepath.Join(home, marker), mark)
	}
	if err == nil {
		err = os.RemoveAll(c.Dir) // a folder that nobody has used: see marker
	}
	if err == nil {
		err = os.Rename(fresh, c.Dir)
	}
	if err != nil {
		return failed("the workspace could not be moved to its place: "+plain(err), err)
	}
	return nil
}

// fill makes a repository in dir that borrows from the mirror and checks the
// commit out.
func (j *job) fill(ctx context.Context, dir string, c Checkout) error {
	if err := j.git.local(ctx, dir, "init", "--quiet", "--template=", "--", "."); err != nil {
		return err
	}
	own := filepath.Join(dir, ".git")
	err := os.MkdirAll(filepath.Join(own, "objects", "info"), 0o700)
	if err == nil {
		err = os.MkdirAll(filepath.Join(own, "info"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(own, "objects", "info", "alternates"), []byte(filepath.Join(j.mirror(), "objects")+"\n"), 0o600)
	}
	if err == nil {
		err = copyIfThere(filepath.Join(j.mirror(), "shallow"), filepath.Join(own, "shallow"))
	}
	if err != nil {
		return failed("the workspace could not be made: "+plain(err), err)
	}
	settings := [][2]string{
		{"remote.origin.url", j.repo.Address},
		{"remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"},
		{"gc.auto", "0"}, // the mirror keeps what it borrows
	}
	if name := j.r.Workspace.Credential; name != "" {
		// The agent has the token under this name; its git finds it there.
		settings = append(settings, [2]string{"credential." + j.origin() + ".helper", helper(j.user(), "$"+name)})
	}
	for _, s := range settings {
		if err := j.git.local(ctx, dir, "config", "--local", "--add", s[0], s[1]); err != nil {
			return err
		}
	}
	if paths := j.r.Workspace.Paths; len(paths) > 0 {
		if err := j.git.feed(ctx, dir, strings.Join(paths, "\n")+"\n", "sparse-checkout", "set", "--cone", "--stdin"); err != nil {
			return err
		}
	}
	if ref := j.r.Workspace.Ref; ref != "" && !commitName(ref) && !strings.HasPrefix(ref, "refs/") {
		if err := j.git.local(ctx, dir, "update-ref", "--end-of-options", "refs/remotes/origin/"+ref, c.Commit); err != nil {
			// A name that git does not like there after all is not worth failing for.
			j.m.o.Log.Debug("note the branch", "err", err)
		}
	}
	return j.git.local(ctx, dir, "checkout", "--quiet", "--force", "--detach", c.Commit, "--")
}

// origin is the scheme and host that a credential is for.
func (j *job) origin() string { return j.repo.Protocol + "://" + j.repo.Host }

// user is the name that goes with a token.
func (j *job) user() string {
	if j.repo.User != "" {
		return j.repo.User
	}
	return "x-access-token"
}

// helper is a credential helper that answers with a variable of its
// environment. Both of its arguments are plain names.
func helper(user, variable string) string {
	return fmt.Sprintf(`!f() { test "$1" = get && printf 'username=%%s\npassword=%%s\n' "%s" "%s"; }; f`, user, variable)
}

func copyIfThere(from, to string) error {
	b, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
