package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
)

// late is how overdue a backup may be before it is reported.
const late = 2 * time.Hour

// checkBackups checks the scheduled backups by the files in the backup folder, so it also works
// without a running server.
func checkBackups(c *config.Config, now time.Time) []Finding {
	out := checkSchedule(c, now)
	if dir := backup.Unfinished(agented.Layout{Root: c.DataDir}); dir != "" {
		out = append(out, Finding{
			ID: "data.backup_unfinished", Area: AreaData, Name: "backup", Status: Warn,
			Text: fmt.Sprintf("a backup was interrupted and left a copy of the database in %s", dir),
			Fix:  "the next backup removes it; to remove it now: rm -r " + dir,
		})
	}
	return out
}

func checkSchedule(c *config.Config, now time.Time) []Finding {
	f := Finding{Area: AreaData, Name: "backups", Status: OK}
	if c.BackupDir == "" {
		f.Text = "not scheduled: set AGENTED_BACKUP_DIR to a folder, preferably on another disk"
		return []Finding{f}
	}
	bad := func(fix, format string, args ...any) []Finding {
		f.Status, f.Text, f.Fix = Fail, fmt.Sprintf(format, args...), fix
		return []Finding{f}
	}
	if c.BackupPassphrase != "" {
		if _, err := backup.ReadPassphrase(c.BackupPassphrase); err != nil {
			return bad("put the passphrase into that file, or unset AGENTED_BACKUP_PASSPHRASE_FILE", "backups fail: the passphrase in %s cannot be read (%v)", c.BackupPassphrase, cause(err))
		}
	}
	table, err := backup.CheckSchedule(c.BackupSchedule)
	if err != nil {
		return bad("fix AGENTED_BACKUP_SCHEDULE", "backups fail: %v", err)
	}
	list, err := backup.Scheduled(c.BackupDir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := existing(c.BackupDir)
		if unix.Access(parent, unix.W_OK|unix.X_OK) != nil {
			return bad("give the server's user write access to the parent folder, or set AGENTED_BACKUP_DIR to another folder", "backups fail: %s does not exist and cannot be created", c.BackupDir)
		}
	} else if err != nil {
		return bad("make the server's user the owner of the folder", "%s cannot be read (%v)", c.BackupDir, cause(err))
	} else if unix.Access(c.BackupDir, unix.W_OK|unix.X_OK) != nil {
		return bad("give the server's user write access to the folder", "backups fail: %s is not writable", c.BackupDir)
	}
	if len(list) == 0 {
		next, _ := table.Next(now, c.Zone)
		f.Status, f.Text = Warn, fmt.Sprintf("no backup in %s yet; the next is due at %s", c.BackupDir, next.UTC().Format("2006-01-02 15:04 MST"))
		f.Fix = "run `agented backup FILE` to create one now"
		return []Finding{f}
	}
	last := list[len(list)-1]
	at, _ := backup.TakenAt(last)
	spoilt, _ := filepath.Glob(filepath.Join(c.BackupDir, "agented-*.backup.bad"))
	for _, path := range spoilt {
		if when, ok := backup.TakenAt(strings.TrimSuffix(path, ".bad")); ok && when.After(at) {
			return bad("check the server's log, and the disk with `agented restore "+path+" --check`", "the backup of %s was written but failed verification", when.Format("2006-01-02 15:04 MST"))
		}
	}
	if due, _ := table.Next(at, c.Zone); !due.IsZero() && now.Sub(due) > late {
		return bad("find the reason in the server's log, or run `agented backup FILE`", "the last backup is of %s, and the one due at %s is missing: it failed, or no server was running",
			at.Format("2006-01-02 15:04 MST"), due.UTC().Format("2006-01-02 15:04 MST"))
	}
	f.Text = fmt.Sprintf("%d in %s, the last of %s", len(list), c.BackupDir, at.Format("2006-01-02 15:04 MST"))
	info, err := os.Stat(last)
	space, spaceErr := disk.Measure(c.BackupDir)
	if err == nil && spaceErr == nil {
		if free := space.Free; free < info.Size()+info.Size()/4 {
			f.Status, f.Text = Warn, fmt.Sprintf("%s; the next may not fit: %s are free, and the last one needed %s", f.Text, format.Bytes(free), format.Bytes(info.Size()))
			f.Fix = "free space in " + c.BackupDir + ", or lower AGENTED_BACKUP_KEEP"
		}
	}
	return []Finding{f}
}
