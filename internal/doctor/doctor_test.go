package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/store"
)

// place is an installation in a temporary folder.
type place struct {
	t   *testing.T
	dir string
	env []string
}

func newPlace(t *testing.T, env ...string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir()}
	for _, d := range []string{"bin", "home"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.env = append([]string{
		"HOME=" + filepath.Join(p.dir, "home"), "AGENTED_DATA_DIR=" + p.data(),
		"PATH=" + filepath.Join(p.dir, "bin") + ":/usr/bin:/bin",
	}, env...)
	return p
}

func (p *place) data() string { return filepath.Join(p.dir, "data") }

func (p *place) file(name string, mode os.FileMode, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// options loads the settings as the command does.
func (p *place) options() Options {
	p.t.Helper()
	environ := func() []string { return p.env }
	var o Options
	o.Config, o.ConfigErr = config.Load(config.Options{Dir: p.dir, Environ: environ})
	if o.ConfigErr != nil {
		o.Config, _ = config.Load(config.Options{Dir: p.dir, Environ: environ, Client: true})
	}
	o.Server = func(context.Context) (string, error) {
		return "http://127.0.0.1:1", agented.Errorf(agented.Unavailable, "no server answers")
	}
	return o
}

func (p *place) check() map[string]Finding {
	p.t.Helper()
	return byName(Check(p.t.Context(), p.options()))
}

func byName(list []Finding) map[string]Finding {
	out := map[string]Finding{}
	for _, f := range list {
		out[f.Name] = f
	}
	return out
}

func expect(t *testing.T, f Finding, status Status, parts ...string) {
	t.Helper()
	if f.Status != status {
		t.Errorf("%q is %q (%s), want %q", f.Name, f.Status, f.Text, status)
	}
	for _, part := range parts {
		if !strings.Contains(f.Text+" → "+f.Fix, part) {
			t.Errorf("%q says %q → %q, without %q", f.Name, f.Text, f.Fix, part)
		}
	}
	if status != OK && f.Fix == "" {
		t.Errorf("%q has no fix: %s", f.Name, f.Text)
	}
}

func TestCLIs_versions(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "ANTHROPIC_API_KEY=sk-hush", "GEMINI_CLI_HOME=/tmp/gemini-home")
	claude := p.file("bin/claude", 0o755, "#!/bin/sh\n[ -z \"$ANTHROPIC_API_KEY\" ] || exit 9\necho '2.1.330 (Claude Code)'\n")
	codex := p.file("bin/codex", 0o755, "#!/bin/sh\necho 'needs another node' >&2\nexit 3\n")
	p.file("bin/gemini", 0o644, "not for running")
	if err := os.Symlink("/nowhere/opencode", filepath.Join(p.dir, "bin/opencode")); err != nil {
		t.Fatal(err)
	}
	got := p.check()
	expect(t, got["claude"], OK, "2.1.330 at "+claude)
	expect(t, got["codex"], Warn, codex, "does not run", "exit status 3", "npm install")
	expect(t, got["gemini"], Warn, "is not executable", "npm install")
	expect(t, got["opencode"], Warn, "broken link", "npm install")
	expect(t, got["anthropic"], OK, "part of Agented, with ANTHROPIC_API_KEY")
	for _, f := range got {
		if strings.Contains(f.Text+f.Fix, "sk-hush") {
			t.Errorf("%q repeats a secret", f.Name)
		}
	}

	if err := os.Remove(filepath.Join(p.dir, "bin/opencode")); err != nil {
		t.Fatal(err)
	}
	expect(t, p.check()["opencode"], Warn, "not installed: `opencode` is not on the PATH")
}

