package changes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/testrun"
)

// scene is a repository, and the folder of an execution that works in it.
type scene struct {
	t   *testing.T
	dir string
	f   Folders
	l   Limits
	m   Masker
}

func newScene(t *testing.T) *scene {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	s := &scene{t: t, dir: filepath.Join(t.TempDir(), "repo"), f: Folders{filepath.Join(t.TempDir(), "exec")}}
	s.l = Limits{Time: 5 * time.Minute}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.git("init", "-q", "-b", "main")
	return s
}

// git runs git as the agent does.
func (s *scene) git(args ...string) string {
	s.t.Helper()
	return s.gitIn(s.dir, args...)
}

func (s *scene) gitIn(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=A Person", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.t.TempDir(), "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *scene) write(name, text string) {
	s.t.Helper()
	writeFile(s.t, filepath.Join(s.dir, name), text)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) commit(text string) {
	s.t.Helper()
	s.git("add", "-A")
	s.git("commit", "-q", "-m", text)
}

func (s *scene) take() {
	s.t.Helper()
	if ok, err := Take(s.t.Context(), s.f, s.dir, s.program(), s.l, false); err != nil || !ok {
		s.t.Fatalf("Take = %v, %v", ok, err)
	}
}

func (s *scene) program() Git { return Git{Path: os.Getenv("PATH")} }

