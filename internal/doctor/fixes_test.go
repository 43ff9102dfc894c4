package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/service"
	"github.com/agented/agented/internal/store"
)

// byID indexes findings by their stable ids.
func byID(list []Finding) map[string]Finding {
	out := map[string]Finding{}
	for _, f := range list {
		out[f.ID] = f
	}
	return out
}

// goodUnit holds systemd's properties of the unit that `service install` writes.
var goodUnit = map[string]string{
	"LoadState": "loaded", "ActiveState": "active", "FragmentPath": "/etc/systemd/system/agented.service", "NeedDaemonReload": "no",
	"KillMode": "process", "Delegate": "yes", "NotifyAccess": "main", "Type": "notify", "FileDescriptorStoreMax": "16",
	"TimeoutStopUSec": "40s", "Restart": "always",
}

// unitPlace is a machine with systemd, whose unit has the given properties and whose installed
// file has the given text.
func unitPlace(t *testing.T, text string, change map[string]string, env ...string) Options {
	t.Helper()
	p := newPlace(t, env...)
	p.file("run/systemd/system/x", 0o600, "")
	p.file("etc/systemd/system/agented.service", 0o600, text)
	o := p.options()
	o.Root, o.Now = p.dir, time.Now
	o.Systemctl = func(_ context.Context, args ...string) ([]byte, error) {
		unit := args[len(args)-1]
		if unit == "agented.socket" {
			if change["Listen"] == "" {
				return []byte("LoadState=not-found\n"), nil
			}
			return []byte("LoadState=loaded\nListen=" + change["Listen"] + "\n"), nil
		}
		if args[0] == "--user" {
			return []byte("LoadState=not-found\n"), nil
		}
		var b strings.Builder
		for name, value := range goodUnit {
			if v, there := change[name]; there {
				value = v
			}
			fmt.Fprintf(&b, "%s=%s\n", name, value)
		}
		return []byte(b.String()), nil
	}
	return o
}

func TestUnit_installed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("systemd is Linux's")
	}
	unit := service.System(service.Systemd).Unit()
	for _, tt := range []struct {
		name, id string
		change   map[string]string
		text     string
		env      string
		status   Status
		says     []string
	}{
		{"as installed", "system.unit.ok", nil, unit, "", OK, []string{"keeps agents running over restarts"}},
		{"another kill mode", "system.unit.killmode", map[string]string{"KillMode": "mixed"}, unit, "", Fail, []string{"each restart kills the running agents", "systemctl edit agented.service"}},
		{"not delegated", "system.unit.delegate", map[string]string{"Delegate": "no"}, unit, "", Warn, []string{"control group"}},
		{"no notify access", "system.unit.notifyaccess", map[string]string{"NotifyAccess": "none"}, unit, "", Fail, []string{"ignores the server"}},
		{"simple", "system.unit.type", map[string]string{"Type": "simple"}, unit, "", Warn, []string{"before the server is ready"}},
		{"no store", "system.unit.fdstore", map[string]string{"FileDescriptorStoreMax": "0"}, unit, "", Warn, []string{"refused while the server restarts"}},
		{"no restart", "system.unit.restart", map[string]string{"Restart": "no"}, unit, "", Warn, []string{"not restarted after a crash"}},
		{"stopped early", "system.unit.timeoutstop", map[string]string{"TimeoutStopUSec": "39s"}, unit, "", Fail, []string{"after 39s", "30s (AGENTED_SHUTDOWN_TIMEOUT)", "sudo agented service install"}},
		{"a longer drain than the unit knows", "system.unit.timeoutstop", nil, unit, "AGENTED_SHUTDOWN_TIMEOUT=2m", Fail, []string{"2m0s"}},
		{"a long stop", "system.unit.ok", map[string]string{"TimeoutStopUSec": "1min 30s"}, unit, "", OK, nil},
		{"changed on disk", "system.unit.reload", map[string]string{"NeedDaemonReload": "yes"}, unit, "", Warn, []string{"sudo systemctl daemon-reload"}},
		{"an older unit", "system.unit.version", nil, strings.Replace(unit, "\nOOMPolicy=continue\n", "\n", 1), "", Warn, []string{"lacks OOMPolicy=continue", "sudo agented service install"}},
		{"installed elsewhere", "system.unit.ok", nil, strings.ReplaceAll(unit, "/var/lib/agented", "/srv/agented"), "", OK, nil},
		{"a socket on the same port", "system.unit.ok", map[string]string{"Listen": "0.0.0.0:20000 (Stream)"}, unit, "", OK, nil},
		{"a socket on another port", "system.unit.socket", map[string]string{"Listen": "0.0.0.0:20000 (Stream)"}, unit, "AGENTED_BIND=127.0.0.1:443", Warn, []string{"listens on 0.0.0.0:20000", "--socket"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var env []string
			if tt.env != "" {
				env = append(env, tt.env)
			}
			o := unitPlace(t, tt.text, tt.change, env...)
			list := checkUnit(t.Context(), o, "", false)
			f, there := byID(list)[tt.id]
			if !there {
				t.Fatalf("no %s in %+v", tt.id, list)
			}
			if len(list) != 1 {
				t.Errorf("more findings: %+v", list)
			}
			expect(t, f, tt.status, tt.says...)
		})
	}
	if list := checkUnit(t.Context(), Options{Systemctl: func(context.Context, ...string) ([]byte, error) { return nil, os.ErrNotExist }}, "", false); list != nil {
		t.Errorf("without systemd: %+v", list)
	}
	o := unitPlace(t, unit, map[string]string{"KillMode": "control-group"})
	if _, there := byID(Check(t.Context(), o))["system.unit.killmode"]; !there {
		t.Error("the whole look does not come to the unit")
	}
}

