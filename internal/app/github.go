package app

import (
	"slices"
	"sync"

	"github.com/agented/agented/internal/api/hooks"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/github"
)

// githubOptions returns the options of the client of GitHub's API.
func githubOptions(c *config.Config) github.Options {
	return github.Options{URL: c.GitHubAPI, Token: c.GitHubToken.Reveal(), AppID: c.GitHubAppID, PrivateKey: []byte(c.GitHubAppKey.Reveal())}
}

// newGitHub returns the client of GitHub's API, nil if no credential is set.
func (a *App) newGitHub(c *config.Config) (*github.Client, error) {
	if !c.GitHubSet() {
		return nil, nil
	}
	o := githubOptions(c)
	o.Issued = func(token string) {
		a.githubTokens.add(token)
		a.setMasker()
	}
	return github.New(o)
}

// maxIssued is the number of installation tokens that are masked. Each is valid
// for an hour.
const maxIssued = 500

// issuedTokens holds the latest installation tokens, to mask them.
type issuedTokens struct {
	mu     sync.Mutex
	tokens []string
}

func (t *issuedTokens) add(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tokens = append(t.tokens, token)
	if n := len(t.tokens) - maxIssued; n > 0 {
		t.tokens = slices.Delete(t.tokens, 0, n)
	}
}

func (t *issuedTokens) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.tokens)
}

// pulls returns what is fetched from GitHub, nil if nothing is.
func (a *App) pulls() *hooks.Pulls {
	c, hub := a.config.Load(), a.github.Load()
	if hub == nil || c.GitHubPull == 0 || a.puller == nil {
		return nil
	}
	return &hooks.Pulls{Every: c.GitHubPull, Sources: a.puller.Status(), Quotas: hub.Quotas()}
}
