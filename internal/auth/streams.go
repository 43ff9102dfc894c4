package auth

import (
	"context"
	"sync"
	"time"

	"github.com/agented/agented"
)

// recheckEvery is the interval for checking the credentials of open streams:
// they expire, and another process may revoke them.
const recheckEvery = 30 * time.Second

// streams ends the streams of revoked credentials. It costs one look-up per
// credential at each check, and nothing per event.
type streams struct {
	a *Service

	mu      sync.Mutex // guards the fields below
	by      map[Credential]map[*Stream]struct{}
	timer   *time.Timer // set while streams are open
	stopped bool
}

// Stream is an open stream, which ends when the credential of its reader is
// revoked. Methods of a nil Stream do nothing.
type Stream struct {
	of   *streams
	by   Credential
	role agented.Role // role when it began

	mu    sync.Mutex // guards the fields below
	end   func()
	ended bool
}

// OpenStream registers a stream until its Close; end ends the stream.
func (a *Service) OpenStream(who Caller, end func()) *Stream {
	o := &a.streams
	one := &Stream{of: o, by: who.Credential, role: who.Role, end: end}
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.by[one.by]
	if all == nil {
		all = map[*Stream]struct{}{}
		o.by[one.by] = all
	}
	all[one] = struct{}{}
	if o.timer == nil && !o.stopped {
		o.timer = time.AfterFunc(recheckEvery, o.tick)
	}
	return one
}

// Close unregisters the stream.
func (one *Stream) Close() {
	if one == nil {
		return
	}
	o := one.of
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.by[one.by], one)
	if len(o.by[one.by]) == 0 {
		delete(o.by, one.by)
	}
	if len(o.by) == 0 && o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}

// EndBy replaces the function that ends the stream after its connection was
// hijacked.
func (one *Stream) EndBy(end func()) {
	if one == nil {
		return
	}
	one.mu.Lock()
	one.end = end
	ended := one.ended
	one.mu.Unlock()
	if ended {
		end()
	}
}

func (one *Stream) finish() {
	one.mu.Lock()
	one.ended = true
	end := one.end
	one.mu.Unlock()
	end()
}

// StopRechecks ends the periodic checks.
func (a *Service) StopRechecks() {
	o := &a.streams
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}

// Streaming returns how many credentials have streams open.
func (a *Service) Streaming() int {
	a.streams.mu.Lock()
	defer a.streams.mu.Unlock()
	return len(a.streams.by)
}

func (o *streams) tick() {
	o.a.Recheck(context.Background())
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil {
		o.timer.Reset(recheckEvery)
	}
}

// Recheck ends the streams whose credential is no longer valid or has a lower
// role than when they began. If the store fails, it ends none and leaves the
// decision to the next check.
func (a *Service) Recheck(ctx context.Context) {
	o := &a.streams
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	o.mu.Lock()
	all := make([]Credential, 0, len(o.by))
	for c := range o.by {
		all = append(all, c)
	}
	o.mu.Unlock()
	for _, c := range all {
		role, ok, err := a.role(ctx, c)
		if err != nil {
			a.o.Log.Debug("could not check the credentials of streams", "err", err)
			continue
		}
		var over []*Stream
		o.mu.Lock()
		for one := range o.by[c] {
			if !ok || !role.Allows(one.role) {
				over = append(over, one)
			}
		}
		o.mu.Unlock()
		for _, one := range over {
			one.finish()
		}
	}
}
