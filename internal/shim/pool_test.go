package shim

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// waitingShims returns the pids of the shims that wait for an attempt.
func waitingShims() (pids []int) {
	warmPool.mu.Lock()
	defer warmPool.mu.Unlock()
	for _, s := range warmPool.idle {
		pids = append(pids, s.proc.Pid)
	}
	return pids
}

// poolIsFull reports whether shims wait and no other one is being started, which would be taken
// first.
func poolIsFull() bool {
	warmPool.mu.Lock()
	defer warmPool.mu.Unlock()
	return len(warmPool.idle) > 0 && warmPool.made == 0
}

// Tests of warmPool are not parallel, because there is one pool per process.

func TestPool_reuses_shim(t *testing.T) {
	defer KeepWarm(0)
	KeepWarm(1)
	const attempts = 8
	open := map[int][]int{} // process → its descriptors after each of its attempts
	for i := range attempts {
		r := newRun(t, captures[i%2], fmt.Sprintf("echo attempt %d; echo $SECRET; exit %d", i, i))
		r.priv.Env = append(r.priv.Env, fmt.Sprintf("SECRET=value-of-attempt-%d", i))
		r.priv.Mask = []string{fmt.Sprintf("value-of-attempt-%d", i)}
		r.eventually("a warmShim", poolIsFull)
		waited := waitingShims()
		wantCode(t, r, r.do(), i)
		pid := r.shimPID()
		if !slices.Contains(waited, pid) {
			t.Errorf("attempt %d was kept by process %d, and %d waited", i, pid, waited)
		}
		text := strings.Join(r.contents(agented.Stdout), "\n")
		if !strings.Contains(text, fmt.Sprintf("attempt %d", i)) || strings.Contains(text, "value-of") {
			t.Errorf("attempt %d: log %q", i, text)
		}
		r.eventually("its shim to wait for another", func() bool { return slices.Contains(waitingShims(), pid) })
		// Nothing of an attempt remains in the process.
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		open[pid] = append(open[pid], len(fds))
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
			t.Errorf("the shim that waits is in %q, %v", cwd, err)
		}
	}
	if len(open) > attempts/2 {
		t.Errorf("%d attempts took %d processes", attempts, len(open))
	}
	for pid, n := range open {
		// Descriptors that the runtime opens for the first attempt of each kind remain.
		if len(n) > 2 && n[len(n)-1] > n[2] {
			t.Errorf("descriptors of %d after each of its attempts: %d", pid, n)
		}
	}
}

func TestSpare(t *testing.T) {
	t.Run("is_reused_after_an_attempt_longer_than_its_deadlines", func(t *testing.T) {
		defer KeepWarm(0)
		KeepWarm(1)
		defer func(was time.Duration) { orderPatience = was }(orderPatience)
		orderPatience = time.Second
		r := newRun(t, agented.CaptureFile, "sleep 1.5")
		wantCode(t, r, r.do(), 0)
		pid := r.shimPID()
		r.eventually("its shim to wait for another attempt", func() bool { return slices.Contains(waitingShims(), pid) })
		warmPool.mu.Lock()
		warmPool.keep = 0 // no other shim is started ahead
		others := slices.DeleteFunc(slices.Clone(warmPool.idle), func(s *warmShim) bool { return s.proc.Pid == pid })
		warmPool.idle = slices.DeleteFunc(warmPool.idle, func(s *warmShim) bool { return s.proc.Pid != pid })
		warmPool.mu.Unlock()
		for _, s := range others {
			s.end()
		}
		next := newRun(t, agented.CaptureFile, "exit 3")
		wantCode(t, next, next.do(), 3)
		if got := next.shimPID(); got != pid {
			t.Errorf("the second attempt ran under process %d, the first one under %d", got, pid)
		}
	})
}

func TestPool_leaks_no_descriptor(t *testing.T) {
	defer KeepWarm(0)
	KeepWarm(1)
	for range 2 {
		r := newRun(t, agented.CaptureFile, "").program("descriptors")
		r.eventually("a warmShim", func() bool { return len(waitingShims()) > 0 })
		wantCode(t, r, r.do(), 0)
		if got := r.contents(agented.Stdout); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Errorf("open: %q", got)
		}
	}
}

func TestPool_no_reuse_after_leftovers(t *testing.T) {
	defer KeepWarm(0)
	for name, end := range map[string]func(r *run){
		"survivors": func(r *run) { r.do() },
		"cancelled": func(r *run) {
			r.start()
			if err := r.h.Stop(agented.CauseCancelled); err != nil {
				t.Fatal(err)
			}
			r.wait()
		},
		"much printed": func(r *run) { r.do() },
		"no start":     func(r *run) { r.do() },
	} {
		KeepWarm(1)
		r := newRun(t, agented.CapturePipe, "sleep 60 & exit 0")
		switch name {
		case "cancelled":
			r = newRun(t, agented.CapturePipe, "sleep 60")
		case "much printed":
			r = newRun(t, agented.CapturePipe, "").program("chatty", "20000", "100")
		case "no start":
			r.spec.Path = r.dir + "/not-there"
		}
		r.eventually("a warmShim", func() bool { return len(waitingShims()) > 0 })
		end(r)
		pid := r.shimPID()
		r.eventually("the shim to end", func() bool { return unix.Kill(pid, 0) != nil })
		if slices.Contains(waitingShims(), pid) {
			t.Errorf("%s: its shim waits for another attempt", name)
		}
	}
}

func TestPool_dead_shim(t *testing.T) {
	defer KeepWarm(0)
	KeepWarm(1)
	r := newRun(t, agented.CaptureFile, "exit 7")
	r.eventually("a warmShim", func() bool { return len(waitingShims()) > 0 })
	for _, pid := range waitingShims() {
		// While stopped it still looks alive; it dies with the order in its socket.
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	}
	wantCode(t, r, r.do(), 7)
}

func TestPool_shims_end(t *testing.T) {
	defer KeepWarm(0)
	KeepWarm(2)
	r := newRun(t, agented.CaptureFile, "exit 0")
	r.eventually("a warmShim", func() bool { return len(waitingShims()) > 0 })
	pids := waitingShims()
	KeepWarm(0)
	for _, pid := range pids {
		r.eventually("the warmShim to end", func() bool { return unix.Kill(pid, 0) != nil })
	}
	// A killed server only closes its end of the socket.
	s, err := newWarmShim()
	if err != nil {
		t.Fatal(err)
	}
	s.conn.Close()
	select {
	case <-s.gone:
	case <-time.After(bound):
		t.Error("the shim outlives the server")
	}
}
