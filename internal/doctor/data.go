package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/store"
)

// tight is the free space in bytes that agents fill quickly, independent of the settings.
const tight = 1 << 30

// checkTime is the maximum duration of the integrity check of the database.
const checkTime = 20 * time.Second

// checkData checks the data folder and the database. holder is the pid of the server that has the
// database open, -1 if the pid is unknown, or 0 if there is none.
func checkData(ctx context.Context, c *config.Config, now time.Time) (out []Finding, holder int) {
	folder, there := checkFolder(c.DataDir)
	out = append(out, folder)
	out = append(out, checkOwner(c)...)
	out = append(out, checkDisk(c.DataDir, int64(c.MinFreeMB)<<20))
	out = append(out, checkBackups(c, now)...)
	db, holder := checkDatabase(ctx, c, there)
	out = append(out, db...)
	return append(out, checkWAL(c)...), holder
}

func checkFolder(path string) (f Finding, there bool) {
	f = Finding{Area: AreaData, Name: "data folder", Status: Fail, Fix: "make the server's user the owner (`chown`), or set AGENTED_DATA_DIR to another folder"}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := existing(path)
		if unix.Access(parent, unix.W_OK|unix.X_OK) != nil {
			f.Text = fmt.Sprintf("%s does not exist and cannot be created: %s is not writable", path, parent)
			return f, false
		}
		return Finding{Area: AreaData, Name: "data folder", Status: OK, Text: path + " does not exist yet; the first start creates it"}, false
	case err != nil:
		f.Text = fmt.Sprintf("%s cannot be accessed (%v)", path, cause(err))
		return f, false
	case !info.IsDir():
		f.Text = path + " is not a folder"
		return f, false
	}
	// Only a write shows read-only mounts, full disks and access control lists.
	file, err := os.CreateTemp(path, ".doctor-*")
	if err == nil {
		_, err = file.WriteString("agented")
		err = errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	if err != nil {
		f.Text = fmt.Sprintf("%s is not writable (%v)", path, cause(err))
		return f, true
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		f.Status, f.Text = Warn, fmt.Sprintf("%s is accessible to other users (mode %04o); the next start restricts it", path, mode)
		f.Fix = "chmod 700 " + path
		return f, true
	}
	return Finding{Area: AreaData, Name: "data folder", Status: OK, Text: path + " is writable"}, true
}

// existing returns path or its nearest existing ancestor.
func existing(path string) string {
	for path = filepath.Clean(path); ; path = filepath.Dir(path) {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
	}
}

// checkDisk checks the free space at path. Below least bytes new executions wait; below a quarter
// of it running ones are stopped.
func checkDisk(path string, least int64) Finding {
	f := Finding{Area: AreaData, Name: "disk", Status: OK}
	at := existing(path)
	space, err := disk.Measure(at)
	var st unix.Statfs_t
	if err = errors.Join(err, unix.Statfs(at, &st)); err != nil {
		f.Status, f.Text, f.Fix = Warn, fmt.Sprintf("the free space of %s is unknown (%v)", at, err), "df -h "+at
		return f
	}
	free := space.Free
	f.Text = format.Bytes(free) + " free"
	switch remote := remoteType(&st); {
	case free < least/4:
		f.Status, f.Text = Fail, f.Text+": running executions are stopped below "+format.Bytes(least/4)+", a quarter of AGENTED_MIN_FREE"
		f.Fix = "free disk space; for the largest folders: `du -sh " + at + "`"
	case free < least:
		f.Status, f.Text = Fail, f.Text+": new executions wait below "+format.Bytes(least)+" (AGENTED_MIN_FREE)"
		f.Fix = "free disk space; for the largest folders: `du -sh " + at + "`"
	case remote != "":
		f.Status, f.Text = Warn, fmt.Sprintf("%s, on a network file system (%s), where the database can be corrupted", f.Text, remote)
		f.Fix = "set AGENTED_DATA_DIR to a folder on a local disk"
	case free < max(tight, 2*least):
		f.Status, f.Text = Warn, f.Text+", which agents fill quickly"
		f.Fix = "free disk space; for the largest folders: `du -sh " + at + "`"
	case st.Files > 0 && st.Ffree < 20:
		f.Status, f.Text = Fail, fmt.Sprintf("%s, but only %d more files can be created", f.Text, st.Ffree)
		f.Fix = "remove files; for the number of inodes: `df -i " + at + "`"
	case st.Files > 0 && st.Ffree < 1000:
		f.Status, f.Text = Warn, fmt.Sprintf("%s, but only %d more files can be created", f.Text, st.Ffree)
		f.Fix = "remove files; for the number of inodes: `df -i " + at + "`"
	}
	return f
}

