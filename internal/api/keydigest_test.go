package api_test

import (
	"encoding/json"
	"testing"

	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
)

func TestKeyDigest(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		same       bool
	}{
		{"nothing_and_an_empty_object", "null", " {} ", true},
		{"order_and_white_space", `{"message":"x","vars":{"a":"1","b":"2"}}`, `{ "vars": {"b":"2", "a":"1"}, "message":"x"}`, true},
		{"another_message", `{"message":"x"}`, `{"message":"y"}`, false},
		{"another_variable", `{"vars":{"a":"1"}}`, `{"vars":{"a":"2"}}`, false},
		{"another_name_in_env", `{"env":{"A":"1"}}`, `{"env":{"B":"1"}}`, false},
		{"another_command", `{"command":["true"]}`, `{"command":["false"]}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if same := rest.KeyDigest(json.RawMessage(c.a)) == rest.KeyDigest(json.RawMessage(c.b)); same != c.same {
				t.Errorf("the same: %v, want %v", same, c.same)
			}
			var a, b api.ExecutionCreate
			if json.Unmarshal([]byte(c.a), &a) != nil || json.Unmarshal([]byte(c.b), &b) != nil {
				t.Fatal("not a body")
			}
			if same := rest.KeyDigest(a) == rest.KeyDigest(b); same != c.same {
				t.Errorf("as bodies, the same: %v, want %v", same, c.same)
			}
		})
	}
	if digest := rest.KeyDigest((*api.RunInput)(nil)); digest == "" || digest != rest.KeyDigest(&api.RunInput{}) {
		t.Errorf("no body: %q", digest)
	}
}
