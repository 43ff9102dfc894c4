package shim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/redact"
)

const (
	// linger is how long processes may run after the CLI's end: a "tee" that writes the last
	// lines is not a leftover process.
	linger = 300 * time.Millisecond
	// survivorGrace is the time between SIGTERM and SIGKILL for leftover processes.
	survivorGrace = time.Second
	// maxNamed is the maximum number of listed processes.
	maxNamed = 20
)

// killPatience is how long to wait for killed processes to exit. A process in uninterruptible
// sleep may take longer. Tests shorten it.
var killPatience = 5 * time.Second

// reaper waits for children. It must be the only one, because two would reap each other's
// children.
type reaper struct {
	leader  int
	wrapper int           // pid of the child that contains the leader's sandbox; 0 means none
	gone    chan struct{} // closed when the leader has ended

	mu     sync.Mutex // guards the following fields; held while the leader's pid is used
	reaped bool
	status unix.WaitStatus
}

func newReaper(leader int) *reaper { return &reaper{leader: leader, gone: make(chan struct{})} }

// reap reaps every child that has ended, and reports whether none is left. Orphans of the tree
// become children, so none means that the whole tree has ended (not on macOS).
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
		case pid == r.wrapper && !r.reaped:
			// Its sandbox was killed, and the leader with it.
			r.reaped, r.status = true, unix.WaitStatus(unix.SIGKILL)
			close(r.gone)
		}
	}
}

// leaderEnded records the end of a leader that is not a child. The leader must not be reaped
// before, because its pid is used until then.
func (r *reaper) leaderEnded(status unix.WaitStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reaped {
		r.reaped, r.status = true, status
		close(r.gone)
	}
}

// result returns the leader's status; call it only after gone is closed.
func (r *reaper) result() unix.WaitStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// signalGroup signals the leader's process group, unless the leader has been reaped: its pid may
// have been reused then.
func (r *reaper) signalGroup(sig unix.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.reaped && unix.Kill(-r.leader, sig) == nil
}

// tree is the CLI with all its descendants.
type tree struct {
	reap  *reaper
	mask  *redact.Masker
	group *cgroup
	box   *box // sandbox of the tree, or nil
	self  int

	mu      sync.Mutex // guards the following fields
	family  *family
	frozen  bool           // the tree is paused
	byGroup bool           // by its control group instead of signals
	asleep  map[int]uint64 // processes that were already stopped: start time by pid

	hurry  chan struct{} // closed to end every grace
	rush   sync.Once
	why    string      // reason for ending the grace; set before hurry is closed
	hasty  atomic.Bool // the grace was cut short
	killed atomic.Bool // the leader did not end after SIGTERM
}

func newTree(r *reaper, self int, group *cgroup, m *redact.Masker) *tree {
	return &tree{reap: r, mask: m, group: group, self: self, family: newFamily(self, r.leader), hurry: make(chan struct{})}
}

// scan makes the family record its members.
func (t *tree) scan() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.family.scan()
}

func (t *tree) members() []process {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, _ := t.family.members()
	return slices.DeleteFunc(all, func(p process) bool { return t.box.has(p.pid) })
}

// empty reports whether no process of the tree is alive.
func (t *tree) empty() bool {
	return t.reap.reap() && (treeByChildren || len(t.members()) == 0)
}

// noGrace ends every wait for a process to end by itself. why completes "killed before its grace
// ended, because".
func (t *tree) noGrace(why string) { t.rush.Do(func() { t.why = why; close(t.hurry) }) }

// stop sends SIGTERM to the tree, and kills it if the leader has not ended after the grace.
func (t *tree) stop(grace time.Duration) {
	// Signal the process group in one call, so that a shell does not start its next command
	// because its child got the signal first; then the processes outside the group. No process is
	// signalled twice: some programs take a second signal as a request to end at once.
	grouped := t.reap.signalGroup(unix.SIGTERM)
	for _, p := range t.members() {
		if !grouped || p.group != t.reap.leader {
			_ = p.signal(unix.SIGTERM)
		}
	}
	t.thaw() // stopped processes do not handle signals
	for _, p := range t.members() {
		if p.stopped {
			_ = p.signal(unix.SIGCONT)
		}
	}
	after := time.NewTimer(grace)
	defer after.Stop()
	select {
	case <-t.reap.gone:
		return
	case <-after.C:
	case <-t.hurry:
		t.hasty.Store(true)
	}
	t.killed.Store(true)
	t.kill()
}

// kill kills all processes of the tree and returns those that are still alive.
func (t *tree) kill() []process {
	pause := time.Millisecond
	for deadline := time.Now().Add(killPatience); ; pause = min(2*pause, 20*time.Millisecond) {
		// Repeat until none is found: a process forked between the scan and the signal is found
		// by the next scan.
		t.group.kill()
		t.reap.signalGroup(unix.SIGKILL)
		t.box.kill()
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

// sweepReport describes the processes that the CLI left behind.
type sweepReport struct {
	survivors []string // terminated processes, with their command lines
	remain    []string // processes that could not be terminated
	strays    bool     // a process of the tree is alive, whether listed in remain or not
}

// sweep terminates leftover processes after the leader's end. asked is true if the tree was
// already told to stop.
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
	if report.strays = !t.empty(); report.strays && len(report.remain) == 0 {
		report.remain = []string{"a process that the process table does not show"}
	}
	return report
}

// waitEmpty waits until no process of the tree is alive, at most for patience.
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

// names formats processes for display, such as "1234 node server.js", masked and limited in
// number.
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

// readable converts s to one line of valid text of at most limit bytes.
func readable(s string, limit int) string {
	return format.Clip(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD")), limit)
}
