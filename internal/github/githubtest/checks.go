package githubtest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/agented/agented/internal/github"
)

func (s *Server) checkRoutes() {
	s.handle("POST /repos/{owner}/{repo}/check-runs", s.repo(s.writeCheck))
	s.handle("PATCH /repos/{owner}/{repo}/check-runs/{id}", s.repo(s.writeCheck))
	s.handle("GET /repos/{owner}/{repo}/check-runs/{id}", s.repo(func(q *request, r *Repo) answer {
		if run := r.check(q.id("id")); run != nil {
			return ok(run)
		}
		return notFound
	}))
	s.handle("GET /repos/{owner}/{repo}/check-runs/{id}/annotations", s.repo(func(q *request, r *Repo) answer { return page(s, q, r.Notes[q.id("id")]) }))
	s.handle("POST /repos/{owner}/{repo}/statuses/{sha}", s.repo(func(q *request, r *Repo) answer {
		var in github.Status
		if a := q.decode(&in); a != nil {
			return *a
		}
		if !slices.Contains([]string{"error", "failure", "pending", "success"}, in.State) || len([]rune(in.Description)) > 140 {
			return invalid("Status", "state", "invalid", "")
		}
		in.Creator = q.user()
		r.Statuses[q.PathValue("sha")] = append(r.Statuses[q.PathValue("sha")], in)
		return created(in)
	}))
	s.handle("GET /repos/{owner}/{repo}/actions/jobs/{id}", s.repo(func(q *request, r *Repo) answer {
		if j := r.Jobs[q.id("id")]; j != nil {
			return ok(j)
		}
		return notFound
	}))
	s.handle("GET /repos/{owner}/{repo}/actions/jobs/{id}/logs", s.repo(func(q *request, r *Repo) answer {
		if _, found := r.Logs[q.id("id")]; !found {
			return answer{status: http.StatusGone, body: map[string]string{"message": "Server Error"}}
		}
		return answer{status: http.StatusFound, header: http.Header{"Location": {fmt.Sprintf("%s/blob/%s/%d", s.URL, fullName(q), q.id("id"))}}}
	}))
	s.handle("GET /blob/{owner}/{repo}/{id}", func(q *request) answer {
		r := s.repos[fullName(q)]
		if r == nil {
			return notFound
		}
		return ok(r.Logs[q.id("id")])
	})
}

func (r *Repo) check(id int64) *github.CheckRun {
	for _, run := range r.Checks {
		if run.ID == id {
			return run
		}
	}
	return nil
}

// writeCheck creates or changes a check run.
func (s *Server) writeCheck(q *request, r *Repo) answer {
	if q.as.app == nil {
		return fail(http.StatusForbidden, "You must authenticate via a GitHub App.")
	}
	var in github.CheckRunUpdate
	if a := q.decode(&in); a != nil {
		return *a
	}
	run := r.check(q.id("id"))
	if q.Method == http.MethodPost {
		if in.Name == "" || in.HeadSHA == "" {
			return fail(http.StatusUnprocessableEntity, "Invalid request. \"name\", \"head_sha\" weren't supplied.")
		}
		run = &github.CheckRun{ID: s.id(), Status: "queued"}
		run.HTMLURL = fmt.Sprintf("https://github.com/%s/runs/%d", r.Name, run.ID)
		run.App.Slug = q.as.app.Slug
	}
	if run == nil {
		return notFound
	}
	if in.Output != nil && (len(in.Output.Annotations) > github.MaxAnnotations || in.Output.Summary == "" || in.Output.Title == "") {
		return fail(http.StatusUnprocessableEntity, "Invalid request. No more than %d annotations, and title and summary are required.", github.MaxAnnotations)
	}
	if in.Status == "completed" && in.Conclusion == "" {
		return fail(http.StatusUnprocessableEntity, "Invalid request. \"conclusion\" is required.")
	}
	if q.Method == http.MethodPost {
		r.Checks = append(r.Checks, run)
	}
	for to, from := range map[*string]string{
		&run.Name: in.Name, &run.HeadSHA: in.HeadSHA, &run.ExternalID: in.ExternalID, &run.DetailsURL: in.DetailsURL, &run.Status: in.Status, &run.Conclusion: in.Conclusion,
	} {
		*to = cmpOr(from, *to)
	}
	if in.Conclusion != "" {
		run.Status = "completed"
	}
	if in.Output != nil {
		r.Notes[run.ID] = append(r.Notes[run.ID], in.Output.Annotations...)
		run.Output.Title, run.Output.Summary, run.Output.Text, run.Output.AnnotationsCount = in.Output.Title, in.Output.Summary, in.Output.Text, len(r.Notes[run.ID])
	}
	if q.Method == http.MethodPost {
		return created(run)
	}
	return ok(run)
}

// checkRuns lists the check runs of a commit or a branch.
func (s *Server) checkRuns(q *request, r *Repo, ref string) answer {
	sha := cmpOr(r.head(ref), ref)
	name := q.URL.Query().Get("check_name")
	var all []*github.CheckRun
	for _, run := range slices.Backward(r.Checks) {
		if run.HeadSHA == sha && (name == "" || run.Name == name) {
			all = append(all, run)
		}
	}
	size, _ := strconv.Atoi(cmpOr(q.URL.Query().Get("per_page"), "30"))
	number, _ := strconv.Atoi(cmpOr(q.URL.Query().Get("page"), "1"))
	from := min((number-1)*size, len(all))
	return ok(map[string]any{"total_count": len(all), "check_runs": all[from:min(from+size, len(all))]})
}