func (s *scene) make(attempt int) *Record {
	s.t.Helper()
	r, err := Make(s.t.Context(), Request{Folders: s.f, Attempt: attempt, Git: s.program(), Limits: s.l, Mask: s.m})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// brief lists the files of a record, one a line.
func brief(r *Record) string {
	var out []string
	for _, f := range r.Files {
		line := fmt.Sprintf("%s %s +%d -%d", f.Status, f.Path, f.Added, f.Removed)
		if f.Old != "" {
			line += " from " + f.Old
		}
		if f.Binary {
			line += " binary"
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func (s *scene) want(r *Record, files ...string) {
	s.t.Helper()
	if have, want := brief(r), strings.Join(files, "\n"); have != want {
		s.t.Errorf("files:\n%s\nwant:\n%s\nreason: %s", have, want, r.Reason)
	}
}

// part returns the part of the patch that belongs to a file.
func (s *scene) part(r *Record, attempt int, path string) string {
	s.t.Helper()
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Path == path })
	if i < 0 {
		s.t.Fatalf("no file %q in\n%s", path, brief(r))
	}
	p, err := OpenPatch(s.f, attempt, r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Seek(r.Files[i].At, io.SeekStart); err != nil {
		s.t.Fatal(err)
	}
	b, err := io.ReadAll(io.LimitReader(p, r.Files[i].Len))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// tree lists every file below dir with its size and time.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&out, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestMake_commits_and_uncommitted_work(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("a.txt", "one\ntwo\nthree\n")
	s.write("gone.txt", "x\n")
	s.write("moved.txt", strings.Repeat("line\n", 50)+"end\n")
	s.write("run.sh", "#!/bin/sh\n")
	s.write("link", "text\n")
	s.write(".gitignore", "*.log\n")
	s.commit("first")
	base := s.git("rev-parse", "HEAD")
	// Work of a user that is not committed must not be attributed to the attempt.
	s.write("a.txt", "one\ntwo\nthree\nby the user\n")
	s.write("untracked by the user", "u\n")
	s.git("add", "a.txt")
	s.write("gone.txt", "x\nchanged by the user\n")
	before := tree(t, s.dir)
	s.take()
	if after := tree(t, s.dir); after != before {
		t.Errorf("Take changed the repository:\n%s\nbefore:\n%s", after, before)
	}

	s.write("a.txt", "one\n2\nthree\nby the user\n")
	if err := os.Remove(filepath.Join(s.dir, "gone.txt")); err != nil {
		t.Fatal(err)
	}
	s.git("mv", "moved.txt", "new name.txt")
	s.commit("second")
	s.write("untracked.txt", "n\n")
	s.write("ignored.log", "n\n")
	s.write("bin", "a\x00b")
	if err := os.Chmod(filepath.Join(s.dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(s.dir, "link")); err != nil {
		t.Fatal(err)
	}
	before = tree(t, s.dir)
	r := s.make(1)
	if after := tree(t, s.dir); after != before {
		t.Errorf("Make changed the repository:\n%s\nbefore:\n%s", after, before)
	}
	s.want(r,
		"modified a.txt +1 -1", "added bin +0 -0 binary", "deleted gone.txt +0 -2", "type_changed link +1 -1",
		"renamed new name.txt +0 -0 from moved.txt", "modified run.sh +0 -0", "added untracked.txt +1 -0")
	if r.Base != base || r.Head != s.git("rev-parse", "HEAD") || len(r.Commits) != 1 || r.Commits[0].Subject != "second" || r.Commits[0].Author != "A Person" {
		t.Errorf("base %s, head %s, commits %+v", r.Base, r.Head, r.Commits)
	}
	if r.Reason != "" || r.Truncated || r.FileCount != 7 || r.Added != 3 || r.Removed != 4 {
		t.Errorf("record %+v", r)
	}
	if f := r.Files[1]; f.Size == nil || *f.Size != 3 || f.OldSize != nil {
		t.Errorf("binary file: %+v", f)
	}
	if part := s.part(r, 1, "link"); strings.Count(part, partHead) != 2 || !strings.Contains(part, "+/etc/passwd") || strings.Contains(part, "root:") {
		t.Errorf("symbolic link: %s", part)
	}
	if part := s.part(r, 1, "a.txt"); !strings.HasPrefix(part, partHead+"a/a.txt ") || !strings.HasSuffix(part, " one\n-two\n+2\n three\n by the user\n") {
		t.Errorf("part of a.txt: %q", part)
	}
	if part := s.part(r, 1, "untracked.txt"); !strings.HasSuffix(part, "@@ -0,0 +1 @@\n+n\n") {
		t.Errorf("part of untracked.txt: %q", part)
	}
	hunks, cut, err := Hunks(strings.NewReader(s.part(r, 1, "a.txt")), 100)
	if err != nil || cut || len(hunks) != 1 || hunks[0].OldStart != 1 || len(hunks[0].Lines) != 5 {
		t.Errorf("hunks %+v, %v, %v", hunks, cut, err)
	}
}

func TestMake_once(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	s.write("b", "1\n")
	// A server that was killed leaves an incomplete folder and a locked index.
	writeFile(t, filepath.Join(s.f.Attempt(1)+".new", "artifacts", "0"), "x")
	writeFile(t, filepath.Join(s.f.start(), "index.lock"), "")
	first := s.make(1)
	s.want(first, "added b +1 -0")
	s.write("c", "1\n")
	s.want(s.make(1), "added b +1 -0")
	if err := RemoveStart(s.f); err != nil {
		t.Fatal(err)
	}
	s.want(s.make(1), "added b +1 -0")
	if list, err := Attempts(s.f); err != nil || !slices.Equal(list, []int{1}) {
		t.Errorf("attempts %v, %v", list, err)
	}
	if _, err := Load(s.f, 2); !errors.Is(err, agented.NotFound) {
		t.Errorf("Load of another attempt: %v", err)
	}
}

func TestTake_keeps_earlier_state(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	s.write("b", "1\n")
	if ok, err := Take(t.Context(), s.f, s.dir, s.program(), s.l, true); !ok || err != nil {
		t.Fatalf("Take = %v, %v", ok, err)
	}
	s.write("c", "1\n")
	s.want(s.make(2), "added b +1 -0", "added c +1 -0")
	s.take()
	s.write("d", "1\n")
	s.want(s.make(3), "added d +1 -0")
}

func TestTake_places(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	if ok, err := Take(t.Context(), s.f, t.TempDir(), s.program(), s.l, false); ok || err != nil {
		t.Errorf("a folder without a repository: %v, %v", ok, err)
	}
	if r := s.make(1); r != nil {
		t.Errorf("record without a repository: %+v", r)
	}
	// A repository without commits.
	s.take()
	s.write("sub/a", "1\n")
	s.commit("first")
	r := s.make(2)
	s.want(r, "added sub/a +1 -0")
	if r.Base != "" || len(r.Commits) != 1 {
		t.Errorf("record %+v", r)
	}
	// Another working tree of it, from one of its folders.
	other := filepath.Join(t.TempDir(), "other")
	s.git("worktree", "add", "-q", "-b", "other", other)
	if ok, err := Take(t.Context(), s.f, filepath.Join(other, "sub"), s.program(), s.l, false); !ok || err != nil {
		t.Fatal(ok, err)
	}
	writeFile(t, filepath.Join(other, "b"), "1\n")
	s.gitIn(other, "add", "b")
	s.gitIn(other, "commit", "-q", "-m", "second")
	if r := s.make(3); brief(r) != "added b +1 -0" || len(r.Commits) != 1 {
		t.Errorf("another working tree: %+v", r)
	}
}

func TestMake_sha256(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.dir = t.TempDir()
	s.git("init", "-q", "--object-format=sha256")
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	s.write("a", "2\n")
	s.commit("second")
	r := s.make(1)
	s.want(r, "modified a +1 -1")
	if len(r.Base) != 64 || len(r.Commits) != 1 {
		t.Errorf("record %+v", r)
	}
}

// TestMake_hostile_repository has one case for each way in which a repository can name programs.
// The canary is a file that such a program creates.
func TestMake_hostile_repository(t *testing.T) {
	t.Parallel()
	tests := map[string]func(s *scene, program string){
		"fsmonitor": func(s *scene, p string) { s.git("config", "core.fsmonitor", p) },
		"fsmonitor hook": func(s *scene, p string) {
			s.git("config", "core.fsmonitorHookVersion", "1")
			s.git("config", "core.fsmonitor", p)
		},
		"hooks path":    func(s *scene, p string) { s.git("config", "core.hooksPath", filepath.Dir(p)) },
		"external diff": func(s *scene, p string) { s.git("config", "diff.external", p) },
		"pager":         func(s *scene, p string) { s.git("config", "core.pager", p); s.git("config", "pager.log", p) },
		"signature": func(s *scene, p string) {
			s.git("config", "log.showSignature", "true")
			s.git("config", "gpg.program", p)
		},
		"alternates command": func(s *scene, p string) { s.git("config", "core.alternateRefsCommand", p) },
		"clean filter": func(s *scene, p string) {
			s.git("config", "filter.f.clean", p)
			s.git("config", "filter.f.required", "true")
			s.write(".gitattributes", "* filter=f\n")
		},
		"process filter": func(s *scene, p string) {
			s.git("config", "filter.f.process", p)
			s.write(".git/info/attributes", "* filter=f\n")
		},
		"diff driver": func(s *scene, p string) {
			s.git("config", "diff.d.command", p)
			s.git("config", "diff.d.textconv", p)
			s.write(".gitattributes", "* diff=d\n")
		},
		"partial clone": func(s *scene, p string) {
			s.git("config", "core.repositoryFormatVersion", "1")
			s.git("config", "extensions.partialClone", "origin")
			s.git("config", "remote.origin.url", "ext::"+p)
			s.git("config", "remote.origin.promisor", "true")
			s.git("config", "remote.origin.uploadpack", p)
			s.git("config", "core.sshCommand", p)
		},
		"submodule": func(s *scene, p string) {
			inner := filepath.Join(s.dir, "sub")
			s.gitIn(inner, "config", "core.fsmonitor", p)
			s.gitIn(inner, "config", "core.hooksPath", filepath.Dir(p))
			s.gitIn(inner, "config", "filter.f.clean", p)
			writeFile(s.t, filepath.Join(inner, ".gitattributes"), "* filter=f\n")
			writeFile(s.t, filepath.Join(inner, "new"), "x\n")
			s.git("config", "submodule.sub.update", "!"+p)
			s.git("config", "diff.submodule", "log")
			s.git("config", "status.submoduleSummary", "true")
		},
		"include": func(s *scene, p string) {
			s.write("evil.config", "[core]\n\tfsmonitor = "+p+"\n[diff]\n\texternal = "+p+"\n")
			s.git("config", "include.path", filepath.Join(s.dir, "evil.config"))
		},
	}
	for name, spoil := range tests {
		for _, early := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/before=%v", name, early), func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				canary := filepath.Join(t.TempDir(), "canary")
				bin := t.TempDir()
				program := filepath.Join(bin, "program")
				script := "#!/bin/sh\ntouch " + canary + "\ncat\n"
				write := func(path string) {
					if err := testrun.WriteProgram(path, []byte(script), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				write(program)
				for _, hook := range []string{"post-index-change", "post-checkout", "reference-transaction", "fsmonitor-watchman", "pre-commit"} {
					write(filepath.Join(bin, hook))
				}
				inner := filepath.Join(s.dir, "sub")
				if err := os.Mkdir(inner, 0o700); err != nil {
					t.Fatal(err)
				}
				s.gitIn(inner, "init", "-q")
				writeFile(t, filepath.Join(inner, "i"), "1\n")
				s.gitIn(inner, "add", "-A")
				s.gitIn(inner, "commit", "-q", "-m", "inner")
				s.write("a", "1\n")
				s.commit("first")
				if early {
					spoil(s, program)
				}
				s.take()
				s.write("a", "2\n")
				s.write("b", "1\n")
				if !early {
					spoil(s, program)
				}
				r := s.make(1)
				if _, err := os.Stat(canary); !errors.Is(err, fs.ErrNotExist) {
					t.Fatal("a program of the repository was run")
				}
				if text := brief(r); !strings.Contains(text, "modified a +1 -1") || !strings.Contains(text, "added b +1 -0") {
					t.Errorf("files:\n%s\nreason: %s", text, r.Reason)
				}
				if strings.Contains(brief(r), "sub") {
					t.Errorf("the submodule did not change: %s", brief(r))
				}
			})
		}
	}
}

// TestMake_attributes_hide_nothing: an agent must not be able to hide its changes.
func TestMake_attributes_hide_nothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("a.txt", "1\n")
	s.write("d/b.txt", "$Id$\r\n")
	s.write("c.txt", "1\n")
	s.commit("first")
	s.git("update-index", "--assume-unchanged", "a.txt")
	s.git("update-index", "--skip-worktree", "c.txt")
	s.take()
	s.write(".gitattributes", "* -diff working-tree-encoding=UTF-16 text eol=crlf ident\n")
	s.write("d/.gitattributes", "[attr]secret binary\n* secret\n")
	s.write(".git/info/exclude", "*\n")
	s.write("a.txt", "2\n")
	s.write("c.txt", "2\n")
	s.write("d/b.txt", "$Id: other $\n")
	s.write("new", "3\n")
	r := s.make(1)
	s.want(r, "added .gitattributes +1 -0", "modified a.txt +1 -1", "modified c.txt +1 -1", "added d/.gitattributes +2 -0", "modified d/b.txt +1 -1", "added new +1 -0")
}

func TestMake_submodules_and_nested_repositories(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	inner := filepath.Join(s.dir, "sub")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	s.gitIn(inner, "init", "-q")
	writeFile(t, filepath.Join(inner, "i"), "1\n")
	s.gitIn(inner, "add", "-A")
	s.gitIn(inner, "commit", "-q", "-m", "inner")
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	s.gitIn(inner, "commit", "-q", "--allow-empty", "-m", "more")
	s.gitIn(s.dir, "init", "-q", "nested")
	writeFile(t, filepath.Join(s.dir, "nested", "n"), "1\n")
	r := s.make(1)
	s.want(r, "modified sub +1 -1")
	if !strings.Contains(r.Reason, "repositories of their own") {
		t.Errorf("reason %q", r.Reason)
	}
}

func TestMake_names_with_any_bytes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	names := []string{"new\nline", "tab\there", `quote"d`, "back\\slash", "umläut", "in\xffvalid", "esc\x1b[31m", " space ", "-dash", ":colon", "diff --git a b", "dir\n/x"}
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	for _, n := range names {
		s.write(n, "line\n")
	}
	r := s.make(1)
	if r.Reason != "" || len(r.Files) != len(names) {
		t.Fatalf("%d files: %s\nreason: %s", len(r.Files), brief(r), r.Reason)
	}
	for _, n := range names {
		part := s.part(r, 1, strings.ToValidUTF8(n, "\uFFFD"))
		if strings.Count("\n"+part, "\n"+partHead) != 1 || !strings.HasSuffix(part, "\n+line\n") {
			t.Errorf("part of %q: %q", n, part)
		}
	}
}

func TestMake_odd_files(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("file", "1\n")
	s.write("folder/x", "1\n")
	s.write("pipe", "1\n")
	s.write("locked", "1\n")
	s.commit("first")
	s.take()
	for _, name := range []string{"file", "folder", "pipe"} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.write("file/y", "1\n")
	s.write("folder", "1\n")
	if err := syscall.Mkfifo(filepath.Join(s.dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write("locked", "2\n")
	if err := os.Chmod(filepath.Join(s.dir, "locked"), 0); err != nil {
		t.Fatal(err)
	}
	r := s.make(1)
	text := brief(r)
	for _, want := range []string{"file/y", "folder", "deleted pipe"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if os.Geteuid() != 0 && !strings.Contains(r.Reason, "cannot be read") {
		t.Errorf("reason %q", r.Reason)
	}
}

func TestMake_limits(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T, l Limits) *scene {
		s := newScene(t)
		l.Time = s.l.Time
		s.l = l
		s.write("a", "1\n")
		s.write("large", strings.Repeat("x", 2000))
		s.commit("first")
		return s
	}
	t.Run("patch", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{PatchText: 1000})
		s.take()
		s.write("b", strings.Repeat("line\n", 1000))
		r := s.make(1)
		s.want(r, "added b +1000 -0")
		if !r.Truncated || !strings.Contains(r.Reason, "only the list of files") || r.PatchSize != 0 || r.Files[0].Len != 0 {
			t.Errorf("record %+v", r)
		}
		if p, err := OpenPatch(s.f, 1, r); err != nil || p.Size() != 0 {
			t.Errorf("patch %v, %v", p, err)
		}
	})
	t.Run("compressed patch", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{Patch: 100})
		s.take()
		s.write("b", strings.Repeat("line\n", 1000)+"other words that do not repeat: 0123456789 abcdefghijk\n")
		if r := s.make(1); !r.Truncated || r.PatchSize != 0 {
			t.Errorf("record %+v", r)
		}
	})
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{Files: 2})
		s.take()
		for i := range 5 {
			s.write(fmt.Sprint("f", i), "1\n")
		}
		if r := s.make(1); len(r.Files) != 2 || r.FileCount != 5 || r.Added != 5 || !r.Truncated {
			t.Errorf("record %+v", r)
		}
	})
	t.Run("paths", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{Paths: 3})
		s.take()
		for i := range 5 {
			s.write(fmt.Sprint("f", i), "1\n")
		}
		if r := s.make(1); len(r.Files) != 0 || !strings.Contains(r.Reason, "More than 3 paths") {
			t.Errorf("record %+v", r)
		}
	})
	t.Run("time", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{})
		s.l.Time = time.Nanosecond
		if ok, err := Take(t.Context(), s.f, s.dir, s.program(), s.l, false); !ok || err == nil {
			t.Fatalf("Take = %v, %v", ok, err)
		}
		s.write("b", "1\n")
		if r := s.make(1); !strings.Contains(r.Reason, "not recorded within 1ns") {
			t.Errorf("record %+v", r)
		}
	})
	t.Run("large files", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{FileBytes: 1000})
		s.write("untouched", strings.Repeat("u", 3000))
		s.write("removed", strings.Repeat("r", 3000))
		s.write("shrunk", strings.Repeat("s", 3000))
		s.take()
		s.write("large", strings.Repeat("y", 2001))
		s.write("new", strings.Repeat("n", 1500))
		s.write("shrunk", "s\n")
		if err := os.Remove(filepath.Join(s.dir, "removed")); err != nil {
			t.Fatal(err)
		}
		r := s.make(1)
		s.want(r, "modified large +0 -0 binary", "added new +0 -0 binary", "deleted removed +0 -0 binary", "modified shrunk +1 -0")
		if *r.Files[0].Size != 2001 || *r.Files[2].OldSize != 3000 {
			t.Errorf("sizes %+v", r.Files)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{})
		s.take()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Make(ctx, Request{Folders: s.f, Attempt: 1, Git: s.program(), Limits: s.l}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		s.write("b", "1\n")
		s.want(s.make(1), "added b +1 -0")
	})
	t.Run("no git", func(t *testing.T) {
		t.Parallel()
		s := setup(t, Limits{})
		s.take()
		r, err := Make(t.Context(), Request{Folders: s.f, Attempt: 1, Git: Git{Program: "/nonexistent/git"}, Limits: s.l})
		if err != nil || r.Reason == "" {
			t.Errorf("record %+v, %v", r, err)
		}
	})
}

