package agented

import (
	"errors"
	"fmt"
)

// Kind classes an error for whoever has to answer it. A Kind is itself an
// error, so that errors.Is(err, agented.NotFound) works and nobody compares
// texts.
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

// Error is an error with a sentence for the asker and, apart from it, a cause
// for the log. The cause never reaches the asker.
type Error struct {
	Kind   Kind
	Text   string  // one sentence for the asker: what is wrong and the mend
	Fields []Field // for Invalid: which fields, in the order of the input
	Cause  error   // for the log only
}

// Field is one refused field of an input.
type Field struct {
	Path string `json:"path"` // dotted path in the input, for example "env.PATH"
	Text string `json:"text"` // what is wrong with it and the mend; never the value of a secret
}

// Errorf returns an Error of the kind with a sentence for the asker.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// InvalidFields returns an Invalid error that lists the refused fields, or nil
// when there are none.
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

// Because adds the cause for the log and returns e.
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

// Message returns the sentence that the asker may see. For anything but an
// Error that is "internal error": causes can hold paths, statements, secrets.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != Internal {
		return e.Text
	}
	return "internal error"
}
