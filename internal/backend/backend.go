// Package backend knows the agent CLIs: how each is called, what environment
// it gets, and how what it prints is read. It starts nothing but `X --version`
// and reads no environment by itself.
package backend

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// Request is what a command line is made from.
type Request struct {
	Spec      agented.Spec
	Prompt    string // rendered; command gets it on standard input
	Execution agented.ExecutionID
	Attempt   int               // from 1
	Resume    string            // session to go on with, as Result.SessionID named it; empty for a new one
	Root      bool              // the CLI will run as uid 0
	Pieces    bool              // somebody reads along: answers in pieces, as they come, where the CLI can
	Self      string            // absolute path of our own program, for a backend that is part of it
	State     string            // folder in which such a backend keeps sessions
	Env       map[string]string // the child's environment so far, as ChildEnv made it
}

// Plan is how a CLI is called. It is pure: the same request gives the same
// plan, and nothing has been touched.
type Plan struct {
	Args    []string          // Args[0] is the program, to be looked up in the child's PATH
	Env     map[string]string // additions to the child's environment; they win
	Stdin   []byte            // the prompt; nil is /dev/null
	Capture agented.Capture
}

// Backend is one agent CLI, or command for any other program.
type Backend interface {
	// Name is the value of a trigger's backend field.
	Name() string
	// Program is the name of the CLI's program; empty for command, where the
	// trigger names it, and for a backend that is part of Agented.
	Program() string
	// Install says in one sentence how to install the CLI; empty for command.
	Install() string
	// Plan returns the command line. Its errors are sentences for people.
	Plan(Request) (Plan, error)
	// Reader returns a reader for the output of one attempt.
	Reader() Reader
	// Pulse returns what tells a running attempt, begun at the time, that works
	// from one that waits on a limit or a network; nil for command.
	Pulse(began time.Time) *Pulse
	// Variables lists the environment variables that belong to the CLI: its
	// credentials and where it keeps its files. Only this backend gets them.
	Variables() []string
}

// Reader reads the output of one attempt. It keeps bounded memory however much
// the CLI prints, and takes any bytes.
type Reader interface {
	// Line takes one whole line without its newline. The reader keeps nothing
	// of content after it returns.
	Line(stream agented.Stream, content []byte)
	// Result says what the attempt's end means. Call it once, after the last
	// line. Clock times that the CLI printed without a zone are taken to be in
	// now's.
	Result(exit agented.Exit, now time.Time) agented.Result
}

var catalogue = []Backend{command{}, claude{}, codex{}, gemini{}, openCode{}, anthropic{}}

// All returns every backend in the order that people see.
func All() []Backend { return append([]Backend(nil), catalogue...) }

// ByName returns the backend that a trigger's backend field names.
func ByName(name string) (Backend, bool) {
	for _, b := range catalogue {
		if b.Name() == name {
			return b, true
		}
	}
	return nil, false
}

// sessionID derives the id of an attempt's CLI session from the attempt, in
// the form of a version 8 UUID, so that it is known before the CLI says it and
// is the same however often the plan is made.
func sessionID(id agented.ExecutionID, attempt int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "agented session\n%s\n%d", id, attempt))
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// withSystem puts the system prompt in front of the prompt, for a CLI that has
// no place for it. A session that goes on has it already.
func withSystem(r Request) string {
	if r.Spec.SystemPrompt == "" || r.Resume != "" {
		return r.Prompt
	}
	return r.Spec.SystemPrompt + "\n\n---\n\n" + r.Prompt
}

// checkResume refuses a session id that a CLI could read as an option. Ids come
// from a CLI's output, which an agent can shape.
func checkResume(r Request) error {
	if r.Resume == "" {
		return nil
	}
	for i, c := range []byte(r.Resume) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_') || i >= 200 {
			return agented.Errorf(agented.Invalid, "the session to resume has an id that %s cannot have made: start afresh", r.Spec.Backend)
		}
	}
	return nil
}

// setUnless adds NAME=value unless the child's environment has that name, so
// that a trigger's own choice stands.
func setUnless(env map[string]string, r Request, pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		if _, there := r.Env[pairs[i]]; !there {
			env[pairs[i]] = pairs[i+1]
		}
	}
}
