package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Source is where the commit that an attempt began with is read from.
type Source struct {
	Objects string // folder of objects of a repository that has it; empty: it is fetched
	Shallow string // that repository's file of shallow commits, which may be missing
	URL     string // where it is fetched from, an http address
}

// NewCommit describes a commit to build.
type NewCommit struct {
	Git     Git
	Dir     string // an empty folder, which becomes a repository
	From    Source
	Parent  string
	Patch   io.Reader
	Message string
	Author  string // name
	Address string
	At      int64 // seconds since 1970
}

// Built is a commit in the repository of NewCommit.Dir.
type Built struct {
	ID      string
	Parent  string
	Tree    string
	Entries []Entry // what it changes
	repo    *repo
}

// PatchError is the error of a patch that cannot be applied to its commit. It occurs again.
type PatchError struct{ cause error }

func (e *PatchError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *PatchError) Unwrap() error { return e.cause }

// localFaults are parts of git's messages about faults of the machine.
var localFaults = []string{
	"No space left on device", "Disk quota exceeded", "File too large", "Input/output error", "Read-only file system", "Permission denied",
	"Cannot allocate memory", "Out of memory", "out of memory", "Too many open files", "Resource temporarily unavailable", "No such file or directory",
	"unable to write", "unable to create", "cannot create", "Unable to create",
}

// rejects reports whether git apply failed because of the patch, and not because of the machine.
func rejects(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.Exited() && !slices.ContainsFunc(localFaults, func(s string) bool { return strings.Contains(err.Error(), s) })
}

// Build applies a patch to a commit and returns the new commit. The same input gives the same
// commit. Nothing of the repository's content is run, and no working tree exists.
func Build(ctx context.Context, c NewCommit) (*Built, error) {
	if !objectName(c.Parent) {
		return nil, errors.New("the commit that the changes are based on is unknown")
	}
	r := &repo{git: c.Git, dir: c.Dir, state: &start{Common: c.Dir, SHA256: len(c.Parent) == 64}}
	if err := r.configure(); err != nil {
		return nil, err
	}
	if err := r.borrow(ctx, c); err != nil {
		return nil, err
	}
	if _, err := r.run(ctx, call{args: []string{"read-tree", c.Parent}}); err != nil {
		return nil, err
	}
	if _, err := r.run(ctx, call{args: []string{"apply", "--cached", "--whitespace=nowarn", "-p1", "-"}, in: c.Patch}); err != nil {
		if ctx.Err() == nil && rejects(err) {
			return nil, &PatchError{err}
		}
		return nil, err
	}
	out, err := r.run(ctx, call{args: []string{"write-tree"}})
	if err != nil {
		return nil, err
	}
	b := &Built{Parent: c.Parent, Tree: strings.TrimSpace(string(out)), repo: r}
	if b.Entries, err = r.entries(ctx, c.Parent+"^{tree}", b.Tree); err != nil {
		return nil, err
	}
	if err := r.measure(ctx, b.Entries); err != nil {
		return nil, err
	}
	b.ID, err = r.commitTree(ctx, c, b.Tree)
	return b, err
}

// borrow makes the parent available.
func (r *repo) borrow(ctx context.Context, c NewCommit) error {
	alternates := filepath.Join(r.dir, "objects", "info", "alternates")
	if c.From.Objects != "" {
		if err := os.WriteFile(alternates, []byte(quotePath(c.From.Objects)+"\n"), 0o600); err != nil {
			return err
		}
		if text, err := readSmall(c.From.Shallow); err == nil {
			if err := os.WriteFile(filepath.Join(r.dir, "shallow"), []byte(text), 0o600); err != nil {
				return err
			}
		}
		if _, err := r.run(ctx, call{args: []string{"cat-file", "-e", c.Parent + "^{tree}"}}); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := os.Remove(alternates); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "shallow")); err != nil {
		return err
	}
	if c.From.URL == "" {
		return errors.New("the mirror of the repository does not have the commit any more")
	}
	_, err := r.run(ctx, call{http: true, args: []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--", c.From.URL, "+" + c.Parent + ":refs/heads/parent"}})
	return err
}

// measure sets the sizes of the new versions, and the targets of symbolic links.
func (r *repo) measure(ctx context.Context, list []Entry) error {
	place := map[string][]int{}
	var links []Entry
	var in bytes.Buffer
	for i, e := range list {
		if e.Mode == gone || e.Mode == submodule {
			continue
		}
		if len(place[e.ID]) == 0 {
			in.WriteString(e.ID + "\n")
		}
		place[e.ID] = append(place[e.ID], i)
	}
	if in.Len() == 0 {
		return nil
	}
	out, err := r.run(ctx, call{args: []string{"cat-file", "--batch-check=%(objectname) %(objectsize)"}, in: &in})
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		id, size, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return errors.New("git cat-file printed an unknown format")
		}
		for _, i := range place[id] {
			list[i].Size = n
			if list[i].Mode == symlink {
				if n > 4096 {
					list[i].Link = "/" // no system has such a path
					continue
				}
				links = append(links, list[i])
			}
		}
	}
	return r.blobs(ctx, links, func(link Entry, target []byte) error {
		for _, i := range place[link.ID] {
			list[i].Link = string(target)
		}
		return nil
	})
}

// commitTree writes the commit.
func (r *repo) commitTree(ctx context.Context, c NewCommit, tree string) (string, error) {
	date := fmt.Sprintf("%d +0000", c.At)
	out, err := r.run(ctx, call{
		args: []string{"-c", "i18n.commitEncoding=utf-8", "commit-tree", "--no-gpg-sign", "-p", c.Parent, tree}, in: strings.NewReader(c.Message),
		env: []string{
			"GIT_AUTHOR_NAME=" + c.Author, "GIT_AUTHOR_EMAIL=" + c.Address, "GIT_AUTHOR_DATE=" + date,
			"GIT_COMMITTER_NAME=" + c.Author, "GIT_COMMITTER_EMAIL=" + c.Address, "GIT_COMMITTER_DATE=" + date,
		},
	})
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(out))
	if !objectName(id) {
		return "", errors.New("git commit-tree printed no commit")
	}
	return id, nil
}

// Push pushes the commit to a branch of a repository at an http address. The branch must not exist.
func (b *Built) Push(ctx context.Context, address, branch string) error {
	ref := "refs/heads/" + branch
	_, err := b.repo.run(ctx, call{http: true, args: []string{"push", "--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", "--signed=no", "--force-with-lease=" + ref + ":", "--", address, b.ID + ":" + ref}})
	return err
}
