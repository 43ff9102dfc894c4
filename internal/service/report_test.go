package service

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestReport(t *testing.T) {
	t.Parallel()
	shown := func(r *Report) map[string]any {
		t.Helper()
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var out map[string]any
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, m := range []Manager{Systemd, Launchd} {
		in := Installer{Spec: User(m, t.TempDir(), "/opt/agented"), Source: "/opt/agented", DryRun: true, Out: io.Discard, Report: new(Report)}
		if err := in.Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(in.Report.Steps, func(step string) bool { return strings.HasPrefix(step, "write "+in.Spec.EnvFile) }) {
			t.Errorf("%s: no step writes the settings: %q", m, in.Report.Steps)
		}
		if got := shown(in.Report); got["dry_run"] != true || got["settings"] != in.Spec.EnvFile || got["service"] == "" || got["log"] == "" {
			t.Errorf("%s: %v", m, got)
		}
		in.Report = new(Report)
		if err := in.Status(t.Context()); !errors.Is(err, agented.NotFound) {
			t.Errorf("%s: status of nothing = %v", m, err)
		}
		if got := shown(in.Report); got["steps"] == nil || got["settings"] != in.Spec.EnvFile {
			t.Errorf("%s: without a service %v", m, got)
		}
	}
	t.Run("systemd", func(t *testing.T) {
		r := new(Report)
		r.systemd(map[string]string{"ActiveState": "active", "UnitFileState": "enabled", "MainPID": "123", "NRestarts": "2"})
		if r.State != "active" || r.AtBoot != "enabled" || r.PID != 123 || r.Restarts != 2 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("launchd", func(t *testing.T) {
		r := new(Report)
		r.launchd("state = running")
		r.launchd("pid = 123")
		if r.State != "running" || r.PID != 123 {
			t.Errorf("%+v", r)
		}
	})
}
