package config_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestLoad_pipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "settings")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(pipe, []byte("SSE_REPLAY_LIMIT=7\n"), 0o600) }()
	o := options(t, "")
	o.EnvFile = pipe
	if c := load(t, o); c.SSEReplayLimit != 7 {
		t.Errorf("SSE_REPLAY_LIMIT is %d", c.SSEReplayLimit)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestLoad_other_words(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"AGENTED_PORT": "AGENTED_BIND", "AGENTED_HOST": "AGENTED_BIND", "AGENTED_TOKEN": "AGENTED_API_KEY", "AGENTED_DB": "AGENTED_DB_PATH"} {
		c := load(t, options(t, "", name+"=1"))
		if len(c.Warnings) != 1 || c.Warnings[0].Text != "this is not a setting; the nearest one is "+want {
			t.Errorf("%s: %v", name, c.Warnings)
		}
	}
}
