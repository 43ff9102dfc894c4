package shim

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/testrun"
)

// smallDisk makes the execution's folder a file system of the given size.
func smallDisk(t *testing.T, r *run, size string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk to fill")
	}
	if err := unix.Mount("tmpfs", r.dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(r.dir, unix.MNT_DETACH) })
}

func TestDisk_full_ends_attempt(t *testing.T) {
	t.Parallel()
	// Through a pipe: the log alone fills the disk.
	r := newRun(t, agented.CapturePipe, "yes 0123456789012345678901234567890123456789")
	smallDisk(t, r, "2m")
	exit := r.do()
	if exit.Cause != agented.CauseDiskFull || !strings.Contains(exit.Detail, "no space left on device") {
		t.Errorf("exit = %+v", exit)
	}
	if n := len(r.lines()); n < 1000 || agented.Seq(n) != exit.LastSeq {
		t.Errorf("%d lines, last seq %d", n, exit.LastSeq)
	}
	if v := r.state(); v != Ended {
		t.Errorf("state %s", v)
	}
	if took := exit.FinishedAt.Sub(exit.StartedAt); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestDisk_full_recovers(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CapturePipe, "").program("chatty", "60000", "100")
	smallDisk(t, r, "16m")
	ballast := filepath.Join(r.dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 13<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.eventually("the disk to be full", func() bool {
		space, err := disk.Measure(r.dir)
		return err == nil && space.Free < 1<<10
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r, r.wait(), 0)
	if n := len(r.lines()); n != 60000 {
		t.Errorf("%d lines", n)
	}
}

func TestCapture_punches_raw_files(t *testing.T) {
	t.Parallel()
	fifo := newFifo(t)
	r := newRun(t, agented.CaptureFile, `yes 0123456789012345678901234567890123456789012345678 | head -n 400000; read x <"$1"; echo end`)
	r.spec.Args = append(r.spec.Args, "sh", fifo)
	r.start()
	r.eventually("the holes", func() bool {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(r.bundle, stdoutFile), &st)
		return err == nil && st.Size == 20000000 && st.Blocks*512 < 1<<20
	})
	unblock(t, fifo)
	wantCode(t, r, r.wait(), 0)
	if n := len(r.lines()); n != 400001 {
		t.Errorf("%d lines", n)
	}
}

func TestShim_process_name(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ready; sleep 600").start()
	pid := r.shimPID()
	comm, _ := os.ReadFile(filepath.Join("/proc", itoa(pid), "comm"))
	line, _ := os.ReadFile(filepath.Join("/proc", itoa(pid), "cmdline"))
	if string(comm) != "agshim\n" || string(line) != "agshim\x00shim\x00" {
		t.Errorf("the shim is called %q %q", comm, line)
	}
	if pgrep, err := exec.LookPath("pgrep"); err != nil {
		t.Log("pgrep is not installed; the names alone were compared")
	} else {
		for _, flags := range [][]string{{"agented"}, {"-f", "agented"}} {
			out, _ := exec.Command(pgrep, flags...).Output()
			if strings.Contains("\n"+string(out), "\n"+itoa(pid)+"\n") {
				t.Errorf("pgrep %q finds the shim", flags)
			}
		}
	}
	if err := r.h.Stop(agented.CauseCancelled); err != nil {
		t.Fatal(err)
	}
	r.wait()
}

func TestCommand_oom_score(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "sleep 0.1; cat /proc/self/oom_score_adj")
	r.do()
	wantLines(t, r, agented.Stdout, "500")
}

func TestCgroup_delegated(t *testing.T) {
	t.Parallel()
	own, err := ownCgroup()
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("no cgroup v2 that this user may divide (uid %d): %v", os.Geteuid(), err)
	}
	group := filepath.Join(own, "agshim-test-"+itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o700); err != nil {
		t.Skipf("no cgroup can be made here: %v", err)
	}
	t.Cleanup(func() { removeCgroup(group) })
	if err := unix.Setxattr(group, "trusted.delegate", []byte("1"), 0); err != nil {
		t.Skipf("a cgroup cannot be marked as delegated here: %v", err)
	}
	r := newRun(t, agented.CaptureFile, `grep ^0:: /proc/self/cgroup; setsid sleep 1001 & sleep 0.1`)
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	server := serverProcess(t, r)
	server.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	r.startBy(server)
	exit := r.wait()
	_ = server.Process.Kill()
	_ = server.Wait()
	wantCode(t, r, exit, 0)
	wantSurvivors(t, r, exit, "sleep 1001")
	if got := strings.Join(r.contents(agented.Stdout), "\n"); !strings.HasSuffix(got, filepath.Base(group)+"/agshim-"+string(r.spec.Execution)+"-1") {
		t.Errorf("the command ran in %q", got)
	}
	entries, _ := filepath.Glob(filepath.Join(group, "agshim-*"))
	if len(entries) != 0 {
		t.Errorf("left over: %q", entries)
	}
}

