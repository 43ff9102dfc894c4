package githubtest

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented/internal/github"
)

// Repo is a repository of the server. Its fields are read and changed by
// [Server.Do] while the server runs.
type Repo struct {
	Name     string // OWNER/NAME
	Default  string // branch
	Branches map[string]string
	// GitDir is a bare git repository with the branches; empty: Branches.
	GitDir   string
	Pulls    []*github.PullRequest
	Issues   []*github.Issue
	Comments map[int][]*github.Comment
	Reviews  map[int][]*github.Review
	Lines    map[int][]*github.ReviewComment
	Checks   []*github.CheckRun
	Notes    map[int64][]github.Annotation // of check runs
	Statuses map[string][]github.Status
	Jobs     map[int64]*github.Job
	Logs     map[int64]string
	Labels   map[int][]string
	Compares map[string]github.Comparison // by BASE...HEAD

	s *Server
}

// AddRepo adds a repository OWNER/NAME.
func (s *Server) AddRepo(name string) *Repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Repo{
		Name: name, Default: "main", Branches: map[string]string{"main": strings.Repeat("a", 40)}, Comments: map[int][]*github.Comment{},
		Reviews: map[int][]*github.Review{}, Lines: map[int][]*github.ReviewComment{}, Notes: map[int64][]github.Annotation{},
		Statuses: map[string][]github.Status{}, Jobs: map[int64]*github.Job{}, Logs: map[int64]string{}, Labels: map[int][]string{},
		Compares: map[string]github.Comparison{}, s: s,
	}
	s.repos[strings.ToLower(name)] = r
	return r
}

// Do runs f while no call is answered, to read or change what the server holds.
func (s *Server) Do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// AddJob adds a job of GitHub Actions that failed in a step, with its check run.
func (r *Repo) AddJob(name, step, sha, log string) *github.CheckRun {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	id := r.s.id()
	r.Jobs[id] = &github.Job{
		ID: id, RunID: id + 1_000_000, Name: name, Workflow: "CI", Status: "completed", Conclusion: "failure",
		Steps: []github.Step{{Number: 1, Name: "Set up job", Status: "completed", Conclusion: "success"}, {Number: 2, Name: step, Status: "completed", Conclusion: "failure"}},
	}
	r.Logs[id] = log
	run := &github.CheckRun{
		ID: id, Name: name, HeadSHA: sha, Status: "completed", Conclusion: "failure",
		DetailsURL: fmt.Sprintf("https://github.com/%s/actions/runs/%d/job/%d", r.Name, id+1_000_000, id),
	}
	run.App.Slug = "github-actions"
	r.Checks = append(r.Checks, run)
	return run
}

// AddLine adds a comment on a line of a pull request.
func (r *Repo) AddLine(number int, review int64, login, path string, line int, body string) *github.ReviewComment {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	c := &github.ReviewComment{ID: r.s.id(), ReviewID: review, Path: path, Line: line, Side: "RIGHT", Body: body, User: github.User{Login: login, Type: "User"}, CreatedAt: r.s.now()}
	r.Lines[number] = append(r.Lines[number], c)
	return c
}

// head returns the commit of a branch, "" if there is none.
func (r *Repo) head(branch string) string {
	if r.GitDir == "" {
		return r.Branches[branch]
	}
	out, err := exec.Command("git", "--git-dir", r.GitDir, "rev-parse", "--verify", "--quiet", "refs/heads/"+branch).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// compare compares a branch with a commit in the git repository.
func (r *Repo) compare(base, head string) github.Comparison {
	count := func(from, to string) int {
		out, err := exec.Command("git", "--git-dir", r.GitDir, "rev-list", "--count", from+".."+to).Output()
		if err != nil {
			return 1
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(out)))
		return n
	}
	c := github.Comparison{Status: "diverged", AheadBy: count(base, head), BehindBy: count(head, base)}
	switch {
	case c.AheadBy == 0 && c.BehindBy == 0:
		c.Status = "identical"
	case c.AheadBy == 0:
		c.Status = "behind"
	case c.BehindBy == 0:
		c.Status = "ahead"
	}
	return c
}

