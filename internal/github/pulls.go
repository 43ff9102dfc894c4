package github

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxItems limits lists of comments, reviews and similar, which are read whole.
const maxItems = 3000

// User is an account.
type User struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Type  string `json:"type"` // User, Bot or Organization
}

// Branch is one side of a pull request.
type Branch struct {
	Ref  string `json:"ref"`
	SHA  string `json:"sha"`
	Repo *struct {
		FullName string `json:"full_name"`
	} `json:"repo"` // nil if the fork was deleted
}

// PullRequest is a pull request.
type PullRequest struct {
	Number         int       `json:"number"`
	State          string    `json:"state"` // open or closed
	Title          string    `json:"title"`
	Body           string    `json:"body"`
	Draft          bool      `json:"draft"`
	Merged         bool      `json:"merged"`
	HTMLURL        string    `json:"html_url"`
	Head           Branch    `json:"head"`
	Base           Branch    `json:"base"`
	User           User      `json:"user"`
	MergeCommitSHA string    `json:"merge_commit_sha"`
	CreatedAt      time.Time `json:"created_at"`
}

// NewPullRequest is a pull request to create.
type NewPullRequest struct {
	Title string `json:"title"`
	Head  string `json:"head"` // branch, or OWNER:BRANCH of a fork
	Base  string `json:"base"`
	Body  string `json:"body"`
	Draft bool   `json:"draft,omitempty"`
}

// CreatePullRequest creates a pull request. It returns Invalid if one exists for
// the branch.
func (c *Client) CreatePullRequest(ctx context.Context, r Repository, p NewPullRequest) (PullRequest, error) {
	var out PullRequest
	err := c.write(ctx, r, http.MethodPost, r.path("pulls"), p, &out)
	return out, err
}

// PullRequest returns a pull request.
func (c *Client) PullRequest(ctx context.Context, r Repository, number int) (PullRequest, error) {
	var out PullRequest
	err := c.get(ctx, r, r.path("pulls", strconv.Itoa(number)), &out)
	return out, err
}

// PullRequestsOf returns the pull requests from a branch of owner, newest first;
// state is open, closed or all.
func (c *Client) PullRequestsOf(ctx context.Context, r Repository, owner, branch, state string) ([]PullRequest, error) {
	q := url.Values{"head": {owner + ":" + branch}, "state": {state}}
	return list[PullRequest](ctx, c, credential{repo: r}, r.path("pulls"), q, pageSize)
}

// PullRequestChange is what an update changes; nil fields stay as they are.
type PullRequestChange struct {
	Title *string `json:"title,omitempty"`
	Body  *string `json:"body,omitempty"`
	State *string `json:"state,omitempty"` // open or closed
	Base  *string `json:"base,omitempty"`
}

// UpdatePullRequest changes a pull request.
func (c *Client) UpdatePullRequest(ctx context.Context, r Repository, number int, change PullRequestChange) (PullRequest, error) {
	var out PullRequest
	err := c.write(ctx, r, http.MethodPatch, r.path("pulls", strconv.Itoa(number)), change, &out)
	return out, err
}

// RequestReviewers requests reviews of a pull request.
func (c *Client) RequestReviewers(ctx context.Context, r Repository, number int, users, teams []string) error {
	in := map[string][]string{"reviewers": users, "team_reviewers": teams}
	return c.write(ctx, r, http.MethodPost, r.path("pulls", strconv.Itoa(number), "requested_reviewers"), in, nil)
}

// ReviewComment is a comment on a line of a pull request.
type ReviewComment struct {
	ID        int64     `json:"id,omitempty"`
	ReviewID  int64     `json:"pull_request_review_id,omitempty"`
	ReplyTo   int64     `json:"in_reply_to_id,omitempty"`
	Path      string    `json:"path"`
	Line      int       `json:"line,omitempty"`       // last line; 0: of the whole file, or outdated
	StartLine int       `json:"start_line,omitempty"` // of several lines
	Side      string    `json:"side,omitempty"`       // RIGHT (the new text) or LEFT
	StartSide string    `json:"start_side,omitempty"`
	Body      string    `json:"body"`
	HTMLURL   string    `json:"html_url,omitempty"`
	DiffHunk  string    `json:"diff_hunk,omitempty"`
	User      User      `json:"user,omitzero"`
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// Review is a review of a pull request.
type Review struct {
	ID          int64     `json:"id"`
	State       string    `json:"state"` // APPROVED, CHANGES_REQUESTED, COMMENTED, PENDING, DISMISSED
	Body        string    `json:"body"`
	CommitID    string    `json:"commit_id"`
	HTMLURL     string    `json:"html_url"`
	User        User      `json:"user"`
	SubmittedAt time.Time `json:"submitted_at"`
}

// NewReview is a review to create.
type NewReview struct {
	CommitID string          `json:"commit_id,omitempty"`
	Body     string          `json:"body,omitempty"`
	Event    string          `json:"event"` // APPROVE, REQUEST_CHANGES or COMMENT
	Comments []ReviewComment `json:"comments,omitempty"`
}

// CreateReview submits a review with its comments in one call.
func (c *Client) CreateReview(ctx context.Context, r Repository, number int, v NewReview) (Review, error) {
	var out Review
	err := c.write(ctx, r, http.MethodPost, r.path("pulls", strconv.Itoa(number), "reviews"), v, &out)
	return out, err
}

// Reviews returns the reviews of a pull request, oldest first.
func (c *Client) Reviews(ctx context.Context, r Repository, number int) ([]Review, error) {
	return list[Review](ctx, c, credential{repo: r}, r.path("pulls", strconv.Itoa(number), "reviews"), nil, maxItems)
}

// ReviewComments returns the comments on lines of a pull request, oldest first.
func (c *Client) ReviewComments(ctx context.Context, r Repository, number int) ([]ReviewComment, error) {
	return list[ReviewComment](ctx, c, credential{repo: r}, r.path("pulls", strconv.Itoa(number), "comments"), nil, maxItems)
}

// CommentsOfReview returns the comments on lines of one review.
func (c *Client) CommentsOfReview(ctx context.Context, r Repository, number int, review int64) ([]ReviewComment, error) {
	path := r.path("pulls", strconv.Itoa(number), "reviews", strconv.FormatInt(review, 10), "comments")
	return list[ReviewComment](ctx, c, credential{repo: r}, path, nil, maxItems)
}
