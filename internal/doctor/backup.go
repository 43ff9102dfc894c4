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

	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
)

// late is how far behind its time a backup is when something is wrong.
const late = 2 * time.Hour

// checkBackups says how the scheduled backups stand, as far as their folder
// tells: also where no server runs.
func checkBackups(c *config.Config, now time.Time) []Finding {
	f := Finding{Area: AreaData, Name: "backups", Status: OK}
	if c.BackupDir == "" {
		f.Text = "none are taken by themselves: set AGENTED_BACKUP_DIR to a folder, best on another disk"
		return []Finding{f}
	}
	bad := func(mend, format string, args ...any) []Finding {
		f.Status, f.Text, f.Mend = Fail, fmt.Sprintf(format, args...), mend
		return []Finding{f}
	}
	if c.BackupPassphrase != "" {
		if _, err := backup.ReadPassphrase(c.BackupPassphrase); err != nil {
			return bad("put the passphrase there, or unset AGENTED_BACKUP_PASSPHRASE_FILE", "none can be taken: the passphrase in %s cannot be read (%v)", c.BackupPassphrase, cause(err))
		}
	}
	table, err := backup.CheckSchedule(c.BackupSchedule)
	if err != nil {
		return bad("mend AGENTED_BACKUP_SCHEDULE", "none can be taken: %v", err)
	}
	list, err := backup.Scheduled(c.BackupDir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := existing(c.BackupDir)
		if unix.Access(parent, unix.W_OK|unix.X_OK) != nil {
			return bad("let the user that runs the server write there, or set AGENTED_BACKUP_DIR to another folder", "none can be taken: %s is not there and cannot be made", c.BackupDir)
		}
	} else if err != nil {
		return bad("let the user that runs the server own it", "%s cannot be read (%v)", c.BackupDir, cause(err))
	} else if unix.Access(c.BackupDir, unix.W_OK|unix.X_OK) != nil {
		return bad("let the user that runs the server write there", "none can be taken: %s cannot be written", c.BackupDir)
	}
	if len(list) == 0 {
		next, _ := table.Next(now, c.Zone)
		f.Status, f.Text = Warn, fmt.Sprintf("there is none in %s yet; the next is due at %s", c.BackupDir, next.UTC().Format("2006-01-02 15:04 MST"))
		f.Mend = "take one now: `agented backup FILE`"
		return []Finding{f}
	}
	last := list[len(list)-1]
	at, _ := backup.TakenAt(last)
	spoilt, _ := filepath.Glob(filepath.Join(c.BackupDir, "agented-*.backup.bad"))
	for _, path := range spoilt {
		if when, ok := backup.TakenAt(strings.TrimSuffix(path, ".bad")); ok && when.After(at) {
			return bad("see the server's log; check the disk with `agented restore "+path+" --check`", "the backup of %s was written and did not read back", when.Format("2006-01-02 15:04 MST"))
		}
	}
	if due, _ := table.Next(at, c.Zone); !due.IsZero() && now.Sub(due) > late {
		return bad("see why in the server's log, or with `agented backup FILE`", "the last one is of %s, and the one due at %s was not taken: it failed, or no server ran",
			at.Format("2006-01-02 15:04 MST"), due.UTC().Format("2006-01-02 15:04 MST"))
	}
	f.Text = fmt.Sprintf("%d in %s, the last of %s", len(list), c.BackupDir, at.Format("2006-01-02 15:04 MST"))
	info, err := os.Stat(last)
	var st unix.Statfs_t
	if err == nil && unix.Statfs(c.BackupDir, &st) == nil {
		if free := int64(st.Bavail) * int64(st.Bsize); free < info.Size()+info.Size()/4 {
			f.Status, f.Text = Warn, fmt.Sprintf("%s; the next may not fit: %s are free there, and the last one took %s", f.Text, size(free), size(info.Size()))
			f.Mend = "make room in " + c.BackupDir + ", or lower AGENTED_BACKUP_KEEP"
		}
	}
	return []Finding{f}
}