func fullName(q *request) string {
	return strings.ToLower(q.PathValue("owner") + "/" + q.PathValue("repo"))
}

// repo wraps a route of a repository, for credentials that may use it.
func (s *Server) repo(h func(*request, *Repo) answer) func(*request) answer {
	return func(q *request) answer {
		r := s.repos[fullName(q)]
		switch {
		case q.as.jwt:
			return fail(http.StatusUnauthorized, "Bad credentials")
		case r == nil || q.as.repos != nil && !slices.Contains(q.as.repos, fullName(q)):
			return notFound
		}
		return h(q, r)
	}
}

func (q *request) number(name string) int {
	n, _ := strconv.Atoi(q.PathValue(name))
	return n
}

func (q *request) id(name string) int64 {
	n, _ := strconv.ParseInt(q.PathValue(name), 10, 64)
	return n
}

func (q *request) user() github.User {
	kind := "User"
	if q.as.app != nil {
		kind = "Bot"
	}
	return github.User{Login: q.as.login, Type: kind}
}

func (s *Server) routes() {
	s.appRoutes()
	s.hookRoutes()
	s.checkRoutes()
	s.pullRoutes()
	s.issueRoutes()
	s.handle("GET /repos/{owner}/{repo}", s.repo(func(_ *request, r *Repo) answer {
		return ok(map[string]any{"id": 1, "full_name": r.Name, "default_branch": r.Default, "html_url": "https://github.com/" + r.Name, "clone_url": s.cloneURL(r)})
	}))
	s.handle("GET /repos/{owner}/{repo}/git/ref/heads/{branch...}", s.repo(func(q *request, r *Repo) answer {
		sha := r.head(q.PathValue("branch"))
		if sha == "" {
			return notFound
		}
		return ok(map[string]any{"ref": "refs/heads/" + q.PathValue("branch"), "object": map[string]string{"type": "commit", "sha": sha}})
	}))
	s.handle("DELETE /repos/{owner}/{repo}/git/refs/heads/{branch...}", s.repo(func(q *request, r *Repo) answer {
		if r.head(q.PathValue("branch")) == "" {
			return fail(http.StatusUnprocessableEntity, "Reference does not exist")
		}
		delete(r.Branches, q.PathValue("branch"))
		return answer{status: http.StatusNoContent}
	}))
	s.handle("GET /repos/{owner}/{repo}/commits/{ref...}", s.repo(func(q *request, r *Repo) answer {
		ref := q.PathValue("ref")
		if sha, is := strings.CutSuffix(ref, "/check-runs"); is {
			return s.checkRuns(q, r, sha)
		}
		if sha, is := strings.CutSuffix(ref, "/statuses"); is {
			list := slices.Clone(r.Statuses[sha])
			slices.Reverse(list)
			return page(s, q, list)
		}
		sha := r.head(ref)
		if sha == "" {
			sha = ref
		}
		if len(sha) != 40 {
			return fail(http.StatusUnprocessableEntity, "No commit found for SHA: %s", ref)
		}
		return ok(map[string]any{"sha": sha, "commit": map[string]any{"message": "a commit"}})
	}))
	s.handle("GET /repos/{owner}/{repo}/compare/{range...}", s.repo(func(q *request, r *Repo) answer {
		c, known := r.Compares[q.PathValue("range")]
		base, head, _ := strings.Cut(q.PathValue("range"), "...")
		switch {
		case known:
			return ok(c)
		case r.GitDir != "":
			return ok(r.compare(base, head))
		case base == head:
			return ok(github.Comparison{Status: "identical"})
		}
		return ok(github.Comparison{Status: "ahead", AheadBy: 1})
	}))
}
