package dispatch

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backoff"
)

// Delays between attempts to stop an execution whose shim does not answer.
const (
	stopAgain   = time.Second
	stopSlowest = 30 * time.Second
)

// Stop stops the execution's attempt if it runs on this node. It returns at once; the request is
// repeated until the shim answers or the attempt has ended.
func (d *Dispatcher) Stop(id agented.ExecutionID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.running[id]
	if w == nil {
		return
	}
	w.stop = true
	if w.cut != nil {
		w.cut()
	}
	if w.handle != nil { // otherwise begin checks w.stop
		d.stopSoon(id, w)
	}
}

// stopSoon starts the goroutine that stops an attempt, at most once. The caller holds the lock.
func (d *Dispatcher) stopSoon(id agented.ExecutionID, w *work) {
	if w.stopping || d.closed {
		return // the next server finds the stored request
	}
	w.stopping = true
	h := w.handle
	d.stoppers.Add(1)
	go func() {
		defer d.stoppers.Done()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-w.done:
			case <-d.quit:
			case <-ctx.Done():
			}
			cancel()
		}()
		for pause := (backoff.Backoff{Pause: stopAgain, Longest: stopSlowest}); ; {
			err := h.StopWithin(ctx, agented.CauseCancelled)
			if err == nil || ctx.Err() != nil {
				return
			}
			d.o.Log.Warn("stop: the shim of the attempt does not answer", "execution", id, "err", err, "retry_in", pause.Pause.String())
			if pause.Wait(ctx) != nil {
				return
			}
		}
	}()
}

// endStops ends the goroutines of stopSoon. Stop requests are stored, so nothing is lost.
func (d *Dispatcher) endStops() {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if !closed {
		close(d.quit)
	}
	d.stoppers.Wait()
}
