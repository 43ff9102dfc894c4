// Package logview prints the log of an execution for people, or line by line as JSON.
package logview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

// Printer writes the lines of a log. Output of a command goes to the stream it was written to, so
// that a followed command can be piped like the command itself. Output of an agent is formatted
// for people.
type Printer struct {
	o   Options
	err error

	attempt  int // attempt of the view
	backends map[int]string
	view     *agentView // nil if the attempt is not an agent's
	streams  map[string]*stream
}

// Options configures a Printer.
type Options struct {
	JSON bool
	Raw  bool // print an agent's output as its CLI prints it, with escape sequences
	// Backends returns the backend of each attempt; the number 0 stands for attempts that it does
	// not contain.
	Backends func() (map[int]string, error)
}

// stream is standard output or standard error.
type stream struct {
	to    *os.File
	clean *term.Sanitiser // nil prints bytes unchanged
}

// New returns a Printer to standard output and standard error.
func New(o Options) *Printer {
	p := &Printer{o: o, attempt: -1, streams: map[string]*stream{
		"stdout": {to: os.Stdout}, "stderr": {to: os.Stderr},
	}}
	for _, s := range p.streams {
		if !o.Raw && term.IsTerminal(s.to) {
			s.clean = &term.Sanitiser{Colours: true, Returns: true}
		}
	}
	return p
}

// Line prints one line of the log.
func (p *Printer) Line(l client.Line) {
	if p.o.JSON {
		b, err := json.Marshal(l)
		if err == nil {
			_, err = fmt.Printf("%s\n", b)
		}
		p.note(err)
		return
	}
	part := l.NoEOL || l.Part == "first" || l.Part == "middle"
	s := p.streams[l.Stream]
	if s == nil {
		p.Notice("agented: " + l.Content)
		return
	}
	if v := p.viewOf(l.Attempt); v != nil && l.Stream == "stdout" {
		v.line(l.Content, part && !l.NoEOL)
		p.note(v.err)
		return
	}
	end := "\n"
	if part {
		end = ""
	}
	text := l.Content + end
	if s.clean != nil {
		text = s.clean.Clean(text)
	}
	_, err := io.WriteString(s.to, text)
	p.note(err)
}

func (p *Printer) note(err error) {
	if p.err == nil {
		p.err = err
	}
}

// Notice prints a line of Agented itself.
func (p *Printer) Notice(text string) {
	p.resetColours()
	fmt.Fprintln(os.Stderr, term.Paint(os.Stderr, term.Faint, term.Indented(text, 9)))
}

// Err returns the first error of writing.
func (p *Printer) Err() error { return p.err }

// End flushes the output at the end of the log, and resets colours.
func (p *Printer) End() {
	if p.view != nil {
		p.view.end()
		p.note(p.view.err)
		p.view, p.attempt = nil, -1
	}
	p.resetColours()
}

func (p *Printer) resetColours() {
	for _, s := range p.streams {
		if s.clean != nil {
			_, err := io.WriteString(s.to, s.clean.Reset())
			p.note(err)
		}
	}
}

// viewOf returns the view of an attempt. It is nil for attempts that are not an agent's, and with
// --raw.
func (p *Printer) viewOf(attempt int) *agentView {
	if p.o.Raw || attempt == p.attempt {
		return p.view
	}
	if p.view != nil {
		p.view.end()
	}
	p.attempt, p.view = attempt, nil
	if name := p.backendOf(attempt); name != "" && name != agented.BackendCommand {
		p.view = newAgentView(name, os.Stdout, func(colour, s string) string { return term.Paint(os.Stdout, colour, s) })
	}
	return p.view
}

// backendOf returns the backend that an attempt ran on. A fallback account may have led to a
// backend other than the trigger's.
func (p *Printer) backendOf(attempt int) string {
	if name, ok := p.backends[attempt]; ok {
		return name
	}
	backends, err := p.o.Backends()
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			p.Notice("agented: the output is printed unformatted: " + agented.Message(err))
		}
		return ""
	}
	if _, ok := backends[attempt]; !ok {
		backends[attempt] = backends[0]
	}
	p.backends = backends
	return p.backends[attempt]
}
