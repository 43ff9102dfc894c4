package api

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

// LastLine is the end of a log, for a glance at it.
type LastLine struct {
	Execution agented.ExecutionID `json:"execution_id"`
	Seq       agented.Seq         `json:"seq" doc:"Number of the line"`
	At        time.Time           `json:"timestamp"`
	Stream    agented.Stream      `json:"stream" enum:"stdout,stderr,system"`
	Content   string              `json:"content" doc:"The line, at most 500 bytes of it"`
}

const (
	lookBack      = 16  // lines among which the last one that says something is looked for
	maxGlance     = 500 // bytes
	lineEvery     = time.Second
	maxRunning    = 50 // executions whose last lines are told
	timeToLookRun = 5 * time.Second
)

// readLastLine returns the last line of a log behind the line after that is
// more than blanks; nil if there is none.
func readLastLine(layout agented.Layout, id agented.ExecutionID, after agented.Seq, m *redact.Masker) (*LastLine, error) {
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
	if err := log.SeekAfter(max(after, last-lookBack)); err != nil {
		return nil, err
	}
	var out *LastLine
	var lines []agented.LogLine
	for seen := 0; seen < lookBack; {
		if lines, err = log.Next(lines[:0], lookBack-seen, 0); err != nil || len(lines) == 0 {
			return out, err
		}
		seen += len(lines)
		for i := range lines {
			l := &lines[i]
			text := bytes.TrimSpace(l.Content)
			if len(text) == 0 {
				continue
			}
			// Masked before it is cut: half a secret is not known as one.
			text = m.MaskLine(nil, text)
			out = &LastLine{Execution: id, Seq: l.Seq, At: shown(l.At), Stream: l.Stream, Content: glance(text)}
		}
	}
	return out, nil
}

func glance(text []byte) string {
	if len(text) > maxGlance {
		text = text[:maxGlance]
		for len(text) > 0 && !utf8.Valid(text[max(0, len(text)-4):]) && !utf8.RuneStart(text[len(text)-1]) {
			text = text[:len(text)-1]
		}
	}
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}

// withLines makes a sink that also gets the last lines of what runs. end must
// be called before the sink's connection is left.
func (s *Streams) withLines(ctx context.Context, sink hub.Sink) (out hub.Sink, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	shared := &sharedSink{sink: sink}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.tellLines(ctx, shared)
	}()
	return shared, func() { cancel(); <-done }
}

// tellLines writes the last line of each execution that runs when it is
// another one.
func (s *Streams) tellLines(ctx context.Context, sink *sharedSink) {
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
			continue // it is tried again, and what runs is told by the hub anyway
		}
		now := make(map[agented.ExecutionID]agented.Seq, len(ids))
		var frames []byte
		for _, id := range ids {
			now[id] = told[id]
			line, err := readLastLine(s.Layout, id, told[id], s.masker())
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
			return // the hub will notice
		}
	}
}

// sharedSink lets two write frames to one connection.
type sharedSink struct {
	mu   sync.Mutex
	sink hub.Sink
}

func (k *sharedSink) Write(p []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sink.Write(p)
}

func (k *sharedSink) Flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sink.Flush()
}

func (k *sharedSink) send(p []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.sink.Write(p); err != nil {
		return err
	}
	return k.sink.Flush()
}

// running lists what runs, as many as their last lines are told of.
func (s *Server) running(ctx context.Context) ([]agented.ExecutionID, error) {
	ctx, cancel := context.WithTimeout(ctx, timeToLookRun)
	defer cancel()
	list, err := s.o.DB.Running(ctx, maxRunning)
	ids := make([]agented.ExecutionID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, err
}
