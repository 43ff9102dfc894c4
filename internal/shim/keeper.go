package shim

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

const (
	// diskPatience is how long the log may refuse to be written before the
	// attempt is ended. Meanwhile what the CLI prints waits where it is.
	diskPatience = 5 * time.Second
	// lastPatience is how long the shim goes on trying after the end.
	lastPatience = 2 * time.Second
	retryAfter   = 100 * time.Millisecond
	// lookAnyway is how often the raw files are looked at where the system does
	// not tell of changes, and pollAnyway where it does: a belt.
	lookAnyway = 20 * time.Millisecond
	pollAnyway = 2 * time.Second
	everySync  = time.Second
	everyCheck = time.Second
	// batchBytes is what is collected for one append.
	batchBytes = 512 << 10
	// overCap is how much more than the cap an attempt may print while it is
	// given time to end. What comes behind that is not logged: two-byte lines
	// can be printed a hundred times as fast as they can be numbered.
	overCap = 4 << 20
)

// keeper is one attempt under way. Everything but the atomics belongs to the
// goroutine of run.
type keeper struct {
	spec  Spec
	log   *runlog.Writer
	mask  *redact.Masker
	out   *outlet
	batch batch
	split [2]*splitter
	tails []*tail // capture by file
	tree  *tree

	wake    chan struct{}      // a raw file changed
	polling bool               // nobody will wake us
	stops   chan agented.Cause // from the control socket
	signals chan os.Signal
	swept   chan sweepReport
	synced  chan [2]int64
	ending  atomic.Bool // for hello
	pauses  chan pausing
	paused  atomic.Pointer[Standstill] // nil: it does not stand still
	stillAt time.Time                  // since when it does
	idle    time.Duration              // for how long it stood before

	exit    agented.Exit
	started time.Time // with the monotonic clock
	printed int64     // bytes
	logged  int64     // bytes of those that were taken for the log
	output  time.Time // when something was printed last

	asked  bool // the tree was told to end
	leftAt time.Time
	report *sweepReport
	dry    bool // everything was read

	buf     []byte // to read raw files into
	lookAt  time.Time
	looked  time.Time
	stuck   time.Time // since when the log refuses; zero if it does not
	retryAt time.Time
	stuckBy error
	gaveUp  bool
	dirty   bool
	syncing bool
	syncAt  time.Time
	checkAt time.Time
}

// run keeps the attempt until it has ended, all of it is in the log, and
// nothing that it started lives.
func (k *keeper) run() {
	now := time.Now()
	k.output, k.checkAt, k.syncAt, k.lookAt = now, now.Add(everyCheck), now.Add(everySync), now
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !k.over() {
		gone := k.tree.reap.gone
		if !k.leftAt.IsZero() {
			gone = nil
		}
		chunks := k.out.chunks
		if !k.stuck.IsZero() && !k.gaveUp {
			chunks = nil // it waits in the readers, then in the pipe
		}
		select {
		case <-timer.C:
		case <-k.wake:
			k.lookAt = time.Now()
			if soon := k.looked.Add(pace); k.lookAt.Before(k.looked.Add(pace / 2)) {
				k.lookAt = soon
			}
		case c := <-chunks:
			k.take(c)
		case <-gone:
			k.left()
		case r := <-k.swept:
			k.report = &r
			k.out.finish()
			k.lookAt = time.Now()
		case cause := <-k.stops:
			k.end(cause, stopText(cause))
		case p := <-k.pauses:
			k.setPause(p)
		case <-k.signals:
			k.interrupted()
		case done := <-k.synced:
			k.wasSynced(done)
		}
		now = time.Now()
		k.follow(now)
		k.tick(now)
		k.append(now)
		timer.Reset(max(k.next(now).Sub(now), 0))
	}
}

// over reports whether there is nothing left to do.
func (k *keeper) over() bool {
	return k.report != nil && k.dry && (len(k.batch.recs) == 0 || k.gaveUp)
}

