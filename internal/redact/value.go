package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// pattern is a text to search for: a known value or its base64 or hex form.
// JSON and URL escapes are not separate patterns but decoded during the
// comparison, because every encoder escapes a different set of bytes.
type pattern struct {
	text []byte
	soft bool // contains bytes that some encoder escapes
}

// unescaped are the bytes that JSON and URL encoders do not escape.
var unescaped = class{lo: digits | 1<<'-' | 1<<'.', hi: letters | 1<<('_'-64)}

// patterns returns lines in all the forms that need a pattern, without
// duplicates.
func patterns(lines []string) []pattern {
	var all [][]byte
	for _, line := range lines {
		raw := []byte(line)
		all = append(all, raw)
		lower := hex.AppendEncode(nil, raw)
		all = append(all, lower, bytes.ToUpper(lower))
		all = appendBase64(all, raw)
		// A document with the value may have been JSON before it was base64.
		for _, html := range []bool{true, false} {
			if esc := jsonText(line, html); !bytes.Equal(esc, raw) {
				all = appendBase64(all, esc)
			}
		}
	}
	slices.SortFunc(all, bytes.Compare)
	all = slices.CompactFunc(all, bytes.Equal)

	pats := make([]pattern, 0, len(all))
	for _, text := range all {
		soft := slices.ContainsFunc(text, func(c byte) bool { return !unescaped.has(c) })
		pats = append(pats, pattern{text: text, soft: soft})
	}
	return pats
}

// appendBase64 appends the base64 characters that depend only on v, for the
// three offsets of v in a group of three bytes.
func appendBase64(all [][]byte, v []byte) [][]byte {
	for before := range 3 {
		std := atOffset(base64.RawStdEncoding, v, before)
		all = append(all, std)
		if bytes.ContainsAny(std, "+/") {
			all = append(all, atOffset(base64.RawURLEncoding, v, before))
		}
	}
	return all
}

// atOffset returns the characters that depend only on v if the given number of
// bytes precedes it in its group of three.
func atOffset(enc *base64.Encoding, v []byte, before int) []byte {
	padded := append(make([]byte, before, before+len(v)), v...)
	return enc.AppendEncode(nil, padded)[(8*before+5)/6 : 8*len(padded)/6]
}

func jsonText(s string, html bool) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(html)
	_ = enc.Encode(s) // a string always encodes
	return b.Bytes()[1 : b.Len()-2]
}

// match compares the pattern with the text at i and returns where it ends.
func (p *pattern) match(s *scan, i int) (end int, v matchResult) {
	if !p.soft {
		rest := s.t[i:]
		if len(rest) >= len(p.text) {
			if !bytes.Equal(rest[:len(p.text)], p.text) {
				return 0, none
			}
			return i + len(p.text), match
		}
		if bytes.HasPrefix(p.text, rest) {
			return 0, s.need()
		}
		return 0, none
	}
	// Whether a "%" in the text is literal or begins an escape is decided for a
	// whole match; deciding for each would need backtracking.
	for _, pct := range [...]string{"", "%", "%25"} {
		e, w := p.read(s, i, pct)
		if w == partial {
			return 0, partial
		}
		if w == match {
			end, v = max(end, e), match
		}
	}
	return end, v
}

// maxRun is the longest decoded run of backslashes: four levels of JSON in
// JSON. It limits the work on a text full of backslashes.
const maxRun = 15

// read compares the pattern with the text at k while decoding JSON escapes of
// any depth and, if pct is set, URL escapes that begin with pct.
func (p *pattern) read(s *scan, k int, pct string) (end int, v matchResult) {
	want, t := p.text, s.t
	for j := 0; j < len(want); {
		if k >= len(t) {
			return 0, s.need()
		}
		c := want[j]
		if pct != "" && t[k] == '%' {
			b, n, v := percent(s, k, pct)
			if v != match {
				return 0, v
			}
			if b != c {
				return 0, none
			}
			j, k = j+1, k+n
			continue
		}
		if c == '\\' {
			dj, dk, v := backslashes(want[j:], s, k)
			if v != match {
				return 0, v
			}
			j, k = j+dj, k+dk
			continue
		}
		switch {
		case t[k] == c:
			j, k = j+1, k+1
		case c == ' ' && t[k] == '+' && pct == "%":
			j, k = j+1, k+1
		case t[k] == '\\' && !alnum.has(c):
			run, v := countRun(s, k, maxRun)
			if v != match {
				return 0, v
			}
			dj, dk, v := escaped(want[j:], s, k+run)
			if v != match {
				return 0, v
			}
			j, k = j+dj, k+run+dk
		default:
			return 0, none
		}
	}
	return k, match
}

// countRun counts the backslashes at k. More than limit is no match.
func countRun(s *scan, k, limit int) (n int, v matchResult) {
	for n = 0; k+n < len(s.t) && s.t[k+n] == '\\'; n++ {
		if n == limit {
			return 0, none
		}
	}
	if k+n == len(s.t) {
		return n, s.need()
	}
	return n, match
}

