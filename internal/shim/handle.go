package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

// ErrLost is returned if an attempt's shim was killed: it has ended and left no exit record. Call
// [Settle] for such an attempt.
var ErrLost = errors.New("the attempt's shim has ended without an exit record")

// Handle is a server's hold on an attempt. Its methods may be called from
// several goroutines. It keeps nothing open, so it need not be closed.
type Handle struct {
	bundle    string
	execution agented.ExecutionID
	pid       int
	paused    *PauseState // when it was adopted
}

// PID is the CLI's process id, for people; 0 when it did not start or is not
// known.
func (h *Handle) PID() int { return h.pid }

// dialPatience is how long a shim that lives may not answer: it opens its
// socket some milliseconds after it got the lock.
const dialPatience = 5 * time.Second

// Adopt takes hold of a running attempt that another process started. It asks
// the shim who it is.
func Adopt(bundle string) (*Handle, error) {
	h := &Handle{bundle: bundle}
	var r reply
	for deadline := time.Now().Add(dialPatience); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if r, err = h.request(request{Verb: "hello"}, dialPatience); err != nil {
			return nil, fmt.Errorf("adopt attempt: %w", err)
		}
		// One that is starting may still wait for what its server never sent, and
		// then it ends without having begun: that is not to be taken for a loss.
		if r.State != "starting" {
			break
		}
		if time.Now().After(deadline) {
			return nil, errors.New("adopt attempt: its shim does not get on with the start")
		}
	}
	spec, err := ReadSpec(bundle)
	if err != nil {
		return nil, err
	}
	if r.Execution != spec.Execution || r.Attempt != spec.Attempt {
		return nil, fmt.Errorf("adopt attempt: the shim has %s attempt %d, the bundle %s attempt %d",
			r.Execution, r.Attempt, spec.Execution, spec.Attempt)
	}
	h.execution, h.pid, h.paused = r.Execution, r.ChildPID, r.Paused
	return h, nil
}

// Begun returns when the attempt began, according to its bundle, or the zero time if that cannot
// be read.
func (h *Handle) Begun() time.Time {
	var b begun
	_ = readJSON(filepath.Join(h.bundle, begunFile), &b)
	return b.At
}

// WasPaused returns the pause of the attempt at its adoption, or nil.
func (h *Handle) WasPaused() *PauseState { return h.paused }

// Wait returns the exit of the attempt, once its record is on disk and the log is complete.
// Cancelling ctx ends the wait, not the attempt. The error is [ErrLost] if the shim was killed.
func (h *Handle) Wait(ctx context.Context) (agented.Exit, error) {
	for {
		exit, err := h.wait(ctx)
		if err == nil || ctx.Err() != nil {
			return exit, errors.Join(err, ctx.Err())
		}
		// The connection broke, or there was none. If the lock is held, the shim is alive;
		// otherwise the record exists or never will. Check the lock before the record, so that an
		// end in between is noticed.
		locked, lockErr := isLocked(h.bundle)
		exit, err = ReadExit(h.bundle)
		switch {
		case err == nil:
			// The shim may be about to sync it; a second sync is harmless.
			return exit, disk.SyncDir(h.bundle)
		case !errors.Is(err, agented.NotFound):
			return agented.Exit{}, err
		case lockErr != nil:
			return agented.Exit{}, lockErr
		case !locked:
			return agented.Exit{}, ErrLost
		}
		select {
		case <-ctx.Done():
			return agented.Exit{}, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wait sends a wait request.
func (h *Handle) wait(ctx context.Context) (agented.Exit, error) {
	conn, err := dialUnix(h.bundle, socketFile)
	if err != nil {
		return agented.Exit{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := send(conn, request{Verb: "wait"}); err != nil {
		return agented.Exit{}, err
	}
	r, err := receive(conn)
	if err != nil {
		return agented.Exit{}, err
	}
	if r.Ended == nil {
		return agented.Exit{}, fmt.Errorf("shim: %s", r.Error)
	}
	return *r.Ended, nil
}

// Stop asks the shim to stop the attempt: SIGTERM to all its processes, SIGKILL after the grace
// of its spec. It does not wait for the end; use Wait. The first cause counts. An attempt that
// has ended is no error.
func (h *Handle) Stop(cause agented.Cause) error {
	return h.StopWithin(context.Background(), cause)
}

// StopWithin is like Stop and retries until ctx ends.
func (h *Handle) StopWithin(ctx context.Context, cause agented.Cause) error {
	_, err := h.requestWithin(ctx, request{Verb: "stop", Cause: cause}, dialPatience)
	if err == nil {
		return nil
	}
	if locked, lockErr := isLocked(h.bundle); lockErr == nil && !locked {
		return nil // the shim has ended
	}
	if _, exitErr := ReadExit(h.bundle); exitErr == nil {
		return nil
	}
	return fmt.Errorf("stop attempt: %w", err)
}

// request sends one request and returns the reply. It retries while a shim is alive but not listening
// yet.
func (h *Handle) request(r request, patience time.Duration) (reply, error) {
	return h.requestWithin(context.Background(), r, patience)
}

func (h *Handle) requestWithin(ctx context.Context, r request, patience time.Duration) (reply, error) {
	for deadline := time.Now().Add(patience); ; {
		answer, err := h.requestOnce(ctx, r)
		notThere := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, io.EOF)
		if err == nil || !notThere || ctx.Err() != nil || time.Now().After(deadline) {
			return answer, err
		}
		if locked, lockErr := isLocked(h.bundle); lockErr != nil || !locked {
			return answer, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *Handle) requestOnce(ctx context.Context, r request) (reply, error) {
	conn, err := dialUnix(h.bundle, socketFile)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(dialPatience))
	if err := send(conn, r); err != nil {
		return reply{}, err
	}
	answer, err := receive(conn)
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("shim: %s", answer.Error)
	}
	return answer, err
}

func send(conn net.Conn, r request) error {
	r.Version = Version
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(b, '\n'))
	return err
}

func receive(conn net.Conn) (reply, error) {
	var r reply
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<20)).ReadBytes('\n')
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(line, &r)
}
