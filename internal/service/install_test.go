package service

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestInstall_dry_run(t *testing.T) {
	t.Parallel()
	for _, m := range []Manager{Systemd, Launchd} {
		home := t.TempDir()
		var out strings.Builder
		s := User(m, home, "/opt/agented")
		s.Socket = m == Systemd
		in := Installer{Spec: s, Source: "/opt/agented", DryRun: true, Out: &out}
		if err := in.Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []string{"write " + s.EnvFile, "AGENTED_DATA_DIR=" + s.DataDir, "Nothing was changed."}
		for _, f := range s.files() {
			want = append(want, "write "+f.path)
		}
		switch m {
		case Systemd:
			want = append(want, "KillMode=process", "ListenStream=127.0.0.1:20000", "AGENTED_BIND=127.0.0.1:20000", "run systemctl --user enable agented.service", "run systemctl --user restart agented.service")
		case Launchd:
			want = append(want, "<key>KeepAlive</key>", "run launchctl bootstrap gui/", "create the folder "+s.LogDir, "create the log "+s.LogDir+"/backend-error.log")
		}
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: %q is not in\n%s", m, text, out.String())
			}
		}
		if entries, _ := os.ReadDir(home); len(entries) != 0 {
			t.Errorf("%s: a dry run made %v", m, entries)
		}
		if err := in.Uninstall(t.Context()); !errors.Is(err, agented.NotFound) {
			t.Errorf("%s: uninstall of nothing = %v", m, err)
		}
	}
}

func TestInstall_keeps_settings(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := User(Launchd, home, "/opt/agented")
	if err := os.MkdirAll(filepath.Dir(s.EnvFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.EnvFile, []byte("TZ=UTC\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	in := Installer{Spec: s, Source: "/opt/agented", Out: &out}
	if err := in.run(t.Context(), in.settings()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(s.EnvFile); string(b) != "TZ=UTC\n" {
		t.Errorf("settings = %q, %v", b, err)
	}
	if err := os.Remove(s.EnvFile); err != nil {
		t.Fatal(err)
	}
	if err := in.run(t.Context(), in.settings()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(s.EnvFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("fresh settings: %v, %v", info, err)
	}
	for _, name := range []string{"backend.log", "backend-error.log"} {
		if info, err := os.Stat(filepath.Join(s.LogDir, name)); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestInstall_renames_program(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "new"), filepath.Join(dir, "bin", "agented")
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		old, _ := os.Stat(to)
		if err := copyProgram(from, to); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(to)
		if err != nil || info.Mode().Perm() != 0o755 || os.SameFile(info, old) {
			t.Errorf("%s: %v, %v", text, info, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "bin", ".agented-*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
