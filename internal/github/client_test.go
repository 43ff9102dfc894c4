package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/github/githubtest"
)

var repo = github.Repository{Owner: "o", Name: "r"}

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// asApp returns a server with the repository o/r, and a client as an App.
func asApp(t *testing.T, c *clock) (*githubtest.Server, *githubtest.Repo, *github.Client) {
	t.Helper()
	s := githubtest.New(t)
	s.SetClock(c.Now)
	r := s.AddRepo("o/r")
	a := s.AddApp("agented-test", "o")
	return s, r, client(t, github.Options{URL: s.URL, AppID: a.ID, PrivateKey: a.Key, Now: c.Now})
}

func withToken(t *testing.T) (*githubtest.Server, *githubtest.Repo, *github.Client) {
	t.Helper()
	s := githubtest.New(t)
	r := s.AddRepo("o/r")
	return s, r, client(t, github.Options{URL: s.URL, Token: s.AddToken("bot")})
}

func client(t *testing.T, o github.Options) *github.Client {
	t.Helper()
	c, err := github.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fault(t *testing.T, err error) *github.Error {
	t.Helper()
	e, ok := errors.AsType[*github.Error](err)
	if !ok {
		t.Fatalf("error %v, want one of GitHub", err)
	}
	return e
}

func count(s *githubtest.Server, suffix string) (n int) {
	for _, c := range s.Calls() {
		if strings.HasSuffix(c.Path, suffix) {
			n++
		}
	}
	return n
}

func TestNew_invalid_options(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    github.Options
		says string
	}{
		"none":      {github.Options{}, "no credential"},
		"bad_url":   {github.Options{URL: "ftp://x", Token: "t"}, "http"},
		"cleartext": {github.Options{URL: "http://ghe.example.org", Token: "t"}, "https"},
		"no_key":    {github.Options{AppID: "1", Token: "t"}, "PRIVATE_KEY_FILE"},
		"no_app":    {github.Options{PrivateKey: []byte("k"), Token: "t"}, "GITHUB_APP_ID"},
		"bad_key":   {github.Options{AppID: "1", PrivateKey: []byte("key")}, "PEM"},
		"wrong_key": {github.Options{AppID: "1", PrivateKey: []byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n")}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := github.New(c.o); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one about %q", err, c.says)
			}
		})
	}
}

