package rest

import (
	lru "container/list"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/ratelimit"
)

// connTable counts the open connections and shares them fairly among networks.
// When the limit is reached it closes idle connections, the longest idle first.
type connTable struct {
	limit func() int // concurrent connections; 0 means no limit

	mu      sync.Mutex // guards the fields below
	all     map[net.Conn]*connEntry
	of      map[string]int // connections per network, including hijacked ones
	total   int
	over    int      // accepted over the limit; included in total
	waiting lru.List // of *connEntry without a request, the longest idle first
}

type connEntry struct {
	conn    net.Conn
	network string
	over    bool
	waits   *lru.Element // element in waiting; nil during a request
	since   time.Time    // start of the idle time
	fresh   bool         // it has not had a request yet
}

const (
	// shareFactor sets the fair share of a network: the number of free
	// connections times this factor. One network alone gets 7/8 of all
	// connections, two get 7/15 each, and a new network always finds some free.
	shareFactor = 7
	// freshGrace is how long a new connection may take to send its first
	// request.
	freshGrace = 200 * time.Millisecond
	// overMin is the least number of connections over the limit that still get
	// a response, which is 503.
	overMin = 64
)

func newConnTable(limit func() int) *connTable {
	return &connTable{limit: limit, all: map[net.Conn]*connEntry{}, of: map[string]int{}}
}

// add counts a new connection and reports whether it is over the limit. It
// closes other connections outside the lock, before it returns.
func (t *connTable) add(c net.Conn, now time.Time) (over bool) {
	e := &connEntry{conn: c, network: connNetwork(c), fresh: true, since: now}
	var victim *connEntry
	t.mu.Lock()
	if limit := t.limit(); limit > 0 {
		regular := t.total - t.over
		switch {
		case regular >= limit:
			victim = t.evict("", now)
			e.over = victim == nil || victim.over
		case t.of[e.network] >= shareFactor*(limit-regular):
			victim = t.evict(e.network, now)
			e.over = victim == nil || victim.over
		}
		if e.over && victim == nil && t.over >= max(overMin, limit/8) {
			if victim = t.evictOver(); victim == nil {
				victim = e // it is closed immediately
			}
		}
	}
	t.all[c] = e
	t.of[e.network]++
	t.total++
	if e.over {
		t.over++
	}
	e.waits = t.waiting.PushBack(e)
	if victim == e {
		t.remove(e)
	}
	t.mu.Unlock()
	if victim != nil {
		_ = victim.conn.Close()
	}
	return e.over
}

// evict removes the longest idle connection, of one network unless that is
// empty, from the table. It returns nil if none can be closed.
func (t *connTable) evict(network string, now time.Time) *connEntry {
	for at := t.waiting.Front(); at != nil; at = at.Next() {
		e := at.Value.(*connEntry)
		if network != "" && e.network != network || e.over || e.fresh && now.Sub(e.since) < freshGrace {
			continue
		}
		t.remove(e)
		return e
	}
	return nil
}

// evictOver removes the longest idle connection over the limit.
func (t *connTable) evictOver() *connEntry {
	for at := t.waiting.Front(); at != nil; at = at.Next() {
		if e := at.Value.(*connEntry); e.over {
			t.remove(e)
			return e
		}
	}
	return nil
}

// remove removes a connection from the table.
func (t *connTable) remove(e *connEntry) {
	if t.all[e.conn] != e {
		return
	}
	delete(t.all, e.conn)
	if e.waits != nil {
		t.waiting.Remove(e.waits)
		e.waits = nil
	}
	t.total--
	if e.over {
		t.over--
	}
	if t.of[e.network]--; t.of[e.network] == 0 {
		delete(t.of, e.network)
	}
}

// change handles http.Server's ConnState.
func (t *connTable) change(c net.Conn, state http.ConnState, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.all[c]
	if e == nil {
		return // it was evicted
	}
	switch state {
	case http.StateActive:
		if e.waits != nil {
			t.waiting.Remove(e.waits)
			e.waits = nil
		}
		e.fresh = false
	case http.StateIdle:
		if e.waits == nil {
			e.since, e.waits = now, t.waiting.PushBack(e)
		}
	case http.StateClosed, http.StateHijacked:
		t.remove(e)
	}
}

// keep counts a hijacked connection until the returned function is called.
func (t *connTable) keep(network string) (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total++
	t.of[network]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.total--
		if t.of[network]--; t.of[network] == 0 {
			delete(t.of, network)
		}
	}
}

// open returns the number of connections.
func (t *connTable) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// connNetwork returns the network of a connection's peer, which is the proxy's
// if the server is behind one.
func connNetwork(c net.Conn) string {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return ratelimit.Network(netip.Addr{})
	}
	return ratelimit.Network(at.Addr().Unmap())
}

type (
	overKey struct{}
	connKey struct{}
)

// WithConn adds the connection of a request to its context, so that a stream can
// take the connection over.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// Conn returns the connection of a request, if WithConn has added it.
func Conn(r *http.Request) (net.Conn, bool) {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	return c, ok
}

// identified is a connection whose process is known: one of the local socket.
type identified interface {
	Caller() (user string, refused error)
}

// processOf returns the process that sent a request over the local socket, or
// nil.
func processOf(r *http.Request) *auth.Process {
	c, _ := Conn(r)
	from, ok := c.(identified)
	if !ok {
		return nil
	}
	user, refused := from.Caller()
	return &auth.Process{User: user, Refused: refused}
}

// connContext counts a new connection and marks it if there are too many. It is
// http.Server's ConnContext.
func (m *Router) connContext(ctx context.Context, c net.Conn) context.Context {
	ctx = WithConn(ctx, c)
	if m.conns.add(c, time.Now()) {
		return context.WithValue(ctx, overKey{}, true)
	}
	return ctx
}

// connState tracks the states of connections. It is http.Server's ConnState.
func (m *Router) connState(c net.Conn, state http.ConnState) { m.conns.change(c, state, time.Now()) }

// Connections returns the number of open connections.
func (m *Router) Connections() int64 { return int64(m.conns.open()) }

// reserve admits a few webhook calls when all connections are in use, since
// many senders send an event only once. Each network has a share of it.
type reserve struct {
	mu  sync.Mutex // guards the fields below
	all int
	of  map[string]int
}

const (
	reserveAll     = 64
	reserveNetwork = 16
)

// enter reserves a place, if one is free, until leave is called.
func (v *reserve) enter(network string) (leave func(), ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all >= reserveAll || v.of[network] >= reserveNetwork {
		return nil, false
	}
	if v.of == nil {
		v.of = map[string]int{}
	}
	v.all++
	v.of[network]++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.all--
		if v.of[network]--; v.of[network] == 0 {
			delete(v.of, network)
		}
	}, true
}
