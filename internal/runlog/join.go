package runlog

import (
	"bytes"
	"iter"

	"github.com/agented/agented"
)

// Joiner joins the parts of long lines, separately for each stream.
type Joiner struct {
	Max int // maximum size of a joined line in bytes; the rest is dropped

	open map[agented.Stream]*openLine
}

// openLine is a line whose last part is missing.
type openLine struct {
	text  bytes.Buffer
	begun bool // the first part was added
}

// Add adds the part of a line and returns the complete line if the part ends it.
func (j *Joiner) Add(part agented.Part, stream agented.Stream, content []byte) (line []byte, complete bool) {
	if part == agented.PartWhole {
		return content, true
	}
	b := j.open[stream]
	if b == nil {
		if j.open == nil {
			j.open = map[agented.Stream]*openLine{}
		}
		b = new(openLine)
		j.open[stream] = b
	}
	if part == agented.PartFirst {
		b.text.Reset()
		b.begun = true
	}
	b.text.Write(content[:min(len(content), max(0, j.Max-b.text.Len()))])
	if part != agented.PartLast {
		return nil, false
	}
	delete(j.open, stream)
	return b.text.Bytes(), true
}

// Begun reports whether the first part of an incomplete line of the stream was added.
func (j *Joiner) Begun(stream agented.Stream) bool {
	return j.open[stream] != nil && j.open[stream].begun
}

// Len returns the size of the incomplete line of the stream in bytes, or 0 if there is none.
func (j *Joiner) Len(stream agented.Stream) int {
	if b := j.open[stream]; b != nil {
		return b.text.Len()
	}
	return 0
}

// Incomplete returns the lines that have begun and not ended.
func (j *Joiner) Incomplete() iter.Seq2[agented.Stream, []byte] {
	return func(yield func(agented.Stream, []byte) bool) {
		for stream, b := range j.open {
			if !yield(stream, b.text.Bytes()) {
				return
			}
		}
	}
}

// Reset drops the incomplete lines.
func (j *Joiner) Reset() { clear(j.open) }
