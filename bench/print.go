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

// A stamp stands in each line that a measurement follows: when the line was due
// to be printed, and its number from 1. What a server or this program is behind
// with counts as its delay, whoever is slow: a stamp of when a line could at last
// be handed over would leave out just the waiting that is to be measured.
const stampFormat = "t=%019d.%09d"

var stampPad = strings.Repeat("x", 100-33)

// stampedLine is a line of 100 bytes, its end not counted.
func stampedLine(due time.Time, n int) string {
	return fmt.Sprintf(stampFormat+" %s", due.UnixNano(), n, stampPad)
}

// dueAt is when a source prints its nth line: sources take their turns within
// the interval.
func dueAt(began time.Time, n, source, sources int, rate float64) time.Time {
	return began.Add(time.Duration((float64(n) + float64(source)/float64(sources)) / rate * float64(time.Second)))
}

// printers are executions of cat, each at a named pipe that this program writes
// lines to: hundreds of them cost next to nothing, so that it is the server that
// is measured.
type printers struct {
	pipes []*os.File
	stop  chan struct{}
	done  sync.WaitGroup
}

// printers starts n executions that print what begin makes them.
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

// begin has each print lines at a rate, in lines a second; -1 lines is until the
// end.
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

// Close lets the executions come to their end.
func (p *printers) Close() {
	close(p.stop)
	p.done.Wait()
	for _, pipe := range p.pipes {
		pipe.Close()
	}
}

// newGate makes the named pipe at which emit waits.
func newGate(path string) error { return syscall.Mkfifo(path, 0o600) }

// openGate lets all go on that wait. Close what it returns when they have.
func openGate(path string) (*os.File, error) { return os.OpenFile(path, os.O_WRONLY, 0) }

// firstWords has an execution write to a named pipe, and returns how long after
// began that came. The pipe must be open for reading and writing.
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
		return 0, "", errors.Join(errors.New("the execution said nothing"), err)
	}
	return time.Since(began), id, nil
}
