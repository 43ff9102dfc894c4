package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// ordersFD is the one descriptor that a shim inherits beside the standard ones:
// where its orders come from, see spare.
const ordersFD = 3

// answer is what the shim says to an order: one line of JSON.
type answer struct {
	Version int    `json:"v"`
	PID     int    `json:"pid,omitempty"`   // of the CLI
	Ended   bool   `json:"ended,omitempty"` // it could not be started; exit.json says why
	Error   string `json:"error,omitempty"` // the shim could not do its work; nothing was started
	Full    bool   `json:"full,omitempty"`  // and that is for want of room on the disk
}

// readyLine says that the shim waits for another order.
const readyLine = "ready\n"

// maxAttempts is how many attempts a shim takes before it makes room for a fresh
// one, and maxReuse how much an attempt may have printed for another to follow.
const (
	maxAttempts = 100
	maxReuse    = 1 << 20
)

// Main is the shim: the hidden command "agented shim". It returns the process's
// exit code when no more attempts will come and the last one's end is written
// down.
func Main() int {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	debug.SetMemoryLimit(64 << 20)
	keepDescriptors()
	orders, err := openOrders()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	settled := settleIn()
	// Caught and dropped rather than ignored: what a process ignores, the
	// programs that it starts ignore too.
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, unix.SIGHUP, unix.SIGPIPE, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		for range dropped {
		}
	}()
	for n := 1; ; n++ {
		lock, err := orders.next()
		if err != nil {
			return 0 // the server is gone, or has no more for us
		}
		if settled != nil {
			fmt.Fprintln(os.Stderr, "shim:", settled) // it works without
		}
		code, again := attempt(orders, lock)
		if !again || n == maxAttempts || orders.ready() != nil {
			return code
		}
	}
}

// attempt keeps one attempt, in the folder that the process is in. again says that
// nothing of it is left in this process.
func attempt(orders *orders, lock *os.File) (code int, again bool) {
	// Until the end of the process, or until all is over: that is what it stands
	// for.
	defer lock.Close()
	if err := checkGiven(lock); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2, false
	}
	s, err := prepare(".", orders)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		orders.tell(answer{Error: err.Error(), Full: full(err)})
		return 1, false
	}
	if err := s.start(); err != nil {
		s.exit.Cause, s.exit.Detail = agented.CauseNoStart, err.Error()
		s.k.say("The command could not be started: %s.", err)
		s.finish()
		orders.tell(answer{Ended: true})
		return 0, false
	}
	orders.tell(answer{PID: s.child})
	s.k.run()
	s.k.lastWords()
	s.exit = s.k.exit
	s.finish()
	return 0, s.leaveNothing()
}

// checkGiven makes sure that the order came from Start: the descriptor is that
// of this bundle's lock.
func checkGiven(lock *os.File) error {
	here, err := os.Stat(lockFile)
	if err != nil {
		return errNotForYou
	}
	given, err := lock.Stat()
	if err != nil || !os.SameFile(here, given) {
		return errNotForYou
	}
	return nil
}

var errNotForYou = errors.New("this command is started by the server only")

// shim is the process's state around the keeper.
type shim struct {
	bundle   string
	spec     Spec
	given    *handover
	mask     *redact.Masker
	log      *runlog.Writer
	out      *outlet
	control  *control
	k        *keeper
	group    *cgroup
	child    int
	exit     agented.Exit
	sigchld  chan os.Signal
	recorded bool          // the end is written down
	over     chan struct{} // closed when the CLI's thread is not needed any more
	unwatch  func()
}

// prepare does all that can fail without anything having been started, and
// leaves the mark that it may have been as its last step.
func prepare(bundle string, orders io.Reader) (*shim, error) {
	s := &shim{bundle: bundle, unwatch: func() {}}
	var err error
	if s.spec, err = ReadSpec(bundle); err != nil {
		return nil, err
	}
	if s.spec.Grace == 0 {
		s.spec.Grace = DefaultGrace
	}
	if s.spec.OutputCap == 0 {
		s.spec.OutputCap = DefaultOutputCap
	}
	for _, name := range []string{begunFile, exitFile} {
		if _, err := os.Stat(bundle + "/" + name); err == nil {
			return nil, errors.New("the attempt has begun before")
		}
	}
	if s.log, err = openLog(bundle + "/.."); err != nil {
		return nil, err
	}
	if s.out, err = newOutlet(bundle, s.spec.Capture); err != nil {
		return nil, fmt.Errorf("prepare capture: %w", err)
	}
	if err := prepareExit(bundle); err != nil {
		return nil, fmt.Errorf("prepare exit record: %w", err)
	}
	s.k = &keeper{
		spec: s.spec, log: s.log, out: s.out,
		batch:   batch{attempt: s.spec.Attempt},
		wake:    make(chan struct{}, 1),
		stops:   make(chan agented.Cause, 8),
		pauses:  make(chan pausing),
		signals: make(chan os.Signal, 1),
		swept:   make(chan sweepReport, 1),
		synced:  make(chan [2]int64, 1),
		exit:    agented.Exit{Cause: agented.CauseExit},
	}
	signal.Notify(s.k.signals, unix.SIGTERM)
	if s.control, err = listen(bundle, s); err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	// A server that dies before it has sent all of this has begun nothing.
	if s.given, err = readHandover(orders); err != nil {
		return nil, err
	}
	s.mask = redact.New(s.given.Mask)
	s.k.mask = s.mask
	for i, stream := range []agented.Stream{agented.Stdout, agented.Stderr} {
		s.k.split[i] = newSplitter(&s.k.batch, stream, s.mask, s.spec.Capture == agented.CaptureFile)
		if s.out.files[i] != nil {
			s.k.tails = append(s.k.tails, &tail{f: s.out.files[i], split: s.k.split[i]})
		}
	}
	// The first line then need not wait for the disk either.
	reserved, err := s.log.Ahead()
	if err != nil {
		return nil, err
	}
	if err := begin(bundle); err != nil {
		return nil, fmt.Errorf("mark the beginning: %w", err)
	}
	reserved()
	return s, nil
}