func TestParseRepository(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{"o/r": true, "my-org/a.b_c": true, "o": false, "o/": false, "o/r/s": false, "../r": false, "o/..": false, "o/r?x": false, "o/r#": false, "ö/r": false} {
		if _, err := github.ParseRepository(text); (err == nil) != valid {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestApp_token(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, _, hub := asApp(t, c)
	// 20 concurrent calls request one token.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := hub.Repository(t.Context(), repo); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count(s, "/access_tokens"); n != 1 {
		t.Errorf("%d tokens were requested, want 1", n)
	}
	// It is replaced shortly before its end.
	c.Add(49 * time.Minute)
	if _, err := hub.Repository(t.Context(), repo); err != nil || count(s, "/access_tokens") != 1 {
		t.Errorf("after 49 minutes: %v, %d tokens", err, count(s, "/access_tokens"))
	}
	c.Add(2 * time.Minute)
	if _, err := hub.Repository(t.Context(), repo); err != nil || count(s, "/access_tokens") != 2 {
		t.Errorf("after 51 minutes: %v, %d tokens", err, count(s, "/access_tokens"))
	}
	// A token that GitHub revoked is replaced.
	s.RevokeTokens()
	if _, err := hub.CreateComment(t.Context(), repo, 1, "x"); agented.KindOf(err) == agented.Unauthenticated || !errors.Is(err, agented.NotFound) {
		t.Errorf("after the token was revoked: %v", err)
	}
	if n := count(s, "/access_tokens"); n != 3 {
		t.Errorf("%d tokens were requested, want 3", n)
	}
}

// A token is valid for one repository, so that a leaked one reaches no other.
func TestApp_token_scope(t *testing.T) {
	t.Parallel()
	s, _, hub := asApp(t, newClock())
	s.AddRepo("o/other")
	token, err := hub.RepositoryToken(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	leaked := client(t, github.Options{URL: s.URL, Token: token.Token})
	if _, err := leaked.Repository(t.Context(), repo); err != nil {
		t.Error(err)
	}
	if _, err := leaked.Repository(t.Context(), github.Repository{Owner: "o", Name: "other"}); !errors.Is(err, agented.NotFound) {
		t.Errorf("the token reaches another repository: %v", err)
	}
}

// One caller that gives up does not fail the others that wait for its token.
func TestApp_token_cancelled(t *testing.T) {
	t.Parallel()
	s, _, hub := asApp(t, newClock())
	s.Fail(githubtest.Fault{Path: "/installation$", Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := hub.Repository(ctx, repo)
		first <- err
	}()
	for count(s, "/installation") == 0 {
		time.Sleep(time.Millisecond)
	}
	second := make(chan error, 1)
	go func() {
		_, err := hub.Repository(t.Context(), repo)
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that gave up: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the other caller: %v", err)
	}
}

func TestApp_not_installed(t *testing.T) {
	t.Parallel()
	s, _, hub := asApp(t, newClock())
	s.AddRepo("stranger/r")
	_, err := hub.Repository(t.Context(), github.Repository{Owner: "stranger", Name: "r"})
	if !errors.Is(err, agented.NotFound) || !strings.Contains(err.Error(), "not installed on stranger/r") {
		t.Errorf("not installed: %v", err)
	}
	s.Suspend("o")
	if _, err := hub.Repository(t.Context(), repo); !errors.Is(err, agented.Denied) || !strings.Contains(err.Error(), "suspended") {
		t.Errorf("suspended: %v", err)
	}
}

// The clock of this machine may be wrong: that of GitHub counts.
func TestApp_clock_skew(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-3 * time.Hour, -2 * time.Minute, 2 * time.Minute, 3 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			c := newClock()
			s, _, _ := asApp(t, c)
			a := s.AddApp("skewed", "o")
			hub := client(t, github.Options{URL: s.URL, AppID: a.ID, PrivateKey: a.Key, Now: func() time.Time { return c.Now().Add(by) }})
			for range 3 {
				if _, err := hub.Repository(t.Context(), repo); err != nil {
					t.Fatal(err)
				}
			}
			if n := count(s, "/access_tokens"); n > 2 {
				t.Errorf("%d tokens were requested", n)
			}
			s.Limit(fmt.Sprintf("installation %d", mustInstallation(t, hub)), 0, c.Now().Add(10*time.Minute))
			_, err := hub.Repository(t.Context(), repo)
			if wait := fault(t, err).RetryAt.Sub(c.Now().Add(by)); wait < 9*time.Minute || wait > 11*time.Minute {
				t.Errorf("the limit ends in 10 minutes, the client waits %s", wait)
			}
		})
	}
}

func mustInstallation(t *testing.T, hub *github.Client) int64 {
	t.Helper()
	in, err := hub.RepositoryInstallation(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	return in.ID
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault     githubtest.Fault
		kind      agented.Kind
		retryable bool
		maybe     bool
	}{
		"server_error":     {githubtest.Fault{}, agented.Unavailable, true, true},
		"done_then_502":    {githubtest.Fault{Done: true}, agented.Unavailable, true, true},
		"connection_lost":  {githubtest.Fault{Drop: true}, agented.Unavailable, true, true},
		"html_of_a_proxy":  {githubtest.Fault{Status: 200, Body: "<html>"}, agented.Unavailable, true, true},
		"not_found":        {githubtest.Fault{Status: 404}, agented.NotFound, false, false},
		"gone":             {githubtest.Fault{Status: 410}, agented.NotFound, false, false},
		"denied":           {githubtest.Fault{Status: 403, Body: `{"message":"Resource not accessible"}`}, agented.Denied, false, false},
		"invalid":          {githubtest.Fault{Status: 422, Body: `{"message":"Validation Failed","errors":[{"field":"head","code":"invalid"},"text"]}`}, agented.Invalid, false, false},
		"conflict":         {githubtest.Fault{Status: 409}, agented.Conflict, false, false},
		"bad_credential":   {githubtest.Fault{Status: 401, Times: -1}, agented.Unauthenticated, false, false},
		"too_large":        {githubtest.Fault{Status: 200, Body: strings.Repeat(" ", github.MaxAnswer+1)}, agented.TooLarge, false, true},
		"redirect_to_host": {githubtest.Fault{Status: 302, Header: http.Header{"Location": {"http://127.0.0.1:1/steal"}}}, agented.Internal, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, hub := withToken(t)
			s.Fail(c.fault)
			_, err := hub.CreateIssue(t.Context(), repo, github.NewIssue{Title: "x"})
			e := fault(t, err)
			if e.Kind != c.kind || e.Retryable() != c.retryable || e.MayBeDone() != c.maybe {
				t.Errorf("%s (%s), retryable %t, may be done %t", e, e.Kind, e.Retryable(), e.MayBeDone())
			}
			if strings.ContainsAny(e.Error(), "\n\x1b") {
				t.Errorf("the text has control characters: %q", e.Error())
			}
		})
	}
}

