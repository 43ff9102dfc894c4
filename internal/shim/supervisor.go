package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

const (
	// diskPatience is how long writes to the log may fail before the attempt is stopped.
	// Meanwhile the CLI's output stays in its pipe or file.
	diskPatience = 5 * time.Second
	// lastPatience is how long the shim retries after the end.
	lastPatience = 2 * time.Second
	retryAfter   = 100 * time.Millisecond
	// pollInterval is how often raw files are polled if the system does not report changes, and
	// fallbackPollInterval how often if it does: a fallback in case it misses an event.
	pollInterval         = 20 * time.Millisecond
	fallbackPollInterval = 2 * time.Second
	everySync            = time.Second
	everyCheck           = time.Second
	// batchBytes is the maximum size of one append.
	batchBytes = 512 << 10
	// overCap is how much more than the cap an attempt may print while it is being stopped.
	// Further output is not logged: a CLI can print two-byte lines a hundred times faster than
	// they can be numbered.
	overCap = 4 << 20
	// guardStep is the maximum number of bytes between two checks of the disk. Below tightBelow
	// free bytes, an attempt that is being stopped logs no more.
	guardStep  = 4 << 20
	tightBelow = 64 << 20
)

// supervisor supervises one running attempt. All fields except the atomics belong to the goroutine of
// run.
type supervisor struct {
	spec  Spec
	log   *runlog.Writer
	mask  *redact.Masker
	out   *outlet
	batch batch
	plain *unmaskedWriter // nil: what is masked is not kept
	split [2]*splitter
	tails []*tail // capture by file
	tree  *tree

	wake    chan struct{}      // a raw file changed
	polling bool               // no change notifications
	stops   chan agented.Cause // from the control socket
	signals chan os.Signal
	swept   chan sweepReport
	filled  chan string // why the limit of disk space is exceeded
	synced  chan [2]int64
	notes   chan string // lines of the broker
	ending  atomic.Bool // for hello
	pauses  chan pausing
	paused  atomic.Pointer[PauseState] // nil unless paused
	stillAt time.Time                  // start of the current pause
	idle    time.Duration              // duration of earlier pauses

	exit    agented.Exit
	started time.Time // with the monotonic clock
	printed int64     // bytes
	guarded int64     // value of printed at the last check of the disk
	tight   bool      // the disk is so full that nothing more is logged
	logged  int64     // bytes accepted for the log
	output  time.Time // time of the last output

	asked  bool // the tree is being stopped
	leftAt time.Time
	report *sweepReport
	dry    bool // all output was read

	buf     []byte // read buffer for raw files
	lookAt  time.Time
	looked  time.Time
	stuck   time.Time // since when writes to the log fail; zero if they succeed
	retryAt time.Time
	stuckBy error
	gaveUp  bool
	dirty   bool
	syncing bool
	syncAt  time.Time
	checkAt time.Time
	halt    halt
}