func checkDatabase(ctx context.Context, c *config.Config, there bool) (out []Finding, holder int) {
	f := Finding{Area: AreaData, Name: "database", Status: OK}
	none := "none yet; the first start creates it at " + c.DBPath
	if _, err := os.Stat(filepath.Dir(c.DBPath)); !there && errors.Is(err, fs.ErrNotExist) {
		f.Text = none
		return []Finding{f}, 0
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	in, err := store.Inspect(ctx, c.DBPath)
	var held store.Holder
	switch {
	case errors.As(err, &held):
		f.Text = fmt.Sprintf("not checked, because the running server uses it (process %d)", held)
		holder = int(held)
		if holder == 0 {
			holder = -1
		}
	case errors.Is(err, agented.NotFound):
		f.Text = none
	case errors.Is(err, context.DeadlineExceeded):
		f.Status, f.Text, f.Fix = Warn, fmt.Sprintf("the integrity check of %[2]s takes more than %[1]s", checkTime, in.Path), "repeat the check while the machine is idle"
	case err != nil:
		f.Status, f.Text, f.Fix = Fail, agented.Message(err), "follow the message"
	case len(in.Damage) > 0:
		f.Status, f.Text = Fail, fmt.Sprintf("%s is corrupted: %s", in.Path, strings.Join(strings.Fields(in.Damage[0]), " "))
		f.Fix = "keep a copy, restore a backup, and check the disk"
	case in.Version < in.Latest && in.Version > 0:
		f.Text = fmt.Sprintf("%s is intact (%s); the next start copies it and then upgrades its schema from %d to %d", in.Path, format.Bytes(in.Size), in.Version, in.Latest)
	default:
		f.Text = fmt.Sprintf("%s is intact (%s, schema %d)", in.Path, format.Bytes(in.Size), in.Version)
	}
	return []Finding{f}, holder
}

// checkServer checks whether a server is running and ready. listens is the listen address of a
// server that answers.
func checkServer(ctx context.Context, o Options, holder int) (found []Finding, listens string) {
	if o.Server == nil {
		return nil, ""
	}
	f := Finding{Area: AreaServer, Name: "server", Status: OK}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	address, err := o.Server(ctx)
	switch {
	case err == nil:
		f.Text = "ready at " + address
		listens = address
		if o.Listens != nil {
			if at := o.Listens(); at != "" {
				listens = at
			}
		}
	case errors.Is(err, context.DeadlineExceeded):
		f.Status, f.Text, f.Fix = Fail, "no answer at "+address, "check the server's log"
	case holder != 0:
		f.Status, f.Text, f.Fix = Fail, "runs, but: "+agented.Message(err), "check the server's log; if the server listens elsewhere, set AGENTED_URL"
	case errors.Is(err, agented.Unauthenticated) || errors.Is(err, agented.Denied):
		f.Status, f.Text, f.Fix = Warn, agented.Message(err), "set AGENTED_API_KEY, and AGENTED_URL if it is another server"
	default:
		f.Status, f.Text, f.Fix = Warn, "not running: "+agented.Message(err), "agented serve"
	}
	return []Finding{f}, listens
}

// cause removes the path from an error, because the text already contains it.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
