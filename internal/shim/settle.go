package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Settle finishes an attempt without a shim, which was killed or lost by a restart of the
// machine. It terminates the processes that the CLI left running, as far as it can find them,
// adds the output that is missing from the log, and records the exit with [agented.CauseLost].
// p.Mask are the values to mask; p.Env is not used. If the attempt has an exit record, Settle
// only reads it. The error is Conflict while a shim is alive.
//
// Settle can be repeated after a failure or a crash: nothing is lost or logged twice.
func Settle(bundle string, p Private) (agented.Exit, error) {
	if exit, err := ReadExit(bundle); err == nil {
		return exit, disk.SyncDir(bundle)
	}
	lock, err := takeLock(bundle)
	if err != nil {
		return agented.Exit{}, fmt.Errorf("settle attempt: %w", err)
	}
	defer filelock.Release(lock)
	if exit, err := ReadExit(bundle); err == nil {
		return exit, disk.SyncDir(bundle) // it ended between the two checks
	}
	spec, err := ReadSpec(bundle)
	if damaged(err) {
		// After a power failure before the CLI's start, or with a damaged disk, the names of the
		// folders identify the processes and the log.
		spec, err = Spec{Execution: agented.ExecutionID(filepath.Base(filepath.Dir(bundle)))}, nil
		_, _ = fmt.Sscanf(filepath.Base(bundle), "attempt-%d", &spec.Attempt)
	}
	if err != nil {
		return agented.Exit{}, err
	}
	exit, err := settle(bundle, &spec, redact.New(p.Mask))
	if err != nil {
		return agented.Exit{}, fmt.Errorf("settle attempt: %w", err)
	}
	return exit, nil
}

// damaged reports whether a record is missing or invalid, as opposed to temporarily unreadable.
func damaged(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.Is(err, fs.ErrNotExist) || errors.As(err, &syntax) || errors.As(err, &kind)
}

func settle(bundle string, spec *Spec, mask *redact.Masker) (agented.Exit, error) {
	exit := agented.Exit{Cause: agented.CauseLost}
	var start begun
	_, err := os.Stat(filepath.Join(bundle, begunFile))
	hasBegun := err == nil
	_ = readJSON(filepath.Join(bundle, begunFile), &start) // only its existence matters
	exit.StartedAt = start.At
	sameBoot := start.BootID != "" && start.BootID == bootID()
	switch {
	case !hasBegun:
		exit.Detail = "its shim ended before it started the command"
	case sameBoot:
		exit.Detail = "its shim was killed while it was running"
	default:
		exit.Detail = "the machine was restarted while it was running"
	}
	var remain []string
	if sameBoot {
		exit.Survivors, remain = endOrphans(bundle, spec, mask)
	}
	log, err := openLog(filepath.Dir(bundle))
	if err != nil {
		return exit, err
	}
	defer log.Close()
	if err := drainRaw(bundle, spec, log, mask, sameBoot); err != nil {
		return exit, err
	}
	say := func(format string, args ...any) {
		if err == nil {
			err = log.AppendSystem(spec.Attempt, time.Now(), format, args...)
		}
	}
	if hasBegun {
		say("Interrupted: %s.", exit.Detail)
	}
	if len(exit.Survivors) > 0 {
		say("Terminated processes that the command left running: %s.", strings.Join(exit.Survivors, "; "))
	}
	if len(remain) > 0 {
		say("Processes that could not be terminated: %s.", strings.Join(remain, "; "))
	}
	if err = errors.Join(err, log.Close()); err != nil {
		return exit, err
	}
	exit.LastSeq = log.LastSeq()
	exit.FinishedAt = time.Now().UTC().Round(0)
	return exit, writeExit(bundle, exit)
}

// endOrphans finds the processes of an attempt whose shim was killed, terminates them and returns
// their names. The CLI is identified by pid and start time, its cgroup by name, and other
// processes by the variable in the environment of every child, unless they removed it.
func endOrphans(bundle string, spec *Spec, mask *redact.Masker) (ended, remain []string) {
	var child childRecord
	_ = readJSON(filepath.Join(bundle, childFile), &child)
	group := openCgroup(child.Cgroup, string(spec.Execution)+"-"+strconv.Itoa(spec.Attempt))
	defer group.remove()
	marker := agented.EnvExecution + "=" + string(spec.Execution)
	pause := 5 * time.Millisecond
	for deadline := time.Now().Add(killPatience); ; pause = min(2*pause, 50*time.Millisecond) {
		left := orphans(child, group, marker)
		if ended == nil {
			ended = names(left, mask)
		}
		if len(left) == 0 {
			return ended, nil
		}
		if time.Now().After(deadline) {
			return ended, names(left, mask)
		}
		group.kill()
		for _, p := range left {
			_ = p.signal(unix.SIGKILL)
		}
		time.Sleep(pause)
	}
}