func TestTimespan_parsed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"40s": 40 * time.Second, "1min 30s": 90 * time.Second, "500ms": 500 * time.Millisecond, "1h 5s": time.Hour + 5*time.Second, "1.5s": 1500 * time.Millisecond} {
		if got, ok := timespan(text); !ok || got != want {
			t.Errorf("%q is %s %v, want %s", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "s", "40", "soon"} {
		if _, ok := timespan(text); ok {
			t.Errorf("%q is taken for a time", text)
		}
	}
}

func TestSecrets_guessable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		env, id string
		status  Status
		says    string
	}{
		{"AGENTED_API_KEY=hushhushhushhush", "settings.strength.AGENTED_API_KEY", Warn, "regular"},
		{"AGENTED_API_KEY=hush4567890123456789", "settings.strength.AGENTED_API_KEY", Warn, "regular"},
		{"AGENTED_API_KEY=hushc2ZkH1pQ8vWm4Tz9", "settings.strength.AGENTED_API_KEY", OK, "20 characters"},
		{"GITHUB_WEBHOOK_SECRET=hush", "settings.strength.GITHUB_WEBHOOK_SECRET", Warn, "4 characters"},
		{"GITHUB_WEBHOOK_SECRET=hush9f1c7a33e0d64b2f", "settings.strength.GITHUB_WEBHOOK_SECRET", OK, "20 characters"},
	} {
		p := newPlace(t, tt.env)
		f := byID(Check(t.Context(), p.options()))[tt.id]
		expect(t, f, tt.status, tt.says)
		if strings.Contains(f.Text+f.Fix, "hush") {
			t.Errorf("a secret is repeated: %+v", f)
		}
	}
	p := newPlace(t)
	path := p.file("key", 0o644, "hushc2ZkH1pQ8vWm4Tz9\n")
	p.env = append(p.env, "AGENTED_API_KEY_FILE="+path)
	expect(t, byID(Check(t.Context(), p.options()))["settings.file.AGENTED_API_KEY_FILE"], Warn, "every user", "chmod 600 "+path)
}

func TestPort_address_and_holder(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newPlace(t, "AGENTED_BIND="+l.Addr().String())
	got := byID(checkPort(p.options(), 0))
	expect(t, got["server.address"], OK, "this machine only")
	expect(t, got["server.port"], Fail, "is used by", "AGENTED_BIND")
	if runtime.GOOS == "linux" {
		expect(t, got["server.port"], Fail, fmt.Sprintf("(process %d)", os.Getpid()))
	}
	if got := byID(checkPort(p.options(), 1)); len(got) != 1 {
		t.Errorf("the server's own port is found taken: %+v", got)
	}
	l.Close()
	if got := byID(checkPort(p.options(), 0)); len(got) != 1 {
		t.Errorf("a free port is found taken: %+v", got)
	}
	for bind, status := range map[string]Status{"0.0.0.0:0": Warn, ":0": Warn, "[::1]:0": OK, "localhost:0": OK, "unix:/run/x.sock": OK} {
		p := newPlace(t, "AGENTED_BIND="+bind)
		expect(t, byID(checkPort(p.options(), 0))["server.address"], status)
	}
}

