package workspace

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/agented/agented"
)

// Maximum sizes of the recorded changes of a checkout.
const (
	maxDiff      = 128 << 10
	maxDiffFiles = 3000
)

// compare fetches the base and records the changes of the commit since it branched off. A base
// that the repository does not have is skipped.
func (j *job) compare(ctx context.Context, c *Checkout) error {
	name := j.r.Workspace.Base
	if name == "" {
		return nil
	}
	var err error
	if commitName(name) {
		j.base, err = j.fetchCommit(ctx, name)
	} else {
		j.base, err = j.fetchRef(ctx, "refs/heads/"+strings.TrimPrefix(name, "refs/heads/"))
	}
	var e *Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &e) && e.Class != agented.ClassNetwork:
		j.r.Say("The base " + oneLine(name) + " could not be fetched, so there is nothing to compare with.")
		return nil
	case err != nil:
		return err
	}
	c.Compared, err = j.mergeBase(ctx, c.Commit)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.r.Say("The commit and its base " + oneLine(name) + " have no common history, so there is nothing to compare.")
		return nil
	}
	diff, err := j.git.run(ctx, call{
		dir: j.mirror(), limit: quickTime, most: maxDiff + 1<<20,
		args: []string{"diff", "--no-color", "--no-ext-diff", "--no-textconv", "--end-of-options", c.Compared, c.Commit},
	})
	if err != nil {
		return err
	}
	c.DiffCut = len(diff) > maxDiff
	c.Diff = strings.ToValidUTF8(diff[:min(len(diff), maxDiff)], "\uFFFD")
	files, err := j.git.run(ctx, call{
		dir: j.mirror(), limit: quickTime,
		args: []string{"diff", "--name-only", "-z", "--no-ext-diff", "--end-of-options", c.Compared, c.Commit},
	})
	if err != nil {
		return err
	}
	c.Files = slices.DeleteFunc(strings.Split(files, "\x00"), func(s string) bool { return s == "" })
	c.Files = c.Files[:min(len(c.Files), maxDiffFiles)]
	return nil
}

// mergeBase returns the commit at which a commit branched off its base. If a limited depth hides
// it, the history is fetched.
func (j *job) mergeBase(ctx context.Context, commit string) (string, error) {
	find := func() (string, error) {
		out, err := j.git.output(ctx, j.mirror(), "merge-base", "--end-of-options", j.base, commit)
		return strings.TrimSpace(out), err
	}
	found, err := find()
	if err == nil || j.r.Workspace.Depth == 0 || ctx.Err() != nil {
		return found, err
	}
	args := []string{"fetch", "--no-tags", "--no-write-fetch-head", "--progress", "--unshallow", "--", j.repo.Address, "+" + j.base + ":refs/agented/" + j.base, "+" + commit + ":refs/agented/" + commit}
	if _, err := j.git.run(ctx, call{dir: j.mirror(), args: args, limit: j.m.o.Timeout, network: true}); err != nil {
		return "", err
	}
	return find()
}
