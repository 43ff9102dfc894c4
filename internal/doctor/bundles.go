package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// Maximum number of execution folders to check, newest first. It is lower while a server runs,
// because each costs a request.
const (
	foldersDown = 20000
	foldersUp   = 200
)

// checkBundles compares the execution folders with the database: an orphaned shim costs money, an
// orphaned folder costs disk space.
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
		f.Text = fmt.Sprintf("%d folders; their executions could not be checked (%s)", all, agented.Message(err))
		return []Finding{f}
	}
	var out []Finding
	var unknown []string
	for _, id := range ids {
		state, there := known[id]
		bundle := alive[id]
		switch {
		case bundle != "" && (!there || state.Final()):
			what := "which is not in the database"
			if there {
				what = "which is recorded as " + string(state)
			}
			out = append(out, Finding{
				ID: "data.orphan." + string(id), Area: AreaData, Name: "orphaned agent", Status: Fail,
				Text: fmt.Sprintf("an agent of %s, %s, is still running, and no server controls it", id, what),
				Fix:  fmt.Sprintf("kill %s  # its shim, which terminates the agent", supervisor(bundle)),
			})
		case !there:
			unknown = append(unknown, string(id))
		}
	}
	stuck, unknown := splitFailedRemovals(ctx, o, holder, unknown)
	out = append(out, stuck...)
	if len(unknown) > 0 {
		slices.Sort(unknown)
		out = append(out, Finding{
			ID: "data.folders", Area: AreaData, Name: "orphaned folders", Status: Warn,
			Text: fmt.Sprintf("%d folders in %s belong to no execution in the database (%s): they use disk space, or the database is an older copy", len(unknown), layout.Executions(), list(unknown, 3)),
			Fix:  fmt.Sprintf("unless you want to restore a backup that contains them: rm -r %s", layout.Execution(agented.ExecutionID(unknown[0]))),
		})
	}
	if len(out) > 0 {
		return out
	}
	f.Text = fmt.Sprintf("%d folders, all with an execution in the database; %d agents running", all, len(alive))
	return []Finding{f}
}

// splitFailedRemovals removes from unknown the folders that retention could not delete, and returns a
// finding for them.
func splitFailedRemovals(ctx context.Context, o Options, holder int, unknown []string) ([]Finding, []string) {
	ask := o.FailedRemovals
	if holder == 0 {
		ask = func(ctx context.Context) (map[string]string, error) {
			return store.ReadFailedRemovals(ctx, o.Config.DBPath)
		}
	}
	if ask == nil {
		return nil, unknown
	}
	errs, err := ask(ctx)
	if err != nil || len(errs) == 0 {
		return nil, unknown
	}
	ids := slices.Sorted(maps.Keys(errs))
	f := Finding{
		ID: "data.failed_removals", Area: AreaData, Name: "folders to remove", Status: Warn,
		Text: fmt.Sprintf("retention could not remove %d folders (%s): %s", len(ids), list(ids, 3), errs[ids[0]]),
		Fix:  "fix the error; the server retries every hour, or run `agented prune`",
	}
	if strings.Contains(f.Text, "permission denied") || strings.Contains(f.Text, "not permitted") {
		f.Fix = fmt.Sprintf("an agent, for example in a container, left files of another user: sudo rm -r %s",
			filepath.Join(o.Config.DataDir, folderOf(ids[0]), ids[0]))
	}
	return []Finding{f}, slices.DeleteFunc(unknown, func(id string) bool { _, ok := errs[id]; return ok })
}

func folderOf(id string) string {
	if strings.HasPrefix(id, "conv-") {
		return "conversations"
	}
	return "executions"
}

// newestFolders returns the ids of the newest execution folders, at most limit, and the number of
// all folders. Ids sort by time.
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

// living returns the bundle of an execution if its shim is alive, otherwise "".
func living(layout agented.Layout, id agented.ExecutionID) string {
	bundles, _ := filepath.Glob(filepath.Join(layout.Execution(id), "attempt-*"))
	for _, b := range bundles {
		if facts, err := shim.Inspect(b); err == nil && facts.Locked && !facts.Exit {
			return b
		}
	}
	return ""
}

// supervisor returns the pid of a bundle's shim, or a command that finds it.
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

// checkOwner checks the owner of the data folder and of the files in it.
func checkOwner(c *config.Config) []Finding {
	var st unix.Stat_t
	if unix.Stat(c.DataDir, &st) != nil {
		return nil
	}
	var out []Finding
	if me := os.Geteuid(); me != 0 && int(st.Uid) != me {
		out = append(out, Finding{
			ID: "data.owner", Area: AreaData, Name: "owner", Status: Fail,
			Text: fmt.Sprintf("%s belongs to user %d, but you are user %d: a server that you start cannot store its secrets there", c.DataDir, st.Uid, me),
			Fix:  fmt.Sprintf("run the command as that user, or: sudo chown -R %d %s", me, c.DataDir),
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
			Text: fmt.Sprintf("%s contains files of another user than its owner: %s; a server was started as the wrong user, and the owner cannot use these files", c.DataDir, list(foreign, 3)),
			Fix:  fmt.Sprintf("sudo chown -R %d:%d %s", st.Uid, st.Gid, c.DataDir),
		})
	}
	if len(open) > 0 {
		out = append(out, Finding{
			ID: "data.modes", Area: AreaData, Name: "rights", Status: Warn,
			Text: fmt.Sprintf("other users can read %s in %s", list(open, 3), c.DataDir),
			Fix:  fmt.Sprintf("chmod -R go= %s", c.DataDir),
		})
	}
	return out
}

// largeWAL is the size in bytes above which a write-ahead log should have been checkpointed.
const largeWAL = 256 << 20

// checkWAL checks the size of the write-ahead log.
func checkWAL(c *config.Config) []Finding {
	info, err := os.Stat(c.DBPath + "-wal")
	if err != nil || info.Size() < largeWAL {
		return nil
	}
	return []Finding{{
		ID: "data.wal", Area: AreaData, Name: "write-ahead log", Status: Warn,
		Text: fmt.Sprintf("%s-wal has grown to %s: another program that reads the database prevents checkpoints", c.DBPath, format.Bytes(info.Size())),
		Fix:  "stop other programs that have the database open (`fuser " + c.DBPath + "`), then restart the server",
	}}
}
