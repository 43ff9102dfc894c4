package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// wire is a client connection that writes raw HTTP.
type wire struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (g *rig) dial(from string) *wire {
	g.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", g.http.Listener.Addr().String())
	if err != nil {
		g.t.Skipf("no connection from %s: %v", from, err)
	}
	g.t.Cleanup(func() { c.Close() })
	return &wire{g.t, c, bufio.NewReader(c)}
}

func (c *wire) send(method, path, more, body string) {
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\n%s\r\n%s", method, path, staticKey, more, body)
}

func (c *wire) head() *http.Response {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func (c *wire) ask(method, path string) *http.Response {
	c.t.Helper()
	c.send(method, path, "Content-Length: 0\r\n", "")
	resp := c.head()
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// closed waits until the server has closed the connection.
func (c *wire) closed() bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := c.in.ReadByte()
	return err != nil && !strings.Contains(err.Error(), "timeout")
}

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	t.Run("idle_connection_is_closed", func(t *testing.T) {
		t.Parallel()
		g := start(t, settings{env: []string{"AGENTED_MAX_CONNECTIONS=2"}})
		first, second := g.dial("127.0.0.1"), g.dial("127.0.0.1")
		for _, c := range []*wire{first, second} {
			if r := c.ask("GET", "/api/v1/info"); r.StatusCode != 200 {
				t.Fatalf("status %d", r.StatusCode)
			}
		}
		// The handler has responded, and the server marks the connection idle a
		// moment later.
		third := g.dial("127.0.0.1")
		if r := third.ask("GET", "/api/v1/info"); r.StatusCode != 200 && r.StatusCode != 503 {
			t.Errorf("third connection: %d", r.StatusCode)
		}
		until(t, func() bool { return g.dial("127.0.0.1").ask("GET", "/api/v1/info").StatusCode == 200 })
		// Which of the two the server marks idle first depends on its
		// goroutines.
		gone := make(chan bool, 2)
		for _, c := range []*wire{first, second} {
			go func() { gone <- c.closed() }()
		}
		if !<-gone {
			t.Error("both connections that were idle are open")
		}
	})
	t.Run("silent_connections_give_way", func(t *testing.T) {
		t.Parallel()
		g := start(t, settings{env: []string{"AGENTED_MAX_CONNECTIONS=20"}})
		for range 100 {
			g.dial("127.0.0.1")
		}
		if r := g.dial("127.0.0.1").ask("POST", "/hooks/github"); r.StatusCode == 503 && r.Header.Get("Retry-After") == "5" {
			t.Errorf("a webhook: %d", r.StatusCode)
		}
		until(t, func() bool { return g.dial("127.0.0.1").ask("GET", "/login").StatusCode == 200 })
	})
	t.Run("busy_connections_stay", func(t *testing.T) {
		t.Parallel()
		g := start(t, settings{env: []string{"AGENTED_MAX_CONNECTIONS=2"}})
		for range 2 {
			c := g.dial("127.0.0.1")
			c.send("GET", "/api/v1/events/stream", "", "")
			if r := c.head(); r.StatusCode != 200 {
				t.Fatalf("status %d", r.StatusCode)
			}
		}
		r := g.dial("127.0.0.1").ask("GET", "/api/v1/info")
		if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || r.Header.Get("Content-Type") != "application/problem+json" || !r.Close {
			t.Errorf("third connection: %d %v close=%v", r.StatusCode, r.Header, r.Close)
		}
		if r := g.dial("127.0.0.1").ask("GET", "/health/liveness"); r.StatusCode != 200 || !r.Close {
			t.Errorf("health: %d, close=%v", r.StatusCode, r.Close)
		}
		if r := g.dial("127.0.0.1").ask("POST", "/hooks/trg-01jdc4q7zv8m3k2n5p6r7s8t9w"); r.StatusCode != 401 || !r.Close {
			t.Errorf("a webhook: %d, close=%v", r.StatusCode, r.Close)
		}
	})
	t.Run("one_address_leaves_room", func(t *testing.T) {
		t.Parallel()
		g := start(t, settings{env: []string{"AGENTED_MAX_CONNECTIONS=40"}})
		refused := 0
		for range 60 {
			c := g.dial("127.0.0.1")
			c.send("GET", "/api/v1/events/stream", "", "")
			if r := c.head(); r.StatusCode == 503 {
				refused++
			}
		}
		if refused < 20 {
			t.Errorf("%d of 60 streams from one address were refused, of 40 connections", refused)
		}
		if r := g.dial("127.0.0.2").ask("GET", "/api/v1/info"); r.StatusCode != 200 {
			t.Errorf("another address: %d", r.StatusCode)
		}
	})
}

func TestConnectionLimit_beyond_reserve(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_MAX_CONNECTIONS=2"}})
	for range 2 {
		c := g.dial("127.0.0.1")
		c.send("GET", "/api/v1/events/stream", "", "")
		c.head()
	}
	for range 300 {
		g.dial("127.0.0.1")
	}
	until(t, func() bool { return g.api.Connections() <= 2+64 })
}

func TestBodyBudget_slow_bodies(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	chunk := bytes.Repeat([]byte("x"), 1<<20-1)
	for range 90 {
		c := g.dial("127.0.0.1")
		c.send("POST", "/hooks/trg-nothere", "Content-Type: application/json\r\nContent-Length: 1048576\r\n", "")
		go func() { _, _ = c.Write(chunk) }() // ends with the connection
	}
	// The held bytes never exceed the share of one network, and others are
	// served.
	until(t, func() bool { held, _ := g.api.BodiesInUse(); return held > 40<<20 })
	if held, networks := g.api.BodiesInUse(); held > 50<<20 || networks != 1 {
		t.Errorf("%d bytes of %d networks are held", held, networks)
	}
	if r := g.dial("127.0.0.2").ask("POST", "/hooks/trg-nothere"); r.StatusCode != 401 {
		t.Errorf("another address: %d", r.StatusCode)
	}
	g.http.CloseClientConnections()
	until(t, func() bool { held, networks := g.api.BodiesInUse(); return held == 0 && networks == 0 })
}
