package api_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/diffs"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

// changed returns an execution that has ended after edit changed a repository with the files, and
// left artifacts in the folder out.
func (g *rig) changed(files map[string]string, edit func(dir, out string) error) agented.ExecutionID {
	g.t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		g.t.Skip("git is not installed")
	}
	id := agented.ExecutionID(g.execution())
	dir := filepath.Join(g.t.TempDir(), "repo")
	git := func(args ...string) {
		g.t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=A", "-c", "user.email=a@example.org"}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			g.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		g.t.Fatal(err)
	}
	git("init", "-q")
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			g.t.Fatal(err)
		}
	}
	git("add", "-A")
	git("commit", "-q", "--allow-empty", "-m", "first")
	ctx, now := g.t.Context(), time.Now()
	claimed, err := g.db.Claim(ctx, "node-test", 10, now, time.Minute)
	if err != nil || claimed == nil || claimed.ID != id {
		g.t.Fatalf("claimed %v, %v", claimed, err)
	}
	f, program := changes.Folders{Execution: g.layout.Execution(id)}, changes.Git{Path: os.Getenv("PATH")}
	out, err := changes.MakeOut(f, 1)
	if err == nil {
		_, err = changes.Take(ctx, f, dir, program, changes.Limits{Time: 5 * time.Minute}, false)
	}
	if err == nil {
		err = edit(dir, filepath.Join(out, "artifacts"))
	}
	var r *changes.Record
	if err == nil {
		r, err = changes.Make(ctx, changes.Request{Folders: f, Attempt: 1, Git: program, Limits: changes.Limits{Time: 5 * time.Minute}})
	}
	if err != nil {
		g.t.Fatal(err)
	}
	summary := r.Summary(1)
	_, err = g.db.EndAttempt(ctx, store.AttemptEnd{
		Attempt: agented.Attempt{Execution: id, Number: 1, State: agented.StateSuccess, StartedAt: now, FinishedAt: now, Changes: &summary},
		Next:    agented.StateSuccess,
	}, claimed.Lease, now)
	if err != nil {
		g.t.Fatal(err)
	}
	return id
}

