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
	"github.com/agented/agented/internal/store"
)

// tight is free space that agents soon fill, beside the limit of the settings.
const tight = 1 << 30

// checkTime bounds the reading through of the database.
const checkTime = 20 * time.Second

// checkData looks at the data folder and the database. holder is the process
// id of the server that has it open, -1 if there is one of unknown id, else 0.
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
	f = Finding{Area: AreaData, Name: "data folder", Status: Fail, Mend: "let the user that runs the server own it (`chown`), or set AGENTED_DATA_DIR to another folder"}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := existing(path)
		if unix.Access(parent, unix.W_OK|unix.X_OK) != nil {
			f.Text = fmt.Sprintf("%s is not there and cannot be made: %s is not writable", path, parent)
			return f, false
		}
		return Finding{Area: AreaData, Name: "data folder", Status: OK, Text: path + " is not there yet; the first start makes it"}, false
	case err != nil:
		f.Text = fmt.Sprintf("%s cannot be looked at (%v)", path, cause(err))
		return f, false
	case !info.IsDir():
		f.Text = path + " is not a folder"
		return f, false
	}
	// Only an attempt tells: modes do not show read-only mounts, full disks and
	// access lists.
	file, err := os.CreateTemp(path, ".doctor-*")
	if err == nil {
		_, err = file.WriteString("agented")
		err = errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	if err != nil {
		f.Text = fmt.Sprintf("%s cannot be written (%v)", path, cause(err))
		return f, true
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		f.Status, f.Text = Warn, fmt.Sprintf("%s is open to other users (mode %04o); the next start shuts it", path, mode)
		f.Mend = "chmod 700 " + path
		return f, true
	}
	return Finding{Area: AreaData, Name: "data folder", Status: OK, Text: path + " can be written"}, true
}

// existing is the folder at path, or the nearest above it that is there.
func existing(path string) string {
	for path = filepath.Clean(path); ; path = filepath.Dir(path) {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
	}
}

// checkDisk looks at the room where path is: below least, new executions wait;
// below a quarter of it, those that run are ended.
func checkDisk(path string, least int64) Finding {
	f := Finding{Area: AreaData, Name: "disk", Status: OK}
	var st unix.Statfs_t
	at := existing(path)
	if err := unix.Statfs(at, &st); err != nil {
		f.Status, f.Text, f.Mend = Warn, fmt.Sprintf("the free space of %s is not known (%v)", at, err), "df -h "+at
		return f
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	f.Text = size(free) + " free"
	switch remote := remoteType(&st); {
	case free < least/4:
		f.Status, f.Text = Fail, f.Text+": executions that run are ended below "+size(least/4)+", a quarter of AGENTED_MIN_FREE"
		f.Mend = "make room, see `du -sh " + at + "`"
	case free < least:
		f.Status, f.Text = Fail, f.Text+": new executions wait below "+size(least)+" (AGENTED_MIN_FREE)"
		f.Mend = "make room, see `du -sh " + at + "`"
	case remote != "":
		f.Status, f.Text = Warn, fmt.Sprintf("%s, on a network file system (%s), where the database can be damaged", f.Text, remote)
		f.Mend = "set AGENTED_DATA_DIR to a folder on a local disk"
	case free < max(tight, 2*least):
		f.Status, f.Text = Warn, f.Text+", which agents fill quickly"
		f.Mend = "make room, see `du -sh " + at + "`"
	case st.Files > 0 && st.Ffree < 20:
		f.Status, f.Text = Fail, fmt.Sprintf("%s, but room for only %d more files", f.Text, st.Ffree)
		f.Mend = "remove files that are not needed, see `df -i " + at + "`"
	case st.Files > 0 && st.Ffree < 1000:
		f.Status, f.Text = Warn, fmt.Sprintf("%s, but room for only %d more files", f.Text, st.Ffree)
		f.Mend = "remove files that are not needed, see `df -i " + at + "`"
	}
	return f
}

// size writes a number of bytes in its greatest unit.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i]
}

func checkDatabase(ctx context.Context, c *config.Config, there bool) (out []Finding, holder int) {
	f := Finding{Area: AreaData, Name: "database", Status: OK}
	none := "none yet; the first start makes it at " + c.DBPath
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
		f.Text = fmt.Sprintf("in use by the running server (process %d), so it was left alone", held)
		holder = int(held)
		if holder == 0 {
			holder = -1
		}
	case errors.Is(err, agented.NotFound):
		f.Text = none
	case errors.Is(err, context.DeadlineExceeded):
		f.Status, f.Text, f.Mend = Warn, fmt.Sprintf("it takes more than %s to read %s through", checkTime, in.Path), "try again while the machine is idle"
	case err != nil:
		f.Status, f.Text, f.Mend = Fail, agented.Message(err), "do what the sentence says"
	case len(in.Damage) > 0:
		f.Status, f.Text = Fail, fmt.Sprintf("%s is damaged: %s", in.Path, strings.Join(strings.Fields(in.Damage[0]), " "))
		f.Mend = "keep a copy of it, then restore a backup; check the disk"
	case in.Version < in.Latest && in.Version > 0:
		f.Text = fmt.Sprintf("%s is sound (%s); the next start brings its schema from %d to %d after taking a copy", in.Path, size(in.Size), in.Version, in.Latest)
	default:
		f.Text = fmt.Sprintf("%s is sound (%s, schema %d)", in.Path, size(in.Size), in.Version)
	}
	return []Finding{f}, holder
}

// checkServer says whether a server runs and is ready.
func checkServer(ctx context.Context, o Options, holder int) []Finding {
	if o.Server == nil {
		return nil
	}
	f := Finding{Area: AreaServer, Name: "server", Status: OK}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	address, err := o.Server(ctx)
	switch {
	case err == nil:
		f.Text = "ready at " + address
	case errors.Is(err, context.DeadlineExceeded):
		f.Status, f.Text, f.Mend = Fail, "gives no answer at "+address, "look at the server's log"
	case holder != 0:
		f.Status, f.Text, f.Mend = Fail, "runs, but: "+agented.Message(err), "look at the server's log; if it listens elsewhere, set AGENTED_URL"
	case errors.Is(err, agented.Unauthenticated) || errors.Is(err, agented.Denied):
		f.Status, f.Text, f.Mend = Warn, agented.Message(err), "set AGENTED_API_KEY, and AGENTED_URL if it is another server"
	default:
		f.Status, f.Text, f.Mend = Warn, "none runs: "+agented.Message(err), "agented serve"
	}
	return []Finding{f}
}

// cause takes the path out of an error whose sentence names it already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