func TestCLIs_hanging(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("bin/claude", 0o755, "#!/bin/sh\nexec sleep 600\n")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	got := byName(Check(ctx, p.options()))
	expect(t, got["claude"], Warn, "slow")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestCheck_fresh_machine(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	list := Check(t.Context(), p.options())
	if Failed(list) {
		t.Errorf("findings: %+v", list)
	}
	got := byName(list)
	expect(t, got["data folder"], OK, "the first start creates it")
	expect(t, got["database"], OK, "the first start creates it")
	expect(t, got["SECRET_KEY"], OK, "the first start creates one")
	expect(t, got["server"], Warn, "not running", "agented serve")
	if _, err := os.Stat(p.data()); err == nil {
		t.Error("the doctor made the data folder")
	}
}

func TestSettings_invalid(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "LOG_LEVEL=loud", "AGENTED_BIND=20000")
	list := Check(t.Context(), p.options())
	got := byName(list)
	expect(t, got["LOG_LEVEL"], Fail, "not one of", "agented config check")
	expect(t, got["AGENTED_BIND"], Fail, "write :20000")
	if _, there := got["claude"]; !there || !Failed(list) {
		t.Errorf("findings: %+v", list)
	}
	if list := Check(t.Context(), Options{ConfigErr: errors.New("odd")}); !Failed(list) {
		t.Errorf("without any settings: %+v", list)
	}
}

func TestDotenv_mode(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	env := p.file(".env", 0o644, "AGENTED_API_KEY=hush-hush-0123456789\n'never closed\nAGENTED_BNID=x\n")
	list := Check(t.Context(), p.options())
	var texts []string
	for _, f := range list {
		if f.Area == AreaSettings && f.Status == Warn {
			texts = append(texts, f.Name+": "+f.Text+" → "+f.Fix)
		}
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"line skipped", "AGENTED_BNID: this is not a setting", "readable by other users (mode 0644) → chmod 600 " + env} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among\n%s", want, all)
		}
	}
	if strings.Contains(fmt.Sprint(list), "hush-hush") {
		t.Error("a secret is repeated")
	}
}

func TestSecretKey_strength(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		env    []string
		file   string
		mode   os.FileMode
		status Status
		says   string
	}{
		{"generated", nil, strings.Repeat("0123456789abcdef", 4) + "\n", 0o600, OK, "fingerprint"},
		{"empty", nil, "\n", 0o600, Fail, "is empty"},
		{"open", nil, strings.Repeat("0123456789abcdef", 4) + "\n", 0o644, Fail, "chmod 600"},
		{"short", []string{"SECRET_KEY=hush"}, "", 0, Warn, "agented key secret"},
		{"repeated", []string{"SECRET_KEY=" + strings.Repeat("hush", 8)}, "", 0, Warn, "agented key secret"},
		{"chosen", []string{"SECRET_KEY=hush correct horse battery staple"}, "", 0, OK, "from environment"},
		{"file that does not exist", []string{"SECRET_KEY_FILE=/nowhere/key"}, "", 0, Fail, "does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, tt.env...)
			if tt.file != "" {
				p.file("data/.secret_key", tt.mode, tt.file)
			}
			f := p.check()["SECRET_KEY"]
			expect(t, f, tt.status, tt.says)
			if strings.Contains(f.Text+f.Fix, "hush") {
				t.Errorf("the key is repeated: %+v", f)
			}
		})
	}
}

func TestPlugin_folder(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	root := filepath.Join(p.dir, "plugin")
	p.env = append(p.env, "CLAUDE_PLUGIN_ROOT="+root)
	expect(t, p.check()["CLAUDE_PLUGIN_ROOT"], Warn, "does not exist")
	p.file("plugin/README", 0o644, "")
	expect(t, p.check()["CLAUDE_PLUGIN_ROOT"], Warn, "contains no program")
	p.file("plugin/bin/grd", 0o755, "#!/bin/sh\n")
	expect(t, p.check()["CLAUDE_PLUGIN_ROOT"], OK, "contains grd")
	if err := os.Chmod(filepath.Join(root, "bin"), 0o777); err != nil {
		t.Fatal(err)
	}
	expect(t, p.check()["CLAUDE_PLUGIN_ROOT"], Warn, "chmod o-w "+filepath.Join(root, "bin"))
}

