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

// waitingSpares are the processes that wait for an attempt.
func waitingSpares() (pids []int) {
	spares.mu.Lock()
	defer spares.mu.Unlock()
	for _, s := range spares.idle {
		pids = append(pids, s.proc.Pid)
	}
	return pids
}

// Tests of spares are not parallel: there is one set of them in a process.

func TestAShimThatWaitsTakesTheNextAttemptAndAfterAPlainEndTheOneBehindIt(t *testing.T) {
	defer KeepSpare(0)
	KeepSpare(1)
	const attempts = 8
	open := map[int][]int{} // process → its descriptors after each of its attempts
	for i := range attempts {
		r := newRun(t, captures[i%2], fmt.Sprintf("echo attempt %d; echo $SECRET; exit %d", i, i))
		r.priv.Env = append(r.priv.Env, fmt.Sprintf("SECRET=value-of-attempt-%d", i))
		r.priv.Mask = []string{fmt.Sprintf("value-of-attempt-%d", i)}
		r.eventually("a spare", func() bool { return len(waitingSpares()) > 0 })
		waited := waitingSpares()
		wantCode(t, r, r.do(), i)
		pid := r.shimPID()
		if !slices.Contains(waited, pid) {
			t.Errorf("attempt %d was kept by process %d, and %d waited", i, pid, waited)
		}
		text := strings.Join(r.contents(agented.Stdout), "\n")
		if !strings.Contains(text, fmt.Sprintf("attempt %d", i)) || strings.Contains(text, "value-of") {
			t.Errorf("attempt %d: log %q", i, text)
		}
		r.eventually("its shim to wait for another", func() bool { return slices.Contains(waitingSpares(), pid) })
		// Nothing of an attempt stays behind in the process.
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
		// What the runtime opens for the first attempt of each kind stays.
		if len(n) > 2 && n[len(n)-1] > n[2] {
			t.Errorf("descriptors of %d after each of its attempts: %d", pid, n)
		}
	}
}

func TestTheProgramOfALaterAttemptGetsNoDescriptorOfTheShim(t *testing.T) {
	defer KeepSpare(0)
	KeepSpare(1)
	for range 2 {
		r := newRun(t, agented.CaptureFile, "").program("descriptors")
		r.eventually("a spare", func() bool { return len(waitingSpares()) > 0 })
		wantCode(t, r, r.do(), 0)
		if got := r.contents(agented.Stdout); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Errorf("open: %q", got)
		}
	}
}

func TestAnAttemptThatLeftSomethingIsTheLastOfItsShim(t *testing.T) {
	defer KeepSpare(0)
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
		KeepSpare(1)
		r := newRun(t, agented.CapturePipe, "sleep 60 & exit 0")
		switch name {
		case "cancelled":
			r = newRun(t, agented.CapturePipe, "sleep 60")
		case "much printed":
			r = newRun(t, agented.CapturePipe, "").program("chatty", "20000", "100")
		case "no start":
			r.spec.Path = r.dir + "/not-there"
		}
		r.eventually("a spare", func() bool { return len(waitingSpares()) > 0 })
		end(r)
		pid := r.shimPID()
		r.eventually("the shim to end", func() bool { return unix.Kill(pid, 0) != nil })
		if slices.Contains(waitingSpares(), pid) {
			t.Errorf("%s: its shim waits for another attempt", name)
		}
	}
}

func TestAShimThatDiesWhileItWaitsIsNoReasonNotToBegin(t *testing.T) {
	defer KeepSpare(0)
	KeepSpare(1)
	r := newRun(t, agented.CaptureFile, "exit 7")
	r.eventually("a spare", func() bool { return len(waitingSpares()) > 0 })
	for _, pid := range waitingSpares() {
		// Stopped it still looks alive; it dies with the order in its socket.
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	}
	wantCode(t, r, r.do(), 7)
}

func TestShimsThatWaitEndWithTheServerAndWhenNobodyKeepsThem(t *testing.T) {
	defer KeepSpare(0)
	KeepSpare(2)
	r := newRun(t, agented.CaptureFile, "exit 0")
	r.eventually("a spare", func() bool { return len(waitingSpares()) > 0 })
	pids := waitingSpares()
	KeepSpare(0)
	for _, pid := range pids {
		r.eventually("the spare to end", func() bool { return unix.Kill(pid, 0) != nil })
	}
	// A server that is killed closes its end of the socket, and no more.
	s, err := newSpare()
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
