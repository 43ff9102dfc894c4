package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// gitThatStops writes a program git that, at the first call with a word among its arguments, writes
// its process id into the file here and waits.
func gitThatStops(t *testing.T, dir, here, word string) {
	t.Helper()
	real, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in *" %s "*) if mkdir %s.once 2>/dev/null; then echo $$ > %s.new; mv %s.new %s; exec sleep 600; fi;; esac
exec %s "$@"
`, word, here, here, here, here, real)
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
}

// newRepository makes a repository with one commit.
func newRepository(t *testing.T, dir string) {
	t.Helper()
	for _, args := range [][]string{{"init", "-q", "-b", "main", dir}, {"-C", dir, "add", "-A"}, {
		"-C", dir, "-c", "user.name=A Person", "-c", "user.email=a@example.com", "commit", "-q", "-m", "one",
	}} {
		if args[0] == "-C" && args[2] == "add" {
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("one\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("git", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

// The server is killed while it records what an attempt changed. The next one records it once.
func TestChanges_killed_while_recording(t *testing.T) {
	t.Parallel()
	for name, word := range map[string]string{"file list": "--numstat", "patch": "--src-prefix=a/"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
			here := filepath.Join(t.TempDir(), "here")
			newRepository(t, repo)
			s := prepare(t, "PATH="+bin+":"+os.Getenv("PATH"))
			gitThatStops(t, bin, here, word)
			s.start()
			id := s.fire(s.trigger(sh("changes", "echo two > file; echo new > other", map[string]any{"working_dir": repo})))
			var pid int
			s.waitFor("the recording", func() bool {
				b, err := os.ReadFile(here)
				pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
				return err == nil && pid > 0
			})
			s.kill()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			s.start()
			if e := s.await(id); e.Status != "success" || len(e.Attempts) != 1 {
				t.Fatalf("execution %+v", e)
			}
			var got struct {
				Attempts  []int  `json:"attempts"`
				FileCount int    `json:"file_count"`
				Added     int    `json:"added"`
				Removed   int    `json:"removed"`
				Truncated bool   `json:"truncated"`
				Reason    string `json:"reason"`
				PatchSize int    `json:"patch_size"`
			}
			s.call("GET", "/api/v1/executions/"+id+"/changes", nil, &got)
			if len(got.Attempts) != 1 || got.FileCount != 2 || got.Added != 2 || got.Removed != 1 || got.Truncated || got.Reason != "" || got.PatchSize == 0 {
				t.Errorf("changes %+v", got)
			}
			left, err := filepath.Glob(filepath.Join(s.data(), "executions", id, "changes", "*.new"))
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}
