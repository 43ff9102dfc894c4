package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/github/githubtest"
)

func TestGitHub_credentials(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	app, bare := s.AddApp("agented-test", "o"), s.AddApp("bare")
	token := s.AddToken("bot")
	for name, c := range map[string]struct {
		config config.Config
		status Status
		says   string
		fix    string
	}{
		"app":              {config.Config{GitHubAppID: app.ID, GitHubAppKey: config.NewSecret(string(app.Key))}, OK, "agented-test works", ""},
		"not_installed":    {config.Config{GitHubAppID: bare.ID, GitHubAppKey: config.NewSecret(string(bare.Key))}, Warn, "accounts: 0", "install the App"},
		"unknown_app":      {config.Config{GitHubAppID: "1", GitHubAppKey: config.NewSecret(string(app.Key))}, Fail, "Integration not found", "GITHUB_APP_ID"},
		"no_key":           {config.Config{GitHubAppID: "1"}, Fail, "GITHUB_APP_PRIVATE_KEY_FILE", "follow"},
		"token":            {config.Config{GitHubToken: config.NewSecret(token), GitHubLogins: []string{"Bot"}}, OK, "token of bot works", ""},
		"token_of_a_user":  {config.Config{GitHubToken: config.NewSecret(token)}, Warn, "fire triggers", "AGENTED_GITHUB_LOGINS to bot"},
		"token_is_invalid": {config.Config{GitHubToken: config.NewSecret("github_pat_wrong")}, Fail, "Bad credentials", "AGENTED_GITHUB_TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config.GitHubAPI = s.URL
			got := checkGitHub(t.Context(), Options{Config: &c.config})
			if len(got) != 1 || got[0].Status != c.status || !strings.Contains(got[0].Text, c.says) || !strings.Contains(got[0].Fix, c.fix) {
				t.Errorf("findings %+v", got)
			}
			for _, f := range got {
				if strings.Contains(f.Text+f.Fix, token) || strings.Contains(f.Text+f.Fix, "BEGIN") {
					t.Errorf("the finding contains the secret: %+v", f)
				}
			}
		})
	}
	if got := checkGitHub(t.Context(), Options{Config: &config.Config{}}); got != nil {
		t.Errorf("without a credential: %+v", got)
	}
}

func TestGitHub_clock(t *testing.T) {
	t.Parallel()
	s := githubtest.New(t)
	s.SetClock(func() time.Time { return time.Now().Add(-time.Hour) })
	app := s.AddApp("agented-test", "o")
	got := checkGitHub(t.Context(), Options{Config: &config.Config{GitHubAPI: s.URL, GitHubAppID: app.ID, GitHubAppKey: config.NewSecret(string(app.Key))}})
	if len(got) != 1 || got[0].Status != Warn || !strings.Contains(got[0].Text, "differs by") {
		t.Errorf("findings %+v", got)
	}
}

func TestPulls(t *testing.T) {
	t.Parallel()
	now := time.Now()
	o := Options{Now: func() time.Time { return now }, Pulls: func(context.Context) ([]PullSource, error) {
		return []PullSource{{"app", now.Add(-time.Minute), ""}, {"o/r", now, "Not Found"}, {"o/late", now.Add(-2 * time.Hour), ""}}, nil
	}}
	got := checkPulls(t.Context(), o)
	if len(got) != 3 || got[0].Status != OK || got[1].Status != Warn || !strings.Contains(got[1].Text, "Not Found") || got[2].Status != Warn {
		t.Errorf("findings %+v", got)
	}
	o.Pulls = func(context.Context) ([]PullSource, error) { return nil, errors.New("no server") }
	if got := checkPulls(t.Context(), o); len(got) != 0 {
		t.Errorf("without a server: %+v", got)
	}
}