// begin leaves the mark, and then makes the bundle durable with all that is in it:
// one wait for the disk, the last before the CLI. What is written while a disk
// makes something durable waits for that as well, so nothing was before.
func begin(bundle string) error {
	self, _ := lookUp(os.Getpid())
	path := bundle + "/" + begunFile
	if err := writeJSON(path+temporary, begun{
		Version: Version, BootID: bootID(), ShimPID: os.Getpid(), ShimStart: self.start, At: time.Now().UTC(),
	}); err != nil {
		return err
	}
	if err := os.Rename(path+temporary, path); err != nil {
		return err
	}
	if err := settleBundle(bundle); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

// openLog opens the execution's log. The server may be about to close it.
func openLog(dir string) (w *runlog.Writer, err error) {
	for range 200 {
		if w, err = runlog.OpenWriter(dir, time.Now()); !errors.Is(err, agented.Conflict) {
			return w, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, err
}

// start starts the CLI. Its error is a sentence for people.
func (s *shim) start() error {
	stdin := os.DevNull
	if s.spec.Stdin {
		stdin = s.bundle + "/" + stdinFile
	}
	in, err := os.Open(stdin)
	if err != nil {
		return fmt.Errorf("its standard input could not be opened: %s", plainCause(err))
	}
	defer in.Close()
	s.sigchld = make(chan os.Signal, 1)
	signal.Notify(s.sigchld, unix.SIGCHLD)
	s.group = newCgroup(string(s.spec.Execution) + "-" + strconv.Itoa(s.spec.Attempt))
	if len(s.k.tails) > 0 {
		var ok bool
		s.unwatch, ok = watchFiles(s.k.wake, s.bundle+"/"+stdoutFile, s.bundle+"/"+stderrFile)
		s.k.polling = !ok
	}
	s.k.started = time.Now()
	s.exit.StartedAt = s.k.started.UTC().Round(0)
	s.k.exit.StartedAt = s.exit.StartedAt
	s.over = make(chan struct{})
	s.child, err = spawn(&s.spec, s.given, in, s.out, s.group, s.over)
	s.given.Env = nil
	if err != nil {
		return err
	}
	s.out.closeChild()
	preferVictim(s.child)
	reap := newReaper(s.child)
	s.k.tree = newTree(reap, os.Getpid(), s.group, s.mask)
	go func() {
		for range s.sigchld {
			reap.reap()
		}
	}()
	s.sigchld <- unix.SIGCHLD // for an end before anybody waited
	who, _ := lookUp(s.child)
	if b, err := json.Marshal(childRecord{Version: Version, PID: s.child, Start: who.start, At: s.exit.StartedAt, Cgroup: s.group.folder()}); err == nil {
		_ = os.WriteFile(s.bundle+"/"+childFile, b, 0o600)
	}
	s.control.running(s.child)
	if len(s.k.tails) == 0 {
		s.out.read()
	}
	return nil
}

// finish writes the end down: the log first, then the record, and when that is
// on disk everybody who waits is told.
func (s *shim) finish() {
	s.unwatch()
	for len(s.k.batch.recs) > 0 { // a start that failed has its line here
		if err := s.log.Append(s.k.batch.recs); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		s.k.batch.done(len(s.k.batch.recs))
	}
	s.group.remove()
	if err := s.log.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	s.exit.LastSeq = s.log.LastSeq()
	s.exit.FinishedAt = time.Now().UTC().Round(0)
	s.exit.Detail = readable(s.exit.Detail, 1000)
	var err error
	for range 50 {
		if err = writeExit(s.bundle, s.exit); err == nil {
			break
		}
		fmt.Fprintln(os.Stderr, "write exit record:", err)
		time.Sleep(200 * time.Millisecond)
	}
	s.recorded = err == nil
	s.control.ended(s.exit, err)
	s.out.close()
}

// leaveNothing ends what an attempt has going in this process, and reports
// whether that is all: only an attempt that came to a plain end by itself, and
// printed little, leaves a process that is as good as a new one.
func (s *shim) leaveNothing() bool {
	if !s.recorded || s.exit.Cause != agented.CauseExit || s.k.asked || s.k.gaveUp || s.k.syncing ||
		len(s.k.report.survivors) > 0 || len(s.k.report.remain) > 0 || s.k.logged > maxReuse {
		return false
	}
	signal.Stop(s.k.signals)
	signal.Stop(s.sigchld)
	close(s.sigchld)
	close(s.over)
	return true
}

// listenUnix opens the control socket, for this user only. The path is relative
// because an address has room for about a hundred bytes.
func listenUnix(bundle string) (*net.UnixListener, error) {
	path := socketFile
	if bundle != "." {
		path = bundle + "/" + socketFile
	}
	_ = os.Remove(path) // of a shim that never got its handover: we have the lock
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}