func TestChanges(t *testing.T) {
	t.Parallel()
	const secret = "later-known-secret-123"
	g := start(t, settings{})
	id := g.changed(map[string]string{"a.txt": "one\ntwo\n", "b.txt": "b\n"}, func(dir, out string) error {
		return errors.Join(
			os.WriteFile(filepath.Join(dir, "a.txt"), []byte("one\n2\n"), 0o600),
			os.WriteFile(filepath.Join(dir, "c.bin"), []byte("\x00c"), 0o600),
			os.WriteFile(filepath.Join(dir, "d.txt"), []byte("key "+secret+"\n"), 0o600),
			os.WriteFile(filepath.Join(out, "report \"1\".html"), []byte("<script>"), 0o600),
		)
	})
	at := "/api/v1/executions/" + string(id)
	var v diffs.ChangesView
	g.do(agented.RoleViewer, "GET", at+"/changes", "").want(200).json(&v)
	if !v.Recorded || v.Attempt != 1 || len(v.Attempts) != 1 || v.FileCount != 3 || v.Added != 2 || v.Removed != 1 || v.Truncated || v.Reason != "" || len(v.Base) != 40 {
		t.Errorf("changes %+v", v)
	}
	if len(v.Files) != 3 || v.Files[0].Path != "a.txt" || !v.Files[1].Binary || *v.Files[1].Size != 2 || v.Files[2].Status != "added" {
		t.Errorf("files %+v", v.Files)
	}
	if len(v.Artifacts) != 1 || v.Artifacts[0].Size != 8 {
		t.Errorf("artifacts %+v", v.Artifacts)
	}
	var file diffs.FileDiff
	g.do(agented.RoleViewer, "GET", at+"/changes/files/0?attempt=1", "").want(200).json(&file)
	if file.File.Path != "a.txt" || len(file.Hunks) != 1 || fmt.Sprint(file.Hunks[0].Lines) != "[ one -two +2]" {
		t.Errorf("file %+v", file)
	}
	g.do(agented.RoleViewer, "GET", at+"/changes/files/1", "").want(200).json(&file)
	if len(file.Hunks) != 0 || file.Truncated {
		t.Errorf("binary file %+v", file)
	}
	patch := g.do(agented.RoleViewer, "GET", at+"/changes.patch", "").want(200)
	if !strings.HasPrefix(patch.body, "diff --git a/a.txt b/a.txt\n") || !strings.Contains(patch.body, secret) || !strings.HasPrefix(patch.header.Get("Content-Type"), "text/plain") {
		t.Errorf("patch %v %s", patch.header, patch.body)
	}
	// A secret that became known later is overwritten, and ranges stay valid.
	g.masker.Store(redact.New([]string{secret}))
	masked := g.do(agented.RoleViewer, "GET", at+"/changes.patch", "").want(200).body
	if strings.Contains(masked, secret) || len(masked) != len(patch.body) {
		t.Errorf("masked patch %s", masked)
	}
	part := g.do(agented.RoleViewer, "GET", at+"/changes.patch", "", with("Range", "bytes=10-30")).want(206)
	if part.body != masked[10:31] {
		t.Errorf("range %q, want %q", part.body, masked[10:31])
	}
	if a := g.do(agented.RoleViewer, "GET", at+"/changes/files/2", "").want(200); strings.Contains(a.body, secret) {
		t.Errorf("file %s", a.body)
	}
	artifact := g.do(agented.RoleViewer, "GET", at+"/artifacts/0", "").want(200)
	if artifact.body != "<script>" || artifact.header.Get("Content-Type") != "application/octet-stream" ||
		artifact.header.Get("Content-Disposition") != "attachment; filename*=UTF-8''report%20%221%22.html" {
		t.Errorf("artifact %v %q", artifact.header, artifact.body)
	}
	for _, path := range []string{"/changes/files/3", "/artifacts/1", "/artifacts/x", "/changes.patch?attempt=2", "/changes/files/0?attempt=2"} {
		g.do(agented.RoleViewer, "GET", at+path, "").problem(404)
	}
	g.do(agented.RoleViewer, "GET", at+"/changes.patch?attempt=x", "").problem(422)
	var e api.ExecutionView
	g.do(agented.RoleViewer, "GET", at, "").want(200).json(&e)
	if c := e.Changes; c == nil || c.Files != 3 || c.Added != 2 || c.Removed != 1 || c.Artifacts != 1 || c.Attempt != 1 {
		t.Errorf("summary %+v", e.Changes)
	}
	// The files are gone, for example after a restore of a database alone.
	if err := os.RemoveAll(g.layout.Execution(id)); err != nil {
		t.Fatal(err)
	}
	g.do(agented.RoleViewer, "GET", at+"/changes", "").want(200).json(&v)
	if v.Recorded || !strings.Contains(v.Reason, "do not exist any more") {
		t.Errorf("without files: %+v", v)
	}
}

func TestChanges_none(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	at := "/api/v1/executions/" + g.execution()
	a := g.do(agented.RoleViewer, "GET", at+"/changes", "").want(200)
	var v diffs.ChangesView
	a.json(&v)
	if v.Recorded || v.Reason != "Changes are recorded when the attempt ends." || strings.Contains(a.body, "null") {
		t.Errorf("changes %s", a.body)
	}
	g.do(agented.RoleViewer, "GET", at+"/changes.patch", "").problem(404)
	g.do(agented.RoleViewer, "GET", "/api/v1/executions/exec-00000000000000000000000000/changes", "").problem(404)
	g.do(agented.RoleViewer, "GET", "/api/v1/executions/nonsense/changes.patch", "").problem(404)
}

// TestChanges_20000_files prints how long the list takes.
func TestChanges_20000_files(t *testing.T) {
	t.Parallel()
	n := testrun.Size(200, 1000, 20_000)
	g := start(t, settings{})
	id := g.changed(nil, func(dir, _ string) error {
		for i := range n {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%05d.txt", i)), fmt.Appendf(nil, "line %d\n", i), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	at := "/api/v1/executions/" + string(id) + "/changes"
	began := time.Now()
	a := g.do(agented.RoleViewer, "GET", at, "").want(200)
	listed := time.Since(began)
	began = time.Now()
	b := g.do(agented.RoleViewer, "GET", fmt.Sprintf("%s/files/%d", at, n-1), "").want(200)
	t.Logf("%d files: list %s (%d bytes), one file %s", n, listed, len(a.body), time.Since(began))
	var v diffs.ChangesView
	a.json(&v)
	if len(v.Files) != n || !strings.Contains(b.body, fmt.Sprintf("+line %d", n-1)) {
		t.Errorf("%d files; %s", len(v.Files), b.body)
	}
}
