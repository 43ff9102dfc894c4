package postgres

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/testrun/pgtest"
)

// cutter forwards connections to a server, and cuts them at a chosen statement:
// before it reaches the server, or after, before its answer is forwarded.
type cutter struct {
	t      *testing.T
	socket string // of the server
	mu     sync.Mutex
	word   string // statement to cut at; empty: none
	after  bool
}

func (c *cutter) arm(word string, after bool) {
	c.mu.Lock()
	c.word, c.after = word, after
	c.mu.Unlock()
}

// hit reports whether the data has the statement, once.
func (c *cutter) hit(data []byte) (cut, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.word == "" || !strings.Contains(string(data), c.word) {
		return false, false
	}
	c.word = ""
	return true, c.after
}

func (c *cutter) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go c.forward(client)
	}
}

func (c *cutter) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", c.socket)
	if err != nil {
		return
	}
	defer server.Close()
	var mute sync.Mutex // held while answers are not forwarded
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				client.Close()
				return
			}
			mute.Lock()
			_, err = client.Write(buf[:n])
			mute.Unlock()
			if err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		cut, after := c.hit(buf[:n])
		if !cut {
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		if !after {
			return
		}
		mute.Lock()
		_, _ = server.Write(buf[:n])
		time.Sleep(300 * time.Millisecond) // until the server has executed it
		client.Close()
		mute.Unlock()
		return
	}
}

// The connection is lost before COMMIT arrives, or before its answer does.
func TestWrite_lost_commit(t *testing.T) {
	t.Parallel()
	url := pgtest.Shared(t).Create(t)
	_, dir, _ := strings.Cut(url, "host=")
	c := &cutter{t: t, socket: filepath.Join(dir, ".s.PGSQL.5432")}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go c.serve(l)
	name, _, _ := strings.Cut(url, "?")
	db := openURL(t, strings.Replace(name, "@/", "@"+l.Addr().String()+"/", 1)+"?sslmode=disable")
	if err := insert(db, "first"); err != nil { // prepares the statements
		t.Fatal(err)
	}

	// The connection is lost in BEGIN: another one is used.
	c.arm("BEGIN ISOLATION", false)
	if err := insert(db, "second"); err != nil {
		t.Error("lost at BEGIN: ", err)
	}
	// The batch with COMMIT does not arrive.
	c.arm("third", false)
	if err := insert(db, "third"); FaultOf(err) != database.Unreachable {
		t.Error("lost before COMMIT: ", err)
	}
	// It arrives, and its answer does not.
	c.arm("fourth", true)
	if err := insert(db, "fourth"); err != nil {
		t.Error("executed, but the answer was lost: ", err)
	}
	if got := strings.Join(stored(t, db), " "); got != "first fourth second" {
		t.Error(got)
	}
	if err := insert(db, "fifth"); err != nil {
		t.Error(err)
	}
}