// backslashes compares want, which begins with backslashes, with the text at k:
// each level of JSON doubles them, and the following byte may add its own.
func backslashes(want []byte, s *scan, k int) (dj, dk int, v matchResult) {
	n := 1
	for n < len(want) && want[n] == '\\' {
		n++
	}
	t, limit := s.t, 8*n+maxRun
	if t[k] != '\\' {
		return 0, 0, none
	}
	run := 0
	for k+run < len(t) && t[k+run] == '\\' && run <= limit {
		run++
	}
	atEnd := k+run == len(t)
	if atEnd && !s.final {
		return 0, 0, partial
	}
	if n == len(want) {
		if run < n {
			return 0, 0, none
		}
		return n, min(run, 8*n), match
	}
	if atEnd || run > limit {
		return 0, 0, none
	}
	next := want[n]
	if t[k+run] == 'u' && next != 'u' {
		r, w, v := hex4(s, k+run+1)
		if v == partial {
			return 0, 0, partial
		}
		if v == match && r == '\\' {
			return 1, run + 1 + w, match
		}
	}
	if alnum.has(next) {
		if run != n && run != 2*n && run != 4*n && run != 8*n {
			return 0, 0, none
		}
		return n, run, match
	}
	if run < n {
		return 0, 0, none
	}
	dj, dk, v = escaped(want[n:], s, k+run)
	return n + dj, run + dk, v
}

// escaped compares the first character of want with the text after the
// backslashes of an escape, at q.
func escaped(want []byte, s *scan, q int) (dj, dk int, v matchResult) {
	t, c := s.t, want[0]
	if q >= len(t) {
		return 0, 0, s.need()
	}
	switch x := t[q]; {
	case x == c:
		return 1, 1, match
	case x == shortEscape(c):
		return 1, 1, match
	case x == 'x':
		if q+3 > len(t) {
			return 0, 0, s.need()
		}
		if hi, lo := unhex(t[q+1]), unhex(t[q+2]); hi >= 0 && lo >= 0 && byte(hi<<4|lo) == c {
			return 1, 3, match
		}
	case x == 'u':
		r, w, v := hex4(s, q+1)
		if v != match {
			return 0, 0, v
		}
		wantRune, size := utf8.DecodeRune(want) // a byte that is not UTF-8 is encoded as U+FFFD
		if r == wantRune {
			return size, 1 + w, match
		}
		if wantRune < 0x10000 || !utf16.IsSurrogate(r) {
			return 0, 0, none
		}
		q2 := q + 1 + w
		run, v := countRun(s, q2, maxRun)
		if v != match {
			return 0, 0, v
		}
		if run == 0 || t[q2+run] != 'u' {
			return 0, 0, none
		}
		r2, w2, v := hex4(s, q2+run+1)
		if v != match {
			return 0, 0, v
		}
		if utf16.DecodeRune(r, r2) == wantRune {
			return size, 1 + w + run + 1 + w2, match
		}
	}
	return 0, 0, none
}

// shortEscape returns the letter that stands for a control character, or 0xff,
// which matches no text.
func shortEscape(c byte) byte {
	switch c {
	case '\t':
		return 't'
	case '\b':
		return 'b'
	case '\f':
		return 'f'
	case '\v':
		return 'v'
	case 0x1b:
		return 'e'
	case 0:
		return '0'
	}
	return 0xff
}

// percent decodes the URL escape at k.
func percent(s *scan, k int, pct string) (b byte, n int, v matchResult) {
	t := s.t[k:]
	for i := range len(pct) {
		if i == len(t) {
			return 0, 0, s.need()
		}
		if t[i] != pct[i] {
			return 0, 0, none
		}
	}
	n = len(pct)
	if len(t) < n+2 {
		return 0, 0, s.need()
	}
	hi, lo := unhex(t[n]), unhex(t[n+1])
	if hi < 0 || lo < 0 {
		return 0, 0, none
	}
	return byte(hi<<4 | lo), n + 2, match
}

func hex4(s *scan, q int) (r rune, n int, v matchResult) {
	for n = range 4 {
		if q+n >= len(s.t) {
			return 0, 0, s.need()
		}
		d := unhex(s.t[q+n])
		if d < 0 {
			return 0, 0, none
		}
		r = r<<4 | rune(d)
	}
	return r, 4, match
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// anchors calls yield with every three bytes with which a match of p can begin.
// Some of them cannot begin a match, which costs only a comparison.
func (p *pattern) anchors(yield func(key uint32)) {
	expand(nil, p.text, yield)
}

func expand(head, rest []byte, yield func(uint32)) {
	if len(head) >= 3 {
		yield(key3(head[0], head[1], head[2]))
		return
	}
	if len(rest) == 0 {
		return
	}
	c := rest[0]
	more := func(n int, text ...byte) { expand(slices.Concat(head, text), rest[n:], yield) }
	more(1, c)
	if alnum.has(c) {
		return
	}
	r, size := utf8.DecodeRune(rest)
	if r1, _ := utf16.EncodeRune(r); r1 != utf8.RuneError {
		r = r1
	}
	for run := 1; run <= 3; run++ {
		esc := []byte(`\\\`)[:run]
		if c == '\\' {
			n := 1
			for n < len(rest) && rest[n] == '\\' {
				n++
			}
			if n < len(rest) {
				more(n, esc...)
			} else {
				more(1, esc...)
			}
		}
		more(1, append(esc[:run:run], c)...)
		if e := shortEscape(c); e != 0xff {
			more(1, append(esc[:run:run], e)...)
		}
		for _, digits := range []string{"0123456789abcdef", "0123456789ABCDEF"} {
			more(size, append(esc[:run:run], 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])...)
			more(1, append(esc[:run:run], 'x', digits[c>>4], digits[c&15])...)
		}
	}
	for _, digits := range []string{"0123456789abcdef", "0123456789ABCDEF"} {
		more(1, '%', digits[c>>4], digits[c&15])
	}
	more(1, '%', '2', '5')
	if c == ' ' {
		more(1, '+')
	}
}
