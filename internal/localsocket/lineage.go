package localsocket

import (
	"errors"
	"os"

	"github.com/agented/agented"
)

// shimName is the process name of the supervisors of executions.
const shimName = "agshim"

// refusal is the error for a process that may not use the socket.
func refusal(format string, args ...any) error {
	return agented.Errorf(agented.Denied, format+"; use an API key", args...)
}

// errChanged reports that processes ended or started during the examination.
var errChanged = errors.New("the processes have changed")

// process is an entry of the process table.
type process struct {
	pid, parent int
	start       uint64 // increases with the time of the start; unique for a pid
	name        string
	ended       bool // it waits for its parent only
}

// admit returns an error unless the process at the other end may use the
// server, which runs as the user uid.
func admit(p *peer, uid int) error {
	switch {
	case p.uid != uid && p.uid != 0:
		return refusal("the local socket is for the user of the server (uid %d) and root, and this process runs as uid %d", uid, p.uid)
	case p.pid <= 0:
		return refusal("this process runs in another container or process namespace, where the server cannot see which program it is")
	}
	for range 20 {
		err := walk(p, uid)
		if !errors.Is(err, errChanged) {
			return err
		}
	}
	return refusal("the processes above process %d change too fast to be examined", p.pid)
}

// walk examines the process and its ancestors. An ancestor that ends meanwhile
// gives its children to another one, so each step is checked again.
func walk(p *peer, uid int) error {
	first, err := look(p.pid)
	if err != nil || first.ended {
		switch {
		case p.gone():
			return refusal("process %d has ended", p.pid)
		case err == nil:
			return refusal("process %d is ending", p.pid)
		case p.uid == 0 && uid != 0:
			return nil // root's processes can be hidden from the server, and root may do anything
		}
		return refusal("process %d is hidden from the server", p.pid)
	}
	if confined(p.pid) {
		return insideExecution(first, "it is in the control group of one")
	}
	at := first
	for {
		switch {
		case at.name == shimName:
			return insideExecution(first, "it was started by one")
		case marked(at.pid):
			return insideExecution(first, "its environment is that of one")
		case ofServer(at.pid):
			return insideExecution(first, "the server is its parent")
		}
		if at.parent <= 0 {
			break
		}
		parent, err := look(at.parent)
		if again, lost := look(at.pid); lost != nil || again.start != at.start || again.parent != at.parent {
			return errChanged
		}
		if err != nil {
			hidden, exists := hiddenProcess(at.parent)
			switch {
			case !exists:
				return errChanged
			case hidden:
				return insideExecution(first, "its parent is hidden as one")
			}
			break // of another user, and so is what is above it
		}
		if parent.start > at.start {
			return errChanged // the pid was used again
		}
		at = parent
	}
	if again, err := look(p.pid); err != nil || again.start != first.start || again.ended || p.gone() {
		return refusal("process %d has ended", p.pid)
	}
	return nil
}

func insideExecution(p process, why string) error {
	return refusal("process %d (%s) belongs to an execution (%s), and an agent cannot act as an administrator", p.pid, p.name, why)
}

// ofServer reports whether a process is the server or its parent of the same
// program: only processes of executions that have lost their supervisor become
// their children.
func ofServer(pid int) bool {
	if pid == os.Getpid() {
		return true
	}
	if pid != os.Getppid() {
		return false
	}
	self, err := look(os.Getpid())
	parent, parentErr := look(pid)
	return err == nil && parentErr == nil && self.name == parent.name
}
