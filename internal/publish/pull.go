package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/proposal"
	"github.com/agented/agented/internal/webhook"
	"github.com/agented/agented/internal/workspace"
)

// pullRequest pushes the changes to a new branch and opens a pull request.
func (j *job) pullRequest(ctx context.Context) error {
	remote, err := j.forge.Repository(ctx, j.v.Repository)
	if err != nil {
		return err
	}
	// A pull request that exists is complete but for its labels, whatever has happened since.
	w, ok, err := j.forge.PullOf(ctx, j.v.Repository, j.v.Branch)
	if err != nil {
		return err
	}
	if !ok {
		if w, err = j.openPull(ctx, remote); err != nil {
			return err
		}
	}
	j.written(w)
	if labels := j.policy.PullRequest.Labels; len(labels) > 0 && !w.Closed {
		return j.forge.AddLabels(ctx, j.v.Repository, int(w.ID), labels)
	}
	return nil
}

func (j *job) openPull(ctx context.Context, remote Remote) (Written, error) {
	if err := j.guard(ctx); err != nil {
		return Written{}, err
	}
	proxy, err := newProxy(remote)
	if err != nil {
		return Written{}, &passing{text: "the push could not be prepared", cause: err}
	}
	defer proxy.Close()
	dir, clean, err := j.temp()
	if err != nil {
		return Written{}, &passing{text: "the folder for the commit could not be created", cause: err}
	}
	defer clean()
	built, err := j.build(ctx, dir, proxy)
	if err != nil {
		return Written{}, err
	}
	j.v.Commit = built.ID
	if err := j.checkParent(ctx, built.Parent, j.base(remote)); err != nil {
		return Written{}, err
	}
	if err := j.check(built.Entries); err != nil {
		return Written{}, err
	}
	if err := j.gate(ctx); err != nil {
		return Written{}, err
	}
	if err := j.push(ctx, built, proxy); err != nil {
		return Written{}, err
	}
	w, err := j.forge.CreatePull(ctx, j.v.Repository, NewPull{
		Title: j.proposal.Title, Body: j.body(), Branch: j.v.Branch, Base: j.base(remote), Draft: j.policy.PullRequest.Draft,
	})
	if errors.Is(err, agented.Invalid) {
		// It may exist already: another try's answer was lost.
		if found, ok, findErr := j.forge.PullOf(ctx, j.v.Repository, j.v.Branch); findErr == nil && ok {
			return found, nil
		}
	}
	return w, err
}

// checkParent returns an error unless the commit that the changes are based on is part of the branch
// to merge into. That of a fork is not: the new branch would bring its commits, and their workflows,
// into the repository.
func (j *job) checkParent(ctx context.Context, parent, base string) error {
	ok, err := j.forge.Contains(ctx, j.v.Repository, base, parent)
	if err != nil {
		return err
	}
	if !ok {
		return &refused{"base", fmt.Sprintf("The commit %.12s that the execution worked on is not part of the branch %s.", parent, base)}
	}
	return nil
}

// base returns the branch to merge into.
func (j *job) base(remote Remote) string {
	t, w := j.e.Snapshot.PublishTo, j.e.Snapshot.Workspace
	if t != nil && t.Repository != "" && !strings.EqualFold(t.Repository, j.v.Repository) {
		t = nil // its branches are those of another repository
	}
	switch {
	case j.policy.PullRequest.Base != "":
		return j.policy.PullRequest.Base
	case t != nil && t.Fork && t.Base != "":
		return t.Base
	case t != nil && t.Branch != "" && !t.Fork:
		return t.Branch
	case w != nil && w.Ref != "" && !strings.HasPrefix(w.Ref, "refs/") && !isCommit(w.Ref):
		return w.Ref
	}
	return remote.DefaultBranch
}

func isCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// build creates the commit from the recorded changes.
func (j *job) build(ctx context.Context, dir string, proxy *proxy) (*changes.Built, error) {
	folders := changes.Folders{Execution: j.p.o.Layout.Execution(j.v.Execution)}
	record, err := changes.Load(folders, j.v.Attempt)
	if err != nil {
		return nil, unreadable(err)
	}
	patch, err := changes.OpenFull(folders, j.v.Attempt)
	if err != nil {
		return nil, unreadable(err)
	}
	defer patch.Close()
	from := changes.Source{URL: proxy.URL()}
	if j.p.o.Mirror != nil {
		from.Objects, from.Shallow = j.p.o.Mirror(j.v.Execution)
	}
	name, address, _ := j.policy.PullRequest.CommitAuthor()
	built, err := changes.Build(ctx, changes.NewCommit{
		Git: j.p.o.Git(), Dir: dir, From: from, Parent: record.Base, Patch: patch,
		Message: j.proposal.Title + "\n\n" + agented.PublicationTrailer + ": " + string(j.v.Execution) + "\n",
		Author:  name, Address: address, At: j.v.CreatedAt.Unix(),
	})
	switch {
	case err == nil:
		return built, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if err := proxy.explain(err); err != nil {
		return nil, err
	}
	if _, ok := errors.AsType[*changes.PatchError](err); ok {
		return nil, &refused{proposal.RuleChanges, "The changes cannot be applied to the commit that they are based on: " + sentence(err)}
	}
	return nil, &passing{text: "the commit could not be built: " + err.Error(), cause: err}
}

// unreadable returns the error of recorded changes that could not be read.
func unreadable(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(err, fs.ErrNotExist) {
		return &passing{text: "the recorded changes could not be read: " + err.Error(), cause: err}
	}
	return &refused{proposal.RuleChanges, sentence(err)}
}

// push creates the branch, unless it exists with this commit.
func (j *job) push(ctx context.Context, built *changes.Built, proxy *proxy) error {
	head, err := j.forge.BranchHead(ctx, j.v.Repository, j.v.Branch)
	if err != nil {
		return err
	}
	switch head {
	case built.ID:
		return nil
	case "":
	default:
		return agented.Errorf(agented.Conflict, "the branch %s exists with another commit, %.12s: nothing was pushed", j.v.Branch, head)
	}
	proxy.allow(j.v.Branch, built.ID)
	err = built.Push(ctx, proxy.URL(), j.v.Branch)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if known := proxy.explain(err); known != nil {
		return known
	}
	return &passing{text: "the push failed: " + err.Error(), cause: err}
}

// check checks what the commit changes against the limits of the trigger.
func (j *job) check(list []changes.Entry) error {
	pr := j.policy.PullRequest
	files, size := pr.MaxFiles, pr.MaxBytes
	if files == 0 {
		files = agented.DefaultPublishFiles
	}
	if size == 0 {
		size = agented.DefaultPublishBytes
	}
	if len(list) == 0 {
		return &refused{proposal.RuleChanges, "The execution changed no file."}
	}
	if len(list) > files {
		return &refused{"max_files", fmt.Sprintf("It changes %d files; max_files is %d.", len(list), files)}
	}
	total := int64(0)
	for _, e := range list {
		if total += e.Size; total > size {
			return &refused{"max_bytes", fmt.Sprintf("The changed files have more than %d bytes, which is max_bytes.", size)}
		}
		if err := checkEntry(pr, e); err != nil {
			return err
		}
	}
	return nil
}

// maxPath is the length of the longest path; patterns do not match longer ones.
const maxPath = 4096

// checkEntry checks one changed path.
func checkEntry(pr *agented.PublishPullRequest, e changes.Entry) error {
	name := fmt.Sprintf("%q", e.Path)
	if len(e.Path) > maxPath {
		return &refused{"forbidden_paths", fmt.Sprintf("It changes a path with more than %d bytes, which is never published.", maxPath)}
	}
	if e.Mode == "160000" || e.OldMode == "160000" || strings.EqualFold(path.Base(e.Path), ".gitmodules") {
		return &refused{"submodule", "It changes the submodule " + name + ", which is never published."}
	}
	for part := range strings.SplitSeq(e.Path, "/") {
		if strings.EqualFold(part, ".git") {
			return &refused{"forbidden_paths", "It changes " + name + ", which is never published."}
		}
	}
	if e.Link != "" && escapes(e.Path, e.Link) {
		return &refused{"symlink", "The symbolic link " + name + " leads out of the repository."}
	}
	if webhook.MatchPath(forbidding(pr.ForbiddenPaths), e.Path) {
		return &refused{"forbidden_paths", "It changes " + name + ", which forbidden_paths does not allow."}
	}
	if webhook.MatchPath(allowing(pr.AllowPaths), e.Path) {
		return nil
	}
	top, _, _ := strings.Cut(e.Path, "/")
	if strings.EqualFold(top, ".github") || workspace.AgentFile(e.Path, e.Link != "") != "" {
		return &refused{"forbidden_paths", "It changes " + name + ", which is a file of workflows or agents: allow_paths can exempt it."}
	}
	return nil
}

// escapes reports whether the target of a symbolic link is outside of the repository, or inside of
// .git.
func escapes(at, target string) bool {
	if path.IsAbs(target) || strings.ContainsRune(target, '\\') {
		return true
	}
	down := false
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." && down {
			return true // the folder above a folder, which can be a symbolic link itself
		}
		down = down || part != ".." && part != "." && part != ""
	}
	to := path.Join(path.Dir(at), target)
	if to == ".." || strings.HasPrefix(to, "../") {
		return true
	}
	for part := range strings.SplitSeq(to, "/") {
		if strings.EqualFold(part, ".git") {
			return true
		}
	}
	return false
}
