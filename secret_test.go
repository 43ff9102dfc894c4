package agented_test

import (
	"encoding/json"
	"testing"

	"github.com/agented/agented"
)

func TestRepository_matches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		address, pattern string
		want             bool
	}{
		{"https://github.com/acme/web.git", "acme/web", true},
		{"https://github.com/ACME/Web", "acme/*", true},
		{"git@github.com:acme/web.git", "acme/web", true},
		{"ssh://git@github.com/acme/web", "github.com/acme/web", true},
		{"https://github.com/acme/web", "acme/w", false},
		{"https://github.com/acme/web/more", "acme/*", false},
		{"https://evil.example/acme/web", "acme/web", false},
		{"https://evil.example/github.com/acme/web", "acme/web", false},
		{"https://github.com.evil.example/acme/web", "github.com/acme/web", false},
		{"https://git.example/acme/web", "git.example/acme/*", true},
		{"https://git.example/acme/web", "*/acme/web", true},
		{"https://git.example/group/sub/web", "git.example/group/**", true},
		{"https://git.example/other/sub/web", "git.example/group/**", false},
		{"https://git.example/group", "git.example/group/**", false},
		{"file:///srv/git/web.git", "/srv/git/*", true},
		{"file:///srv/git/web.git", "srv/git", false},
		{"https://git.example/srv/git/web", "/srv/git/*", false},
	} {
		r, err := agented.ParseRepository(c.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Matches(c.pattern); got != c.want {
			t.Errorf("%s matches %s: %v", c.address, c.pattern, got)
		}
	}
}

func TestCredential_json(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]agented.Credential{
		`"GH_TOKEN"`: "GH_TOKEN", `{"secret":"github"}`: agented.Credential(agented.SecretRef("github")), `""`: "",
	} {
		var got agented.Credential
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		if back, err := json.Marshal(got); err != nil || string(back) != text {
			t.Errorf("%s is written as %s, %v", text, back, err)
		}
	}
	for _, text := range []string{`{"secret":""}`, `{"other":"x"}`, `1`, `"secret:v1:x"`} {
		var got agented.Credential
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %q", text, got)
		}
	}
}

func TestSecret_scope(t *testing.T) {
	t.Parallel()
	s := agented.Secret{Name: "s", Triggers: []string{"Nightly", "trg-1", "team/*", "[odd]"}}
	for _, c := range []struct {
		id   agented.TriggerID
		name string
		want bool
	}{
		{"trg-0", "nightly", true},
		{"trg-1", "renamed", true},
		{"trg-0", "team/x", true},
		{"trg-0", "[odd]", true},
		{"trg-0", "nightly2", false},
		{"trg-0", "team", false},
		{"", "nightly", false},
	} {
		if got := s.OutOfScope(&agented.Execution{Trigger: c.id, TriggerName: c.name}) == ""; got != c.want {
			t.Errorf("%s %s: %v", c.id, c.name, got)
		}
	}
}
