package github

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Issue is an issue. Pull requests are issues too.
type Issue struct {
	Number    int       `json:"number"`
	State     string    `json:"state"`
	Title     string    `json:"title"`
	Body      string    `json:"body"`
	HTMLURL   string    `json:"html_url"`
	User      User      `json:"user"`
	CreatedAt time.Time `json:"created_at"`
	Labels    []struct {
		Name string `json:"name"`
	} `json:"labels"`
}

// NewIssue is an issue to create.
type NewIssue struct {
	Title     string   `json:"title"`
	Body      string   `json:"body"`
	Labels    []string `json:"labels,omitempty"`
	Assignees []string `json:"assignees,omitempty"`
}

// CreateIssue creates an issue.
func (c *Client) CreateIssue(ctx context.Context, r Repository, i NewIssue) (Issue, error) {
	var out Issue
	err := c.write(ctx, r, http.MethodPost, r.path("issues"), i, &out)
	return out, err
}

// IssuesBy returns the issues and pull requests that an account created, newest
// first, at most 100.
func (c *Client) IssuesBy(ctx context.Context, r Repository, login, state string) ([]Issue, error) {
	q := url.Values{"creator": {login}, "state": {state}}
	return list[Issue](ctx, c, credential{repo: r}, r.path("issues"), q, pageSize)
}

// AddLabels adds labels to an issue or a pull request, and creates those that
// the repository does not have.
func (c *Client) AddLabels(ctx context.Context, r Repository, number int, labels []string) error {
	in := map[string][]string{"labels": labels}
	return c.write(ctx, r, http.MethodPost, r.path("issues", strconv.Itoa(number), "labels"), in, nil)
}

// AddAssignees assigns an issue or a pull request to accounts.
func (c *Client) AddAssignees(ctx context.Context, r Repository, number int, logins []string) error {
	in := map[string][]string{"assignees": logins}
	return c.write(ctx, r, http.MethodPost, r.path("issues", strconv.Itoa(number), "assignees"), in, nil)
}

// Comment is a comment on an issue or a pull request.
type Comment struct {
	ID        int64     `json:"id"`
	Body      string    `json:"body"`
	HTMLURL   string    `json:"html_url"`
	User      User      `json:"user"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Comments returns the comments on an issue or a pull request, oldest first.
func (c *Client) Comments(ctx context.Context, r Repository, number int) ([]Comment, error) {
	return list[Comment](ctx, c, credential{repo: r}, r.path("issues", strconv.Itoa(number), "comments"), nil, maxItems)
}

// CreateComment adds a comment to an issue or a pull request.
func (c *Client) CreateComment(ctx context.Context, r Repository, number int, body string) (Comment, error) {
	var out Comment
	err := c.write(ctx, r, http.MethodPost, r.path("issues", strconv.Itoa(number), "comments"), map[string]string{"body": body}, &out)
	return out, err
}

// UpdateComment replaces the text of a comment.
func (c *Client) UpdateComment(ctx context.Context, r Repository, id int64, body string) (Comment, error) {
	var out Comment
	err := c.write(ctx, r, http.MethodPatch, r.path("issues", "comments", strconv.FormatInt(id, 10)), map[string]string{"body": body}, &out)
	return out, err
}
