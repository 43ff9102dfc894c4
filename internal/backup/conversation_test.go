package backup

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// converse adds a conversation with an attachment and a history to a folder.
func (f *folder) converse(t testing.TB) agented.ConversationID {
	t.Helper()
	c := &agented.Conversation{Agent: "agt-x", AgentName: "x", CreatedAt: time.Now()}
	if err := f.db.CreateConversation(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"files/plan für ann.md": "# Plan\n", "files/empty": "", "sessions/6f1c.jsonl": `{"role":"user"}` + "\n",
		"files/.coming-1": "half", "work/secret": "RAW-AND-UNMASKED",
	} {
		path := filepath.Join(f.Conversation(c.ID), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c.ID
}

func TestConversationFiles(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	id := f.converse(t)
	files := filepath.Join(f.Conversation(id), "files")
	if err := os.Symlink(f.CLIKey(), filepath.Join(files, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(files, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := f.backup(t)
	checked, err := Check(t.Context(), file, Options{Temp: t.TempDir()})
	if err != nil || checked.Manifest.Conversations != 3 {
		t.Fatalf("%+v, %v", checked.Manifest, err)
	}
	to := agented.Layout{Root: filepath.Join(t.TempDir(), "data")}
	if _, err := Restore(t.Context(), file, to.Root, Options{WithoutKey: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"files/plan für ann.md": "# Plan\n", "files/empty": "", "sessions/6f1c.jsonl": `{"role":"user"}` + "\n"} {
		if got, err := os.ReadFile(filepath.Join(to.Conversation(id), name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"files/link", "files/pipe", "files/.coming-1", "work"} {
		if exists(filepath.Join(to.Conversation(id), name)) {
			t.Errorf("%s is in the backup", name)
		}
	}

	t.Run("hostile names", func(t *testing.T) {
		heads, bodies := entries(t, file)
		at := 0
		for at < len(heads) && !strings.HasPrefix(heads[at].Name, convFolder) {
			at++
		}
		for _, name := range []string{
			"conversations/" + string(id) + "/files/../../x", "conversations/" + string(id) + "/files/.a", "conversations/" + string(id) + "/work/a",
			"conversations/" + string(id) + "/files/a/b", "conversations/" + string(id[:len(id)-2]) + "00/files/a", "conversations/../x/files/a",
			"conversations/" + string(id) + "/files/a\nb",
		} {
			hostile := archive(t, func(w *tar.Writer) {
				for i := range heads {
					if i == at {
						if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: 1}); err == nil {
							w.Write([]byte("x"))
						}
					}
					w.WriteHeader(&heads[i])
					w.Write(bodies[i])
				}
				w.Close()
			})
			around := t.TempDir()
			_, err := Restore(t.Context(), hostile, filepath.Join(around, "data"), Options{WithoutKey: true})
			if agented.KindOf(err) != agented.Invalid {
				t.Errorf("%q: %v", name, err)
			}
			if left, _ := os.ReadDir(around); len(left) > 0 {
				t.Errorf("%q left %v", name, left)
			}
		}
	})
}

func TestRestoreHold(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	file := f.backup(t)
	for name, hold := range map[string]bool{"held": true, "not held": false} {
		t.Run(name, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "data")
			r, err := Restore(t.Context(), file, to, Options{WithoutKey: true, Hold: hold})
			if err != nil || r.Held != hold {
				t.Fatal(r.Held, err)
			}
			db, err := store.Open(t.Context(), filepath.Join(to, dbName), store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			value, err := db.Setting(t.Context(), store.SettingDrained)
			if hold && (err != nil || !strings.Contains(value, "restore --hold")) || !hold && agented.KindOf(err) != agented.NotFound {
				t.Errorf("drained: %q, %v", value, err)
			}
		})
	}
}

func TestRestore_to_symbolic_link(t *testing.T) {
	t.Parallel()
	file := newFolder(t).backup(t)
	dir := t.TempDir()
	for name, target := range map[string]string{"empty": "real", "dangling": "nothing"} {
		if name == "empty" {
			if err := os.Mkdir(filepath.Join(dir, target), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(dir, name)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), file, link, Options{WithoutKey: true}); agented.KindOf(err) != agented.Conflict {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.Readlink(link); err != nil || got != target {
			t.Errorf("%s: the link is %q now, %v", name, got, err)
		}
	}
}

func TestAbandonedCopies(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	elsewhere, target := t.TempDir(), t.TempDir()
	// leave creates the leftovers of a process that was killed while it copied.
	leave := func(parent string) string {
		temp, err := newTemp(parent, tempPrefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(temp.path, dbName), []byte("rows"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := temp.lock.Close(); err != nil { // the kernel does it for a dead process
			t.Fatal(err)
		}
		return temp.path
	}
	// One is next to the next target, one in a folder that is not used again.
	beside, far := leave(target), leave(elsewhere)
	noteUnfinished(f.Layout, far)
	used, err := newTemp(target, tempPrefix)
	if err != nil {
		t.Fatal(err)
	}
	defer used.remove()
	if exists(beside) {
		t.Error("an abandoned copy is still there after another temporary folder was made")
	}
	if got := Unfinished(f.Layout); got != far {
		t.Errorf("unfinished: %q, want %q", got, far)
	}
	if _, err := Create(t.Context(), f.source(), filepath.Join(target, "b"), nil); err != nil {
		t.Fatal(err)
	}
	if exists(far) || Unfinished(f.Layout) != "" {
		t.Error("the copy of the backup that was killed is still there after the next backup")
	}
	if !exists(used.path) {
		t.Error("a folder in use was removed")
	}
	if exists(filepath.Join(f.Root, unfinishedName)) {
		t.Error("a finished backup is recorded as unfinished")
	}

	t.Run("a note that names something else removes nothing", func(t *testing.T) {
		mine := t.TempDir()
		noteUnfinished(f.Layout, mine)
		sweepUnfinished(f.Layout)
		if !exists(mine) {
			t.Error("a folder without the prefix was removed")
		}
	})
}
