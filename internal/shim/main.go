package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/broker"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// ordersFD is the one descriptor that a shim inherits after the standard three: the socket for
// its orders, see warmShim.
const ordersFD = 3

// answer is the shim's reply to an order: one line of JSON.
type answer struct {
	Version int    `json:"v"`
	PID     int    `json:"pid,omitempty"`   // pid of the CLI
	Ended   bool   `json:"ended,omitempty"` // the CLI could not be started; exit.json contains the reason
	Error   string `json:"error,omitempty"` // the shim failed; nothing was started
	Full    bool   `json:"full,omitempty"`  // because the disk is full
}

// readyLine reports that the shim is ready for another order.
const readyLine = "ready\n"

// maxAttempts is how many attempts one shim runs, and maxReuse how many bytes an attempt may have
// printed for another to follow in the same process.
const (
	maxAttempts = 100
	maxReuse    = 1 << 20
)

// Main is the hidden command "agented shim". It returns the exit code of the process when no more
// attempts follow and the last one's end is recorded.
func Main() int {
	if len(os.Args) == 3 && os.Args[2] == initArgument {
		return initMain()
	}
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
	dropSignals(unix.SIGHUP, unix.SIGPIPE, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	for n := 1; ; n++ {
		lock, err := orders.next()
		if err != nil {
			return 0 // the server has ended, or has no more orders
		}
		if settled != nil {
			fmt.Fprintln(os.Stderr, "shim:", settled) // not essential
		}
		code, again := attempt(orders, lock)
		if !again || n == maxAttempts || orders.ready() != nil {
			return code
		}
	}
}

// dropSignals makes signals do nothing; without arguments, all signals. They are caught and dropped
// instead of ignored, because child processes inherit ignored signals.
func dropSignals(which ...os.Signal) {
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, which...)
	go func() {
		for range dropped {
		}
	}()
}

// attempt runs one attempt in the current folder. again is true if the process can run another
// attempt.
func attempt(orders *orders, lock *os.File) (code int, again bool) {
	// The lock stands for the process, so it is released last.
	defer lock.Close()
	if err := checkGiven(lock); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2, false
	}
	s, err := prepare(".", orders)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		orders.reply(answer{Error: err.Error(), Full: full(err)})
		return 1, false
	}
	if err := s.start(); err != nil {
		s.exit.Cause, s.exit.Detail = agented.CauseNoStart, err.Error()
		s.k.logf("The command could not be started: %s.", err)
		s.finish()
		orders.reply(answer{Ended: true})
		return 0, false
	}
	orders.reply(answer{PID: s.child})
	s.k.run()
	s.k.logEnd()
	s.exit = s.k.exit
	s.finish()
	return 0, s.leaveNothing()
}

// checkGiven verifies that the order came from Start: the descriptor must be that of this
// bundle's lock.
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

var errNotForYou = errors.New("this command is for internal use by the server")

// shim is the state of the process around the supervisor.
type shim struct {
	bundle   string
	spec     Spec
	given    *handover
	mask     *redact.Masker
	log      *runlog.Writer
	out      *outlet
	control  *control
	k        *supervisor
	group    *cgroup
	child    int
	box      *box           // nil: no sandbox
	broker   *broker.Broker // nil: none
	exit     agented.Exit
	sigchld  chan os.Signal
	recorded bool          // the end is recorded
	over     chan struct{} // closed when the CLI's thread is no longer needed
	unwatch  func()
}

// prepare performs every step that can fail before anything is started. Its last step writes the
// begun record.
func prepare(bundle string, orders *orders) (*shim, error) {
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
			return nil, errors.New("the attempt has already begun")
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
	s.k = &supervisor{
		spec: s.spec, log: s.log, out: s.out,
		batch:   batch{attempt: s.spec.Attempt},
		wake:    make(chan struct{}, 1),
		stops:   make(chan agented.Cause, 8),
		pauses:  make(chan pausing),
		notes:   make(chan string, maxNotes),
		signals: make(chan os.Signal, 1),
		swept:   make(chan sweepReport, 1),
		filled:  make(chan string, 1),
		synced:  make(chan [2]int64, 1),
		exit:    agented.Exit{Cause: agented.CauseExit},
	}
	signal.Notify(s.k.signals, unix.SIGTERM)
	if s.control, err = listen(bundle, s); err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	// If the server ends before it has sent everything, nothing has begun.
	if s.given, err = readHandover(orders); err != nil {
		return nil, err
	}
	s.mask = redact.New(s.given.Mask)
	s.k.mask = s.mask
	if err = s.startBroker(orders.listener); err != nil {
		return nil, fmt.Errorf("start credential broker: %w", err)
	}
	if s.spec.Capture == agented.CaptureFile {
		s.k.batch.keep, s.k.plain = true, &unmaskedWriter{path: bundle + "/" + unmaskedFile}
	}
	for i, stream := range []agented.Stream{agented.Stdout, agented.Stderr} {
		if s.spec.Stream != "" {
			stream = s.spec.Stream
		}
		s.k.split[i] = newSplitter(&s.k.batch, stream, s.mask, s.spec.Capture == agented.CaptureFile)
		if s.out.files[i] != nil {
			s.k.tails = append(s.k.tails, &tail{f: s.out.files[i], split: s.k.split[i]})
		}
	}
	// The first line then does not wait for an fsync either.
	reserved, err := s.log.ReserveAhead()
	if err != nil {
		return nil, err
	}
	if err := begin(bundle); err != nil {
		return nil, fmt.Errorf("record the start: %w", err)
	}
	reserved()
	return s, nil
}

