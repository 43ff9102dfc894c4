package redact

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
)

// newRaw indexes the values themselves, at every offset.
func newRaw(lines []string) *pieces {
	p := new(pieces)
	for _, line := range lines {
		if len(line) < minPieces {
			continue
		}
		id := uint32(len(p.encodings))
		p.encodings = append(p.encodings, []byte(line))
		for at := 0; at+gramLen <= len(line); at++ {
			p.grams = append(p.grams, gram{binary.LittleEndian.Uint64([]byte(line[at : at+gramLen])), id, uint32(at)})
		}
	}
	return p.sealed()
}

// inDump are the characters of a row of bytes in hex, as printed by xxd,
// hexdump, od and programs that escape every byte: "6769 7468", "67:69",
// "%67%69", "\x67\x69", "0x67, 0x69".
var inDump = func() (t [256]uint8) {
	for _, c := range []byte("0123456789abcdefABCDEF :%,-x\\") {
		t[c] = 1
	}
	return t
}()

// minDump is the length of the shortest decoded row: eight bytes in four
// groups.
const minDump = 19

// dumps masks secrets in rows of bytes in hex, including the column of
// characters that some programs print after them.
func (m *Masker) dumps(s *scan) {
	if m.raw == nil {
		return
	}
	t := s.t
	// A row has four consecutive characters of inDump at one of these offsets.
	const step = minDump - 3
	for i := step; i < len(t); i += step {
		four := t[i-3 : i+1 : i+1]
		if inDump[four[0]]&inDump[four[1]]&inDump[four[2]]&inDump[four[3]] == 0 {
			continue
		}
		lo, hi := i-3, i+1
		for lo > 0 && inDump[t[lo-1]] != 0 {
			lo--
		}
		for hi < len(t) && inDump[t[hi]] != 0 {
			hi++
		}
		if hi-lo >= minDump && m.raw.mayDump(t[lo:hi]) {
			m.dump(s, lo, hi)
		}
		i = hi
	}
}

// mayDump reports whether eight consecutive bytes of the decoded row may belong
// to a value. It rejects nearly every row of numbers in a log.
func (p *pieces) mayDump(row []byte) bool {
	var chars uint64
	count := 0
	for i := 0; i < len(row); {
		n := digitsAt(row, i)
		switch {
		case n == 0:
			i++
			continue
		case isPrefix(row, i, n):
		case n%2 != 0:
			count = 0
		default:
			for k := i; k < i+n; k += 2 {
				b := nibbles[row[k]]<<4 | nibbles[row[k+1]]
				if !p.bytes[b] {
					count = 0 // no value has this byte
					continue
				}
				chars = chars>>8 | uint64(b)<<56
				if count++; count >= gramLen && p.may(chars) && p.has(chars) {
					return true
				}
			}
		}
		i += n
	}
	return false
}

// has reports whether chars is in the index.
func (p *pieces) has(chars uint64) bool {
	return slices.ContainsFunc(p.near(chars), func(g gram) bool { return g.chars == chars })
}

// nibbles has the value of every hex digit, and notHex for other characters.
var nibbles = func() (t [256]uint8) {
	for c := range t {
		t[c] = notHex
		if v := unhex(byte(c)); v >= 0 {
			t[c] = uint8(v)
		}
	}
	return t
}()

const notHex = 0xff

// digitsAt returns the number of consecutive hex digits at i of a row.
func digitsAt(row []byte, i int) int {
	n := 0
	for i+n < len(row) && nibbles[row[i+n]] != notHex {
		n++
	}
	return n
}

// isPrefix reports whether the n digits at i of a row are the 0 of "0x67".
func isPrefix(row []byte, i, n int) bool {
	return n == 1 && row[i] == '0' && i+1 < len(row) && row[i+1] == 'x'
}

// dump decodes the row t[lo:hi] and masks secrets in it.
func (m *Masker) dump(s *scan, lo, hi int) {
	var (
		decoded []byte
		at      []int // position of each byte
		flush   = func() {
			m.decoded(s, decoded, at, hi)
			decoded, at = decoded[:0], at[:0]
		}
	)
	row := s.t[:hi]
	for i := lo; i < hi; {
		n := digitsAt(row, i)
		switch {
		case n == 0:
			i++
			continue
		case isPrefix(row, i, n):
		case n%2 != 0:
			flush()
		default:
			for k := i; k < i+n; k += 2 {
				decoded, at = append(decoded, nibbles[row[k]]<<4|nibbles[row[k+1]]), append(at, k)
			}
		}
		i += n
	}
	flush()
}

