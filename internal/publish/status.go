package publish

import (
	"cmp"
	"context"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github"
)

// commitStatus sets the status of the event's commit.
func (j *job) commitStatus(ctx context.Context) error {
	name := cmp.Or(j.policy.CommitStatus.Context, agented.DefaultStatusContext+j.e.TriggerName)
	anchor := agented.PublicationAnchor(j.v.Execution, j.v.Number)
	login, err := j.forge.Login(ctx)
	if err != nil {
		return err
	}
	w, ok, err := j.forge.FindStatus(ctx, j.v.Repository, j.v.SHA, login, name, anchor)
	if err != nil {
		return err
	}
	if !ok {
		if err := j.gate(ctx); err != nil {
			return err
		}
		w, err = j.forge.CreateStatus(ctx, j.v.Repository, j.v.SHA, NewStatus{
			State: j.proposal.State, Description: j.proposal.Description, Context: name, Anchor: anchor,
		})
		if err != nil {
			return err
		}
	}
	j.written(w)
	return nil
}

// FindStatus implements Forge.
func (g GitHub) FindStatus(ctx context.Context, repo, commit, login, name, end string) (Written, bool, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, false, err
	}
	list, err := g.Client.Statuses(ctx, r, commit)
	for _, s := range list {
		if sameLogin(s.Creator.Login, login) && s.Context == name && strings.HasSuffix(s.TargetURL, end) {
			return Written{URL: strings.TrimSuffix(s.TargetURL, end)}, true, nil
		}
	}
	return Written{}, false, err
}

// CreateStatus implements Forge.
func (g GitHub) CreateStatus(ctx context.Context, repo, commit string, s NewStatus) (Written, error) {
	r, err := github.ParseRepository(repo)
	if err != nil {
		return Written{}, err
	}
	info, err := g.Client.Repository(ctx, r)
	if err != nil {
		return Written{}, err
	}
	page := info.HTMLURL + "/commit/" + commit
	err = g.Client.CreateStatus(ctx, r, commit, github.Status{State: s.State, Description: s.Description, Context: s.Context, TargetURL: page + s.Anchor})
	return Written{URL: page}, err
}
