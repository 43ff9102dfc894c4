package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// At most so many execution folders are looked at, the newest first: fewer while
// a server runs, which is asked about each.
const (
	foldersDown = 20000
	foldersUp   = 200
)

// checkBundles compares the folders of executions with the database: a shim
// that nobody owns spends money, a folder that nobody knows only room.
func checkBundles(ctx context.Context, o Options, holder int) []Finding {
	c := o.Config
	layout := agented.Layout{Root: c.DataDir}
	ids, all := newestFolders(layout, foldersDown)
	if len(ids) == 0 {
		return nil
	}
	alive := map[agented.ExecutionID]string{}
	for _, id := range ids {
		if bundle := living(layout, id); bundle != "" {
			alive[id] = bundle
		}
	}
	states := o.States
	if holder == 0 {
		states = func(ctx context.Context, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
			return store.States(ctx, c.DBPath, ids)
		}
	} else {
		recent := ids[:min(foldersUp, len(ids))]
		ids = slices.Clone(recent)
		for id := range alive {
			if !slices.Contains(recent, id) {
				ids = append(ids, id)
			}
		}
	}
	f := Finding{ID: "data.bundles", Area: AreaData, Name: "executions", Status: OK}
	if states == nil {
		return nil
	}
	known, err := states(ctx, ids)
	if err != nil {
		f.Text = fmt.Sprintf("%d folders; what they belong to could not be asked (%s)", all, agented.Message(err))
		return []Finding{f}
	}
	var out []Finding
	var unknown []string
	for _, id := range ids {
		state, there := known[id]
		bundle := alive[id]
		switch {
		case bundle != "" && (!there || state.Final()):
			what := "which the database does not know"
			if there {
				what = "which ended as " + string(state)
			}
			out = append(out, Finding{
				ID: "data.orphan." + string(id), Area: AreaData, Name: "agent without owner", Status: Fail,
				Text: fmt.Sprintf("an agent of %s still runs, %s: nobody would stop it", id, what),
				Mend: fmt.Sprintf("kill %s  # its supervisor, which ends the agent", supervisor(bundle)),
			})
		case !there:
			unknown = append(unknown, string(id))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		out = append(out, Finding{
			ID: "data.folders", Area: AreaData, Name: "folders without owner", Status: Warn,
			Text: fmt.Sprintf("%d folders in %s belong to no execution of the database (%s): they take room, and the database may be an older copy", len(unknown), layout.Executions(), list(unknown, 3)),
			Mend: fmt.Sprintf("if no backup with them is to be restored: rm -r %s", layout.Execution(agented.ExecutionID(unknown[0]))),
		})
	}
	if len(out) > 0 {
		return out
	}
	f.Text = fmt.Sprintf("%d folders, each with its row; %d agents running", all, len(alive))
	return []Finding{f}
}

// newestFolders lists ids that have a folder, newest first, at most limit, with
// their number. Ids sort by time.
func newestFolders(layout agented.Layout, limit int) (ids []agented.ExecutionID, all int) {
	entries, _ := os.ReadDir(layout.Executions())
	for i := len(entries) - 1; i >= 0; i-- {
		if !entries[i].IsDir() || !agented.ValidID("exec", entries[i].Name()) {
			continue
		}
		if all++; len(ids) < limit {
			ids = append(ids, agented.ExecutionID(entries[i].Name()))
		}
	}
	return ids, all
}

// living returns the bundle of the execution whose shim lives, or nothing.
func living(layout agented.Layout, id agented.ExecutionID) string {
	bundles, _ := filepath.Glob(filepath.Join(layout.Execution(id), "attempt-*"))
	for _, b := range bundles {
		if facts, err := shim.Inspect(b); err == nil && facts.Locked && !facts.Exit {
			return b
		}
	}
	return ""
}

// supervisor is the process id of a bundle's shim, or how to find it.
func supervisor(bundle string) string {
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range procs {
		if cwd, err := os.Readlink(p); err == nil && cwd == bundle {
			if comm, err := os.ReadFile(filepath.Join(filepath.Dir(p), "comm")); err == nil && strings.TrimSpace(string(comm)) == "agshim" {
				return filepath.Base(filepath.Dir(p))
			}
		}
	}
	return "$(lsof -t " + filepath.Join(bundle, "lock") + ")"
}

// checkOwner looks whose the data folder and the files in it are.
func checkOwner(c *config.Config) []Finding {
	var st unix.Stat_t
	if unix.Stat(c.DataDir, &st) != nil {
		return nil
	}
	var out []Finding
	if me := os.Geteuid(); me != 0 && int(st.Uid) != me {
		out = append(out, Finding{
			ID: "data.owner", Area: AreaData, Name: "owner", Status: Fail,
			Text: fmt.Sprintf("%s belongs to user %d, and you are %d: a server that you start cannot keep its secrets there", c.DataDir, st.Uid, me),
			Mend: fmt.Sprintf("run this as that user, or: sudo chown -R %d %s", me, c.DataDir),
		})
	}
	var foreign, open []string
	entries, _ := os.ReadDir(c.DataDir)
	for _, e := range entries {
		path := filepath.Join(c.DataDir, e.Name())
		var fst unix.Stat_t
		if err := unix.Lstat(path, &fst); err != nil {
			if !errors.Is(err, unix.ENOENT) {
				foreign = append(foreign, e.Name())
			}
			continue
		}
		if fst.Uid != st.Uid {
			foreign = append(foreign, e.Name())
		}
		if fst.Mode&unix.S_IFMT == unix.S_IFREG && fst.Mode&0o077 != 0 && st.Mode&0o077 != 0 {
			open = append(open, e.Name())
		}
	}
	if len(foreign) > 0 {
		out = append(out, Finding{
			ID: "data.foreign", Area: AreaData, Name: "owner", Status: Fail,
			Text: fmt.Sprintf("in %s, files of another user than its own: %s; a server was started as the wrong user, and the right one cannot use them", c.DataDir, list(foreign, 3)),
			Mend: fmt.Sprintf("sudo chown -R %d:%d %s", st.Uid, st.Gid, c.DataDir),
		})
	}
	if len(open) > 0 {
		out = append(out, Finding{
			ID: "data.modes", Area: AreaData, Name: "rights", Status: Warn,
			Text: fmt.Sprintf("other users can read %s in %s", list(open, 3), c.DataDir),
			Mend: fmt.Sprintf("chmod -R go= %s", c.DataDir),
		})
	}
	return out
}

// largeWAL is a write-ahead log that should have been taken into the database
// long ago.
const largeWAL = 256 << 20

// checkWAL looks at the size of the write-ahead log.
func checkWAL(c *config.Config) []Finding {
	info, err := os.Stat(c.DBPath + "-wal")
	if err != nil || info.Size() < largeWAL {
		return nil
	}
	return []Finding{{
		ID: "data.wal", Area: AreaData, Name: "write-ahead log", Status: Warn,
		Text: fmt.Sprintf("%s-wal has grown to %s: a program that reads the database keeps it from being taken over", c.DBPath, size(info.Size())),
		Mend: "end what has the database open beside the server (`fuser " + c.DBPath + "`), then restart the server",
	}}
}