func TestMake_sparse_checkout(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("in/a", "1\n")
	s.write("out/b", "1\n")
	s.write("out/c", "1\n")
	s.commit("first")
	s.git("sparse-checkout", "set", "in")
	s.take()
	s.write("in/a", "2\n")
	r := s.make(1)
	s.want(r, "modified in/a +1 -1")
	s.write("out/b", "2\n")
	s.want(s.make(2), "modified in/a +1 -1", "modified out/b +1 -1")
}

func TestMake_masks_secrets(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2-hunter2"
	s := newScene(t)
	s.m = redact.New([]string{secret})
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	// Across the end of a frame as well.
	s.write("a", strings.Repeat(strings.Repeat("z", 1000)+secret+"\n", 600))
	s.write("name-"+secret, "1\n")
	s.commit("with " + secret)
	r := s.make(1)
	if text := fmt.Sprintf("%+v", r); strings.Contains(text, secret) || !strings.Contains(text, redact.Mask) {
		t.Errorf("record %s", text)
	}
	p, err := OpenPatch(s.f, 1, r)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b, err := io.ReadAll(p)
	if err != nil || int64(len(b)) != r.PatchSize || len(r.Frames) < 2 {
		t.Fatalf("%d bytes of %d in %d frames, %v", len(b), r.PatchSize, len(r.Frames), err)
	}
	if n := strings.Count(string(b), secret); n > 0 {
		t.Errorf("the patch contains the secret %d times", n)
	}
}

