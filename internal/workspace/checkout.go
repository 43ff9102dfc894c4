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

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

// checkOut creates the checkout in a temporary folder next to its final path and renames it when
// it is complete.
func (j *job) checkOut(ctx context.Context, c Checkout) error {
	home := filepath.Dir(c.Dir)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return failed("the execution's folder could not be created: "+plain(err), err)
	}
	old, _ := filepath.Glob(filepath.Join(home, "work-new-*")) // the pattern is valid
	for _, path := range old {
		_ = os.RemoveAll(path)
	}
	fresh, err := os.MkdirTemp(home, "work-new-")
	if err != nil {
		return failed("the workspace could not be created: "+plain(err), err)
	}
	defer os.RemoveAll(fresh)
	if err := j.fill(ctx, fresh, c); err != nil {
		return err
	}
	if !j.r.Trusted {
		if err := j.protect(ctx, fresh, c); err != nil {
			return err
		}
	}
	mark, err := json.Marshal(c)
	if err == nil {
		err = disk.ReplaceFile(filepath.Join(home, marker), mark, 0o600)
	}
	if err == nil {
		err = os.RemoveAll(c.Dir) // a folder that was never used: see marker
	}
	if err == nil {
		err = os.Rename(fresh, c.Dir)
	}
	if err != nil {
		return failed("the workspace could not be moved to its place: "+plain(err), err)
	}
	return nil
}

// fill creates a repository in dir that borrows objects from the mirror, and checks out the
// commit.
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
		return failed("the workspace could not be created: "+plain(err), err)
	}
	settings := [][2]string{
		{"remote.origin.url", j.repo.Address},
		{"remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"},
		{"gc.auto", "0"}, // the mirror keeps the borrowed objects
	}
	name := string(j.r.Workspace.Credential)
	if _, secret := agented.RefersTo(name); name != "" && !secret {
		// The agent's environment contains the token under this name, where its git finds it.
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
			// A name that git rejects is no reason to fail.
			j.m.o.Log.Debug("record the branch", "err", err)
		}
	}
	if base := j.r.Workspace.Base; j.base != "" && !commitName(base) {
		if err := j.git.local(ctx, dir, "update-ref", "--end-of-options", "refs/remotes/origin/"+strings.TrimPrefix(base, "refs/heads/"), j.base); err != nil {
			j.m.o.Log.Debug("record the base branch", "err", err)
		}
	}
	return j.git.local(ctx, dir, "checkout", "--quiet", "--force", "--detach", c.Commit, "--")
}

// origin returns the scheme and host of a credential.
func (j *job) origin() string { return j.repo.Protocol + "://" + j.repo.Host }

// user returns the user name for a token.
func (j *job) user() string {
	if j.repo.User != "" {
		return j.repo.User
	}
	return "x-access-token"
}

// helper returns a credential helper that answers with a variable of its environment. Both
// arguments are plain names.
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