// run supervises the attempt until it has ended, all output is in the log, and none of its
// processes is alive.
func (k *supervisor) run() {
	now := time.Now()
	k.output, k.checkAt, k.syncAt, k.lookAt = now, now.Add(everyCheck), now.Add(everySync), now
	timer := time.NewTimer(0)
	defer timer.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k.watchDiskUse(ctx)
	for !k.over() {
		gone := k.tree.reap.gone
		if !k.leftAt.IsZero() {
			gone = nil
		}
		chunks := k.out.chunks
		if !k.stuck.IsZero() && !k.gaveUp {
			chunks = nil // output waits in the readers, then in the pipe
		}
		select {
		case <-timer.C:
		case <-k.wake:
			k.lookAt = time.Now()
			if soon := k.looked.Add(pace); k.lookAt.Before(k.looked.Add(pace / 2)) {
				k.lookAt = soon
			}
		case c := <-chunks:
			k.splitChunk(c)
		case <-gone:
			k.left()
		case r := <-k.swept:
			k.report = &r
			k.out.finish()
			k.lookAt = time.Now()
		case cause := <-k.stops:
			k.end(cause, stopText(cause))
		case why := <-k.filled:
			k.end(agented.CauseDiskLimit, why)
		case p := <-k.pauses:
			k.setPause(p)
		case text := <-k.notes:
			k.logf("%s", text)
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

// over reports whether nothing is left to do.
func (k *supervisor) over() bool {
	return k.report != nil && k.dry && (len(k.batch.recs) == 0 || k.gaveUp)
}

// splitChunk splits a chunk, and further chunks that are ready, into records.
func (k *supervisor) splitChunk(c chunk) {
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

// allowed returns how many of the next n bytes may be logged. It is 0 if the remaining disk space
// is needed for the database and for exit records.
func (k *supervisor) allowed(n int) int {
	if k.tight && (k.asked || !k.leftAt.IsZero()) {
		return 0
	}
	return int(min(int64(n), max(k.spec.OutputCap+overCap-k.logged, 0)))
}

// follow reads new content of the raw files.
func (k *supervisor) follow(now time.Time) {
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
			n, shrunk, err := t.poll(k.buf[:k.allowed(len(k.buf))], now)
			k.logged += int64(n)
			if shrunk {
				k.logf("The output file of %s was truncated; earlier output is already in this log.", t.split.stream)
			}
			if err != nil && !t.failed {
				t.failed = true // reported once
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
	k.lookAt = now.Add(fallbackPollInterval)
	if k.polling {
		k.lookAt = now.Add(pollInterval)
	}
	// All writers have ended, and this check came after that.
	if k.report != nil {
		for _, t := range k.tails {
			t.split.end(now)
		}
		k.dry = true
	}
}

// caughtUp reports whether all printed output was read; only then can an incomplete line be
// quiet.
func (k *supervisor) caughtUp(now time.Time) bool {
	return k.stuck.IsZero() && len(k.out.chunks) == 0 && (len(k.tails) == 0 || now.Before(k.lookAt))
}

// tick performs actions that are due.
func (k *supervisor) tick(now time.Time) {
	if k.caughtUp(now) {
		for _, s := range k.split {
			s.rest(now)
		}
	}
	running := k.leftAt.IsZero()
	s := k.spec
	k.pauseExpired(now)
	if running && !k.asked {
		still := k.paused.Load() != nil
		switch {
		case still && k.printed <= s.OutputCap: // timeouts are suspended
		case s.Timeout > 0 && !still && now.Sub(k.started)-k.idle >= s.Timeout:
			k.end(agented.CauseTimeout, "it ran longer than the limit of "+s.Timeout.String())
		case s.Silence > 0 && !still && k.stuck.IsZero() && now.Sub(k.output) >= s.Silence:
			k.end(agented.CauseSilence, "it printed nothing for "+s.Silence.String())
		case k.printed > s.OutputCap:
			k.end(agented.CauseOutputCap, "it printed more than the limit of "+format.Bytes(s.OutputCap))
		}
	}
	if k.printed > s.OutputCap+overCap {
		k.tree.noGrace("it continued to print")
	}
	if k.printed-k.guarded >= min(max(k.spec.MinFree/8, 256<<10), guardStep) {
		k.guardDisk(running)
	}
	// Combine actions that are due soon with those that are due now: a wake-up costs more than
	// the work.
	sync := k.dirty && !k.syncing && len(k.batch.recs) == 0
	if now.Before(k.checkAt) && (!sync || now.Before(k.syncAt)) {
		return
	}
	if now.Add(everyCheck / 2).After(k.checkAt) {
		k.checkAt = now.Add(everyCheck)
		k.tree.scan()
		k.tree.keepFrozen()
		if running && !k.asked && k.paused.Load() == nil {
			k.checkStopped(now)
		}
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

// guardDisk stops the attempt before the disk is too full for its log and those of others.
func (k *supervisor) guardDisk(running bool) {
	if k.spec.MinFree == 0 {
		return
	}
	k.guarded = k.printed
	space, err := disk.Measure(".")
	free := space.Free
	k.tight = err == nil && free < min(k.spec.MinFree/4, tightBelow)
	if err != nil || free >= k.spec.MinFree {
		return
	}
	if running {
		k.end(agented.CauseDiskFull, fmt.Sprintf("the disk with the run logs has only %s left; %s must stay free", format.Bytes(free), format.Bytes(k.spec.MinFree)))
	}
	if free < k.spec.MinFree/2 {
		k.tree.noGrace("the disk continued to fill up")
	}
}

// syncLog calls fsync on the log while writes continue.
func (k *supervisor) syncLog() {
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

// wasSynced frees the raw bytes that are on disk in the log.
func (k *supervisor) wasSynced(ends [2]int64) {
	k.syncing = false
	k.syncAt = time.Now().Add(everySync)
	for i, t := range k.tails {
		if ends[i] <= t.split.start { // otherwise the file was truncated meanwhile
			t.release(ends[i])
		}
	}
}

// append writes the collected records to the log.
func (k *supervisor) append(now time.Time) {
	recs := k.batch.recs
	if len(recs) == 0 || k.gaveUp || !k.stuck.IsZero() && now.Before(k.retryAt) {
		return
	}
	k.plain.write(k.log.LastSeq()+1, recs, k.batch.unmasked)
	// If a large write does not fit, a smaller one may.
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

// refused handles a failed write to the log.
func (k *supervisor) refused(now time.Time) {
	if k.report == nil {
		if now.Sub(k.stuck) > diskPatience {
			k.end(agented.CauseDiskFull, "its run log could not be written: "+plainCause(k.stuckBy))
		}
		return
	}
	releaseReserve(".")
	if now.Sub(k.leftAt) > lastPatience && now.Sub(k.stuck) > lastPatience {
		k.giveUp()
	}
}

// giveUp ends the attempt without the lines that cannot be written.
func (k *supervisor) giveUp() {
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

// end stops the CLI. The first cause counts.
func (k *supervisor) end(cause agented.Cause, detail string) {
	if k.asked || !k.leftAt.IsZero() {
		return
	}
	k.asked = true
	k.ending.Store(true)
	k.paused.Store(nil) // stop resumes the tree
	k.exit.Cause, k.exit.Detail = cause, detail
	k.logf("Stopping: %s.", detail)
	grace := k.spec.Grace
	go k.tree.stop(grace)
}

// stopText returns the reason of a stop.
func stopText(cause agented.Cause) string {
	switch cause {
	case agented.CauseStalled:
		return "it waits on its provider and makes no progress"
	case agented.CauseLingered:
		return "it had printed its final result and did not exit"
	}
	return "a stop was requested"
}

// interrupted handles SIGTERM to the shim, which means that the machine is shutting down.
func (k *supervisor) interrupted() {
	const detail = "the machine is shutting down"
	k.spec.Grace = min(k.spec.Grace, DefaultGrace)
	k.end(agented.CauseShutdown, detail)
	// The signal goes to all processes, and the CLI may have ended first.
	if k.exit.Cause == agented.CauseExit && (k.exit.Signal == "SIGTERM" || k.exit.Code != nil && *k.exit.Code == 128+int(unix.SIGTERM)) {
		k.exit.Cause, k.exit.Detail = agented.CauseShutdown, detail
	}
}

// left records the leader's exit and terminates the rest of the tree.
func (k *supervisor) left() {
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
	case k.asked && k.tree.hasty.Load():
		k.exit.Detail += "; it was killed before its grace ended, because " + k.tree.why
		patience = 0
	case k.asked && k.tree.killed.Load():
		k.exit.Detail += fmt.Sprintf("; it did not end within %s of SIGTERM and was killed", k.spec.Grace)
		patience = 0
	case k.asked:
		patience = min(k.spec.Grace, survivorGrace)
	}
	killed, reached := k.tree.group.reachedLimits()
	for _, text := range reached {
		k.logf("%s.", text)
	}
	if !k.asked {
		if k.exit.Signal == "SIGKILL" || k.exit.Code != nil && *k.exit.Code == 128+int(unix.SIGKILL) {
			k.exit.Detail = killed
		}
		k.logKilled()
	}
	asked := k.asked
	go func() {
		r := k.tree.sweep(asked, patience)
		if !asked && status.Signaled() && status.Signal() == unix.SIGTERM {
			time.Sleep(linger / 3) // our own signal may be on its way: see interrupted
		}
		k.swept <- r
	}()
}

// logKilled logs the signal that terminated the CLI.
func (k *supervisor) logKilled() {
	if k.exit.Signal != "" {
		k.logf("The command was terminated by %s.", k.exit.Signal)
	}
}

// logf adds a line of the shim to the log.
func (k *supervisor) logf(format string, args ...any) {
	from := len(k.batch.arena)
	k.batch.arena = fmt.Appendf(k.batch.arena, format, args...)
	k.batch.add(time.Now(), agented.System, agented.PartWhole, false, from, 0)
}

// maxNotes is how many lines of the broker wait to be logged; more are dropped.
const maxNotes = 64

// note adds a line of the broker to the log.
func (k *supervisor) note(text string) {
	select {
	case k.notes <- text:
	default:
	}
}

// logNotes logs the lines that wait.
func (k *supervisor) logNotes() {
	for {
		select {
		case text := <-k.notes:
			k.logf("%s", text)
		default:
			return
		}
	}
}

// logEnd adds the final lines about the end, after all output.
func (k *supervisor) logEnd() {
	r := k.report
	if more := k.printed - k.logged; more > 0 && !k.gaveUp {
		k.logf("Printed %s more, which are not in this log.", format.Bytes(more))
	}
	if n := len(r.survivors); n > 0 {
		k.exit.Survivors = r.survivors
		k.logf("Terminated processes that the command left running: %s.", strings.Join(r.survivors, "; "))
	}
	if len(r.remain) > 0 {
		k.logf("Processes that could not be terminated: %s.", strings.Join(r.remain, "; "))
	}
	for try := time.Now(); len(k.batch.recs) > 0 && time.Since(try) < lastPatience && !k.gaveUp; {
		k.retryAt = time.Time{}
		if k.append(time.Now()); len(k.batch.recs) > 0 {
			releaseReserve(".")
			time.Sleep(retryAfter)
		}
	}
}

// next returns when the next action is due.
func (k *supervisor) next(now time.Time) time.Time {
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

// plainCause returns the innermost error, without file names.
func plainCause(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "unknown error"
}