func TestMake_artifacts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.l.Artifacts, s.l.ArtifactBytes = 3, 100
	out, err := MakeOut(s.f, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(out, "artifacts")
	writeFile(t, filepath.Join(dir, "a.txt"), "one")
	writeFile(t, filepath.Join(dir, "b", "in\xffvalid"), "two")
	writeFile(t, filepath.Join(dir, "c-large"), strings.Repeat("x", 200))
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "d-link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "e-folder")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "f-pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "g"), "three")
	writeFile(t, filepath.Join(dir, "h"), "four")
	writeFile(t, filepath.Join(out, "proposal.json"), "{}")
	r := s.make(1)
	if r.Git || !r.Truncated || fmt.Sprint(r.Artifacts) != "[{a.txt 3} {b/in\uFFFDvalid 3} {g 5}]" {
		t.Errorf("record %+v", r)
	}
	if !strings.Contains(r.Reason, "3 files in artifacts left out: only regular files that can be read are kept.") || !strings.Contains(r.Reason, "limits of 3 files") {
		t.Errorf("reason %q", r.Reason)
	}
	file, err := OpenArtifact(s.f, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if b, err := io.ReadAll(file); err != nil || string(b) != "three" {
		t.Errorf("artifact %q, %v", b, err)
	}
	if _, err := OpenArtifact(s.f, 1, 3); !errors.Is(err, agented.NotFound) {
		t.Errorf("error %v", err)
	}
	// An artifacts folder that is a link is not followed.
	if out, err = MakeOut(s.f, 2); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(out, "artifacts")), os.Symlink("/etc", filepath.Join(out, "artifacts"))); err != nil {
		t.Fatal(err)
	}
	if r := s.make(2); r != nil {
		t.Errorf("record %+v", r)
	}
}

