package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github"
)

// timeForGitHub bounds the calls of GitHub's API.
const timeForGitHub = 10 * time.Second

// wanted are the permissions of a GitHub App that the features of the server
// need, with the weakest level that is enough.
var wanted = []struct{ permission, level, what string }{
	{"contents", "write", "pushing branches"},
	{"pull_requests", "write", "pull requests, reviews and comments"},
	{"issues", "write", "issues and comments"},
	{"checks", "write", "check runs"},
	{"statuses", "write", "commit statuses"},
	{"actions", "read", "logs of failed jobs"},
}

// checkGitHub checks that the credential for GitHub's API works. It returns
// nothing if none is set.
func checkGitHub(ctx context.Context, o Options) []Finding {
	c := o.Config
	if c == nil || o.ConfigErr != nil || !c.GitHubSet() {
		return nil
	}
	f := Finding{ID: "settings.github", Area: AreaSettings, Name: "GitHub API", Status: OK}
	hub, err := github.New(github.Options{URL: c.GitHubAPI, Token: c.GitHubToken.Reveal(), AppID: c.GitHubAppID, PrivateKey: []byte(c.GitHubAppKey.Reveal())})
	if err != nil {
		f.Status, f.Text, f.Fix = Fail, agented.Message(err), "follow the message; a server does not start with this setting"
		return []Finding{f}
	}
	ctx, cancel := context.WithTimeout(ctx, timeForGitHub)
	defer cancel()
	if !hub.HasApp() {
		login, err := hub.User(ctx)
		if err != nil {
			return []Finding{gitHubFault(f, err, "AGENTED_GITHUB_TOKEN")}
		}
		f.Text = "the token of " + login + " works (" + c.GitHubAPI + "); check runs need a GitHub App"
		if !contains(c.GitHubLogins, login) {
			f.Status = Warn
			f.Text += "; events that this account causes fire triggers, also those of the server's own writes"
			f.Fix = "set AGENTED_GITHUB_LOGINS to " + login + " if the account belongs to the agents alone"
		}
		return []Finding{f}
	}
	app, err := hub.App(ctx)
	if err != nil {
		return []Finding{gitHubFault(f, err, "GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY_FILE")}
	}
	f.Text = fmt.Sprintf("the GitHub App %s works (%s), installed on accounts: %d", app.Slug, c.GitHubAPI, app.Installations)
	var missing []string
	for _, w := range wanted {
		if got := app.Permissions[w.permission]; got != "write" && got != w.level && got != "admin" {
			missing = append(missing, fmt.Sprintf("%s: %s (%s)", w.permission, w.level, w.what))
		}
	}
	var skew string
	if d := hub.Skew(); d != 0 {
		skew = fmt.Sprintf("; the clock of this machine differs by %s", d.Round(time.Second))
	}
	switch {
	case app.Installations == 0:
		f.Status, f.Text, f.Fix = Warn, f.Text+skew, "install the App on the accounts of the repositories, on its public page"
	case len(missing) > 0:
		f.Status = Warn
		f.Text += skew + "; it lacks permissions: " + strings.Join(missing, ", ")
		f.Fix = "add those that you need on the App's page Permissions & events, and accept the request on each installation"
	case skew != "":
		f.Status, f.Text, f.Fix = Warn, f.Text+skew, "synchronize the clock, for example with timedatectl set-ntp true"
	}
	return []Finding{f}
}

func contains(list []string, login string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, login) })
}

// gitHubFault returns the finding for a call that failed.
func gitHubFault(f Finding, err error, settings string) Finding {
	f.Status, f.Text = Warn, "GitHub's API cannot be reached"
	f.Fix = "check AGENTED_GITHUB_API_URL and the network of this machine"
	e, ok := errors.AsType[*github.Error](err)
	if !ok {
		return f
	}
	f.Text = e.Error()
	switch e.Kind {
	case agented.Unauthenticated, agented.NotFound, agented.Denied:
		f.Status, f.Fix = Fail, "check "+settings+": GitHub does not accept the credential"
	case agented.RateLimited:
		f.Fix = "wait until then"
	}
	return f
}

// PullSource is a webhook whose missed deliveries a server fetches.
type PullSource struct {
	Name    string
	Success time.Time // zero: never
	Problem string
}

// pullLate is the time without success after which fetching is reported.
const pullLate = time.Hour

// checkPulls reports webhooks whose missed deliveries cannot be fetched.
func checkPulls(ctx context.Context, o Options) []Finding {
	if o.Pulls == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeForAccounts)
	defer cancel()
	list, err := o.Pulls(ctx)
	if err != nil {
		return nil
	}
	var out []Finding
	for _, s := range list {
		f := Finding{ID: "triggers.pull." + s.Name, Area: AreaTriggers, Name: "missed deliveries of " + s.Name, Status: OK, Text: "are fetched from GitHub"}
		switch {
		case s.Problem != "":
			f.Status, f.Text = Warn, "cannot be fetched from GitHub: "+s.Problem
			f.Fix = "follow the message; the credential needs read access to webhooks. To fetch none, set AGENTED_GITHUB_PULL=0"
		case !s.Success.IsZero() && o.Now().Sub(s.Success) > pullLate:
			f.Status, f.Text = Warn, "were last fetched from GitHub at "+s.Success.UTC().Format("2006-01-02 15:04 UTC")
			f.Fix = "look at the log of the server"
		}
		out = append(out, f)
	}
	return out
}
