package backend

import (
	"time"

	"github.com/agented/agented"
)

// codexReader reads what the CLI prints.
type codexReader struct {
	read  reading
	final answer
	other said
}

func (c *codexReader) Line(stream agented.Stream, content []byte) { c.other.add(content) }

func (c *codexReader) Result(exit agented.Exit, now time.Time) agented.Result {
	if !byItself(exit) {
		return c.read.ended(exit)
	}
	return c.read.result()
}
