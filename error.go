package agented

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Kind is the class of an error. A Kind is itself an error, so that
// errors.Is(err, agented.NotFound) works and callers need not compare texts.
type Kind string

// The kinds. Their values appear in API problems and are never renamed.
const (
	Internal        Kind = "internal"
	Invalid         Kind = "invalid"
	Unauthenticated Kind = "unauthenticated"
	Denied          Kind = "denied"
	NotFound        Kind = "not_found"
	Conflict        Kind = "conflict"
	TooLarge        Kind = "too_large"
	RateLimited     Kind = "rate_limited"
	Unavailable     Kind = "unavailable"
)

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is an error with a message for the client and a separate cause for the
// log. The cause is never sent to the client.
type Error struct {
	Kind   Kind
	Text   string  // one sentence for the client: what is wrong and how to fix it
	Fields []Field // for Invalid: which fields, in the order of the input
	Cause  error   // for the log only
	// RetryAfter is how long the client must wait before it tries again; 0 if
	// that is unknown.
	RetryAfter time.Duration
}

// Field is one invalid field of an input.
type Field struct {
	Path string `json:"path"` // dotted path in the input, for example "env.PATH"
	Text string `json:"text"` // what is wrong and how to fix it; never contains the value of a secret
}

// Errorf returns an Error of the kind with a message for the client.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// InvalidFields returns an Invalid error that lists the invalid fields, or nil
// if there are none.
func InvalidFields(fields []Field) error {
	if len(fields) == 0 {
		return nil
	}
	text := fields[0].Path + ": " + fields[0].Text
	if n := len(fields) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return &Error{Kind: Invalid, Text: text, Fields: fields}
}

// Because sets the cause for the log and returns e.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Text + ": " + e.Cause.Error()
	}
	return e.Text
}

// Is reports whether target is the error's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

func (e *Error) Unwrap() error { return e.Cause }

// KindOf returns the kind of the outermost Error in err's chain, Internal for
// any other error.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// shortages maps errors of the operating system that only a person can resolve
// to their messages.
var shortages = []struct {
	errno syscall.Errno
	text  string
}{
	{syscall.EMFILE, "the server has too few open files (file descriptors): raise its limit (ulimit -n, LimitNOFILE= of a service) and restart it"},
	{syscall.ENFILE, "the machine has no more open files: raise the system's limit (fs.file-max)"},
	{syscall.ENOSPC, "the disk is full: free space on the disk of the data folder"},
	{syscall.EDQUOT, "the disk quota of the server's user is used up: free space or raise the quota"},
	{syscall.EROFS, "the disk of the data folder is mounted read-only: remount it for writing"},
	{syscall.EAGAIN, "the server has reached its limit of processes or threads: raise it (ulimit -u, TasksMax= of a service)"},
	{syscall.ENOMEM, "the machine is out of memory: free some, or lower AGENTED_MAX_CONCURRENT"},
}

// Message returns the message for the client. For an error that is not an Error
// it is "internal error", since causes can contain paths, statements or
// secrets.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != Internal {
		return e.Text
	}
	for _, s := range shortages {
		if errors.Is(err, s.errno) {
			return s.text
		}
	}
	return "internal error"
}
