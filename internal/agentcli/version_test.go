package agentcli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/testrun"
)

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cli")
	if err := testrun.WriteProgram(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersion_parsed(t *testing.T) {
	t.Parallel()
	env := []string{"PATH=/usr/bin:/bin"}
	for said, want := range map[string]string{
		"2.1.330 (Claude Code)": "2.1.330", "codex-cli 0.169.0": "0.169.0", "0.61.0": "0.61.0",
		"v1.2.3-beta.1": "1.2.3-beta.1", "warning: 3 things\ntool version 4.5": "4.5",
	} {
		got, err := agentcli.Version(t.Context(), anyCLI("claude"), script(t, "cat <<'E'\n"+said+"\nE"), env)
		if got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", said, got, err, want)
		}
	}
	for _, body := range []string{"echo none", "exit 3", "printf '%s\n' x >&2"} {
		if got, err := agentcli.Version(t.Context(), anyCLI("claude"), script(t, body), env); err == nil {
			t.Errorf("%s: version %q", body, got)
		}
	}
	if _, err := agentcli.Version(t.Context(), anyCLI("claude"), "/does/not/exist", env); err == nil {
		t.Error("a program that is not there has a version")
	}
}

func TestVersion_bounded_without_secrets(t *testing.T) {
	t.Setenv("SECRET_KEY", "1.0")
	if got, err := agentcli.Version(t.Context(), anyCLI("claude"), script(t, "echo $SECRET_KEY"), nil); err == nil {
		t.Errorf("the server's environment reached the CLI: %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	// The child keeps the pipe open after its parent was killed.
	_, err := agentcli.Version(ctx, anyCLI("claude"), script(t, "sleep 40 & echo 1.0; wait"), []string{"PATH=/usr/bin:/bin"})
	if err == nil || !strings.Contains(err.Error(), "did not answer") || time.Since(began) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestVersion_cached(t *testing.T) {
	t.Parallel()
	env := []string{"PATH=/usr/bin:/bin"}
	path := script(t, "echo x >> \"$0.count\"; echo 1.0")
	v := agentcli.NewVersions()
	if got := v.Cached(path); got != "" {
		t.Errorf("known before it was asked: %q", got)
	}
	for range 3 {
		if got, err := v.Version(t.Context(), anyCLI("claude"), path, env); got != "1.0" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if asked, _ := os.ReadFile(path + ".count"); string(asked) != "x\n" {
		t.Errorf("asked %d times, want once", len(asked)/2)
	}
	if err := testrun.WriteProgram(path, []byte("#!/bin/sh\necho version 2.0.0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := v.Cached(path); got != "" {
		t.Errorf("the old version %q is said of a new file", got)
	}
	if got, err := v.Version(t.Context(), anyCLI("claude"), path, env); got != "2.0.0" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