func TestPatch_ranges(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.write("a", "1\n")
	s.commit("first")
	s.take()
	rng := testrun.Rand(t)
	for i := range 40 {
		s.write(fmt.Sprintf("f%02d", i), strings.Repeat(fmt.Sprintf("%d some text\n", rng.Int()), 1+rng.IntN(3000)))
	}
	r := s.make(1)
	p, err := OpenPatch(s.f, 1, r)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	all, err := io.ReadAll(p)
	if err != nil || int64(len(all)) != r.PatchSize {
		t.Fatal(len(all), err)
	}
	for range 200 {
		from := rng.Int64N(p.Size())
		n := rng.Int64N(p.Size() - from)
		if _, err := p.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(io.LimitReader(p, n))
		if err != nil || string(b) != string(all[from:from+n]) {
			t.Fatalf("bytes %d to %d differ, %v", from, from+n, err)
		}
	}
	for _, f := range r.Files {
		if part := string(all[f.At : f.At+f.Len]); !strings.HasPrefix(part, partHead+"a/"+f.Path+" ") || strings.Count(part, "\n"+partHead) != 0 {
			t.Errorf("part of %s: %.100q", f.Path, part)
		}
	}
}

// TestMake_20000_files records many files. It prints how long that takes.
func TestMake_20000_files(t *testing.T) {
	t.Parallel()
	n := testrun.Size(500, 2000, 20_000)
	s := newScene(t)
	for i := range n {
		s.write(fmt.Sprintf("d%03d/f%05d.txt", i/100, i), strings.Repeat(fmt.Sprintf("line of %d\n", i), 20))
	}
	s.commit("first")
	began := time.Now()
	s.take()
	taken := time.Since(began)
	for i := range n {
		s.write(fmt.Sprintf("d%03d/f%05d.txt", i/100, i), strings.Repeat(fmt.Sprintf("line of %d\n", i), 19)+"changed\n")
	}
	began = time.Now()
	r := s.make(1)
	made := time.Since(began)
	began = time.Now()
	if _, err := Load(s.f, 1); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files: Take %s, Make %s, Load %s, patch %d bytes in %d frames", n, taken, made, time.Since(began), r.PatchSize, len(r.Frames))
	if len(r.Files) != n || r.Added != n || r.Removed != n || r.Reason != "" {
		t.Errorf("%d files, +%d -%d, %s", len(r.Files), r.Added, r.Removed, r.Reason)
	}
	packs, err := filepath.Glob(filepath.Join(s.f.start(), "objects", "pack", "*.pack"))
	if err != nil || len(packs) > 5 {
		t.Errorf("%d packs, %v", len(packs), err)
	}
}
