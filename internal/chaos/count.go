package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// execution holds the checked fields of an execution.
type execution struct {
	ID     agented.ExecutionID
	Status agented.State
}

func (s *server) executions(ctx context.Context) ([]execution, error) {
	var out []execution
	for e, err := range s.client.Executions(ctx, client.ExecutionQuery{}, 0) {
		if err != nil {
			return nil, err
		}
		out = append(out, execution{agented.ExecutionID(e.Value.ID), agented.State(e.Value.Status)})
	}
	return out, nil
}

// settle waits until every execution has ended, at most settleTime.
func (s *server) settle(ctx context.Context) error {
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		all, err := s.executions(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(e execution) bool { return !e.Status.Final() }) {
			return nil
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// sabotage deletes a line from an execution's log file without the server's knowledge.
func (s *server) sabotage(ctx context.Context, id agented.ExecutionID) error {
	folder := s.layout().Execution(id)
	sealed := filepath.Join(folder, "log.zst")
	for { // the log is closed a moment after the execution has ended
		if _, err := os.Stat(sealed); err == nil {
			break
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	s.signal(syscall.SIGKILL)
	from, err := runlog.OpenReader(folder)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp := filepath.Join(s.dir, "sabotage")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	to, err := runlog.OpenWriter(tmp, time.Now())
	if err != nil {
		return err
	}
	cut := false
	for {
		lines, err := from.Next(nil, 1000, 0)
		if err != nil {
			return err
		}
		if len(lines) == 0 {
			break
		}
		var keep []runlog.Record
		for _, l := range lines {
			if !cut && l.Stream == agented.Stdout && string(l.Content) == linePrefix+"7" {
				cut = true
				continue
			}
			keep = append(keep, runlog.Record{LogLine: l})
		}
		if err := to.Append(keep); err != nil {
			return err
		}
	}
	if err := to.Close(); err != nil {
		return err
	}
	if !cut {
		return errors.New("line 7 was not found in the log")
	}
	if err := errors.Join(runlog.Seal(tmp), os.Rename(filepath.Join(tmp, "log.zst"), sealed)); err != nil {
		return err
	}
	return s.start(ctx)
}

// count compares the stored state with what was fired and printed.
func (s *server) count(ctx context.Context, v *Report, numbers []agented.ExecutionID) error {
	if err := errors.Join(s.problems...); err != nil {
		return err
	}
	began, ended, printed, err := agentReports(s.agents())
	if err != nil {
		return err
	}
	all, err := s.executions(ctx)
	if err != nil {
		return err
	}
	v.Faults.ReadyMedian, v.Faults.ReadyMax = median(s.ready).Seconds(), slices.Max(s.ready).Seconds()
	status := map[agented.ExecutionID]agented.State{}
	for _, e := range all {
		status[e.ID] = e.Status
		v.Executions.Started++
		switch {
		case !e.Status.Final():
			v.Executions.LeftRunning++
		case e.Status == agented.StateSuccess:
			v.Executions.Succeeded++
		default:
			v.Executions.Failed++
		}
		if began[e.ID] > ended[e.ID] {
			v.Executions.AgentsInterrupted++
		}
		stored, err := s.stored(ctx, e)
		if err != nil {
			return fmt.Errorf("the log of %s: %w", e.ID, err)
		}
		v.Logs.add(stored.count(printed[e.ID]))
	}
	v.Readers.Readers = len(s.readers)
	for _, r := range s.readers {
		v.Readers.add(r.tally.count(printed[r.id]))
	}
	v.Firings.Acknowledged, v.Firings.Repeated = len(s.firings), int(s.repeated.Load())
	asked := map[agented.ExecutionID]bool{}
	for _, ids := range s.firings {
		v.Firings.Duplicated += max(0, len(ids)-1)
		ran := false
		for _, id := range ids {
			asked[id] = true
			ran = ran || began[id] > 0 && status[id] != ""
			v.Firings.Duplicated += max(0, began[id]-1)
		}
		if ran {
			v.Firings.Ran++
		} else {
			v.Firings.Lost++
		}
	}
	for id := range status {
		if !asked[id] {
			v.Firings.Duplicated++ // the firing was acknowledged under another id
		}
	}
	left := s.processes()
	for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); left = s.processes() {
		sleep(ctx, 50*time.Millisecond) // a shim cleans up after its exit record
	}
	for _, text := range left {
		v.ProcessesLeft = append(v.ProcessesLeft, text)
	}
	slices.Sort(v.ProcessesLeft)
	return nil
}

// stored reads the current log of an execution.
func (s *server) stored(ctx context.Context, e execution) (*lineTally, error) {
	t := new(lineTally)
	if !e.Status.Final() { // the stream of a running execution does not end
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
	}
	_, err := s.client.Follow(ctx, string(e.ID), 0, client.Follower{Line: func(l client.Line) {
		if l.Stream == string(agented.Stdout) {
			t.add(l.Content)
		}
	}})
	if !e.Status.Final() && errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return t, err
}

// processes finds the processes that executions started or that work in the scratch folder: by
// their marks in /proc, or by the pids that agents reported.
func (s *server) processes() map[int]string {
	out := map[int]string{}
	own := 0
	if s.cmd != nil {
		own = s.cmd.Process.Pid
	}
	mark, prefix := []byte("\x00AGENTED_DATA_DIR="+s.layout().Root+"\x00"), s.layout().Executions()+"/"
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == own || pid == os.Getpid() {
			continue
		}
		folder := filepath.Join("/proc", e.Name())
		cwd, _ := os.Readlink(filepath.Join(folder, "cwd"))
		env, _ := os.ReadFile(filepath.Join(folder, "environ"))
		cmdline, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		if strings.HasPrefix(cwd, prefix) || bytes.Contains(env, mark) || bytes.Contains(cmdline, []byte(s.agents())) {
			out[pid] = fmt.Sprintf("%d %s", pid, strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " ")))
		}
	}
	if err == nil && len(entries) > 0 {
		return out
	}
	reports, _ := filepath.Glob(filepath.Join(s.agents(), "*.*"))
	for _, name := range reports {
		parts := strings.Split(filepath.Base(name), ".")
		for _, p := range parts[:min(2, len(parts))] {
			if pid, err := strconv.Atoi(p); err == nil && syscall.Kill(pid, 0) == nil {
				out[pid] = fmt.Sprintf("%d chaos-agent", pid)
			}
		}
	}
	return out
}

// killAll kills every process of this run and reports whether it found one. A
// shim between two attempts has no mark of this run in /proc and may have an
// attempt waiting in its socket: the list of descendants contains it.
func (s *server) killAll() (found bool) {
	left, _ := shim.Descendants()
	for pid := range s.processes() {
		left = append(left, pid)
	}
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(left) > 0
}

// cleanUp terminates the remaining processes and removes the folder.
func (s *server) cleanUp() error {
	s.signal(syscall.SIGKILL)
	err := os.WriteFile(filepath.Join(s.agents(), "stop"), nil, 0o600)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !s.killAll() {
			break
		}
	}
	s.log.Close()
	if s.o.Keep {
		return err
	}
	// A shim that has just received its attempt does not yet work in one of our folders and may
	// create a file while the folder is being removed.
	removed := os.RemoveAll(s.dir)
	for range 100 {
		if removed == nil {
			break
		}
		s.killAll()
		time.Sleep(20 * time.Millisecond)
		removed = os.RemoveAll(s.dir)
	}
	return errors.Join(err, removed)
}
