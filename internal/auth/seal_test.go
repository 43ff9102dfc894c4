package auth

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
)

func TestSealer(t *testing.T) {
	t.Parallel()
	key, err := secret.Load(secret.Options{Path: filepath.Join(t.TempDir(), "key")})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSealer(key)
	spec := agented.Spec{Env: map[string]*string{"A": new("one"), "B": new("two"), "C": nil}}
	s.SealEnv(&spec, nil)
	stored := spec.Env
	if got, err := s.OpenEnv("A", *stored["A"]); err != nil || got != "one" || stored["C"] != nil {
		t.Errorf("A is %q, %v", got, err)
	}
	if _, err := s.OpenEnv("B", *stored["A"]); err == nil {
		t.Error("a value opens under another name")
	}
	if _, err := s.OpenWebhook("A", *stored["A"]); err == nil {
		t.Error("a value opens for another purpose")
	}
	again := agented.Spec{Env: map[string]*string{"A": new("one"), "B": new("three"), "D": stored["B"]}}
	s.SealEnv(&again, map[string]*string{"A": stored["A"], "B": stored["B"], "D": stored["B"]})
	if again.Env["A"] != stored["A"] || again.Env["D"] != stored["B"] || *again.Env["B"] == *stored["B"] {
		t.Error("an unchanged value was sealed again, or a changed one was not")
	}
	id := agented.AccountID("acc-1")
	accounts := []agented.Account{{ID: id, Credentials: map[string]string{"Y": s.SealCredential(id, "Y", "2"), "X": s.SealCredential(id, "X", "1"), "Z": "sealed:v1:damaged"}}}
	if got := s.Credentials(accounts); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("credentials %q", got)
	}
}
