package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/vault"
)

const (
	testSecret     = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	testPassphrase = "correct horse battery"
)

// folder is a data folder of a stopped server.
type folder struct {
	agented.Layout
	db      *store.DB
	ended   agented.ExecutionID // its log is sealed
	running agented.ExecutionID // its log is open
	gone    agented.ExecutionID // running in the database, with an exit record
	waiting agented.ExecutionID
	log     *runlog.Writer
}

func newFolder(t testing.TB) *folder {
	t.Helper()
	f := &folder{Layout: agented.Layout{Root: t.TempDir()}}
	var err error
	if f.db, err = store.Open(t.Context(), f.dbPath(), store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.db.Close() })
	now := time.Now().UTC().Truncate(time.Microsecond)
	admit := func() *agented.Execution {
		e := &agented.Execution{
			ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: "t", Backend: agented.BackendCommand, Source: agented.SourceManual,
			CreatedAt: now, ScheduledAt: now, Snapshot: agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}},
		}
		if _, err := f.db.Admit(t.Context(), store.Admission{Execution: e}, now); err != nil {
			t.Fatal(err)
		}
		return e
	}
	run := func(lines int) (*agented.Execution, *runlog.Writer) {
		admit()
		e, err := f.db.Claim(t.Context(), "node-01jdc4q7zv8m3k2n5p6r7s8t9w", 100, now, time.Minute)
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		dir := f.Execution(e.ID)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		w, err := runlog.OpenWriter(dir, now)
		if err != nil {
			t.Fatal(err)
		}
		for i := range lines {
			if err := w.AppendSystem(1, now, "line %d of %s", i, e.ID); err != nil {
				t.Fatal(err)
			}
		}
		return e, w
	}
	e, w := run(50)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = f.db.EndAttempt(t.Context(), store.AttemptEnd{
		Attempt: agented.Attempt{Execution: e.ID, Number: 1, State: agented.StateSuccess}, Next: agented.StateSuccess, LastSeq: 50, Result: "done",
	}, e.Lease, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := runlog.Seal(f.Execution(e.ID)); err != nil {
		t.Fatal(err)
	}
	f.ended = e.ID
	e, w = run(20)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.gone = e.ID
	code := 3
	if err := shim.RecordLost(f.Attempt(e.ID, 1), agented.Exit{Code: &code, LastSeq: 20, FinishedAt: now}); err != nil {
		t.Fatal(err)
	}
	e, f.log = run(30)
	f.running = e.ID
	t.Cleanup(func() { f.log.Close() })
	f.waiting = admit().ID
	// These must never be in a backup.
	for _, path := range []string{f.CLIKey(), filepath.Join(f.Attempt(f.running, 1), "stdout"), filepath.Join(f.Work(f.ended), "file"), filepath.Join(f.Temp(f.running), "file")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("RAW-AND-UNMASKED"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.db.CreateUser(t.Context(), &store.User{Name: "ann", PasswordHash: "x", Role: agented.RoleAdmin}, "test"); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *folder) dbPath() string { return filepath.Join(f.Root, "agented.db") }

func (f *folder) source() Source {
	return Source{Layout: f.Layout, DBPath: f.dbPath(), Key: testSecret, KeyID: "72b367e4", Passphrase: []byte(testPassphrase), Program: "test"}
}

func (f *folder) backup(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.agented-backup")
	if _, err := Create(t.Context(), f.source(), file, nil); err != nil {
		t.Fatal(err)
	}
	return file
}

func check(t testing.TB, file string) error {
	_, err := Check(context.Background(), file, Options{Temp: t.TempDir()})
	return err
}

func TestBackup_round_trip(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	file := filepath.Join(t.TempDir(), "a.agented-backup")
	made, err := Create(t.Context(), f.source(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := made.Manifest
	if m.Logs != 3 || m.MissingLogs != 0 || m.Counts.Executions != 4 || made.Settled != 2 || made.Head.Key != KeySealed || len(made.Warnings) > 0 {
		t.Errorf("made: %+v", made)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	checked, err := Check(t.Context(), file, Options{Passphrase: []byte(testPassphrase), Temp: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if checked.Manifest != m || checked.Lines != 100 || checked.SHA256 != made.SHA256 {
		t.Errorf("made %+v\nfound %+v", made, checked)
	}
	to := agented.Layout{Root: filepath.Join(t.TempDir(), "new", "data")}
	if _, err := Restore(t.Context(), file, to.Root, Options{Passphrase: []byte(testPassphrase)}); err != nil {
		t.Fatal(err)
	}
	if key, err := os.ReadFile(to.SecretKey()); err != nil || string(key) != testSecret+"\n" {
		t.Errorf("key %q, %v", key, err)
	}
	err = filepath.WalkDir(to.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("RAW-AND-UNMASKED")) {
			t.Errorf("%s holds what must not leave the machine", path)
		}
		if info, _ := d.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(to.Root, "agented.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if e, err := db.Execution(t.Context(), f.ended); err != nil || e.State != agented.StateSuccess || e.Result != "done" {
		t.Errorf("%+v %v", e, err)
	}
	if e, err := db.Execution(t.Context(), f.waiting); err != nil || e.State != agented.StatePending {
		t.Errorf("%+v %v", e, err)
	}
	// Executions that were running are taken over by the next server, and each has an end.
	open, err := db.TakeOver(t.Context(), "node-01jdc4q7zv8m3k2n5p6r7s8t9x", time.Now(), time.Minute)
	if err != nil || len(open) != 2 {
		t.Fatalf("%d, %v", len(open), err)
	}
	for id, want := range map[agented.ExecutionID]int{f.running: 0, f.gone: 3} {
		facts, err := shim.Inspect(to.Attempt(id, 1))
		if err != nil || shim.Decide(facts) != shim.Ended {
			t.Errorf("%s: %v %v", id, shim.Decide(facts), err)
		}
		exit, err := shim.ReadExit(to.Attempt(id, 1))
		if err != nil || (want == 0) != (exit.Code == nil) {
			t.Errorf("%s: %+v %v", id, exit, err)
		}
		last, _, err := runlog.Verify(to.Execution(id))
		if err != nil || last != exit.LastSeq {
			t.Errorf("%s: the log ends at %d, the record says %d, %v", id, last, exit.LastSeq, err)
		}
		if id == f.running && last <= f.log.LastSeq() {
			t.Errorf("the restored log gave number %d again; the original is at %d", last, f.log.LastSeq())
		}
	}
}

func TestCheck_flipped_bits(t *testing.T) {
	t.Parallel()
	file := newFolder(t).backup(t)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(t, file); err != nil {
		t.Fatal(err)
	}
	step := len(good)/testrun.Size(20, 40, 150) + 1
	tried := 0
	for at := 0; at < len(good); at++ {
		if at > 24 && at < len(good)-trailerSize-24 && at%step != 0 {
			continue
		}
		tried++
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := check(t, file); agented.KindOf(err) != agented.Invalid {
			t.Errorf("bit %d of byte %d of %d: %v", at%8, at, len(good), err)
		}
	}
	for _, n := range []int{0, 1, trailerSize, len(good) / 2, len(good) - trailerSize, len(good) - 1} {
		if err := os.WriteFile(file, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := check(t, file); agented.KindOf(err) != agented.Invalid {
			t.Errorf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	t.Logf("%d flipped bits in %d bytes, all found", tried, len(good))
}

// archive packs entries into a file with a correct outer checksum, as an attacker who knows the
// format would.
func archive(t testing.TB, write func(*tar.Writer)) string {
	t.Helper()
	var packed bytes.Buffer
	enc, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(enc)
	write(w)
	_ = w.Flush() // fails for entries that are incomplete on purpose
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(packed.Bytes())
	packed.Write(trailer(sum[:]))
	file := filepath.Join(t.TempDir(), "hostile")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// entries unpacks a valid backup.
func entries(t testing.TB, file string) (list []tar.Header, bodies [][]byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(bytes.NewReader(b[:len(b)-trailerSize]))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for r := tar.NewReader(dec); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list, bodies = append(list, *h), append(bodies, body)
	}
}

func TestRestore_hostile_archives(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	heads, bodies := entries(t, f.backup(t))
	with := func(at int, h tar.Header, body []byte) string {
		return archive(t, func(w *tar.Writer) {
			for i := range heads {
				if i == at {
					h.Size = int64(len(body))
					if err := w.WriteHeader(&h); err == nil {
						w.Write(body)
					}
				}
				if err := w.WriteHeader(&heads[i]); err != nil {
					t.Fatal(err)
				}
				w.Write(bodies[i])
			}
			w.Close()
		})
	}
	if err := check(t, with(-1, tar.Header{}, nil)); err != nil {
		t.Fatalf("packed anew it is not good any more: %v", err)
	}
	logs := 3 // the place of the first entry below executions
	plain := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600} }
	other := string(f.waiting[:len(f.waiting)-1]) + "0"
	for name, file := range map[string]string{
		"a name that climbs":          with(logs, plain("executions/../../outside"), []byte("x")),
		"an absolute name":            with(logs, plain("/tmp/outside"), []byte("x")),
		"a name with a dot":           with(logs, plain("./agented.db"), []byte("x")),
		"a name that is none of ours": with(logs, plain(".secret_key"), []byte("x")),
		"a database twice":            with(logs, plain("agented.db"), bodies[2]),
		"a log of nobody":             with(logs, plain("executions/"+other+"/log"), []byte("x")),
		"a log that is none":          with(logs, plain("executions/"+string(f.ended[:5])+"00000000000000000000000000/log"), []byte("x")),
		"an end of what has ended":    with(logs, plain("executions/"+string(f.ended)+"/attempt-1/exit.json"), []byte("{}")),
		"a symbolic link":             with(logs, tar.Header{Typeflag: tar.TypeSymlink, Name: "executions/" + string(f.ended) + "/log", Linkname: "/etc/passwd"}, nil),
		"a hard link":                 with(logs, tar.Header{Typeflag: tar.TypeLink, Name: "executions/" + string(f.ended) + "/log", Linkname: "agented.db"}, nil),
		"a device":                    with(logs, tar.Header{Typeflag: tar.TypeChar, Name: "executions/" + string(f.ended) + "/log"}, nil),
		"a folder":                    with(logs, tar.Header{Typeflag: tar.TypeDir, Name: "executions/"}, nil),
		"a head that is long": archive(t, func(w *tar.Writer) {
			h := plain(headName)
			h.Size = 100 << 20
			w.WriteHeader(&h)
			w.Write(make([]byte, 1<<20))
		}),
		"a database larger than the disk": archive(t, func(w *tar.Writer) {
			h := heads[0]
			w.WriteHeader(&h)
			w.Write(bodies[0])
			h = plain(dbName)
			h.Size = 1 << 60
			w.WriteHeader(&h)
			w.Write(make([]byte, 1<<20))
		}),
		"logs before the database": archive(t, func(w *tar.Writer) {
			w.WriteHeader(&heads[0])
			w.Write(bodies[0])
			w.WriteHeader(&heads[logs])
			w.Write(bodies[logs])
		}),
		"no manifest": archive(t, func(w *tar.Writer) {
			for i := range len(heads) - 1 {
				w.WriteHeader(&heads[i])
				w.Write(bodies[i])
			}
			w.Close()
		}),
		"no log of what has one": archive(t, func(w *tar.Writer) {
			for i := range heads {
				if !strings.HasSuffix(heads[i].Name, "log.zst") {
					w.WriteHeader(&heads[i])
					w.Write(bodies[i])
				}
			}
			w.Close()
		}),
		"nothing": archive(t, func(w *tar.Writer) { w.Close() }),
		"something behind the manifest": archive(t, func(w *tar.Writer) {
			for i := range heads {
				w.WriteHeader(&heads[i])
				w.Write(bodies[i])
			}
			h := plain("executions/" + string(f.waiting) + "/log")
			h.Size = 1
			w.WriteHeader(&h)
			w.Write([]byte("x"))
			w.Close()
		}),
	} {
		around := t.TempDir()
		to := filepath.Join(around, "data")
		_, err := Restore(t.Context(), file, to, Options{Passphrase: []byte(testPassphrase)})
		if k := agented.KindOf(err); k != agented.Invalid && k != agented.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		left, err := os.ReadDir(around)
		if err != nil || len(left) != 0 {
			t.Errorf("%s: left %v behind, %v", name, left, err)
		}
	}
}

func TestRestore_archive_bomb(t *testing.T) {
	t.Parallel()
	space, err := disk.Measure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := archive(t, func(w *tar.Writer) {
		head := []byte(`{"format":1,"key":"left out"}`)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: headName, Size: int64(len(head))})
		w.Write(head)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dbName, Size: space.Free})
		w.Write(make([]byte, 16<<20))
	})
	if err := check(t, file); agented.KindOf(err) != agented.Unavailable || !strings.Contains(agented.Message(err), "free disk space") {
		t.Error(err)
	}
}

func TestRestore_rejected(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	file := f.backup(t)
	if _, err := Check(t.Context(), file, Options{Passphrase: []byte("wrong passphrase"), Temp: t.TempDir()}); agented.KindOf(err) != agented.Denied {
		t.Errorf("a wrong passphrase: %v", err)
	}
	to := t.TempDir()
	if _, err := Restore(t.Context(), file, to, Options{}); agented.KindOf(err) != agented.Invalid || !strings.Contains(err.Error(), "--without-key") {
		t.Errorf("no passphrase: %v", err)
	}
	if err := os.WriteFile(filepath.Join(to, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), file, to, Options{WithoutKey: true}); agented.KindOf(err) != agented.Conflict {
		t.Errorf("a folder that is not empty: %v", err)
	}
	if _, err := Restore(t.Context(), file, filepath.Join(to, "new"), Options{WithoutKey: true}); err != nil {
		t.Errorf("without the key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(to, "new", ".secret_key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was restored: %v", err)
	}
	if _, err := Create(t.Context(), f.source(), file, nil); agented.KindOf(err) != agented.Conflict {
		t.Errorf("over a file that is there: %v", err)
	}
	lock, err := Lock(f.Layout)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), f.source(), file+"2", nil); agented.KindOf(err) != agented.Conflict {
		t.Errorf("two at once: %v", err)
	}
	lock.Close()
	src := f.source()
	src.MinFree = 1 << 60
	if _, err := Create(t.Context(), src, file+"2", nil); agented.KindOf(err) != agented.Unavailable || !strings.Contains(err.Error(), "must stay free") {
		t.Errorf("on a disk that is low: %v", err)
	}
	src = f.source()
	src.Passphrase = nil
	if got, err := Create(t.Context(), src, file+"2", nil); err != nil || got.Head.Key != KeyLeftOut {
		t.Errorf("without a passphrase: %+v %v", got.Head, err)
	}
	b, _ := os.ReadFile(file)
	if bytes.Contains(b, []byte(testSecret)) {
		t.Error("the key can be read in the backup")
	}
}

func TestBackup_log_removed_meanwhile(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	if err := os.Remove(filepath.Join(f.Execution(f.ended), "log.zst")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b")
	made, err := Create(t.Context(), f.source(), file, nil)
	if err != nil || made.Manifest.MissingLogs != 1 || len(made.Warnings) != 1 {
		t.Errorf("%+v %v", made, err)
	}
	if r, err := Check(t.Context(), file, Options{Temp: t.TempDir()}); err != nil || len(r.Warnings) != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzRead(f *testing.F) {
	fo := newFolder(f)
	heads, bodies := entries(f, fo.backup(f))
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for i := range heads {
		w.WriteHeader(&heads[i])
		w.Write(bodies[i])
	}
	w.Close()
	f.Add(plain.Bytes(), uint16(0), byte(0))
	f.Add(plain.Bytes(), uint16(600), byte(3))
	f.Add([]byte("x"), uint16(0), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, with byte) {
		b = bytes.Clone(b)
		changed := with != 0 && int(at) < len(b)
		if changed {
			b[at] ^= with
		}
		file := archive(t, func(w *tar.Writer) {})
		var packed bytes.Buffer
		enc, _ := zstd.NewWriter(&packed)
		enc.Write(b)
		enc.Close()
		sum := sha256.Sum256(packed.Bytes())
		packed.Write(trailer(sum[:]))
		if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		around := t.TempDir()
		_, err := Restore(context.Background(), file, filepath.Join(around, "data"), Options{WithoutKey: true})
		if left, _ := os.ReadDir(around); err != nil && len(left) > 0 {
			t.Fatal(fmt.Sprint("left behind: ", left))
		}
	})
}

// A backup without the key contains no value of a named secret, also of one in use.
func TestBackup_named_secrets(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	key, err := secret.Load(secret.Options{Value: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	const value = "value-of-a-named-secret"
	v := vault.New(vault.Options{DB: f.db, Key: key})
	if err := v.Create(t.Context(), &agented.Secret{Name: "token", Source: agented.SecretStored}, value, "test"); err != nil {
		t.Fatal(err)
	}
	if err := v.Resolve(t.Context(), &agented.Execution{ID: f.running, AttemptNo: 1}, []string{"token"}); err != nil {
		t.Fatal(err)
	}
	source := f.source()
	source.Passphrase = nil
	file := filepath.Join(t.TempDir(), "a.agented-backup")
	if _, err := Create(t.Context(), source, file, nil); err != nil {
		t.Fatal(err)
	}
	to := agented.Layout{Root: filepath.Join(t.TempDir(), "data")}
	if _, err := Restore(t.Context(), file, to.Root, Options{WithoutKey: true}); err != nil {
		t.Fatal(err)
	}
	sealed := false
	err = filepath.WalkDir(to.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(value)) {
			t.Errorf("%s contains the value", path)
		}
		sealed = sealed || bytes.Contains(b, []byte("sealed:v1:"))
		return err
	})
	if err != nil || !sealed {
		t.Errorf("sealed %v, %v", sealed, err)
	}
}
