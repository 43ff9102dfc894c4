package main_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onSmallDisk puts the server's data on a file system of the given size in MiB.
func (s *server) onSmallDisk(mib int) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("SKIPPED: a small file system can be mounted by root only, so a full disk was not tried")
	}
	s.kill()
	if err := os.RemoveAll(s.data()); err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(s.data(), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", s.data(), "tmpfs", 0, fmt.Sprintf("mode=0700,size=%dm", mib)); err != nil {
		s.t.Skipf("SKIPPED: no small file system can be mounted here (%v), so a full disk was not tried", err)
	}
	s.t.Cleanup(func() {
		s.kill()
		endMarked(s.t, s.executions())
		_ = syscall.Unmount(s.data(), syscall.MNT_DETACH)
	})
	s.start()
}

func (s *server) ballast() string { return filepath.Join(s.data(), "ballast") }

// fill fills the disk completely.
func (s *server) fill() {
	s.t.Helper()
	f, err := os.OpenFile(s.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			if len(block) == 1 {
				return
			}
			block = block[:max(1, len(block)/16)]
		} else if err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *server) makeRoom() {
	s.t.Helper()
	if err := os.Remove(s.ballast()); err != nil {
		s.t.Fatal(err)
	}
}

func TestDisk_full_at_any_stage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stage string
		// act fills the disk at some point in the life of an execution, and returns the
		// acknowledged executions.
		act  func(t *testing.T, s *server, trigger, gate string) []string
		want []string // allowed final statuses once there is space again
	}{
		{"admission", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			open(t, gate)
			s.fill()
			refused := 0
			for i := range 200 {
				got, err := s.hook(trigger, fmt.Sprint("key-", i))
				if err == nil {
					ids = append(ids, got.Executions...)
					continue
				}
				if !strings.Contains(err.Error(), "status 503") {
					t.Fatal(err)
				}
				refused++
				if refused == 5 {
					break
				}
			}
			if refused == 0 {
				t.Error("a disk without a byte took 200 calls")
			}
			s.makeRoom()
			got, err := s.hook(trigger, "key-refused")
			if err != nil {
				t.Errorf("with room again: %v", err)
			}
			return append(ids, got.Executions...)
		}, []string{"success"}},
		{"claim", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			ids = []string{s.fire(trigger), s.fire(trigger)} // the second one waits for the first
			s.waitFor("lines", func() bool { return len(s.lines(ids[0])) > 5 })
			s.fill()
			open(t, gate)
			time.Sleep(300 * time.Millisecond) // time for possible errors
			s.makeRoom()
			return ids
		}, []string{"success"}},
		{"start", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			open(t, gate)
			ids = []string{s.fire(trigger)}
			s.fill() // during the start
			time.Sleep(300 * time.Millisecond)
			s.makeRoom()
			return ids
		}, []string{"success", "failed"}}, // failed, because the disk was full
		{"middle of the log", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			ids = []string{s.fire(trigger)}
			s.waitFor("lines", func() bool { return len(s.lines(ids[0])) > 5 })
			seen := s.lines(ids[0])
			s.fill()
			time.Sleep(500 * time.Millisecond)
			s.makeRoom()
			open(t, gate)
			s.await(ids[0])
			for i, l := range s.lines(ids[0]) {
				if i < len(seen) && (l.Seq != seen[i].Seq || l.Content != seen[i].Content) {
					t.Errorf("line %d was %+v and is %+v", i, seen[i], l)
				}
			}
			return ids
		}, []string{"success", "failed"}},
		{"exit record and end", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			ids = []string{s.fire(trigger)}
			s.waitFor("lines", func() bool { return len(s.lines(ids[0])) > 5 })
			s.fill()
			open(t, gate)
			s.waitFor("its exit record", func() bool {
				_, err := os.Stat(filepath.Join(s.data(), "executions", ids[0], "attempt-1", "exit.json"))
				return err == nil
			})
			s.kill() // and the server is killed before it notices
			s.makeRoom()
			s.start()
			return ids
		}, []string{"success", "failed"}},
		{"sealing", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			ids = []string{s.fire(trigger)}
			s.waitFor("lines", func() bool { return len(s.lines(ids[0])) > 5 })
			open(t, gate)
			s.await(ids[0])
			s.fill()
			time.Sleep(100 * time.Millisecond)
			if n := len(s.lines(ids[0])); n < 5 {
				t.Errorf("on the full disk %d lines can be read", n)
			}
			s.makeRoom()
			return ids
		}, []string{"success"}},
		{"backup", func(t *testing.T, s *server, trigger, gate string) (ids []string) {
			ids = []string{s.fire(trigger)}
			open(t, gate)
			s.await(ids[0])
			s.fill()
			file := filepath.Join(s.data(), "a.backup") // on the full disk
			if _, errs, code := s.cli("backup", "--without-key", file); code == 0 || !strings.Contains(errs, "free") && !strings.Contains(errs, "full") {
				t.Errorf("exit %d: %s", code, errs)
			}
			if left, _ := filepath.Glob(filepath.Join(s.data(), "*backup*")); len(left) > 1 { // the lock
				t.Errorf("left behind: %v", left)
			}
			elsewhere := filepath.Join(t.TempDir(), "b.backup")
			if out, errs, code := s.cli("backup", "--without-key", elsewhere); code != 0 {
				t.Errorf("to another disk: exit %d\n%s%s", code, out, errs)
			}
			if out, errs, code := s.cli("restore", elsewhere, "--check"); code != 0 {
				t.Errorf("check: exit %d\n%s%s", code, out, errs)
			}
			s.makeRoom()
			return ids
		}, []string{"success"}},
	} {
		t.Run(c.stage, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, "AGENTED_MIN_FREE=4")
			s.onSmallDisk(32)
			gate := filepath.Join(s.dir, "gate")
			trigger := s.trigger(map[string]any{
				"name": "t", "backend": "command", "max_concurrent": 1, "overlap": "queue", "working_dir": s.dir,
				"command":  []string{"sh", "-c", "i=0; until [ -e " + gate + " ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo end"},
				"env":      map[string]string{"TMPDIR": s.dir},
				"webhooks": []any{map[string]any{"source": "webhook", "auth": map[string]any{"kind": "bearer"}, "secret": "a-secret-for-the-backup-test"}},
			})
			ids := c.act(t, s, trigger, gate)
			for _, id := range ids {
				e := s.await(id)
				if !strings.Contains(" "+strings.Join(c.want, " ")+" ", " "+e.Status+" ") {
					t.Errorf("%s was acknowledged and ended as %s: %s", id, e.Status, e.ErrorMessage)
				}
				if e.Status == "failed" && !strings.Contains(e.ErrorMessage+e.Reason, "disk") && !strings.Contains(e.ErrorMessage, "space") && !strings.Contains(e.ErrorMessage, "supervisor") {
					t.Errorf("%s failed and does not say why: %s", id, e.ErrorMessage)
				}
				lines := s.lines(id)
				if e.Status == "success" && (len(lines) == 0 || lines[len(lines)-1].Content != "end") {
					t.Errorf("%s: %d lines, and the last one is not there", id, len(lines))
				}
				for i, l := range lines {
					if i > 0 && l.Seq <= lines[i-1].Seq {
						t.Errorf("%s: line %d follows %d", id, l.Seq, lines[i-1].Seq)
					}
				}
			}
			if s.call(http.MethodGet, "/health/readiness", nil, nil) != http.StatusOK {
				t.Error("with room again the server is not ready")
			}
			s.kill()
			s.start() // the records on disk suffice to resume
			for _, id := range ids {
				if e := s.await(id); e.ID != id {
					t.Errorf("%s: %+v", id, e)
				}
			}
		})
	}
}

func open(t *testing.T, gate string) {
	t.Helper()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
