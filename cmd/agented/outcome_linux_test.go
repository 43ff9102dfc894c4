package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The command of a contract runs at the sandbox level of its execution: what the agent cannot read,
// the check cannot read either.
func TestOutcome_check_in_sandbox(t *testing.T) {
	t.Parallel()
	if exec.Command("bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "true").Run() != nil {
		t.Skip("bubblewrap cannot be used here")
	}
	s := newServer(t)
	for _, level := range []string{"off", "guard", "strict"} {
		mark := filepath.Join(s.dir, "home", "mark-"+level)
		id := s.fire(s.trigger(sh("sandboxed "+level, "echo kept >kept", map[string]any{"sandbox": level, "expect": map[string]any{
			"command": []string{"sh", "-c", "touch " + mark + "; grep -q kept kept && ! cat " + filepath.Join(s.data(), "agented.db") + " >/dev/null"},
		}})))
		e := s.await(id)
		want := "success"
		if level == "off" {
			want = "failed" // nothing hides the file
		}
		if e.Status != want || e.Attempts[0].Sandbox != level {
			t.Errorf("at level %s: %s at %s, want %s: %s", level, e.Status, e.Attempts[0].Sandbox, want, e.Reason)
		}
		if _, err := os.Stat(mark); (err == nil) != (level != "strict") {
			t.Errorf("at level %s the check writes to the home folder: %v", level, err)
		}
	}
}
