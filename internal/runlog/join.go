package runlog

import (
	"bytes"
	"iter"

	"github.com/agented/agented"
)

// Joiner joins the parts of long lines, separately for each stream.
type Joiner struct {
	Max int // maximum size of a joined line in bytes; the rest is dropped

	open map[agented.Stream]*bytes.Buffer // incomplete lines
}

// Add adds the part of a line and returns the complete line if the part ends it.
func (j *Joiner) Add(part agented.Part, stream agented.Stream, content []byte) (line []byte, complete bool) {
	if part == agented.PartWhole {
		return content, true
	}
	b := j.open[stream]
	if b == nil {
		if j.open == nil {
			j.open = map[agented.Stream]*bytes.Buffer{}
		}
		b = new(bytes.Buffer)
		j.open[stream] = b
	}
	if part == agented.PartFirst {
		b.Reset()
	}
	b.Write(content[:min(len(content), max(0, j.Max-b.Len()))])
	if part != agented.PartLast {
		return nil, false
	}
	delete(j.open, stream)
	return b.Bytes(), true
}

// Incomplete returns the lines that have begun and not ended.
func (j *Joiner) Incomplete() iter.Seq2[agented.Stream, []byte] {
	return func(yield func(agented.Stream, []byte) bool) {
		for stream, b := range j.open {
			if !yield(stream, b.Bytes()) {
				return
			}
		}
	}
}

// Reset drops the incomplete lines.
func (j *Joiner) Reset() { clear(j.open) }
