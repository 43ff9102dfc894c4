package app

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/publish"
)

// newPublisher returns what writes to the forge.
func (a *App) newPublisher() *publish.Publisher {
	return publish.New(publish.Options{
		DB: a.db, Layout: a.layout, Log: a.o.Log, Mirror: a.workspaces().MirrorObjects, Observed: a.metrics.Published,
		Git: func() changes.Git {
			path, _ := a.config.Load().Variable("PATH")
			return changes.Git{Path: path}
		},
		Forge: func() (publish.Forge, error) {
			if c := a.github.Load(); c != nil {
				return publish.GitHub{Client: c}, nil
			}
			return nil, agented.Errorf(agented.Unavailable, "the server has no credential for GitHub: set GITHUB_APP_ID or AGENTED_GITHUB_TOKEN")
		},
	})
}

// writer is the account that a client of GitHub's API writes as.
type writer struct {
	client *github.Client
	login  string
}

// account holds the account that the server writes as, once it is known.
type account struct{ atomic.Pointer[writer] }

// publishesAs returns the account that the server writes as; it is empty until GitHub has answered.
func (a *App) publishesAs() string {
	client := a.github.Load()
	if client == nil {
		return ""
	}
	if w := a.writesAs.Load(); w != nil && w.client == client {
		return w.login
	}
	return ""
}

// learnAccount asks for the account that the server writes as, until ctx is cancelled.
func (a *App) learnAccount(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if client := a.github.Load(); client != nil && a.publishesAs() == "" {
			if login, err := client.Login(ctx); err == nil {
				a.writesAs.Store(&writer{client, login})
			} else if ctx.Err() == nil {
				a.o.Log.Warn("the account of the GitHub credential is unknown", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