// begin writes the begun record and then syncs the bundle, with a single fsync wait before the
// CLI starts. Writes during an fsync wait for it, so no file was synced earlier.
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

// start starts the CLI. Its error is a message for users.
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
	missing := s.group.limit(&s.spec)
	if len(s.k.tails) > 0 {
		var ok bool
		s.unwatch, ok = watchFiles(s.k.wake, s.bundle+"/"+stdoutFile, s.bundle+"/"+stderrFile)
		s.k.polling = !ok
	}
	s.k.started = time.Now()
	s.exit.StartedAt = s.k.started.UTC().Round(0)
	s.k.exit.StartedAt = s.exit.StartedAt
	s.over = make(chan struct{})
	s.child, s.box, err = spawn(&s.spec, s.given, in, s.out, s.group, s.over)
	s.given.Env = nil
	if err != nil {
		return err
	}
	if l := s.box.brokerListener(); l != nil && s.broker != nil {
		if err := s.serveBroker(l); err != nil {
			s.k.logf("The broker of the execution cannot be reached: %s.", plainCause(err))
		}
	}
	s.out.closeChild()
	preferVictim(s.child)
	if missing = lowerPriority(&s.spec, s.child, missing); len(missing) > 0 {
		s.k.logf("Limits that are not enforced, because this system does not let the server set them: %s.", strings.Join(missing, " and "))
	}
	reap := newReaper(s.child)
	reap.wrapper = s.box.wrapper()
	s.k.tree = newTree(reap, os.Getpid(), s.group, s.mask)
	s.k.tree.box = s.box
	if s.box != nil {
		go s.box.watch(reap)
	}
	go func() {
		for range s.sigchld {
			reap.reap()
		}
	}()
	s.sigchld <- unix.SIGCHLD // in case it ended before
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

// finish records the end: the log first, then the exit record. Once the record is on disk,
// waiting clients are notified.
func (s *shim) finish() {
	s.unwatch()
	s.broker.Close()
	s.k.logNotes()
	if text := s.broker.RefusedSummary(); text != "" {
		s.k.logf("%s", text)
	}
	for len(s.k.batch.recs) > 0 { // the reason of a failed start is among them
		if err := s.log.Append(s.k.batch.recs); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		s.k.batch.done(len(s.k.batch.recs))
	}
	s.group.remove()
	s.box.close()
	if err := s.log.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	s.k.plain.close()
	s.exit.LastSeq = s.log.LastSeq()
	s.exit.FinishedAt = time.Now().UTC().Round(0)
	s.exit.Detail = readable(s.exit.Detail, 1000)
	var err error
	for range 50 {
		if err = writeExit(s.bundle, s.exit); err == nil {
			break
		}
		fmt.Fprintln(os.Stderr, "write exit record:", err)
		if folderDeleted(err) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.recorded = err == nil
	s.control.ended(s.exit, err)
	s.out.close()
}

// leaveNothing stops the remaining activity of an attempt in this process. It reports whether the
// process can be reused: only after an attempt that ended by itself and printed little.
func (s *shim) leaveNothing() bool {
	// A broker's credentials stay in memory until the process ends.
	if s.broker != nil || !s.recorded || s.exit.Cause != agented.CauseExit || s.k.asked || s.k.gaveUp || s.k.syncing ||
		len(s.k.report.survivors) > 0 || len(s.k.report.remain) > 0 || s.k.report.strays || s.k.logged > maxReuse {
		return false
	}
	signal.Stop(s.k.signals)
	signal.Stop(s.sigchld)
	close(s.sigchld)
	close(s.over)
	return true
}

// startBroker starts the attempt's broker if the server has sent its configuration. Without a
// listener, the broker serves that of the sandbox later. The broker reaches the provider as the CLI
// would: with the same proxies and certificates.
func (s *shim) startBroker(listener *os.File) error {
	if listener != nil {
		defer listener.Close()
	}
	if len(s.given.Broker) == 0 {
		return nil
	}
	var config broker.Config
	if err := json.Unmarshal([]byte(s.given.Broker[0]), &config); err != nil {
		return err
	}
	s.given.Broker = nil
	for name, value := range config.Env {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	var err error
	s.broker, err = broker.New(config, broker.Options{File: s.bundle + "/" + brokerFile, Mask: s.mask.MaskString, Note: s.k.note})
	if err != nil || listener == nil {
		return err
	}
	return s.serveBroker(listener)
}

// serveBroker makes the broker serve a listener.
func (s *shim) serveBroker(listener *os.File) error {
	l, err := net.FileListener(listener)
	if err == nil {
		s.broker.Serve(l)
	}
	return err
}

// BrokerRecords reads what the broker of an attempt has reported after a position, and returns the
// next position.
func BrokerRecords(bundle string, from int64) ([]broker.Record, int64, error) {
	return broker.ReadRecords(filepath.Join(bundle, brokerFile), from)
}

// listenUnix opens the control socket for this user only. The path is relative, because an
// address can have about a hundred bytes only.
func listenUnix(bundle string) (*net.UnixListener, error) {
	path := socketFile
	if bundle != "." {
		path = bundle + "/" + socketFile
	}
	_ = os.Remove(path) // left by a shim that received no handover; this process has the lock
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}
