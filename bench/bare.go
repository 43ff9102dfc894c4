//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bare is the physical limit of a fan-out: a server that only calls send(2) in a loop, once per
// line and reader, with the bytes that Agented would send. It stores nothing, and a slow reader
// would block all others.
const bare = "bare writes"

// bareServer starts the server with the pipe that lines come from.
func (b *bench) bareServer(f fanout) (*source, error) {
	s, err := b.newServer(bare)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, "lines")
	if err := newGate(path); err != nil {
		return nil, err
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	p := &printers{pipes: []*os.File{pipe}, stop: make(chan struct{})}
	s.args = []string{b.self, "bare", s.addr, path}
	if _, err := s.start("/health"); err != nil {
		p.Close()
		return nil, err
	}
	return &source{server: s, paths: []string{"/stream"}, begin: func() error { p.begin(f.lines(), f.rate); return nil }, end: p.Close}, nil
}

// serveBare runs the server.
func serveBare(addr, path string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var fds []int
	go func() {
		lines := bufio.NewScanner(in)
		for n := 1; lines.Scan(); n++ {
			frame := fmt.Appendf(nil, "id: %d\nevent: log\ndata: {\"seq\":%d,\"attempt\":1,\"timestamp\":%q,\"stream\":\"stdout\",\"content\":%s}\n\n",
				n, n, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"), strconv.Quote(lines.Text()))
			mu.Lock()
			for _, fd := range fds {
				_ = unix.Send(fd, frame, unix.MSG_NOSIGNAL)
			}
			mu.Unlock()
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		var b [1024]byte
		n, err := c.Read(b[:])
		if err != nil || !bytes.Contains(b[:n], []byte("GET /stream")) {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
			c.Close()
			continue
		}
		if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")); err != nil {
			return err
		}
		f, err := c.(*net.TCPConn).File()
		c.Close()
		if err != nil {
			return err
		}
		mu.Lock()
		fds = append(fds, int(f.Fd())) // keeps f open, and with it the descriptor
		keep = append(keep, f)
		mu.Unlock()
	}
}

var keep []*os.File
