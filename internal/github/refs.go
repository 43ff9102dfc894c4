package github

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Info is a repository.
type Info struct {
	ID            int64  `json:"id"`
	FullName      string `json:"full_name"`
	DefaultBranch string `json:"default_branch"`
	Private       bool   `json:"private"`
	Archived      bool   `json:"archived"`
	CloneURL      string `json:"clone_url"`
	HTMLURL       string `json:"html_url"`
}

// Repository returns a repository.
func (c *Client) Repository(ctx context.Context, r Repository) (Info, error) {
	var out Info
	err := c.get(ctx, r, r.path(), &out)
	return out, err
}

// BranchHead returns the commit of a branch, NotFound if it does not exist.
func (c *Client) BranchHead(ctx context.Context, r Repository, branch string) (sha string, err error) {
	var out struct {
		Object struct {
			SHA string `json:"sha"`
		} `json:"object"`
	}
	parts := append([]string{"git", "ref", "heads"}, strings.Split(branch, "/")...)
	err = c.get(ctx, r, r.path(parts...), &out)
	return out.Object.SHA, err
}

// DeleteBranch removes a branch.
func (c *Client) DeleteBranch(ctx context.Context, r Repository, branch string) error {
	parts := append([]string{"git", "refs", "heads"}, strings.Split(branch, "/")...)
	return c.write(ctx, r, http.MethodDelete, r.path(parts...), nil, nil)
}

// Commit is a commit of a repository.
type Commit struct {
	SHA     string `json:"sha"`
	HTMLURL string `json:"html_url"`
	Commit  struct {
		Message string `json:"message"`
		Author  struct {
			Name string    `json:"name"`
			Date time.Time `json:"date"`
		} `json:"author"`
	} `json:"commit"`
	Parents []struct {
		SHA string `json:"sha"`
	} `json:"parents"`
}

// Commit returns the commit of a ref: a full id, a branch or a tag.
func (c *Client) Commit(ctx context.Context, r Repository, ref string) (Commit, error) {
	var out Commit
	err := c.get(ctx, r, r.path(append([]string{"commits"}, strings.Split(ref, "/")...)...), &out)
	return out, err
}

// Comparison is how head relates to base.
type Comparison struct {
	Status   string `json:"status"` // ahead, behind, identical or diverged
	AheadBy  int    `json:"ahead_by"`
	BehindBy int    `json:"behind_by"`
}

// Compare compares two commits. After a force push the new head is not ahead of
// the old one.
func (c *Client) Compare(ctx context.Context, r Repository, base, head string) (Comparison, error) {
	var out Comparison
	q := url.Values{"per_page": {"1"}}
	err := c.do(ctx, call{method: http.MethodGet, path: r.path("compare", base+"..."+head), query: q, out: &out, as: credential{repo: r}})
	return out, err
}