// take splits a chunk, and those that wait behind it, into records.
func (k *keeper) take(c chunk) {
	for {
		if c.ended {
			k.out.open--
			k.split[c.stream].end(time.Now())
			if k.out.open == 0 {
				k.dry = true
			}
		} else {
			k.output = c.at
			n := k.allowed(len(c.data))
			k.logged += int64(n)
			k.printed += int64(len(c.data))
			if !k.gaveUp {
				k.split[c.stream].feed(c.data[:n], c.at)
			}
			k.out.recycle(c)
		}
		if k.batch.size() > batchBytes {
			return
		}
		select {
		case c = <-k.out.chunks:
		default:
			return
		}
	}
}

// allowed is how many of the next n bytes may be logged.
func (k *keeper) allowed(n int) int {
	return int(min(int64(n), max(k.spec.OutputCap+overCap-k.logged, 0)))
}

// follow reads what is new in the raw files.
func (k *keeper) follow(now time.Time) {
	if len(k.tails) == 0 || k.dry || now.Before(k.lookAt) || !k.stuck.IsZero() && !k.gaveUp {
		return
	}
	if k.buf == nil {
		k.buf = make([]byte, 4*chunkSize)
	}
	k.looked = now
	more := true
	for more && k.batch.size() < batchBytes {
		more = false
		for _, t := range k.tails {
			n, shrunk, err := t.look(k.buf[:k.allowed(len(k.buf))], now)
			k.logged += int64(n)
			if shrunk {
				k.say("Somebody shortened the file that %s goes to; what was printed before is in this log already.", t.split.stream)
			}
			if err != nil && !t.failed {
				t.failed = true // said once
				fmt.Fprintf(os.Stderr, "read raw %s: %v\n", t.split.stream, err)
			}
			if n > 0 {
				k.output = now
				more = true
			}
		}
	}
	k.printed = 0
	for _, t := range k.tails {
		k.printed += t.printed()
	}
	if more {
		k.lookAt = now
		return
	}
	k.lookAt = now.Add(pollAnyway)
	if k.polling {
		k.lookAt = now.Add(lookAnyway)
	}
	// All that could write is gone and this look came after that.
	if k.report != nil {
		for _, t := range k.tails {
			t.split.end(now)
		}
		k.dry = true
	}
}

// caughtUp reports whether all that is known to be printed was looked at: only
// then is a line that has no end yet a quiet one.
func (k *keeper) caughtUp(now time.Time) bool {
	return k.stuck.IsZero() && len(k.out.chunks) == 0 && (len(k.tails) == 0 || now.Before(k.lookAt))
}

// tick does what is due by the clock.
func (k *keeper) tick(now time.Time) {
	if k.caughtUp(now) {
		for _, s := range k.split {
			s.rest(now)
		}
	}
	running := k.leftAt.IsZero()
	s := k.spec
	k.stillTooLong(now)
	if running && !k.asked {
		still := k.paused.Load() != nil
		switch {
		case still && k.printed <= s.OutputCap: // no clock runs
		case s.Timeout > 0 && !still && now.Sub(k.started)-k.idle >= s.Timeout:
			k.end(agented.CauseTimeout, "it ran longer than the limit of "+s.Timeout.String())
		case s.Silence > 0 && !still && k.stuck.IsZero() && now.Sub(k.output) >= s.Silence:
			k.end(agented.CauseSilence, "it printed nothing for "+s.Silence.String())
		case k.printed > s.OutputCap:
			k.end(agented.CauseOutputCap, "it printed more than the limit of "+size(s.OutputCap))
		}
	}
	if k.printed > s.OutputCap+overCap {
		k.tree.noGrace()
	}
	// What is due soon is done along with what is due now: each wake-up costs more
	// than what it is for.
	sync := k.dirty && !k.syncing && len(k.batch.recs) == 0
	if now.Before(k.checkAt) && (!sync || now.Before(k.syncAt)) {
		return
	}
	if now.Add(everyCheck / 2).After(k.checkAt) {
		k.checkAt = now.Add(everyCheck)
		k.tree.look()
		k.tree.keepFrozen()
		k.guardDisk(running)
		if now.Sub(k.output) > everyCheck {
			k.out.relax()
			k.batch.relax()
			k.buf = nil
		}
	}
	if sync && now.Add(everySync/2).After(k.syncAt) {
		k.syncLog()
	}
}

