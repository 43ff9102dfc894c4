package githubtest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/agented/agented/internal/github"
)

// nextNumber returns the number of the next issue or pull request.
func (r *Repo) nextNumber() int { return len(r.Pulls) + len(r.Issues) + 1 }

func (r *Repo) pull(number int) *github.PullRequest {
	for _, p := range r.Pulls {
		if p.Number == number {
			p.Head.SHA = cmpOr(r.head(p.Head.Ref), p.Head.SHA)
			return p
		}
	}
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// AddPull adds a pull request from a branch of the repository.
func (r *Repo) AddPull(branch, sha, login string) *github.PullRequest {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.Branches[branch] = sha
	p := r.newPull(github.NewPullRequest{Title: branch, Head: branch, Base: r.Default}, github.User{Login: login, Type: "User"})
	p.Head.SHA = sha
	return p
}

func (r *Repo) newPull(in github.NewPullRequest, by github.User) *github.PullRequest {
	n := r.nextNumber()
	p := &github.PullRequest{
		Number: n, State: "open", Title: in.Title, Body: in.Body, Draft: in.Draft, User: by, CreatedAt: r.s.now(),
		HTMLURL: fmt.Sprintf("https://github.com/%s/pull/%d", r.Name, n),
	}
	p.Head.Ref, p.Head.SHA, p.Base.Ref, p.Base.SHA = in.Head, r.head(in.Head), in.Base, r.head(in.Base)
	of := &struct {
		FullName string `json:"full_name"`
	}{r.Name}
	p.Head.Repo, p.Base.Repo = of, of
	r.Pulls = append(r.Pulls, p)
	return p
}

func (s *Server) pullRoutes() {
	s.handle("POST /repos/{owner}/{repo}/pulls", s.repo(s.createPull))
	s.handle("GET /repos/{owner}/{repo}/pulls", s.repo(func(q *request, r *Repo) answer {
		state, head := cmpOr(q.URL.Query().Get("state"), "open"), q.URL.Query().Get("head")
		var out []*github.PullRequest
		for _, p := range slices.Backward(r.Pulls) {
			owner, _, _ := strings.Cut(r.Name, "/")
			if (state == "all" || p.State == state) && (head == "" || strings.EqualFold(head, owner+":"+p.Head.Ref)) {
				out = append(out, r.pull(p.Number))
			}
		}
		return page(s, q, out)
	}))
	s.handle("GET /repos/{owner}/{repo}/pulls/{number}", s.pull(func(_ *request, _ *Repo, p *github.PullRequest) answer { return ok(p) }))
	s.handle("PATCH /repos/{owner}/{repo}/pulls/{number}", s.pull(func(q *request, _ *Repo, p *github.PullRequest) answer {
		var in github.PullRequestChange
		if a := q.decode(&in); a != nil {
			return *a
		}
		for to, from := range map[*string]*string{&p.Title: in.Title, &p.Body: in.Body, &p.State: in.State, &p.Base.Ref: in.Base} {
			if from != nil {
				*to = *from
			}
		}
		return ok(p)
	}))
	s.handle("POST /repos/{owner}/{repo}/pulls/{number}/requested_reviewers", s.pull(func(_ *request, _ *Repo, p *github.PullRequest) answer { return created(p) }))
	s.handle("POST /repos/{owner}/{repo}/pulls/{number}/reviews", s.pull(s.createReview))
	s.handle("GET /repos/{owner}/{repo}/pulls/{number}/reviews", s.pull(func(q *request, r *Repo, p *github.PullRequest) answer {
		return page(s, q, r.Reviews[p.Number])
	}))
	s.handle("GET /repos/{owner}/{repo}/pulls/{number}/comments", s.pull(func(q *request, r *Repo, p *github.PullRequest) answer {
		return page(s, q, r.Lines[p.Number])
	}))
	s.handle("GET /repos/{owner}/{repo}/pulls/{number}/reviews/{review}/comments", s.pull(func(q *request, r *Repo, p *github.PullRequest) answer {
		var out []*github.ReviewComment
		for _, c := range r.Lines[p.Number] {
			if c.ReviewID == q.id("review") {
				out = append(out, c)
			}
		}
		return page(s, q, out)
	}))
}

// pull wraps a route of a pull request.
func (s *Server) pull(h func(*request, *Repo, *github.PullRequest) answer) func(*request) answer {
	return s.repo(func(q *request, r *Repo) answer {
		p := r.pull(q.number("number"))
		if p == nil {
			return notFound
		}
		return h(q, r, p)
	})
}

func (s *Server) createPull(q *request, r *Repo) answer {
	var in github.NewPullRequest
	if a := q.decode(&in); a != nil {
		return *a
	}
	owner, _, _ := strings.Cut(r.Name, "/")
	if of, branch, found := strings.Cut(in.Head, ":"); found && strings.EqualFold(of, owner) {
		in.Head = branch
	}
	switch {
	case in.Title == "":
		return invalid("PullRequest", "title", "missing_field", "")
	case r.head(in.Head) == "":
		return invalid("PullRequest", "head", "invalid", "")
	case r.head(in.Base) == "":
		return invalid("PullRequest", "base", "invalid", "")
	case r.head(in.Head) == r.head(in.Base):
		return invalid("PullRequest", "", "custom", fmt.Sprintf("No commits between %s and %s", in.Base, in.Head))
	}
	for _, p := range r.Pulls {
		if p.State == "open" && p.Head.Ref == in.Head && p.Base.Ref == in.Base {
			return invalid("PullRequest", "", "custom", fmt.Sprintf("A pull request already exists for %s:%s.", owner, in.Head))
		}
	}
	return created(r.newPull(in, q.user()))
}

func (s *Server) createReview(q *request, r *Repo, p *github.PullRequest) answer {
	var in github.NewReview
	if a := q.decode(&in); a != nil {
		return *a
	}
	state, known := map[string]string{"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED", "": "PENDING"}[in.Event]
	switch {
	case !known:
		return invalid("PullRequestReview", "event", "invalid", "")
	case in.Event != "APPROVE" && in.Body == "" && len(in.Comments) == 0:
		return invalid("PullRequestReview", "body", "missing_field", "")
	case in.Event != "COMMENT" && p.User.Login == q.as.login:
		return fail(http.StatusUnprocessableEntity, "Can not %s on your own pull request", strings.ToLower(in.Event))
	}
	v := &github.Review{ID: s.id(), State: state, Body: in.Body, CommitID: cmpOr(in.CommitID, p.Head.SHA), User: q.user(), SubmittedAt: s.now()}
	v.HTMLURL = fmt.Sprintf("%s#pullrequestreview-%d", p.HTMLURL, v.ID)
	for _, c := range in.Comments {
		if c.Path == "" || c.Body == "" || c.Line < 0 {
			return invalid("PullRequestReviewComment", "line", "invalid", "Pull request review thread line must be part of the diff")
		}
		c.ID, c.ReviewID, c.User, c.CreatedAt = s.id(), v.ID, q.user(), s.now()
		r.Lines[p.Number] = append(r.Lines[p.Number], &c)
	}
	r.Reviews[p.Number] = append(r.Reviews[p.Number], v)
	return ok(v)
}

func (s *Server) issueRoutes() {
	s.handle("POST /repos/{owner}/{repo}/issues", s.repo(func(q *request, r *Repo) answer {
		var in github.NewIssue
		if a := q.decode(&in); a != nil {
			return *a
		}
		if in.Title == "" {
			return invalid("Issue", "title", "missing_field", "")
		}
		n := r.nextNumber()
		i := &github.Issue{Number: n, State: "open", Title: in.Title, Body: in.Body, User: q.user(), CreatedAt: s.now(), HTMLURL: fmt.Sprintf("https://github.com/%s/issues/%d", r.Name, n)}
		r.Issues = append(r.Issues, i)
		r.Labels[n] = in.Labels
		return created(i)
	}))
	s.handle("GET /repos/{owner}/{repo}/issues", s.repo(func(q *request, r *Repo) answer {
		creator, state := q.URL.Query().Get("creator"), cmpOr(q.URL.Query().Get("state"), "open")
		var out []*github.Issue
		for _, i := range slices.Backward(r.Issues) {
			if (creator == "" || i.User.Login == creator) && (state == "all" || i.State == state) {
				out = append(out, i)
			}
		}
		return page(s, q, out)
	}))
	s.handle("POST /repos/{owner}/{repo}/issues/{number}/labels", s.repo(func(q *request, r *Repo) answer {
		var in struct{ Labels []string }
		if a := q.decode(&in); a != nil {
			return *a
		}
		for _, l := range in.Labels {
			if have := r.Labels[q.number("number")]; !slices.Contains(have, l) {
				r.Labels[q.number("number")] = append(have, l)
			}
		}
		return ok([]any{})
	}))
	s.handle("POST /repos/{owner}/{repo}/issues/{number}/assignees", s.repo(func(*request, *Repo) answer { return created(map[string]any{}) }))
	s.handle("GET /repos/{owner}/{repo}/issues/{number}/comments", s.repo(func(q *request, r *Repo) answer {
		return page(s, q, r.Comments[q.number("number")])
	}))
	s.handle("POST /repos/{owner}/{repo}/issues/{number}/comments", s.repo(func(q *request, r *Repo) answer {
		n := q.number("number")
		if n < 1 || n >= r.nextNumber() {
			return notFound
		}
		var in struct{ Body string }
		if a := q.decode(&in); a != nil {
			return *a
		}
		if in.Body == "" {
			return invalid("IssueComment", "body", "missing_field", "")
		}
		c := &github.Comment{ID: s.id(), Body: in.Body, User: q.user(), CreatedAt: s.now(), UpdatedAt: s.now()}
		c.HTMLURL = fmt.Sprintf("https://github.com/%s/issues/%d#issuecomment-%d", r.Name, n, c.ID)
		r.Comments[n] = append(r.Comments[n], c)
		return created(c)
	}))
	s.handle("PATCH /repos/{owner}/{repo}/issues/comments/{id}", s.repo(func(q *request, r *Repo) answer {
		var in struct{ Body string }
		if a := q.decode(&in); a != nil {
			return *a
		}
		for _, list := range r.Comments {
			for _, c := range list {
				if c.ID == q.id("id") {
					c.Body, c.UpdatedAt = in.Body, s.now()
					return ok(c)
				}
			}
		}
		return notFound
	}))
}
