package backend

import (
	"time"

	"github.com/agented/agented"
)

// command runs any program; its exit code is the outcome.
type command struct{}

func (command) Name() string        { return agented.BackendCommand }
func (command) Program() string     { return "" }
func (command) Install() string     { return "" }
func (command) Variables() []string { return nil }
func (command) Reader() Reader      { return &commandReader{} }

func (command) Plan(r Request) (Plan, error) {
	if len(r.Spec.Command) == 0 || r.Spec.Command[0] == "" {
		return Plan{}, agented.Errorf(agented.Invalid, "the trigger names no command to run: set command")
	}
	p := Plan{Args: append([]string(nil), r.Spec.Command...), Capture: agented.CapturePipe}
	if r.Prompt != "" {
		p.Stdin = []byte(r.Prompt) // what brought the firing, as an agent would get it
	}
	if r.Spec.TTY {
		// A full-screen program asks what it may draw; the server's own TERM
		// says nothing about our terminal.
		p.Capture = agented.CapturePTY
		p.Env = map[string]string{}
		setUnless(p.Env, r, "TERM", "xterm-256color")
	}
	return p, nil
}

// commandTail is how much of the end of a command's standard output becomes its
// result.
const commandTail = 4 << 10

type commandReader struct {
	tail tail
}

func (c *commandReader) Line(stream agented.Stream, content []byte) {
	if stream == agented.Stdout {
		c.tail.add(content)
	}
}

func (c *commandReader) Result(exit agented.Exit, _ time.Time) agented.Result {
	read := reading{program: "the command", text: c.tail.text()}
	if exit.Cause != agented.CauseExit && exit.Cause != "" {
		return read.ended(exit)
	}
	if exit.Code != nil && *exit.Code == 0 && exit.Signal == "" {
		read.outcome = agented.OutcomeSuccess
		return read.result()
	}
	read.failed()
	read.reason = howItEnded(exit)
	return read.result()
}
