// Package dotenv parses .env files in the grammar of python-dotenv.
//
// .env files contain secrets, and parsers that expand every dollar sign or reject a whole file
// for one invalid line corrupt them. This parser therefore agrees with python-dotenv on every
// case of its corpus (testdata/README.md), apart from these differences:
//
//   - A byte order mark at the start is dropped. Python makes it part of the
//     first name, which is then silently unknown.
//   - A file in UTF-16 is one problem that names the encoding, instead of an exception.
//   - A definition that contains a NUL byte or invalid UTF-8 is a problem of its
//     line and is skipped. Python rejects the whole file, or fails later.
//   - Interpolation inserts at most MaxInserted bytes; a definition that would
//     exceed that is a problem and is skipped, so that a small file cannot fill
//     the memory.
//   - A problem names the line of the definition itself, not the first of the
//     blank lines before it.
//
// The package does no input or output and does not read the environment.
package dotenv

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxInserted is the maximum number of bytes that interpolation inserts into the values of one
// file in total.
const MaxInserted = 1 << 20

// Var is one variable that the file defines.
type Var struct {
	// Name is never empty.
	Name string
	// Value is the text after unquoting and interpolation.
	Value string
	// Set is true for NAME= and false for a bare NAME, which defines nothing but hides an earlier
	// NAME=value of the same file.
	Set bool
	// Line is the line of the effective definition, counted from 1.
	Line int
}

// Problem is a skipped line. Text never contains the line's content, because it may be a secret.
type Problem struct {
	Line int
	Text string
	// Names are the words before the = of the skipped lines, in order: the
	// variables that are not defined because of the problem are among them.
	Names []string
}

// String gives "line 3: the quote is never closed".
func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// Parse parses a .env file. It returns each variable once, in the order of the first definitions,
// with the value of the last one. lookup reads the real environment, which takes precedence over
// the file inside ${NAME}; nil means an empty environment. Invalid lines are skipped and
// reported.
func Parse(data []byte, lookup func(name string) (string, bool)) ([]Var, []Problem) {
	if bytes.HasPrefix(data, []byte{0xFF, 0xFE}) || bytes.HasPrefix(data, []byte{0xFE, 0xFF}) {
		return nil, []Problem{{Line: 1, Text: "the file is UTF-16; save it as UTF-8", Names: namesIn(string(data))}}
	}
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	text := string(bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF")))
	// Python opens the file in text mode, which converts every kind of line ending to a single
	// newline, also inside quotes.
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")

	p := parser{text: text, line: 1}
	var (
		vars     []Var
		problems []Problem
		index    = make(map[string]int)
		budget   = MaxInserted
	)
	for p.pos < len(p.text) {
		from := p.pos
		name, raw, set, line, fault := p.binding()
		if fault == "" && (strings.ContainsRune(name, 0) || strings.ContainsRune(raw, 0)) {
			fault = "a NUL byte, which a variable cannot contain"
		}
		if fault == "" && !(utf8.ValidString(name) && utf8.ValidString(raw)) {
			fault = "text that is not UTF-8; save the file as UTF-8"
		}
		value := raw
		if fault == "" && set {
			var ok bool
			value, ok = expand(raw, &budget, func(name string) (string, bool) {
				if v, ok := lookup(name); ok {
					return v, true
				}
				if i, ok := index[name]; ok {
					return vars[i].Value, true
				}
				return "", false
			})
			if !ok {
				fault = "interpolation that makes the file's values longer than 1 MiB"
			}
		}
		if fault != "" {
			problems = append(problems, Problem{Line: line, Text: fault, Names: namesIn(p.text[from:p.pos])})
			continue
		}
		if name == "" {
			continue
		}
		v := Var{Name: name, Value: value, Set: set, Line: line}
		if i, ok := index[name]; ok {
			vars[i] = v
		} else {
			index[name] = len(vars)
			vars = append(vars, v)
		}
	}
	return vars, problems
}

// namesIn lists the words before the = of every line of text, or of the whole line if it has
// none. It drops NUL bytes, so that it also works for UTF-16.
func namesIn(text string) []string {
	var names []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\x00", "")) {
		before, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(strings.TrimSpace(before), "#") {
			continue
		}
		names = append(names, strings.FieldsFunc(before, func(r rune) bool {
			return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		})...)
	}
	return names
}

// parser parses text, in which every line ending is a single newline.
type parser struct {
	text string
	pos  int
	line int
}

func (p *parser) rest() string { return p.text[p.pos:] }

// advance skips n bytes and counts the lines.
func (p *parser) advance(n int) {
	p.line += strings.Count(p.text[p.pos:p.pos+n], "\n")
	p.pos += n
}

// peek returns the next byte, or 0 at the end. A NUL byte in the text looks like the end, which
// is harmless, because it starts nothing in the grammar.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// skipSpace skips white space, and also line endings if lines is true.
func (p *parser) skipSpace(lines bool) {
	n := strings.IndexFunc(p.rest(), func(r rune) bool { return !isSpace(r) || (r == '\n' && !lines) })
	if n < 0 {
		n = len(p.rest())
	}
	p.advance(n)
}

// skipLine skips the rest of the line with its end.
func (p *parser) skipLine() {
	if n := strings.IndexByte(p.rest(), '\n'); n >= 0 {
		p.advance(n + 1)
		return
	}
	p.advance(len(p.rest()))
}

// binding parses one definition. An empty name without a fault is a comment or an empty line.
// After a fault the rest of the current line is skipped, and parsing continues with the next one.
func (p *parser) binding() (name, value string, set bool, line int, fault string) {
	p.skipSpace(true)
	line = p.line
	if p.pos == len(p.text) {
		return "", "", false, line, ""
	}
	name, value, set, fault = p.definition()
	if fault != "" {
		p.skipLine()
	}
	return name, value, set, line, fault
}

