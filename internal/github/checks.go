package github

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// MaxAnnotations is the largest number of annotations that one call may add to a
// check run. More are added by further updates.
const MaxAnnotations = 50

// CheckRun is a check run of a commit.
type CheckRun struct {
	ID          int64      `json:"id"`
	Name        string     `json:"name"`
	HeadSHA     string     `json:"head_sha"`
	Status      string     `json:"status"`     // queued, in_progress or completed
	Conclusion  string     `json:"conclusion"` // success, failure, neutral, cancelled, skipped, timed_out, action_required
	ExternalID  string     `json:"external_id"`
	HTMLURL     string     `json:"html_url"`
	DetailsURL  string     `json:"details_url"`
	StartedAt   *time.Time `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
	App         struct {
		Slug string `json:"slug"`
	} `json:"app"`
	Output struct {
		Title            string `json:"title"`
		Summary          string `json:"summary"`
		Text             string `json:"text"`
		AnnotationsCount int    `json:"annotations_count"`
	} `json:"output"`
}

// CheckRunUpdate creates or changes a check run; empty fields stay as they are.
type CheckRunUpdate struct {
	Name        string       `json:"name,omitempty"`
	HeadSHA     string       `json:"head_sha,omitempty"`
	ExternalID  string       `json:"external_id,omitempty"`
	DetailsURL  string       `json:"details_url,omitempty"`
	Status      string       `json:"status,omitempty"`
	Conclusion  string       `json:"conclusion,omitempty"`
	StartedAt   time.Time    `json:"started_at,omitzero"`
	CompletedAt time.Time    `json:"completed_at,omitzero"`
	Output      *CheckOutput `json:"output,omitempty"`
}

// CheckOutput is the text of a check run.
type CheckOutput struct {
	Title       string       `json:"title"`
	Summary     string       `json:"summary"`
	Text        string       `json:"text,omitempty"`
	Annotations []Annotation `json:"annotations,omitempty"`
}

// Annotation is a note of a check run on lines of a file.
type Annotation struct {
	Path      string `json:"path"`
	StartLine int    `json:"start_line"`
	EndLine   int    `json:"end_line"`
	Level     string `json:"annotation_level"` // notice, warning or failure
	Message   string `json:"message"`
	Title     string `json:"title,omitempty"`
}

// CreateCheckRun creates a check run. It needs a GitHub App: with a token it
// returns Denied.
func (c *Client) CreateCheckRun(ctx context.Context, r Repository, run CheckRunUpdate) (CheckRun, error) {
	var out CheckRun
	err := c.write(ctx, r, http.MethodPost, r.path("check-runs"), run, &out)
	return out, err
}

// UpdateCheckRun changes a check run; annotations are added to those that exist.
func (c *Client) UpdateCheckRun(ctx context.Context, r Repository, id int64, run CheckRunUpdate) (CheckRun, error) {
	var out CheckRun
	err := c.write(ctx, r, http.MethodPatch, r.path("check-runs", strconv.FormatInt(id, 10)), run, &out)
	return out, err
}

// CheckRun returns a check run.
func (c *Client) CheckRun(ctx context.Context, r Repository, id int64) (CheckRun, error) {
	var out CheckRun
	err := c.get(ctx, r, r.path("check-runs", strconv.FormatInt(id, 10)), &out)
	return out, err
}

// CheckRuns returns the latest check runs of a ref, at most 1000; name may be empty.
func (c *Client) CheckRuns(ctx context.Context, r Repository, ref, name string) ([]CheckRun, error) {
	var all []CheckRun
	for page := 1; page <= 10; page++ {
		q := url.Values{"per_page": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(page)}}
		if name != "" {
			q.Set("check_name", name)
		}
		var out struct {
			Total int        `json:"total_count"`
			Runs  []CheckRun `json:"check_runs"`
		}
		path := r.path("commits", ref, "check-runs")
		if err := c.do(ctx, call{method: http.MethodGet, path: path, query: q, out: &out, as: credential{repo: r}}); err != nil {
			return nil, err
		}
		all = append(all, out.Runs...)
		if len(out.Runs) < pageSize || len(all) >= out.Total {
			break
		}
	}
	return all, nil
}

// Annotations returns the annotations of a check run, at most limit.
func (c *Client) Annotations(ctx context.Context, r Repository, id int64, limit int) ([]Annotation, error) {
	return list[Annotation](ctx, c, credential{repo: r}, r.path("check-runs", strconv.FormatInt(id, 10), "annotations"), nil, limit)
}

// Status is a commit status.
type Status struct {
	State       string `json:"state"` // error, failure, pending or success
	TargetURL   string `json:"target_url,omitempty"`
	Description string `json:"description,omitempty"` // at most 140 characters
	Context     string `json:"context"`
	Creator     User   `json:"creator,omitzero"` // set by GitHub
}

// CreateStatus sets the status of a context of a commit. It may be repeated.
func (c *Client) CreateStatus(ctx context.Context, r Repository, sha string, s Status) error {
	return c.write(ctx, r, http.MethodPost, r.path("statuses", sha), s, nil)
}

// Statuses returns the statuses of a commit, newest first, at most 100.
func (c *Client) Statuses(ctx context.Context, r Repository, sha string) ([]Status, error) {
	return list[Status](ctx, c, credential{repo: r}, r.path("commits", sha, "statuses"), nil, pageSize)
}

// Job is a job of GitHub Actions.
type Job struct {
	ID         int64  `json:"id"`
	RunID      int64  `json:"run_id"`
	Name       string `json:"name"`
	Workflow   string `json:"workflow_name"`
	Status     string `json:"status"`
	Conclusion string `json:"conclusion"`
	HTMLURL    string `json:"html_url"`
	Steps      []Step `json:"steps"`
}

// Step is a step of a job.
type Step struct {
	Number     int    `json:"number"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	Conclusion string `json:"conclusion"`
}

