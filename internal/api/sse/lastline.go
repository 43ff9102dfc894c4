package sse

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// LastLine is the last line of a log, for previews.
type LastLine struct {
	Execution agented.ExecutionID `json:"execution_id"`
	Seq       agented.Seq         `json:"seq" doc:"Line number"`
	At        time.Time           `json:"timestamp"`
	Stream    agented.Stream      `json:"stream" enum:"stdout,stderr,system"`
	Content   string              `json:"content" doc:"The line, truncated to 500 bytes"`
}

const (
	lastLineSearch = 16  // lines to search for the last one that is not blank
	maxLastLine    = 500 // bytes
	lineEvery      = time.Second
)

// ReadLastLine returns the last line of a log after line after that is not
// blank, or nil if there is none.
func ReadLastLine(layout agented.Layout, id agented.ExecutionID, after agented.Seq, m *redact.Masker) (*LastLine, error) {
	log, err := runlog.OpenReader(layout.Execution(id))
	if errors.Is(err, agented.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer log.Close()
	last, err := log.LastSeq()
	if err != nil || last <= after {
		return nil, err
	}
	if err := log.SeekAfter(max(after, last-lastLineSearch)); err != nil {
		return nil, err
	}
	var out *LastLine
	var lines []agented.LogLine
	for seen := 0; seen < lastLineSearch; {
		if lines, err = log.Next(lines[:0], lastLineSearch-seen, 0); err != nil || len(lines) == 0 {
			return out, err
		}
		seen += len(lines)
		for i := range lines {
			l := &lines[i]
			text := bytes.TrimSpace(l.Content)
			if len(text) == 0 {
				continue
			}
			// Mask before truncating: the masker does not recognise half a
			// secret.
			text = m.MaskLine(nil, text)
			out = &LastLine{Execution: id, Seq: l.Seq, At: l.At.UTC().Truncate(time.Microsecond), Stream: l.Stream, Content: glance(text)}
		}
	}
	return out, nil
}

func glance(text []byte) string {
	if len(text) > maxLastLine {
		n := maxLastLine
		for i := 0; i < utf8.UTFMax && !utf8.RuneStart(text[n]); i++ {
			n--
		}
		text = text[:n]
	}
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}

// withLines returns a sink that also receives the last lines of running
// executions. Call end before the sink's connection is released.
func (s *Streams) withLines(ctx context.Context, sink hub.Sink) (out hub.Sink, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	shared := &lockedSink{sink: sink}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.sendLastLines(ctx, shared)
	}()
	return shared, func() { cancel(); <-done }
}

// sendLastLines writes the last line of each running execution if it has changed.
func (s *Streams) sendLastLines(ctx context.Context, sink *lockedSink) {
	told := map[agented.ExecutionID]agented.Seq{}
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ids, err := s.Running(ctx)
		if err != nil {
			continue // retried, and the hub reports running executions anyway
		}
		now := make(map[agented.ExecutionID]agented.Seq, len(ids))
		var frames []byte
		for _, id := range ids {
			now[id] = told[id]
			line, err := ReadLastLine(s.Layout, id, told[id], s.masker())
			if err != nil || line == nil {
				continue
			}
			now[id] = line.Seq
			b, err := json.Marshal(line)
			if err != nil {
				continue
			}
			frames = append(append(append(frames, "event: line\ndata: "...), b...), "\n\n"...)
		}
		told = now
		if len(frames) > 0 && sink.send(frames) != nil {
			return // the hub detects the error
		}
	}
}

// lockedSink lets two goroutines write frames to one connection.
type lockedSink struct {
	mu   sync.Mutex
	sink hub.Sink
}

func (k *lockedSink) Write(p []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sink.Write(p)
}

func (k *lockedSink) Flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sink.Flush()
}

func (k *lockedSink) send(p []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.sink.Write(p); err != nil {
		return err
	}
	return k.sink.Flush()
}