// decoded masks secrets in decoded bytes; at contains the position of each in
// the text, and end is the end of the row.
func (m *Masker) decoded(s *scan, b []byte, at []int, end int) {
	for i := 0; i+gramLen <= len(b); {
		lo, hi, ok := m.raw.around(b, i)
		if !ok {
			i++
			continue
		}
		s.spans = append(s.spans, span{at: at[lo], lo: at[lo], hi: at[hi-1] + 2})
		// The column of characters, in which other bytes are shown as dots.
		chars := bytes.Clone(b[lo:hi])
		for k, c := range chars {
			if c < ' ' || c > '~' {
				chars[k] = '.'
			}
		}
		from := at[hi-1] + 2
		if k := bytes.Index(s.t[from:], chars); k >= 0 {
			s.spans = append(s.spans, span{at: from + k, lo: from + k, hi: from + k + len(chars)})
		}
		i = hi
	}
}

// around returns the longest piece of a value around the gram at i of b.
func (p *pieces) around(b []byte, i int) (lo, hi int, ok bool) {
	chars := binary.LittleEndian.Uint64(b[i:])
	if !p.may(chars) {
		return 0, 0, false
	}
	for _, g := range p.near(chars) {
		if g.chars != chars {
			continue
		}
		l, r := p.extend(b, i, g)
		if !ok || r-l > hi-lo {
			lo, hi, ok = l, r, true
		}
	}
	return lo, hi, ok
}

// coloured masks secrets that contain colours and other terminal control
// sequences, by examining the line without them.
func (m *Masker) coloured(s *scan) {
	if len(m.pats) == 0 || !sequences(s.t) {
		return
	}
	buf := bareLines.Get().(*bareLine)
	defer bareLines.Put(buf)
	bare, at := buf.text[:0], buf.at[:0]
	for i := 0; i < len(s.t); {
		if n := sequence(s.t[i:]); n > 0 {
			i += n
			continue
		}
		bare, at = append(bare, s.t[i]), append(at, i)
		i++
	}
	buf.text, buf.at = bare, at
	if len(bare) == len(s.t) {
		return
	}
	inner := scan{t: bare, final: true, plain: true}
	m.scan(&inner)
	for _, x := range inner.spans {
		if at[x.hi-1]-at[x.lo] > x.hi-1-x.lo { // it contains a sequence
			s.spans = append(s.spans, span{at: at[x.lo], lo: at[x.lo], hi: at[x.hi-1] + 1})
		}
	}
}

// A bareLine is a line without its control sequences; at contains the position
// of each byte in the line.
type bareLine struct {
	text []byte
	at   []int
}

var bareLines = sync.Pool{New: func() any { return new(bareLine) }}

// sequences reports whether t may contain a control sequence: a bracket after
// one of the forms of the escape character.
func sequences(t []byte) bool {
	for from := 0; ; {
		k := bytes.IndexByte(t[from:], '[')
		if k < 0 {
			return false
		}
		from += k
		if from > 0 {
			switch t[from-1] {
			case 0x1b, 'b', 'B', '3', 'e':
				for i := max(0, from-len("u001b")-1); i < from; i++ {
					if sequence(t[i:]) > 0 {
						return true
					}
				}
			}
		}
		from++
	}
}

// sequence returns the length of the control sequence at the start of t, either
// raw or escaped as in JSON, C and shells; 0 if there is none.
func sequence(t []byte) int {
	n := 0
	switch {
	case t[0] == 0x1b:
		n = 1
	case t[0] == '\\':
		for n < len(t) && t[n] == '\\' && n < maxRun {
			n++
		}
		switch rest := t[n:]; {
		case bytes.HasPrefix(rest, []byte("u001b")), bytes.HasPrefix(rest, []byte("u001B")):
			n += 5
		case bytes.HasPrefix(rest, []byte("x1b")), bytes.HasPrefix(rest, []byte("x1B")), bytes.HasPrefix(rest, []byte("033")):
			n += 3
		case bytes.HasPrefix(rest, []byte("e[")):
			n++
		default:
			return 0
		}
	default:
		return 0
	}
	if n >= len(t) || t[n] != '[' {
		return 0
	}
	for n++; n < len(t) && t[n] >= 0x20 && t[n] <= 0x3f; n++ { // parameters
	}
	if n >= len(t) || t[n] < 0x40 || t[n] > 0x7e {
		return 0
	}
	return n + 1
}
