package term

import (
	"strings"
	"unicode/utf8"
)

// Sanitiser removes everything from text that could control a terminal: escape sequences, and
// control characters other than tabs and line endings. It keeps its state between pieces, so it
// also removes a sequence that is split over pieces. The zero value is ready to use.
type Sanitiser struct {
	Colours bool // keep SGR sequences (colours and styles)
	Returns bool // keep carriage returns, which progress bars need

	state    escapeState
	seq      []byte // the current control sequence, without its introducer
	coloured bool   // the last SGR sequence kept was not a reset
	cr       bool   // a carriage return is pending
}

// escapeState is the position within an escape sequence at the end of the last piece.
type escapeState int

const (
	inText    escapeState = iota
	inEscape              // after ESC
	inInter               // after ESC and an intermediate byte
	inControl             // after CSI
	inString              // in OSC, DCS, SOS, PM or APC
)

// maxControl is the maximum size of a control sequence that is kept, in bytes.
const maxControl = 64

// Control characters; C1 characters in their Unicode form.
const (
	esc  = 0x1b
	csi  = 0x9b
	st   = 0x9c
	bell = 0x07
)

// Clean returns the next piece of a text without unsafe sequences and characters.
func (s *Sanitiser) Clean(piece string) string {
	if s.state == inText && !s.cr && plain(piece) {
		return piece
	}
	var b strings.Builder
	b.Grow(len(piece))
	for _, r := range piece {
		s.next(&b, r)
	}
	return b.String()
}

// plain reports whether s contains nothing that clean changes.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\n' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

func (s *Sanitiser) next(b *strings.Builder, r rune) {
	if s.cr {
		s.cr = false
		if r != '\n' { // alone it restarts the line; here a new line is started instead
			b.WriteByte('\n')
		}
	}
	switch {
	case r == esc:
		s.state = inEscape
		return
	case r == '\n', r == 0x18, r == 0x1a, r == st: // these end every sequence
		s.state = inText
	}
	switch s.state {
	case inEscape, inInter:
		s.escaped(r)
		return
	case inControl:
		s.control(b, r)
		return
	case inString:
		if r == bell {
			s.state = inText
		}
		return
	}
	switch {
	case r == '\n', r == '\t', r >= ' ' && r < 0x7f, r >= 0xa0:
		b.WriteRune(r)
	case r == '\r' && s.Returns:
		b.WriteByte('\r')
	case r == '\r':
		s.cr = true
	case r == csi:
		s.state, s.seq = inControl, s.seq[:0]
	case stringC1(r):
		s.state = inString
	}
}

// escaped processes a character after ESC.
func (s *Sanitiser) escaped(r rune) {
	switch {
	case s.state == inEscape && r == '[':
		s.state, s.seq = inControl, s.seq[:0]
	case s.state == inEscape && r >= '@' && r <= '_' && stringC1(r+0x40):
		s.state = inString
	case r >= ' ' && r <= '/':
		s.state = inInter
	case r < ' ':
		// Other control characters do not end the sequence.
	default:
		s.state = inText
	}
}

// stringC1 reports whether a C1 control starts a string: DCS, SOS, OSC, PM or APC.
func stringC1(r rune) bool { return r == 0x90 || r == 0x98 || r >= 0x9d && r <= 0x9f }

// control processes a character of a control sequence.
func (s *Sanitiser) control(b *strings.Builder, r rune) {
	switch {
	case r >= '@' && r <= '~':
		s.state = inText
		if r == 'm' && s.Colours && isSGR(s.seq) {
			b.WriteString("\x1b[")
			b.Write(s.seq)
			b.WriteByte('m')
			s.coloured = strings.Trim(string(s.seq), "0;") != ""
		}
	case r >= ' ' && r < '@':
		if len(s.seq) <= maxControl {
			s.seq = append(s.seq, byte(r))
		}
	case r >= utf8.RuneSelf:
		s.state = inText // not a valid character of a sequence
	}
}

// isSGR reports whether the parameters select colours and styles only. Hidden text (8) is not
// allowed.
func isSGR(params []byte) bool {
	if len(params) > maxControl {
		return false
	}
	for _, c := range params {
		if (c < '0' || c > '9') && c != ';' && c != ':' {
			return false
		}
	}
	parts := strings.Split(string(params), ";")
	for i := 0; i < len(parts); i++ {
		switch strings.TrimLeft(parts[i], "0") {
		case "38", "48", "58": // a colour follows: 5;N or 2;R;G;B
			if i+1 < len(parts) && parts[i+1] == "5" {
				i += 2
			} else if i+1 < len(parts) && parts[i+1] == "2" {
				i += 4
			}
		case "8":
			return false
		}
	}
	return true
}

// Reset returns the sequence that ends the current colours; it is "" if there are none.
func (s *Sanitiser) Reset() string {
	if !s.coloured {
		return ""
	}
	s.coloured = false
	return "\x1b[0m"
}

// Safe makes external text safe to print and keeps its tabs and lines.
func Safe(text string) string { return new(Sanitiser).Clean(text) }

// Indented is like whole for a value after a label of indent columns: further lines are aligned
// with the first.
func Indented(text string, indent int) string {
	return strings.ReplaceAll(strings.TrimRight(Safe(text), "\n"), "\n", "\n"+strings.Repeat(" ", indent))
}
