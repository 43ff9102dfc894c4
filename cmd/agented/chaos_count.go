package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
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
)

// chaosExecution is what is looked at of an execution.
type chaosExecution struct {
	ID     agented.ExecutionID `json:"id"`
	Status agented.State       `json:"status"`
}

func (s *chaosServer) executions(ctx context.Context) ([]chaosExecution, error) {
	var out []chaosExecution
	err := pages(ctx, s.client, "/api/v1/executions", url.Values{}, 0, func(item json.RawMessage) error {
		var e chaosExecution
		err := json.Unmarshal(item, &e)
		out = append(out, e)
		return err
	})
	return out, err
}

// settle waits until every execution has ended, or for so long that it never
// will.
func (s *chaosServer) settle(ctx context.Context) error {
	for end := time.Now().Add(chaosSettle); time.Now().Before(end); {
		all, err := s.executions(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(e chaosExecution) bool { return !e.Status.Final() }) {
			return nil
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// sabotage cuts a line out of an execution's log behind the server's back.
func (s *chaosServer) sabotage(ctx context.Context, id agented.ExecutionID) error {
	folder := s.layout().Execution(id)
	sealed := filepath.Join(folder, "log.zst")
	for { // the log is closed for good a moment after the end
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
			if !cut && l.Stream == agented.Stdout && string(l.Content) == chaosLine+"7" {
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
		return errors.New("there was no seventh line to cut out")
	}
	if err := errors.Join(runlog.Seal(tmp), os.Rename(filepath.Join(tmp, "log.zst"), sealed)); err != nil {
		return err
	}
	return s.start(ctx)
}

// count compares what is there with what was done.
func (s *chaosServer) count(ctx context.Context, v *verdict, numbers []agented.ExecutionID) error {
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
	v.Torments.ReadyMedian, v.Torments.ReadyMax = median(s.ready).Seconds(), slices.Max(s.ready).Seconds()
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
			v.Executions.AgentsCut++
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
		v.Firings.Doubled += max(0, len(ids)-1)
		ran := false
		for _, id := range ids {
			asked[id] = true
			ran = ran || began[id] > 0 && status[id] != ""
			v.Firings.Doubled += max(0, began[id]-1)
		}
		if ran {
			v.Firings.Ran++
		} else {
			v.Firings.Lost++
		}
	}
	for id := range status {
		if !asked[id] {
			v.Firings.Doubled++ // of a firing that was acknowledged under another id
		}
	}
	left := s.processes()
	for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); left = s.processes() {
		sleep(ctx, 50*time.Millisecond) // a shim tidies up behind its last word
	}
	for _, text := range left {
		v.ProcessesLeft = append(v.ProcessesLeft, text)
	}
	slices.Sort(v.ProcessesLeft)
	return nil
}

// stored reads the log of an execution as it is now.
func (s *chaosServer) stored(ctx context.Context, e chaosExecution) (*lineTally, error) {
	t := new(lineTally)
	if !e.Status.Final() { // its stream would not end
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

// processes finds what executions of this folder have started and what works in
// it: by the marks in /proc, elsewhere by the numbers that agents left.
func (s *chaosServer) processes() map[int]string {
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

// cleanUp ends what is left and removes the folder.
func (s *chaosServer) cleanUp() error {
	s.signal(syscall.SIGKILL)
	err := os.WriteFile(filepath.Join(s.agents(), "stop"), nil, 0o600)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left := s.processes()
		if len(left) == 0 {
			break
		}
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	s.log.Close()
	if s.o.Keep {
		return err
	}
	// A shim that had just been given its attempt is in no folder of ours yet when
	// we look, and may make a file while the folder is removed.
	removed := os.RemoveAll(s.dir)
	for range 100 {
		if removed == nil {
			break
		}
		for pid := range s.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
		removed = os.RemoveAll(s.dir)
	}
	return errors.Join(err, removed)
}