func TestBundles_orphaned(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if err := os.Mkdir(p.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.data(), "agented.db")
	db, err := store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	known := agented.ExecutionID(agented.NewID("exec", now))
	if _, err := db.Admit(t.Context(), store.Admission{Execution: &agented.Execution{
		ID: known, Source: agented.SourceManual, Backend: agented.BackendCommand, CreatedAt: now, ScheduledAt: now,
		Snapshot: agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}},
	}}, now); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	layout := agented.Layout{Root: p.data()}
	unknown := agented.ExecutionID(agented.NewID("exec", now.Add(time.Second)))
	hold := func(id agented.ExecutionID) *os.File {
		t.Helper()
		if err := os.MkdirAll(layout.Attempt(id, 1), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(layout.Attempt(id, 1), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := filelock.Try(f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	hold(known)
	got := byID(Check(t.Context(), p.options()))
	expect(t, got["data.bundles"], OK, "1 folders, all with an execution in the database; 1 agents running")

	shim := hold(unknown)
	got = byID(Check(t.Context(), p.options()))
	expect(t, got["data.orphan."+string(unknown)], Fail, "which is not in the database, is still running", "kill ")
	filelock.Release(shim)
	got = byID(Check(t.Context(), p.options()))
	expect(t, got["data.folders"], Warn, "1 folders", string(unknown), "rm -r "+layout.Execution(unknown))

	// With a running server, the server is asked.
	db, err = store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	o := p.options()
	o.States = func(_ context.Context, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
		out := map[agented.ExecutionID]agented.State{}
		for _, id := range ids {
			out[id] = agented.StateSuccess
		}
		return out, nil
	}
	got = byID(Check(t.Context(), o))
	expect(t, got["data.orphan."+string(known)], Fail, "which is recorded as success")
}

func TestOwner_wrong_user_and_modes(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	p := newPlace(t)
	p.file("data/cli.key", 0o644, "")
	if err := os.Chmod(p.data(), 0o755); err != nil {
		t.Fatal(err)
	}
	got := byID(Check(t.Context(), p.options()))
	expect(t, got["data.modes"], Warn, "cli.key", "chmod -R go= "+p.data())
	if err := os.Chown(filepath.Join(p.data(), "cli.key"), 12345, 12345); err != nil {
		t.Skipf("files cannot be given away here: %v", err)
	}
	got = byID(Check(t.Context(), p.options()))
	expect(t, got["data.foreign"], Fail, "cli.key", "sudo chown -R 0:0 "+p.data())
	expect(t, got["system.user"], Warn, "root")
}

func TestClock_set_back_and_large_wal(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("data/agented.db", 0o600, "")
	wal := p.file("data/agented.db-wal", 0o600, "")
	if err := os.Truncate(wal, largeWAL); err != nil {
		t.Fatal(err)
	}
	o := p.options()
	expect(t, byID(checkWAL(o.Config))["data.wal"], Warn, "256 MiB", "restart")
	o.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	expect(t, checkClock(o), Fail, "clock was set back")
}

func TestCLIs_old_versions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"2.1.196", "2.1.197", true},
		{"2.1.197", "2.1.197", false},
		{"2.2", "2.1.197", false},
		{"1.99.999", "2.1.197", true},
		{"0.170.0-alpha.1", "0.169.0", false},
		{"0.168.0-alpha.9", "0.169.0", true},
		{"nightly", "0.169.0", false},
		{"10.0.0", "9.9.9", false},
	} {
		if got := older(tt.a, tt.b); got != tt.want {
			t.Errorf("older(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
	p := newPlace(t)
	p.file("bin/codex", 0o755, "#!/bin/sh\necho 'codex-cli 0.98.0'\n")
	expect(t, p.check()["codex"], Warn, "older than 0.169.0", "npm install")
}

func TestFindings_have_ids(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "AGENTED_BNID=x")
	seen := map[string]bool{}
	for _, f := range Check(t.Context(), p.options()) {
		if f.ID == "" || strings.ContainsAny(f.ID, " /") || seen[f.ID] {
			t.Errorf("id %q of %+v", f.ID, f)
		}
		seen[f.ID] = true
	}
	for _, id := range []string{"cli.claude", "settings.env", "settings.SECRET_KEY", "settings.AGENTED_BNID", "data.data_folder", "data.disk", "data.database", "server.server", "server.address", "system.open_files", "system.clock", "system.time_zones", "system.user", "system.cgroups"} {
		if !seen[id] {
			t.Errorf("no finding %q", id)
		}
	}
}
