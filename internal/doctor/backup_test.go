package doctor

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/backup"
)

func TestBackups_failed_or_overdue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		off    bool
		made   []string // files in the folder
		extra  string   // a setting
		status Status
		want   string
	}{
		"not wanted":  {off: true, status: OK, want: "set AGENTED_BACKUP_DIR"},
		"none yet":    {status: Warn, want: "the next is due at 2026-05-07 03:00 UTC"},
		"taken":       {made: []string{backup.NameAt(now.Add(-33 * time.Hour)), backup.NameAt(now.Add(-9 * time.Hour))}, status: OK, want: "2 in "},
		"just due":    {made: []string{backup.NameAt(now.Add(-10 * time.Hour))}, extra: "AGENTED_BACKUP_SCHEDULE=0 11 * * *", status: OK, want: "1 in "},
		"overdue":     {made: []string{backup.NameAt(now.Add(-33 * time.Hour))}, status: Fail, want: "due at 2026-05-06 03:00 UTC is missing"},
		"spoiled":     {made: []string{backup.NameAt(now.Add(-10 * time.Hour)), backup.NameAt(now.Add(-9*time.Hour)) + ".bad"}, status: Fail, want: "failed verification"},
		"fixed":       {made: []string{backup.NameAt(now.Add(-10*time.Hour)) + ".bad", backup.NameAt(now.Add(-9 * time.Hour))}, status: OK, want: "1 in "},
		"passphrase":  {extra: "AGENTED_BACKUP_PASSPHRASE_FILE=/nowhere/passphrase", status: Fail, want: "passphrase in /nowhere/passphrase cannot be read"},
		"other files": {made: []string{"holiday.jpg"}, status: Warn, want: "no backup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "TZ=UTC")
			dir := filepath.Join(p.dir, "backups")
			if !c.off {
				p.env = append(p.env, "AGENTED_BACKUP_DIR="+dir)
			}
			if c.extra != "" {
				p.env = append(p.env, c.extra)
			}
			for _, file := range c.made {
				p.file("backups/"+file, 0o600, "x")
			}
			o := p.options()
			if o.ConfigErr != nil {
				t.Fatal(o.ConfigErr)
			}
			got := checkBackups(o.Config, now)
			if len(got) != 1 || got[0].Status != c.status || !strings.Contains(got[0].Text, c.want) {
				t.Errorf("%+v", got)
			}
			if (got[0].Status == OK) != (got[0].Fix == "") {
				t.Errorf("the fix of %+v", got[0])
			}
		})
	}
	p := newPlace(t, "TZ=UTC", "AGENTED_BACKUP_DIR="+filepath.Join(t.TempDir(), "b"))
	if f, ok := p.check()["backups"]; !ok || f.Status != Warn {
		t.Errorf("the doctor says %+v", f)
	}
}

func TestDisk_below_limit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if f := checkDisk(dir, 2*free); f.Status != Fail || !strings.Contains(f.Text, "new executions wait") || f.Fix == "" {
		t.Errorf("%+v", f)
	}
	if f := checkDisk(dir, 100*free); f.Status != Fail || !strings.Contains(f.Text, "running executions are stopped") {
		t.Errorf("%+v", f)
	}
	if f := checkDisk(dir, free/10); f.Status == Fail {
		t.Errorf("%+v", f)
	}
}
