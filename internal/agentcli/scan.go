package agentcli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// maxTries is the maximum number of positions in a line at which an object is searched.
const maxTries = 10_000

// objects returns the JSON objects on a line of a CLI's output, in order.
//
// A CLI prints one object per line, but other writers share its output: a terminal title, a
// cleared screen, a progress line that ends with a carriage return, a byte order mark or a status
// text can precede, follow or interrupt an object, and several objects can share a line. Time is
// linear in the length of the line.
func objects(line []byte) [][]byte {
	line = bytes.TrimSpace(line)
	first := bytes.IndexByte(line, '{')
	if first < 0 {
		return nil
	}
	if first == 0 && json.Valid(line) {
		return [][]byte{line}
	}
	line = dropControls(line)
	var found [][]byte
	broken := false // an earlier object was malformed: the next "{" may be inside it
	at := 0
	for range maxTries {
		at = nextObject(line, at, broken)
		if at < 0 {
			return found
		}
		value, end, err := firstValue(line[at:])
		switch {
		case err == nil:
			found, broken = append(found, value), false
			at += end
		case errors.Is(err, io.ErrUnexpectedEOF):
			return found // it was truncated: the rest is part of it
		case end <= 2:
			at++
		default:
			// The text before the error is read again only if an object begins directly before
			// it.
			broken = broken || bytes.IndexByte(line[at:at+end], ':') >= 0
			if again := bytes.LastIndex(line[at+1:at+end], []byte(`{"`)); again >= 0 && at+1+again+4 > at+end {
				at, broken = at+1+again, false
			} else {
				at += end
			}
		}
	}
	return found
}

// nextObject returns the position of the next object at or after from, or -1. After a malformed
// object, an object that follows a colon, a comma or a bracket belongs to the malformed one.
func nextObject(line []byte, from int, broken bool) int {
	for at := from; at < len(line); at++ {
		i := bytes.IndexByte(line[at:], '{')
		if i < 0 {
			return -1
		}
		at += i
		key := bytes.TrimLeft(line[at+1:min(at+16, len(line))], " ")
		if len(key) == 0 || key[0] != '"' {
			continue
		}
		if before := bytes.TrimRight(line[max(at-16, 0):at], " "); broken && len(before) > 0 && bytes.IndexByte([]byte(":,["), before[len(before)-1]) >= 0 {
			continue
		}
		return at
	}
	return -1
}

// firstValue parses the value at the start of b and returns its length. On a syntax error the
// length is that of the text before the offending byte.
func firstValue(b []byte) (value json.RawMessage, length int, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	err = d.Decode(&value)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return value, int(d.InputOffset()), nil
	case errors.As(err, &syntax):
		return nil, max(int(syntax.Offset)-1, 1), err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, len(b), err
}

// maxEscape is the maximum length of a terminal escape sequence, in bytes.
const maxEscape = 1 << 10

// dropControls removes terminal escape sequences and all control characters, which JSON does not
// allow inside a value.
func dropControls(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == 0x1b:
			i += escapeLength(b[i:])
		case c < ' ':
			i++
		default:
			out = append(out, c)
			i++
		}
	}
	return out
}

// escapeLength returns the length of the terminal escape sequence at the start of b. For a text
// sequence without an end it returns the length of the introducer, so that the rest of the line
// is not hidden.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return len(b)
	}
	switch c := b[1]; {
	case c == '[':
		for i := 2; i < len(b); i++ {
			switch {
			case b[i] == '{', b[i] == '"', b[i] < ' ', b[i] > '~':
				return i // it was truncated
			case b[i] >= '@':
				return i + 1
			}
		}
		return len(b)
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
		for i := 2; i < len(b); i++ {
			switch {
			case b[i] == 0x07:
				return i + 1
			case b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\':
				return i + 2
			case b[i] < ' ':
				return 2
			}
		}
		return 2
	case c >= ' ' && c <= '/':
		i := 2
		for i < len(b) && b[i] >= ' ' && b[i] <= '/' {
			i++
		}
		return min(i+1, len(b))
	case c == '{' || c == '"':
		return 1
	}
	return 2
}
