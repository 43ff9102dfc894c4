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
