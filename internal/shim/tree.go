package shim

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/redact"
)

const (
	// linger is how long what the CLI left behind may end by itself after it: a
	// "tee" that still writes down the last lines is no survivor.
	linger = 300 * time.Millisecond
	// survivorGrace is between SIGTERM and SIGKILL for survivors.
	survivorGrace = time.Second
	// killPatience bounds the wait for killed processes to be gone. One that
	// sits in the kernel may take longer, and nobody can do more about it.
	killPatience = 5 * time.Second
	// maxNamed bounds the list of survivors.
	maxNamed = 20
)

// reaper waits for children. It is the only place that does: two would take
// each other's.
type reaper struct {
	leader int
	gone   chan struct{} // closed when the leader has been reaped

	mu     sync.Mutex // guards what follows; held while the leader's pid is used
	reaped bool
	status unix.WaitStatus
}

func newReaper(leader int) *reaper { return &reaper{leader: leader, gone: make(chan struct{})} }

// reap takes every child that has ended, and reports whether none is left. As
// orphans of the tree become children, none then means that all are gone (not
// so on macOS).
func (r *reaper) reap() (none bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, waitOptions, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return true
		case pid == 0:
			return false
		case pid == r.leader && !r.reaped:
			r.reaped, r.status = true, status
			close(r.gone)
		}
	}
}

// result is the leader's end; only after gone.
func (r *reaper) result() unix.WaitStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// signalGroup signals the leader's process group, as long as the leader has not
// been reaped: later its number may be somebody else's.
func (r *reaper) signalGroup(sig unix.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.reaped && unix.Kill(-r.leader, sig) == nil
}

// tree is all that descends from the CLI, itself included.
type tree struct {
	reap  *reaper
	mask  *redact.Masker
	group *cgroup
	self  int

	mu      sync.Mutex // guards what follows
	family  *family
	frozen  bool           // told to stand still
	byGroup bool           // by its control group rather than by signals
	asleep  map[int]uint64 // pid to start of what stood still before

	hurry  chan struct{} // closed: no more grace
	rush   sync.Once
	killed atomic.Bool // the leader did not end when asked
}

func newTree(r *reaper, self int, group *cgroup, m *redact.Masker) *tree {
	return &tree{reap: r, mask: m, group: group, self: self, family: newFamily(self, r.leader), hurry: make(chan struct{})}
}

// look lets the family note who belongs to it.
func (t *tree) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.family.look()
}

func (t *tree) members() []process {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, _ := t.family.members()
	return all
}

// empty reports whether nothing of the tree lives.
func (t *tree) empty() bool {
	return t.reap.reap() && (treeByChildren || len(t.members()) == 0)
}

// noGrace ends every wait for somebody to end by himself.
func (t *tree) noGrace() { t.rush.Do(func() { close(t.hurry) }) }

// stop asks all of the tree to end, and ends it when the leader has not after
// the grace.
func (t *tree) stop(grace time.Duration) {
	// The group in one go, so that a shell does not go on with its next command
	// because its child got the signal first; then those who left it. Nobody
	// gets it twice: to some programs the second one means "at once".
	grouped := t.reap.signalGroup(unix.SIGTERM)
	for _, p := range t.members() {
		if !grouped || p.group != t.reap.leader {
			_ = p.signal(unix.SIGTERM)
		}
	}
	t.thaw() // what stands still hears no signal
	after := time.NewTimer(grace)
	defer after.Stop()
	select {
	case <-t.reap.gone:
		return
	case <-after.C:
	case <-t.hurry:
	}
	t.killed.Store(true)
	t.kill()
}

// kill ends all of the tree and returns those that it could not end.
func (t *tree) kill() []process {
	pause := time.Millisecond
	for deadline := time.Now().Add(killPatience); ; pause = min(2*pause, 20*time.Millisecond) {
		// Again and again until none is found: what is forked between a look
		// and the signal has no parent any more the next time.
		t.group.kill()
		t.reap.signalGroup(unix.SIGKILL)
		left := t.members()
		for _, p := range left {
			_ = p.signal(unix.SIGKILL)
		}
		if t.empty() || time.Now().After(deadline) {
			return t.members()
		}
		time.Sleep(pause)
	}
}

// sweepReport is what the CLI left behind.
type sweepReport struct {
	survivors []string // those that were ended, and what they were called with
	remain    []string // those that could not be
}

// sweep ends what the leader left behind. asked says that the tree was told to
// end already.
func (t *tree) sweep(asked bool, patience time.Duration) sweepReport {
	var report sweepReport
	t.thaw()
	if t.waitEmpty(patience) {
		return report
	}
	left := t.members()
	report.survivors = names(left, t.mask)
	if !asked {
		for _, p := range left {
			_ = p.signal(unix.SIGTERM)
		}
		if t.waitEmpty(survivorGrace) {
			return report
		}
	}
	report.remain = names(t.kill(), t.mask)
	return report
}

// waitEmpty waits until nothing of the tree lives, but not longer than that.
func (t *tree) waitEmpty(patience time.Duration) bool {
	pause := time.Millisecond
	for deadline := time.Now().Add(patience); ; pause = min(2*pause, 20*time.Millisecond) {
		if t.empty() {
			return true
		}
		select {
		case <-t.hurry:
			return false
		default:
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}

// names lists processes for people: "1234 node server.js", masked and bounded.
func names(all []process, m *redact.Masker) []string {
	var out []string
	for i, p := range all {
		if i == maxNamed {
			return append(out, fmt.Sprintf("and %d more", len(all)-maxNamed))
		}
		out = append(out, fmt.Sprintf("%d %s", p.pid, readable(m.MaskString(p.commandLine()), 160)))
	}
	return out
}

// readable makes one bounded line of valid text.
func readable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