func TestDatabase_integrity(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if err := os.Mkdir(p.data(), 0o755); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(p.data(), "agented.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got := p.check()
	expect(t, got["database"], OK, fmt.Sprintf("the running server uses it (process %d)", os.Getpid()))
	expect(t, got["server"], Fail, "runs, but: no server answers")
	expect(t, got["data folder"], Warn, "mode 0755", "chmod 700")
	ready := p.options()
	ready.Server = func(context.Context) (string, error) { return "http://127.0.0.1:1", nil }
	expect(t, byName(Check(t.Context(), ready))["server"], OK, "ready at http://127.0.0.1:1")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	got = p.check()
	expect(t, got["database"], OK, "is intact")
	expect(t, got["server"], Warn, "not running")

	if err := os.WriteFile(filepath.Join(p.data(), "agented.db"), []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, p.check()["database"], Fail, "is not a SQLite database")
}

func TestServer_no_answer(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	o := p.options()
	o.Server = func(context.Context) (string, error) { return "http://a", context.DeadlineExceeded }
	expect(t, byName(Check(t.Context(), o))["server"], Fail, "no answer at http://a")
	o.Server = func(context.Context) (string, error) {
		return "http://a", agented.Errorf(agented.Unauthenticated, "the API key is not known")
	}
	expect(t, byName(Check(t.Context(), o))["server"], Warn, "not known", "AGENTED_API_KEY")
}

func TestDataFolder_unusable(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.file("data", 0o600, "")
	expect(t, p.check()["data folder"], Fail, "is not a folder", "AGENTED_DATA_DIR")
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere, so a folder that is not writable is not tried")
	}
	p = newPlace(t)
	if err := os.Mkdir(p.data(), 0o500); err != nil {
		t.Fatal(err)
	}
	expect(t, p.check()["data folder"], Fail, "is not writable")
}

func TestClock_in_the_past(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "TZ=Asia/Kolkata")
	o := p.options()
	o.Now = func() time.Time { return time.Unix(0, 0) }
	expect(t, byName(Check(t.Context(), o))["clock"], Fail, "1970-01-01")
	o.Now = func() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }
	f := byName(Check(t.Context(), o))["clock"]
	if !strings.Contains(f.Text, "Asia/Kolkata (UTC+05:30)") {
		t.Errorf("clock: %s", f.Text)
	}
}

func TestPlatform_linux(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("inotify, cgroups and systemd are Linux's")
	}
	const pid = 4242
	system := func(t *testing.T, instances, watches, group, delegate string) map[string]Finding {
		t.Helper()
		p := newPlace(t)
		p.file("proc/sys/fs/inotify/max_user_instances", 0o600, instances+"\n")
		p.file("proc/sys/fs/inotify/max_user_watches", 0o600, watches+"\n")
		p.file("run/systemd/system/x", 0o600, "")
		p.file(fmt.Sprintf("proc/%d/cgroup", pid), 0o600, "1:name=x:/\n0::"+group+"\n")
		p.file(filepath.Join("sys/fs/cgroup", group, "cgroup.procs"), 0o600, "")
		if folder := filepath.Join(p.dir, "sys/fs/cgroup", delegate); delegate != "" {
			p.file(filepath.Join("sys/fs/cgroup", delegate, "cgroup.procs"), 0o600, "")
			if err := unix.Setxattr(folder, "user.delegate", []byte("1"), 0); err != nil {
				t.Skipf("the file system of the temporary folder takes no attributes: %v", err)
			}
		}
		return byName(checkSystem(t.Context(), Options{Root: p.dir, Now: time.Now}, pid))
	}
	got := system(t, "128", "65536", "/user.slice/user-0.slice/session-3.scope", "")
	expect(t, got["inotify"], OK, "128 instances and 65536 watches")
	expect(t, got["systemd"], OK, "started manually")
	if os.Getuid() == 0 {
		expect(t, got["cgroups"], OK, "not delegated, as usual")
		got = system(t, "8", "65536", "/system.slice/agented.service", "")
		expect(t, got["inotify"], Warn, "max_user_instances")
		expect(t, got["systemd"], OK, "as agented.service")
		expect(t, got["cgroups"], Warn, "Delegate=yes")
	}
	got = system(t, "128", "100", "/system.slice/agented.service/server", "/system.slice/agented.service")
	expect(t, got["inotify"], Warn, "max_user_watches")
	expect(t, got["cgroups"], OK, "delegated;")
}