func TestErrors_validation_text(t *testing.T) {
	t.Parallel()
	s, r, hub := withToken(t)
	s.Do(func() { r.Branches["fix"] = strings.Repeat("b", 40) })
	in := github.NewPullRequest{Title: "Fix", Head: "fix", Base: "main"}
	if _, err := hub.CreatePullRequest(t.Context(), repo, in); err != nil {
		t.Fatal(err)
	}
	_, err := hub.CreatePullRequest(t.Context(), repo, in)
	if e := fault(t, err); e.Kind != agented.Invalid || !strings.Contains(e.Text, "already exists for o:fix") {
		t.Errorf("a second pull request: %v", err)
	}
	got, err := hub.PullRequestsOf(t.Context(), repo, "o", "fix", "all")
	if err != nil || len(got) != 1 || got[0].Head.Ref != "fix" {
		t.Errorf("pull requests of the branch: %v, %v", got, err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit     func(*githubtest.Server, time.Time)
		wait      time.Duration
		secondary bool
	}{
		"primary":             {func(s *githubtest.Server, now time.Time) { s.Limit("token bot", 0, now.Add(17*time.Minute)) }, 17 * time.Minute, false},
		"secondary_with_time": {func(s *githubtest.Server, _ time.Time) { s.SecondaryLimit("", "", 0, 1, "120") }, 2 * time.Minute, true},
		"secondary_without":   {func(s *githubtest.Server, _ time.Time) { s.SecondaryLimit("", "", 0, 1, "") }, time.Minute, true},
		"status_429":          {func(s *githubtest.Server, _ time.Time) { s.Fail(githubtest.Fault{Status: 429}) }, time.Minute, false},
		"endless":             {func(s *githubtest.Server, _ time.Time) { s.SecondaryLimit("", "", 0, 1, "999999999") }, 2 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := newClock()
			s := githubtest.New(t)
			s.SetClock(now.Now)
			s.AddRepo("o/r")
			hub := client(t, github.Options{URL: s.URL, Token: s.AddToken("bot"), Now: now.Now})
			c.limit(s, now.Now())
			_, err := hub.Repository(t.Context(), repo)
			e := fault(t, err)
			at, ok := github.RetryAt(err)
			if wait := at.Sub(now.Now()); !ok || e.Kind != agented.RateLimited || e.Secondary != c.secondary || (wait-c.wait).Abs() > 2*time.Second {
				t.Fatalf("%v: secondary %t, wait %s", err, e.Secondary, wait)
			}
			// Nothing is sent until then.
			sent := len(s.Calls())
			if _, err := hub.Repository(t.Context(), repo); !errors.Is(err, agented.RateLimited) || len(s.Calls()) != sent {
				t.Errorf("a call within the pause was sent: %v", err)
			}
			now.Add(c.wait + 3*time.Second)
			if _, err := hub.Repository(t.Context(), repo); err != nil {
				t.Errorf("after the pause: %v", err)
			}
		})
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	s, _, hub := withToken(t)
	s.Limit("token bot", 100, time.Now().Add(time.Hour))
	if _, err := hub.Repository(t.Context(), repo); err != nil {
		t.Fatal(err)
	}
	if q := hub.Quotas()["token"]; q.Remaining != 99 || q.Limit != 5000 || time.Until(q.Reset) < 50*time.Minute {
		t.Errorf("quota %+v", q)
	}
}

func TestList_pages(t *testing.T) {
	t.Parallel()
	s, _, hub := withToken(t)
	if _, err := hub.CreateIssue(t.Context(), repo, github.NewIssue{Title: "x"}); err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		if _, err := hub.CreateComment(t.Context(), repo, 1, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := hub.Comments(t.Context(), repo, 1)
	if err != nil || len(got) != 250 || got[249].Body != "249" {
		t.Errorf("%d comments, %v", len(got), err)
	}
	if n := len(s.Writes()); n != 251 {
		t.Errorf("%d writes", n)
	}
}

func TestCheckRuns_need_an_app(t *testing.T) {
	t.Parallel()
	_, _, hub := withToken(t)
	run := github.CheckRunUpdate{Name: "review", HeadSHA: strings.Repeat("a", 40)}
	if _, err := hub.CreateCheckRun(t.Context(), repo, run); !errors.Is(err, agented.Denied) {
		t.Errorf("with a token: %v", err)
	}
	_, _, hub = asApp(t, newClock())
	made, err := hub.CreateCheckRun(t.Context(), repo, run)
	if err != nil {
		t.Fatal(err)
	}
	notes := make([]github.Annotation, github.MaxAnnotations)
	for range 2 {
		made, err = hub.UpdateCheckRun(t.Context(), repo, made.ID, github.CheckRunUpdate{Conclusion: "failure", Output: &github.CheckOutput{Title: "t", Summary: "s", Annotations: notes}})
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := hub.CheckRuns(t.Context(), repo, "main", "review")
	if err != nil || len(got) != 1 || got[0].Output.AnnotationsCount != 100 || got[0].Status != "completed" {
		t.Errorf("check runs %+v, %v", got, err)
	}
}

func TestJobLogTail(t *testing.T) {
	t.Parallel()
	_, r, hub := asApp(t, newClock())
	run := r.AddJob("test", "Run tests", strings.Repeat("a", 40), strings.Repeat("line\n", 1<<18)+"FAIL: the end\n")
	id, ok := run.JobID()
	if !ok {
		t.Fatal("no job")
	}
	job, err := hub.Job(t.Context(), repo, id)
	if step, failed := job.FailedStep(); err != nil || !failed || step.Name != "Run tests" {
		t.Errorf("job %+v, %v", job, err)
	}
	got, err := hub.JobLogTail(t.Context(), repo, id, 1000)
	if err != nil || len(got) != 1000 || !strings.HasSuffix(got, "FAIL: the end\n") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := hub.JobLogTail(t.Context(), repo, id+1, 1000); err == nil || !fault(t, err).Gone() {
		t.Errorf("a log that is gone: %v", err)
	}
}

// A credential reaches no other host than that of the API.
func TestRedirect_sends_no_credential(t *testing.T) {
	t.Parallel()
	var leaked atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
	}))
	defer other.Close()
	s, _, hub := withToken(t)
	s.Fail(githubtest.Fault{Times: -1, Status: http.StatusFound, Header: http.Header{"Location": {other.URL}}})
	_, _ = hub.Repository(t.Context(), repo)
	_, _ = hub.JobLogTail(t.Context(), repo, 1, 10)
	if leaked.Load() {
		t.Error("a redirect to another host received the credential")
	}
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	s, _, hub := asApp(t, newClock())
	for name, source := range map[string]func(*githubtest.Hook) github.HookSource{
		"o/r": func(h *githubtest.Hook) github.HookSource { return github.HookSource{Repository: repo, Hook: h.ID} },
		"":    func(*githubtest.Hook) github.HookSource { return github.HookSource{} },
	} {
		h := s.AddHook(name, "", "")
		var guid string
		for i := range 250 {
			guid = h.Record("push", map[string]int{"n": i})
		}
		from, cursor, n := source(h), "", 0
		var newest github.DeliverySummary
		for {
			page, next, err := hub.Deliveries(t.Context(), from, cursor)
			if err != nil {
				t.Fatal(err)
			}
			if cursor == "" {
				newest = page[0]
			}
			if n += len(page); next == "" {
				break
			}
			cursor = next
		}
		if n != 250 || newest.GUID != guid {
			t.Errorf("%q: %d deliveries, newest %+v", name, n, newest)
		}
		d, err := hub.Delivery(t.Context(), from, newest.ID)
		if err != nil || string(d.Request.Payload) != `{"n":249}` || d.Request.Headers["X-GitHub-Event"] != "push" {
			t.Errorf("%q: %+v, %v", name, d, err)
		}
		h.Expire(guid)
		if _, err := hub.Delivery(t.Context(), from, newest.ID); err == nil || !fault(t, err).Gone() {
			t.Errorf("%q: expired: %v", name, err)
		}
	}
	hooks, err := hub.RepositoryHooks(t.Context(), repo)
	if err != nil || len(hooks) != 1 {
		t.Errorf("hooks %+v, %v", hooks, err)
	}
}

func TestReviews(t *testing.T) {
	t.Parallel()
	_, r, hub := asApp(t, newClock())
	p := r.AddPull("fix", strings.Repeat("b", 40), "ann")
	v, err := hub.CreateReview(t.Context(), repo, p.Number, github.NewReview{
		Event: "REQUEST_CHANGES", Body: "see below", CommitID: p.Head.SHA, Comments: []github.ReviewComment{{Path: "a.go", Line: 3, Side: "RIGHT", Body: "why?"}},
	})
	if err != nil || v.State != "CHANGES_REQUESTED" {
		t.Fatalf("review %+v, %v", v, err)
	}
	got, err := hub.CommentsOfReview(t.Context(), repo, p.Number, v.ID)
	if err != nil || len(got) != 1 || got[0].Path != "a.go" || got[0].Line != 3 || got[0].User.Login != "agented-test[bot]" {
		t.Errorf("comments %+v, %v", got, err)
	}
	if login, err := hub.Login(t.Context()); err != nil || login != "agented-test[bot]" {
		t.Errorf("login %q, %v", login, err)
	}
}
