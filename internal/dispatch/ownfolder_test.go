package dispatch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/testrun"
)

// TestOwnFolder checks in which folders the project settings that an agent wrote
// itself are off.
func TestOwnFolder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(h.fakeClaude(`echo "$@" >&2` + "\n" + fmt.Sprintf(goodEnd, 1, 1)))
	defer h.run(d)()
	conversation := filepath.Join(h.layout.Conversation("con-x"), "work")
	if err := os.MkdirAll(conversation, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		permission agented.Permission
		dir        string
		off        bool
	}{
		"own folder, read":  {agented.PermissionRead, "", true},
		"own folder, edit":  {agented.PermissionEdit, "", true},
		"own folder, full":  {agented.PermissionFull, "", false},
		"of a conversation": {agented.PermissionEdit, conversation, true},
		"given folder":      {agented.PermissionEdit, t.TempDir(), false},
		"folder of another": {agented.PermissionEdit, filepath.Join(h.layout.Root, "executions"), false},
	} {
		spec := agent()
		spec.Permission, spec.WorkingDir = c.permission, c.dir
		id := h.fire(d, spec)
		h.await(id)
		if off := strings.Contains(h.text(id), "--setting-sources user --strict-mcp-config"); off != c.off {
			t.Errorf("%s: project settings are off: %v, want %v\n%s", name, off, c.off, h.text(id))
		}
	}
}

// TestOwnFolderStartupFiles lets an attempt write what its CLI would run at the
// start of the next one.
func TestOwnFolderStartupFiles(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	bin := t.TempDir()
	script := `#!/bin/sh
[ "$1" = --version ] && { echo 0.61.0; exit; }
ls -A | tr '\n' ' ' >&2
mkdir .gemini; echo '{}' > .gemini/settings.json; echo HTTPS_PROXY=http://127.0.0.1:1 > .env; echo kept > note.txt; echo kept > .env.example
exit 1
`
	if err := testrun.WriteProgram(filepath.Join(bin, "gemini"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := h.dispatcher(func(o *dispatch.Options) {
		o.Lookup = func(name string) (string, bool) { return bin + ":/usr/bin:/bin", name == "PATH" }
	})
	defer h.run(d)()
	spec := agent()
	spec.Backend, spec.Retry = agented.BackendGemini, agented.RetryPolicy{OnFailure: true, MaxAttempts: 2, BaseSeconds: 1, CapSeconds: 1}
	id := h.fire(d, spec)
	h.await(id)
	text := h.text(id)
	if n := len(h.stored(id).Attempts); n != 2 || !strings.Contains(text, "note.txt") || !strings.Contains(text, ".env.example note.txt") ||
		strings.Contains(text, ".gemini ") || strings.Contains(text, ".env ") ||
		!strings.Contains(h.systemLines(id), "Files that the CLI would load at its start were removed: .env, .gemini.") {
		t.Errorf("%d attempts logged\n%s%s", n, text, h.systemLines(id))
	}
}

func TestLimit_disk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	const fill = "head -c 3000000 /dev/zero >"
	shared := t.TempDir()
	for name, c := range map[string]struct {
		script, dir string
		want        agented.State
	}{
		"working directory":     {fill + "big; sleep 60", "", agented.StateFailed},
		"temporary files":       {fill + "$TMPDIR/big; sleep 60", shared, agented.StateFailed},
		"artifacts":             {fill + "$AGENTED_OUT/big; sleep 60", shared, agented.StateFailed},
		"folder of the trigger": {fill + "big; sleep 4", shared, agented.StateSuccess},
	} {
		spec := command("sh", "-c", c.script)
		spec.WorkingDir, spec.Limits.Disk = c.dir, 2
		e := h.await(h.fire(d, spec))
		if e.State != c.want || (c.want == agented.StateFailed) != strings.Contains(e.Reason, "more disk space than its limit of 2 MiB (limits.disk or AGENTED_MAX_DISK)") {
			t.Errorf("%s: %s %s", name, e.State, e.Reason)
		}
	}
}