// FailedStep returns the first step that failed.
func (j Job) FailedStep() (Step, bool) {
	for _, s := range j.Steps {
		if s.Conclusion == "failure" || s.Conclusion == "timed_out" {
			return s, true
		}
	}
	return Step{}, false
}

var jobURL = regexp.MustCompile(`/actions/runs/\d+/jobs?/(\d+)(?:[/?#]|$)`)

// JobID returns the job of GitHub Actions whose details a check run links to,
// false for a check run of another App.
func (run CheckRun) JobID() (int64, bool) {
	m := jobURL.FindStringSubmatch(run.DetailsURL)
	if m == nil {
		return 0, false
	}
	id, err := strconv.ParseInt(m[1], 10, 64)
	return id, err == nil
}

// Job returns a job of GitHub Actions.
func (c *Client) Job(ctx context.Context, r Repository, id int64) (Job, error) {
	var out Job
	err := c.get(ctx, r, r.path("actions", "jobs", strconv.FormatInt(id, 10)), &out)
	return out, err
}

const (
	logTime = 2 * time.Minute
	maxLog  = 512 << 20 // bytes that are read of a log
)

// JobLogTail returns the last bytes of the log of a job, at most limit. The log
// is downloaded from another host, which receives no credential.
func (c *Client) JobLogTail(ctx context.Context, r Repository, id int64, limit int) (string, error) {
	k := call{method: http.MethodGet, path: r.path("actions", "jobs", strconv.FormatInt(id, 10), "logs"), as: credential{repo: r}}
	secret, key, err := c.authorize(ctx, k.as)
	if err != nil {
		return "", err
	}
	if err := c.mayCall(key, k); err != nil {
		return "", err
	}
	timed, cancel := context.WithTimeout(ctx, logTime)
	defer cancel()
	res, err := c.openLog(timed, k, secret, key)
	if err != nil {
		return "", lost(ctx, k, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		e := c.failure(k, res, body)
		if e.Kind == agented.RateLimited {
			c.block(key, e.RetryAt)
		}
		return "", e
	}
	t := tail{limit: limit}
	if _, err := io.Copy(&t, io.LimitReader(res.Body, maxLog)); err != nil {
		return "", lost(ctx, k, err)
	}
	return strings.ToValidUTF8(string(t.bytes()), "\uFFFD"), nil
}

// openLog requests a log and follows one redirect without the credential.
func (c *Client) openLog(ctx context.Context, k call, secret, key string) (*http.Response, error) {
	r, err := c.request(ctx, k, secret)
	if err != nil {
		return nil, err
	}
	plain := *c.http
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := plain.Do(r)
	if err != nil {
		return nil, err
	}
	c.observe(key, res)
	if res.StatusCode != http.StatusFound && res.StatusCode != http.StatusTemporaryRedirect {
		return res, nil
	}
	res.Body.Close()
	target, err := res.Location()
	if err != nil {
		return nil, err
	}
	if target.Scheme != c.base.Scheme && target.Scheme != "https" {
		return nil, fmt.Errorf("the log is at a %q address", target.Scheme)
	}
	r, err = http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	return plain.Do(r)
}

// tail keeps the last bytes that were written to it.
type tail struct {
	limit int
	buf   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.limit+64<<10 {
		t.buf = append(t.buf[:0], t.bytes()...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte { return t.buf[max(0, len(t.buf)-t.limit):] }