func (p *parser) definition() (name, value string, set bool, fault string) {
	p.skipExport()
	if p.peek() != '#' {
		if name, fault = p.name(); fault != "" {
			return "", "", false, fault
		}
	}
	p.skipSpace(false)
	if p.peek() == '=' {
		p.advance(1)
		p.skipSpace(false)
		set = true
		if value, fault = p.value(); fault != "" {
			return "", "", false, fault
		}
	}
	p.skipSpace(false)
	if p.peek() == '#' {
		if n := strings.IndexByte(p.rest(), '\n'); n >= 0 {
			p.advance(n)
		} else {
			p.advance(len(p.rest()))
		}
	}
	if p.pos < len(p.text) && p.peek() != '\n' {
		if set {
			return "", "", false, "something follows the closing quote"
		}
		return "", "", false, "no = after the name"
	}
	p.skipLine()
	return name, value, set, ""
}

// skipExport skips "export" if white space follows it on the same line.
func (p *parser) skipExport() {
	const word = "export"
	if !strings.HasPrefix(p.rest(), word) {
		return
	}
	after := p.rest()[len(word):]
	if r, _ := utf8.DecodeRuneInString(after); isSpace(r) && r != '\n' {
		p.advance(len(word))
		p.skipSpace(false)
	}
}

func (p *parser) name() (string, string) {
	if p.peek() == '\'' {
		n := strings.IndexByte(p.rest()[1:], '\'')
		if n < 0 {
			return "", "the quote around the name is never closed"
		}
		if n == 0 {
			return "", "an empty name"
		}
		name := p.rest()[1 : 1+n]
		p.advance(n + 2)
		return name, ""
	}
	n := strings.IndexFunc(p.rest(), func(r rune) bool { return r == '=' || r == '#' || isSpace(r) })
	if n < 0 {
		n = len(p.rest())
	}
	if n == 0 {
		return "", "no name before the ="
	}
	name := p.rest()[:n]
	p.advance(n)
	return name, ""
}

func (p *parser) value() (string, string) {
	switch c := p.peek(); c {
	case '\'', '"':
		raw, ok := p.quoted(c)
		if !ok {
			return "", "the quote is never closed"
		}
		if c == '\'' {
			return unescape(raw, `\'`), ""
		}
		return unescape(raw, `\'"abfnrtv`), ""
	default:
		return p.unquoted(), ""
	}
}

// quoted parses up to the closing quote. A quote after a backslash does not close the value,
// unless there is no other one: then the last of them closes it, so that 'C:\' is a valid value.
func (p *parser) quoted(quote byte) (string, bool) {
	body := p.rest()[1:]
	last := -1
	for i := 0; i < len(body); i++ {
		if body[i] != quote {
			continue
		}
		last = i
		if i == 0 || body[i-1] != '\\' {
			break
		}
	}
	if last < 0 {
		return "", false
	}
	p.advance(last + 2)
	return body[:last], true
}

// unquoted parses to the end of the line. A # begins a comment only after white space, so that
// URLs with a fragment and A=#x stay whole.
func (p *parser) unquoted() string {
	n := strings.IndexByte(p.rest(), '\n')
	if n < 0 {
		n = len(p.rest())
	}
	part := p.rest()[:n]
	p.advance(n)
	for i := 1; i < len(part); i++ {
		if part[i] != '#' {
			continue
		}
		if r, _ := utf8.DecodeLastRuneInString(part[:i]); isSpace(r) {
			part = part[:i]
			break
		}
	}
	return strings.TrimRightFunc(part, isSpace)
}

var escapes = map[byte]byte{
	'\\': '\\', '\'': '\'', '"': '"',
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

// unescape decodes a backslash before one of the allowed characters and keeps all other
// backslashes.
func unescape(s, allowed string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(allowed, s[i+1]) >= 0 {
			i++
			b.WriteByte(escapes[s[i]])
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// expand replaces ${NAME} and ${NAME:-default}. Everything else stays unchanged, such as $NAME,
// $$ and ${NAME:?x}. It applies to values in any kind of quotes, as in Python. It deducts the
// inserted bytes from the budget, and returns false if the budget is exceeded.
func expand(s string, budget *int, lookup func(string) (string, bool)) (string, bool) {
	if !strings.Contains(s, "${") {
		return s, true
	}
	var b strings.Builder
	for {
		start := strings.Index(s, "${")
		if start < 0 {
			break
		}
		body := s[start+2:]
		stop := strings.IndexAny(body, "}:")
		if stop < 0 {
			break // no further closing brace
		}
		name, fallback, length := body[:stop], "", stop+1
		if body[stop] == ':' {
			if !strings.HasPrefix(body[stop:], ":-") {
				// Any ${ before this colon finds the same colon, so the search continues after
				// it, which keeps the time linear.
				b.WriteString(s[:start+2+stop])
				s = body[stop:]
				continue
			}
			end := strings.IndexByte(body[stop:], '}')
			if end < 0 {
				break
			}
			fallback, length = body[stop+2:stop+end], stop+end+1
		}
		b.WriteString(s[:start])
		value, ok := lookup(name)
		if !ok {
			value = fallback
		}
		if *budget -= len(value); *budget < 0 {
			return "", false
		}
		b.WriteString(value)
		s = body[length:]
	}
	b.WriteString(s)
	return b.String(), true
}

// isSpace reports white space as Python defines it, with four separators that Go does not
// include.
func isSpace(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) }
