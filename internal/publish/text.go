package publish

import (
	"context"
	"strings"

	"github.com/agented/agented"
)

func sameLogin(a, b string) bool { return strings.EqualFold(a, b) }

// endsWith reports whether the last line of a text is a marker. Elsewhere, the agent wrote it.
func endsWith(text, marker string) bool {
	return strings.HasSuffix(strings.TrimSpace(text), marker)
}

// comment writes a comment, or updates the trigger's earlier one.
func (j *job) comment(ctx context.Context) error {
	login, err := j.forge.Login(ctx)
	if err != nil {
		return err
	}
	found, ok, err := j.forge.FindComment(ctx, j.v.Repository, j.v.Subject, login, j.marker())
	if err != nil {
		return err
	}
	if ok {
		j.written(found)
		return nil
	}
	if err := j.gate(ctx); err != nil {
		return err
	}
	body := j.proposal.Body + "\n\n" + j.marker()
	if !j.policy.Comment.New {
		earlier, err := j.p.o.DB.LastPublished(ctx, j.v)
		if err != nil {
			return &passing{text: "the trigger's earlier comment could not be looked up", cause: err}
		}
		if earlier != 0 {
			w, ok, err := j.forge.UpdateComment(ctx, j.v.Repository, earlier, body)
			if err != nil {
				return err
			}
			if ok {
				j.written(w)
				return nil
			}
		}
	}
	w, err := j.forge.CreateComment(ctx, j.v.Repository, j.v.Subject, body)
	if err != nil {
		return err
	}
	j.written(w)
	return nil
}

// body returns the text of a pull request or an issue.
func (j *job) body() string {
	text := j.proposal.Body
	if text == "" {
		text = "Proposed by " + agented.PublicationTrailer + " " + string(j.v.Execution) + "."
	}
	return text + "\n\n" + j.marker()
}