// guardDisk ends the attempt before there is no room left for its log and for
// everybody else's.
func (k *keeper) guardDisk(running bool) {
	if k.spec.MinFree == 0 {
		return
	}
	free, err := freeBytes(".")
	if err != nil || free >= k.spec.MinFree {
		return
	}
	if running {
		k.end(agented.CauseDiskFull, fmt.Sprintf("the disk with the run logs has only %s left; %s are kept free", size(free), size(k.spec.MinFree)))
	}
	if free < k.spec.MinFree/2 {
		k.tree.noGrace()
	}
}

// syncLog puts the log on the disk while it goes on being written.
func (k *keeper) syncLog() {
	k.dirty, k.syncing = false, true
	var ends [2]int64
	for i, s := range k.split {
		ends[i] = s.start
	}
	go func() {
		if err := k.log.Sync(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			ends = [2]int64{}
		}
		k.synced <- ends
	}()
}

// wasSynced frees the raw bytes that the log has on disk.
func (k *keeper) wasSynced(ends [2]int64) {
	k.syncing = false
	k.syncAt = time.Now().Add(everySync)
	for i, t := range k.tails {
		if ends[i] <= t.split.start { // else the file was cut meanwhile
			t.release(ends[i])
		}
	}
}

// append writes what was collected into the log.
func (k *keeper) append(now time.Time) {
	recs := k.batch.recs
	if len(recs) == 0 || k.gaveUp || !k.stuck.IsZero() && now.Before(k.retryAt) {
		return
	}
	// Where a large write does not fit at all, a smaller one may.
	n, err := 0, error(nil)
	for piece := len(recs); n < len(recs); piece = (piece + 1) / 2 {
		err = k.log.Append(recs[n:min(n+piece, len(recs))])
		if err == nil {
			n = min(n+piece, len(recs))
			piece *= 2
			continue
		}
		for n < len(recs) && recs[n].Seq != 0 {
			n++
		}
		if piece == 1 {
			break
		}
	}
	k.batch.done(n)
	if n > 0 {
		k.dirty = true
	}
	if err == nil {
		if !k.stuck.IsZero() {
			k.stuck, k.stuckBy, k.lookAt = time.Time{}, nil, now
		}
		return
	}
	k.retryAt, k.stuckBy = now.Add(retryAfter), err
	if k.stuck.IsZero() {
		k.stuck = now
		fmt.Fprintln(os.Stderr, err)
	}
	k.refused(now)
}

// refused decides what becomes of an attempt whose log cannot be written.
func (k *keeper) refused(now time.Time) {
	if k.report == nil {
		if now.Sub(k.stuck) > diskPatience {
			k.end(agented.CauseDiskFull, "its run log could not be written: "+plainCause(k.stuckBy))
		}
		return
	}
	giveReserve(".")
	if now.Sub(k.leftAt) > lastPatience && now.Sub(k.stuck) > lastPatience {
		k.giveUp()
	}
}

// giveUp ends the attempt without the lines that nobody can take.
func (k *keeper) giveUp() {
	k.gaveUp = true
	k.exit.Cause = agented.CauseDiskFull
	text := fmt.Sprintf("the last %d lines could not be written to its run log: %s", len(k.batch.recs), plainCause(k.stuckBy))
	if k.exit.Detail != "" {
		text = k.exit.Detail + "; " + text
	}
	k.exit.Detail = text
	if k.report != nil && len(k.tails) > 0 {
		k.dry = true
	}
}

// end asks the CLI to end. The first cause counts.
func (k *keeper) end(cause agented.Cause, detail string) {
	if k.asked || !k.leftAt.IsZero() {
		return
	}
	k.asked = true
	k.ending.Store(true)
	k.paused.Store(nil) // stop lets the tree go on
	k.exit.Cause, k.exit.Detail = cause, detail
	k.say("Stopping: %s.", detail)
	grace := k.spec.Grace
	go k.tree.stop(grace)
}

// stopText says why somebody asked for a stop.
func stopText(cause agented.Cause) string {
	if cause == agented.CauseStuck {
		return "it waits on its provider and does not get on"
	}
	return "a stop was asked for"
}