func orphans(child childRecord, group *cgroup, marker string) []process {
	all, err := processes()
	if err != nil {
		return nil
	}
	inGroup := group.pids()
	var roots []int
	var found []process
	for _, p := range all {
		switch {
		case p.pid == os.Getpid():
		case child.PID != 0 && p.pid == child.PID && p.start == child.Start,
			slices.Contains(inGroup, p.pid),
			p.marked(marker):
			roots = append(roots, p.pid)
			found = append(found, p)
		}
	}
	for _, p := range descendants(all, roots) {
		if p.pid != os.Getpid() {
			found = append(found, p)
		}
	}
	return found
}

// drainRaw logs the content of the raw files that is not in the log.
func drainRaw(bundle string, spec *Spec, log *runlog.Writer, mask *redact.Masker, sameBoot bool) error {
	out := batch{attempt: spec.Attempt, keep: true}
	plain := resumeUnmasked(bundle, log.LastSeq())
	defer plain.close()
	for _, s := range []struct {
		name   string
		stream agented.Stream
	}{{stdoutFile, agented.Stdout}, {stderrFile, agented.Stderr}} {
		f, err := os.Open(filepath.Join(bundle, s.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		split := newSplitter(&out, s.stream, mask, true)
		err = continueFrom(split, f, bundle, spec, log, sameBoot)
		if err == nil {
			err = drainOne(split, f, log, plain)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// continueFrom positions the splitter after the last byte that is in the log.
func continueFrom(split *splitter, f *os.File, bundle string, spec *Spec, log *runlog.Writer, sameBoot bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	from := log.RawEnd(spec.Attempt, split.stream)
	switch {
	case from > info.Size() && sameBoot:
		return nil // the file was truncated, and the shim did not live to notice it
	case from > info.Size():
		from = info.Size() // the disk lost data
	}
	last, ok, err := lastRecord(filepath.Dir(bundle), spec, split.stream)
	if err != nil || !ok {
		split.resume(from, false)
		return err
	}
	inner := last.Part == agented.PartFirst || last.Part == agented.PartMiddle
	split.resume(from, inner)
	if !inner {
		split.mask.Resume(last.Content)
	}
	return nil
}

// lastRecord finds the attempt's last record of a stream; ok is false if there is none.
func lastRecord(dir string, spec *Spec, stream agented.Stream) (last agented.LogLine, ok bool, err error) {
	r, err := runlog.OpenReader(dir)
	if errors.Is(err, agented.NotFound) {
		return last, false, nil
	}
	if err != nil {
		return last, false, err
	}
	defer r.Close()
	end, err := r.LastSeq()
	if err != nil {
		return last, false, err
	}
	first := max(spec.FirstSeq-1, 0)
	// It is nearly always among the last records; all are read only if it is not.
	for _, after := range []agented.Seq{max(first, end-2000), first} {
		if err := r.SeekAfter(after); err != nil {
			return last, false, err
		}
		var batch []agented.LogLine
		for {
			if batch, err = r.Next(batch[:0], 1000, 4<<20); err != nil {
				return last, false, err
			}
			if len(batch) == 0 {
				break
			}
			for _, l := range batch {
				if l.Attempt == spec.Attempt && l.Stream == stream {
					last, ok = l, true
					last.Content = bytes.Clone(l.Content)
				}
			}
		}
		if ok {
			break
		}
	}
	return last, ok, nil
}

// drainOne logs the rest of a raw file.
func drainOne(split *splitter, f *os.File, log *runlog.Writer, plain *unmaskedWriter) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 4*chunkSize)
	for {
		n, err := f.ReadAt(buf, split.next())
		split.feed(buf[:n], info.ModTime())
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			break
		}
		if err := flush(log, split.out, plain); err != nil {
			return err
		}
	}
	split.end(info.ModTime())
	return flush(log, split.out, plain)
}

// flush appends the batch. If only a part is written, the next Settle continues after that.
func flush(log *runlog.Writer, out *batch, plain *unmaskedWriter) error {
	if len(out.recs) == 0 {
		return nil
	}
	plain.write(log.LastSeq()+1, out.recs, out.unmasked)
	err := log.Append(out.recs)
	out.done(len(out.recs))
	return err
}
