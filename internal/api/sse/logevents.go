package sse

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/runlog"
)

// Limits of the events of a line that was stored in pieces.
const (
	maxEventLine = 4 << 20       // bytes of a joined line; a longer one has no events
	maxLookBack  = 64            // lines before its last piece among which its first piece is searched
	maxBackBytes = 2 * (4 << 20) // bytes of these lines
)

// lineEvents adds the events of a line to its object. The events of a line that was stored in pieces
// are part of the object of its last piece. Its memory is bounded by maxEventLine.
type lineEvents struct {
	s       *Streams
	id      agented.ExecutionID
	known   *sync.Map // attempt to backend
	attempt int
	cli     string // the backend of that attempt
	open    runlog.Joiner
}

// events returns a function that returns new annotators for an execution.
func (s *Streams) events(id agented.ExecutionID) func() hub.Annotator {
	known := new(sync.Map)
	return func() hub.Annotator {
		return &lineEvents{s: s, id: id, known: known, open: runlog.Joiner{Max: maxEventLine + 1}}
	}
}

// Append implements [hub.Annotator].
func (v *lineEvents) Append(dst []byte, l *agented.LogLine) []byte {
	if l.Stream != agented.Stdout {
		return dst
	}
	if l.Attempt != v.attempt {
		v.attempt, v.cli = l.Attempt, v.backend(l.Attempt)
		v.open.Reset()
	}
	line := l.Content
	if l.Part != agented.PartWhole {
		if l.Part == agented.PartLast && !v.open.Begun(l.Stream) {
			v.lookBack(l.Seq)
		}
		begun := v.open.Begun(l.Stream)
		joined, complete := v.open.Add(l.Part, l.Stream, l.Content)
		if !complete || !begun || len(joined) > maxEventLine {
			return dst
		}
		if line = joined; !v.s.masker().Empty() {
			line = v.s.masker().MaskLine(nil, line) // a secret may be cut by the pieces
		}
	}
	events := slices.DeleteFunc(registry.Decode(v.cli, line), func(e agentcli.Event) bool {
		return e.Kind == agentcli.KindText || e.Kind == agentcli.KindLog
	})
	if len(events) == 0 {
		return dst
	}
	text, err := json.Marshal(events)
	if err != nil {
		return dst // the line itself is complete
	}
	return append(append(dst, `,"events":`...), text...)
}

// lookBack reads the earlier pieces of the line whose last piece has the given number. Without them,
// the line has no events.
func (v *lineEvents) lookBack(last agented.Seq) {
	log, err := runlog.OpenReader(v.s.Layout.Execution(v.id))
	if err != nil {
		return
	}
	defer log.Close()
	if err := log.SeekAfter(max(0, last-maxLookBack-1)); err != nil {
		return
	}
	var batch []agented.LogLine
	for read := 0; read < maxBackBytes; {
		if batch, err = log.Next(batch[:0], maxLookBack, 1<<20); err != nil || len(batch) == 0 {
			return
		}
		for i := range batch {
			l := &batch[i]
			if l.Seq >= last {
				return
			}
			read += len(l.Content)
			if l.Stream != agented.Stdout || l.Attempt != v.attempt || l.Part == agented.PartWhole {
				continue
			}
			v.open.Add(l.Part, l.Stream, l.Content)
		}
	}
	v.open.Reset()
}

// backend returns the backend of an attempt, or "" if it is unknown.
func (v *lineEvents) backend(attempt int) string {
	if name, ok := v.known.Load(attempt); ok {
		return name.(string)
	}
	e, err := v.s.Execution(context.Background(), v.id)
	if err != nil {
		if !errors.Is(err, agented.NotFound) {
			v.s.log().Warn("read the backend of an attempt", "execution", v.id, "attempt", attempt, "err", err)
		}
		return ""
	}
	for i := range e.Attempts {
		if a := &e.Attempts[i]; a.Number == attempt && a.Backend != "" {
			v.known.Store(attempt, a.Backend)
			return a.Backend
		}
	}
	return e.Backend
}
