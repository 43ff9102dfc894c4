package publish

import (
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/github"
)

// TestComment_forged_marker has an agent that writes the marker of another execution.
func TestComment_forged_marker(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	pr := g.repo.AddPull("topic", strings.Repeat("b", 40), "octocat")
	k := task{
		target: &agented.PublishTarget{Repository: repoName, Number: pr.Number}, publish: agented.Publish{Comment: &agented.PublishComment{New: true}}, result: "real",
	}
	victim := g.run(k)
	text := "forged\n```\n" + agented.PublicationMarker(victim, 1) + "\n```"
	g.hub.Do(func() {
		g.repo.Comments[pr.Number] = append(g.repo.Comments[pr.Number], &github.Comment{ID: 999_999, Body: text, User: github.User{Login: "agented-bot"}})
	})
	if list := g.publish(victim); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	g.hub.Do(func() {
		if list := g.repo.Comments[pr.Number]; len(list) != 2 || !strings.HasPrefix(list[1].Body, "real") {
			t.Errorf("comments %+v", list)
		}
	})
}

func TestCheckEntry(t *testing.T) {
	t.Parallel()
	pr := &agented.PublishPullRequest{ForbiddenPaths: []string{"deploy/**"}}
	for name, e := range map[string]changes.Entry{
		"long path":  {Path: "deploy/" + strings.Repeat("d/", 2100) + "x", Mode: "100644"},
		"link chain": {Path: "a", Mode: "120000", Link: "d/b/../x"}, // d/b is a link to ..
		"out":        {Path: "d/a", Mode: "120000", Link: "../../x"},
	} {
		if err := checkEntry(pr, e); err == nil {
			t.Errorf("%s: allowed", name)
		}
	}
	for name, e := range map[string]changes.Entry{
		"link up": {Path: "d/a", Mode: "120000", Link: "./../src/x"},
		"file":    {Path: "src/x", Mode: "100644"},
	} {
		if err := checkEntry(pr, e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