func TestCommand_inherits_nothing(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "").program("descriptors")
		r.do()
		wantLines(t, r, agented.Stdout, "0", "1", "2")

		// A shell adds nothing of its own. Signals 32 and 33 belong to the C library; the test
		// runner may ignore them.
		r = newRun(t, c, "grep -E 'Sig(Ign|Blk)' /proc/self/status")
		r.do()
		for _, line := range r.contents(agented.Stdout) {
			name, mask, _ := strings.Cut(line, ":\t")
			if bits, err := strconv.ParseUint(mask, 16, 64); err != nil || bits&^(3<<31) != 0 {
				t.Errorf("%s is %s (%v), want none", name, mask, err)
			}
		}
	})
}

// BenchmarkMemory measures the memory of a shim while its CLI is idle.
func BenchmarkMemory(b *testing.B) {
	for _, c := range captures {
		b.Run(string(c), func(b *testing.B) {
			for range b.N {
				r := newRun(b, c, "for i in 1 2 3 4 5 6 7 8 9; do echo some line of output; done; sleep 600").start()
				r.eventually("the lines", func() bool { return len(r.lines()) == 9 })
				time.Sleep(3 * time.Second)
				text, err := os.ReadFile(filepath.Join("/proc", itoa(r.shimPID()), "smaps_rollup"))
				if err != nil {
					b.Fatal(err)
				}
				for line := range strings.Lines(string(text)) {
					f := strings.Fields(line)
					if f[0] == "Pss:" || f[0] == "Private_Dirty:" || f[0] == "Rss:" {
						kb, _ := strconv.ParseFloat(f[1], 64)
						b.ReportMetric(kb/1024, strings.TrimSuffix(f[0], ":")+"-MiB")
					}
				}
				_ = r.h.Stop(agented.CauseCancelled)
				r.wait()
			}
		})
	}
}

func TestShim_unprivileged_user(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else; as an ordinary user every test is this one")
	}
	for _, c := range captures {
		r := newRun(t, c, "id -u; setsid sleep 1001 & sleep 0.1; echo end; exit 3")
		const nobody = 65534
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// The folder of the test binary is not accessible to others.
		b, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		open := filepath.Join(filepath.Dir(r.dir), "program")
		if err := testrun.WriteProgram(open, b, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{r.dir, r.spec.Dir} {
			if err := os.Chown(dir, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
		for dir := filepath.Dir(r.dir); dir != "/tmp" && len(dir) > 4; dir = filepath.Dir(dir) {
			_ = os.Chmod(dir, 0o755)
		}
		server := serverProcess(t, r)
		server.Path = open
		server.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		r.startBy(server)
		pid := r.shimPID()
		if _, err := os.Stat(filepath.Join(r.bundle, socketFile)); err != nil {
			t.Error(err)
		}
		// Its memory and environment are protected from other processes of that user: the kernel
		// makes root the owner of the files.
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join("/proc", itoa(pid), "environ"), &st); err != nil || st.Uid != 0 {
			t.Errorf("the shim can be read by its user: owner %d %v", st.Uid, err)
		}
		exit := r.wait()
		_ = server.Process.Kill()
		_ = server.Wait()
		wantCode(t, r, exit, 3)
		wantLines(t, r, agented.Stdout, "65534", "end")
		wantSurvivors(t, r, exit, "sleep 1001")
		if log, _ := os.ReadFile(filepath.Join(r.bundle, logFile)); len(log) != 0 {
			t.Errorf("shim.log: %s", log)
		}
	}
}

func TestDiskGuard(t *testing.T) {
	t.Parallel()
	for _, capture := range captures {
		t.Run("keeps_room_from_a_flood_by_"+string(capture), func(t *testing.T) {
			t.Parallel()
			r := newRun(t, capture, "").program("flood", "1000")
			smallDisk(t, r, "96m")
			r.spec.MinFree, r.spec.Grace = 32<<20, 10*bound
			exit := r.do()
			if exit.Cause != agented.CauseDiskFull || !strings.Contains(exit.Detail, "must stay free") {
				t.Errorf("exit = %+v", exit)
			}
			// The raw output is removed with the attempt.
			if err := RemoveRaw(r.bundle); err != nil {
				t.Fatal(err)
			}
			// Nothing is logged below a quarter, which is noticed after guardStep and a batch.
			if space, err := disk.Measure(r.dir); err != nil || space.Free < r.spec.MinFree/4-guardStep-4*batchBytes {
				t.Errorf("%s are left, %v", format.Bytes(space.Free), err)
			}
		})
	}
}

// A shim whose folder is deleted, as at the end of a test, ends with its CLI: no server can read the
// exit record any more.
func TestFinish_deleted_folder(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "exec sleep 1000").start()
		shim, err := unix.PidfdOpen(r.shimPID(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(shim)
		if err := os.RemoveAll(r.dir); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := unix.Kill(r.h.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ended := []unix.PollFd{{Fd: int32(shim), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(ended, int(bound.Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n != 1 {
				t.Fatalf("the shim has not ended: %v", err)
			}
			break
		}
		// Without this rule, it tries to write the record 50 times, every 200 ms.
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("the shim ended after %s", took)
		}
	})
}
