package agented

import (
	"path/filepath"
	"strconv"
)

// Layout gives the paths in a data folder. It does no I/O.
type Layout struct {
	Root string // absolute path of the data folder
}

// Executions is the folder with one folder per execution.
func (l Layout) Executions() string { return filepath.Join(l.Root, "executions") }

// Execution is the folder of one execution: its run log and its attempts.
func (l Layout) Execution(id ExecutionID) string { return filepath.Join(l.Executions(), string(id)) }

// Attempt is the bundle of one attempt, the folder that server and shim
// exchange files through.
func (l Layout) Attempt(id ExecutionID, number int) string {
	return filepath.Join(l.Execution(id), "attempt-"+strconv.Itoa(number))
}

// Check is the bundle of the command that checks the outcome of an attempt.
func (l Layout) Check(id ExecutionID, number int) string {
	return filepath.Join(l.Execution(id), "check-"+strconv.Itoa(number))
}

// Work is the working directory of an execution whose trigger names none.
func (l Layout) Work(id ExecutionID) string { return filepath.Join(l.Execution(id), "work") }

// WorkDir returns the working directory of an execution's command.
func (l Layout) WorkDir(e *Execution) string {
	if r := e.Snapshot.Resume; r != nil && r.Dir != "" {
		return filepath.Clean(r.Dir)
	}
	if e.Snapshot.WorkingDir != "" {
		return filepath.Clean(e.Snapshot.WorkingDir)
	}
	return l.Work(e.ID)
}

// Temp is the folder for temporary files of an execution. It is removed when
// the execution has ended.
func (l Layout) Temp(id ExecutionID) string { return filepath.Join(l.Execution(id), "tmp") }

// Conversation is the folder of one conversation.
func (l Layout) Conversation(id ConversationID) string {
	return filepath.Join(l.Root, "conversations", string(id))
}

// Bin is the folder that comes first in the PATH of executions that run an
// agent; it contains the command for messages.
func (l Layout) Bin() string { return filepath.Join(l.Root, "bin") }

// SetupLink is the file with the one-time setup link of the first start.
func (l Layout) SetupLink() string { return filepath.Join(l.Root, "setup-link") }

// Socket is the Unix socket for client commands of the server's user.
func (l Layout) Socket() string { return filepath.Join(l.Root, "agented.sock") }

// CLIKey is the file in which servers up to version 0.9 kept an admin key for
// client commands.
func (l Layout) CLIKey() string { return filepath.Join(l.Root, "cli.key") }

// NodeID is the file with this node's id.
func (l Layout) NodeID() string { return filepath.Join(l.Root, "node.id") }

// Runtime is the file from which clients read the server's address.
func (l Layout) Runtime() string { return filepath.Join(l.Root, "server.json") }

// ServerLock is the file that the running server locks.
func (l Layout) ServerLock() string { return filepath.Join(l.Root, "server.lock") }

// SecretKey is the file with the generated SECRET_KEY.
func (l Layout) SecretKey() string { return filepath.Join(l.Root, ".secret_key") }

// FormerSecretKey is the server's own key before its rotation, until every stored value is sealed
// with the new one.
func (l Layout) FormerSecretKey() string { return l.SecretKey() + ".previous" }