// interrupted is SIGTERM to the shim: the machine goes down.
func (k *keeper) interrupted() {
	const detail = "the machine is shutting down"
	k.spec.Grace = min(k.spec.Grace, DefaultGrace)
	k.end(agented.CauseShutdown, detail)
	// The signal goes to everybody, and the CLI may have been faster.
	if k.exit.Cause == agented.CauseExit && (k.exit.Signal == "SIGTERM" || k.exit.Code != nil && *k.exit.Code == 128+int(unix.SIGTERM)) {
		k.exit.Cause, k.exit.Detail = agented.CauseShutdown, detail
	}
}

// left notes the leader's end and has the rest of the tree ended.
func (k *keeper) left() {
	k.leftAt = time.Now()
	k.ending.Store(true)
	status := k.tree.reap.result()
	switch {
	case status.Signaled():
		k.exit.Signal = unix.SignalName(status.Signal())
		if k.exit.Signal == "" {
			k.exit.Signal = fmt.Sprintf("SIG%d", int(status.Signal()))
		}
	default:
		code := status.ExitStatus()
		k.exit.Code = &code
	}
	patience := linger
	switch {
	case k.asked && k.tree.killed.Load():
		k.exit.Detail += fmt.Sprintf("; it did not end within %s of SIGTERM and was killed", k.spec.Grace)
		patience = 0
	case k.asked:
		patience = min(k.spec.Grace, survivorGrace)
	}
	if !k.asked {
		k.sayKilled()
	}
	asked := k.asked
	go func() {
		r := k.tree.sweep(asked, patience)
		if !asked && status.Signaled() && status.Signal() == unix.SIGTERM {
			time.Sleep(linger / 3) // our own may be on its way: see interrupted
		}
		k.swept <- r
	}()
}

// sayKilled says in the log that somebody else ended the CLI.
func (k *keeper) sayKilled() {
	if k.exit.Signal != "" {
		k.say("The command was ended by %s.", k.exit.Signal)
	}
}

// say adds a line of the shim's own to the log.
func (k *keeper) say(format string, args ...any) {
	from := len(k.batch.arena)
	k.batch.arena = fmt.Appendf(k.batch.arena, format, args...)
	k.batch.add(time.Now(), agented.System, agented.PartWhole, false, from, 0)
}

// lastWords adds what is to say about the end, behind all output.
func (k *keeper) lastWords() {
	r := k.report
	if more := k.printed - k.logged; more > 0 && !k.gaveUp {
		k.say("Printed %s more, which are not in this log.", size(more))
	}
	if n := len(r.survivors); n > 0 {
		k.exit.Survivors = r.survivors
		k.say("Ended what the command left running: %s.", strings.Join(r.survivors, "; "))
	}
	if len(r.remain) > 0 {
		k.say("Could not be ended: %s.", strings.Join(r.remain, "; "))
	}
	for try := time.Now(); len(k.batch.recs) > 0 && time.Since(try) < lastPatience && !k.gaveUp; {
		k.retryAt = time.Time{}
		if k.append(time.Now()); len(k.batch.recs) > 0 {
			giveReserve(".")
			time.Sleep(retryAfter)
		}
	}
}

// next is when something is due.
func (k *keeper) next(now time.Time) time.Time {
	at := k.checkAt
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	if k.caughtUp(now) {
		for _, s := range k.split {
			sooner(s.quietAt())
		}
	}
	if !k.stuck.IsZero() && !k.gaveUp {
		sooner(k.retryAt)
	} else if len(k.tails) > 0 {
		sooner(k.lookAt)
	}
	if k.dirty && !k.syncing && k.stuck.IsZero() {
		sooner(k.syncAt)
	}
	if p := k.paused.Load(); p != nil {
		sooner(now.Add(max(p.Until.Sub(now.Round(0)), 0)))
	} else if k.leftAt.IsZero() && !k.asked {
		if k.spec.Timeout > 0 {
			sooner(k.started.Add(k.spec.Timeout + k.idle))
		}
		if k.spec.Silence > 0 && k.stuck.IsZero() {
			sooner(k.output.Add(k.spec.Silence))
		}
	}
	return at
}

// plainCause is the innermost reason, without the names of files.
func plainCause(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "unknown error"
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
