//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Each measured line contains a stamp: its scheduled send time, and its number from 1. Any
// backlog of a server or of this program therefore counts as latency; the actual send time would
// exclude exactly the delay to be measured.
const stampFormat = "t=%019d.%09d"

var stampPad = strings.Repeat("x", 100-33)

// stampedLine returns a line of 100 bytes, without its end.
func stampedLine(due time.Time, n int) string {
	return fmt.Sprintf(stampFormat+" %s", due.UnixNano(), n, stampPad)
}

// dueAt returns when a source prints its nth line: sources take turns within the interval.
func dueAt(began time.Time, n, source, sources int, rate float64) time.Time {
	return began.Add(time.Duration((float64(n) + float64(source)/float64(sources)) / rate * float64(time.Second)))
}

// printers are executions of cat, each reading a named pipe to which this program writes lines:
// hundreds of them cost almost nothing, so that the server is measured.
type printers struct {
	pipes []*os.File
	stop  chan struct{}
	done  sync.WaitGroup
}

// printers starts n executions that print the lines of begin.
func (s *server) printers(n int) (*printers, []string, error) {
	p := &printers{stop: make(chan struct{})}
	var ids []string
	for i := range n {
		path := filepath.Join(s.dir, fmt.Sprintf("pipe%d", i))
		err := newGate(path)
		var pipe *os.File
		if err == nil {
			pipe, err = os.OpenFile(path, os.O_RDWR, 0)
		}
		if err != nil {
			p.Close()
			return nil, nil, err
		}
		p.pipes = append(p.pipes, pipe)
		id, err := s.run("cat", path)
		if err != nil {
			p.Close()
			return nil, nil, err
		}
		ids = append(ids, id)
	}
	return p, ids, nil
}

// begin makes each print lines at a rate in lines per second; -1 lines means until the end.
func (p *printers) begin(lines int, rate float64) {
	began := time.Now()
	p.done.Go(func() {
		for n := 1; n <= lines || lines < 0; n++ {
			for c, pipe := range p.pipes {
				due := dueAt(began, n, c, len(p.pipes), rate)
				if wait := time.Until(due); wait > 0 {
					select {
					case <-p.stop:
						return
					case <-time.After(wait):
					}
				}
				if _, err := pipe.WriteString(stampedLine(due, n) + "\n"); err != nil {
					return
				}
			}
		}
	})
}

// Close ends the executions.
func (p *printers) Close() {
	close(p.stop)
	p.done.Wait()
	for _, pipe := range p.pipes {
		pipe.Close()
	}
}

// newGate creates the named pipe at which emit waits.
func newGate(path string) error { return syscall.Mkfifo(path, 0o600) }

// openGate releases all waiting programs. Close the result once they have started.
func openGate(path string) (*os.File, error) { return os.OpenFile(path, os.O_WRONLY, 0) }

// firstWords starts an execution that writes to a named pipe, and returns the time from began
// until the data arrived. The pipe must be open for reading and writing.
func (s *server) firstWords(began time.Time, path string, pipe *os.File) (time.Duration, string, error) {
	id, err := s.run("sh", "-c", "echo here >"+path)
	if err != nil {
		return 0, "", err
	}
	if err := pipe.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, "", err
	}
	var b [16]byte
	if _, err := pipe.Read(b[:]); err != nil {
		return 0, "", errors.Join(errors.New("the execution printed nothing"), err)
	}
	return time.Since(began), id, nil
}
