package publish

import (
	"context"
	"errors"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github"
)

// Forge is a host of repositories. Repositories are named owner/name.
type Forge interface {
	// RetryAt reports whether a call that failed can succeed later, and when at the earliest.
	RetryAt(err error) (at time.Time, ok bool)
	// Login returns the account that writes.
	Login(ctx context.Context) (string, error)
	// Repository returns how git reaches a repository, and its default branch.
	Repository(ctx context.Context, repo string) (Remote, error)
	// PullHead returns the head commit of a pull request.
	PullHead(ctx context.Context, repo string, number int) (string, error)
	// BranchHead returns the commit of a branch, "" if there is none.
	BranchHead(ctx context.Context, repo, branch string) (string, error)
	// Contains reports whether a commit is part of a branch.
	Contains(ctx context.Context, repo, branch, commit string) (bool, error)
	// PullOf returns the pull request from a branch, whatever its state; ok is false if there is none.
	PullOf(ctx context.Context, repo, branch string) (w Written, ok bool, err error)
	CreatePull(ctx context.Context, repo string, p NewPull) (Written, error)
	// AddLabels adds labels to a pull request or an issue.
	AddLabels(ctx context.Context, repo string, number int, labels []string) error
	// FindComment returns the comment of an account that ends with a text; ok is false if there is none.
	FindComment(ctx context.Context, repo string, number int, login, text string) (w Written, ok bool, err error)
	CreateComment(ctx context.Context, repo string, number int, body string) (Written, error)
	// FindStatus returns the status of a commit by an account whose address ends with a text; ok is false if there is none.
	FindStatus(ctx context.Context, repo, commit, login, name, end string) (w Written, ok bool, err error)
	CreateStatus(ctx context.Context, repo, commit string, s NewStatus) (Written, error)
	// UpdateComment replaces a comment; ok is false if it does not exist any more.
	UpdateComment(ctx context.Context, repo string, id int64, body string) (w Written, ok bool, err error)
}

// Remote is how git reaches a repository.
type Remote struct {
	URL           string // https address
	User, Token   string
	DefaultBranch string
}

// Written is what a forge has stored.
type Written struct {
	ID     int64 // number of a pull request or an issue; id of others
	URL    string
	Closed bool
}

// NewPull is a pull request to create.
type NewPull struct {
	Title, Body  string
	Branch, Base string
	Draft        bool
}

// NewStatus is a commit status to create.
type NewStatus struct {
	State, Description, Context string
	Anchor                      string // end of its address
}

// GitHub is the forge of GitHub and GitHub Enterprise Server.
type GitHub struct{ Client *github.Client }

var _ Forge = GitHub{}

// RetryAt implements Forge.
func (GitHub) RetryAt(err error) (time.Time, bool) { return github.RetryAt(err) }

// Login implements Forge.
func (g GitHub) Login(ctx context.Context) (string, error) { return g.Client.Login(ctx) }

func notFound(err error) bool { return errors.Is(err, agented.NotFound) }

// Repository implements Forge.
func (g GitHub) Repository(ctx context.Context, repo string) (Remote, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Remote{}, err
	}
	info, err := g.Client.Repository(ctx, r)
	if err != nil {
		return Remote{}, err
	}
	token, err := g.Client.RepositoryToken(ctx, r)
	return Remote{URL: info.CloneURL, User: "x-access-token", Token: token.Token, DefaultBranch: info.DefaultBranch}, err
}

// PullHead implements Forge.
func (g GitHub) PullHead(ctx context.Context, repo string, number int) (string, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return "", err
	}
	p, err := g.Client.PullRequest(ctx, r, number)
	return p.Head.SHA, err
}

// BranchHead implements Forge.
func (g GitHub) BranchHead(ctx context.Context, repo, branch string) (string, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return "", err
	}
	sha, err := g.Client.BranchHead(ctx, r, branch)
	if notFound(err) {
		return "", nil
	}
	return sha, err
}

// Contains implements Forge.
func (g GitHub) Contains(ctx context.Context, repo, branch, commit string) (bool, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return false, err
	}
	c, err := g.Client.Compare(ctx, r, branch, commit)
	if notFound(err) {
		return false, nil
	}
	return err == nil && c.AheadBy == 0 && (c.Status == "identical" || c.Status == "behind"), err
}

// PullOf implements Forge.
func (g GitHub) PullOf(ctx context.Context, repo, branch string) (Written, bool, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, false, err
	}
	list, err := g.Client.PullRequestsOf(ctx, r, r.Owner, branch, "all")
	if err != nil || len(list) == 0 {
		return Written{}, false, err
	}
	return Written{ID: int64(list[0].Number), URL: list[0].HTMLURL, Closed: list[0].State == "closed"}, true, nil
}

// CreatePull implements Forge.
func (g GitHub) CreatePull(ctx context.Context, repo string, p NewPull) (Written, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, err
	}
	pr, err := g.Client.CreatePullRequest(ctx, r, github.NewPullRequest{Title: p.Title, Body: p.Body, Head: p.Branch, Base: p.Base, Draft: p.Draft})
	return Written{ID: int64(pr.Number), URL: pr.HTMLURL}, err
}

// AddLabels implements Forge.
func (g GitHub) AddLabels(ctx context.Context, repo string, number int, labels []string) error {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return err
	}
	return g.Client.AddLabels(ctx, r, number, labels)
}

// FindComment implements Forge.
func (g GitHub) FindComment(ctx context.Context, repo string, number int, login, text string) (Written, bool, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, false, err
	}
	list, err := g.Client.Comments(ctx, r, number)
	for i := len(list) - 1; i >= 0; i-- {
		if c := list[i]; sameLogin(c.User.Login, login) && endsWith(c.Body, text) {
			return Written{ID: c.ID, URL: c.HTMLURL}, true, nil
		}
	}
	return Written{}, false, err
}

// CreateComment implements Forge.
func (g GitHub) CreateComment(ctx context.Context, repo string, number int, body string) (Written, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, err
	}
	c, err := g.Client.CreateComment(ctx, r, number, body)
	return Written{ID: c.ID, URL: c.HTMLURL}, err
}

// UpdateComment implements Forge.
func (g GitHub) UpdateComment(ctx context.Context, repo string, id int64, body string) (Written, bool, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, false, err
	}
	c, err := g.Client.UpdateComment(ctx, r, id, body)
	if notFound(err) {
		return Written{}, false, nil
	}
	return Written{ID: c.ID, URL: c.HTMLURL}, err == nil, err
}
