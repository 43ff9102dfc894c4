package redact

import "bytes"

// Private keys span lines: RFC 7468 has 64 characters a line, RFC 4880 76. In
// JSON the whole key is one line with \n in it.

const (
	dashes     = "-----"
	maxTrailer = 32 // bytes that may follow a first line in source code: \n" +
)

// matchPEM matches the body of a private key whose first line begins at i, as
// far as it is in this text; j is after "-----BEGIN ".
func matchPEM(s *scan, i, j int) (lo, hi int, v matchResult) {
	if s.back(i, 1) == '-' {
		return 0, 0, none
	}
	lo, v = label(s, j)
	if v != match {
		return 0, 0, v
	}
	t, stop := s.t, min(len(s.t), lo+maxShape-256)
	k, ended := lo, false
	for ; k < stop && inBody(t[k]); k++ {
		if t[k] == '-' && bytes.HasPrefix(t[k:], []byte(dashes)) {
			ended = true
			break
		}
	}
	if k == len(t) && !s.final {
		return 0, 0, partial
	}
	body := t[lo:k]
	open := k == len(t) && !ended
	if rest := t[lo:]; !ended && len(rest) <= maxTrailer && len(trimEscapes(rest)) == 0 {
		if !s.final {
			return 0, 0, partial
		}
		s.key = true // the body is in the next lines
		return 0, 0, none
	}
	if stretch(body, b64std) < 16 && !(ended && len(trimEscapes(body)) > 0) {
		return 0, 0, none
	}
	hi = k
	if !ended {
		if open {
			s.key = true
		}
		hi = lo + lastStretch(body)
	}
	for lo < hi && blankByte(t[lo]) {
		lo++
	}
	return lo, hi, match
}

// label matches "RSA PRIVATE KEY-----" and returns its end. Anything other than
// a private key is no match.
func label(s *scan, j int) (end int, v matchResult) {
	t := s.t
	end = j
	for ; end < len(t) && end-j <= 48 && (t[end] == ' ' || alnum.has(t[end])); end++ {
	}
	if end < len(t) && t[end] != '-' {
		return 0, none
	}
	for k := range len(dashes) {
		if end+k == len(t) {
			return 0, s.need()
		}
		if t[end+k] != '-' {
			return 0, none
		}
	}
	if !bytes.Contains(t[j:end], []byte("PRIVATE KEY")) {
		return 0, none
	}
	return end + len(dashes), match
}

// inBody reports whether c may be part of a key: base64, its escaped or real
// line breaks, and the headers of an encrypted key.
func inBody(c byte) bool {
	return b64std.has(c) || blankByte(c) || c == '\\' || c == ':' || c == ',' || c == '-'
}

func blankByte(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// trimEscapes removes white space, quotes, and escaped line breaks from both
// ends.
func trimEscapes(t []byte) []byte {
	for {
		before := len(t)
		t = bytes.Trim(t, " \t\r\n\"'`,+;")
		for _, esc := range []string{`\n`, `\r`, `\`} {
			t = bytes.TrimPrefix(t, []byte(esc))
			t = bytes.TrimSuffix(t, []byte(esc))
		}
		if len(t) == before {
			return t
		}
	}
}

// lastStretch returns the end of the last run of 16 base64 characters or more.
func lastStretch(t []byte) (end int) {
	n := 0
	for i, b := range t {
		if n++; !b64std.has(b) {
			n = 0
		}
		if n >= 16 {
			end = i + 1
		}
	}
	return end
}

// keyLine classifies a line in a private key block.
type keyLine uint8

const (
	keyOver keyLine = iota // not part of a key
	keyMeta                // a blank line or a header: not masked
	keyBody                // to be masked
)

// readKeyLine classifies a line (or the beginning of one) in a private key
// block. A prefix from a pager, a diff or a quotation is kept: lo is after it.
// An incomplete line that may become any of them is a keyMeta.
func readKeyLine(t []byte, final bool) (lo, hi int, what keyLine) {
	for lo < len(t) && (blankByte(t[lo]) || bytes.IndexByte([]byte(">|#*+\"'`"), t[lo]) >= 0) {
		lo++
	}
	// A line number, as printed by cat -n and agents' file readers.
	n := lo
	for n < len(t) && digitByte(t[n]) {
		n++
	}
	if n > lo && n < len(t) {
		if t[n] == '\t' || t[n] == ':' || t[n] == '|' {
			lo = n + 1
		} else if arrow := []byte("→"); bytes.HasPrefix(t[n:], arrow) {
			lo = n + len(arrow)
		} else if !final && bytes.HasPrefix(arrow, t[n:]) {
			return lo, n, keyMeta
		}
		for lo < len(t) && blankByte(t[lo]) {
			lo++
		}
	}
	body := t[lo:]
	hi = len(t)
	if len(trimEscapes(body)) == 0 {
		return lo, hi, keyMeta
	}
	core := trimEscapes(body)
	if len(core) <= 512 && stretch(core, b64std) == len(core) {
		hi = lo + bytes.Index(body, core) + len(core)
		return lo, hi, keyBody
	}
	if !final && len(core) <= 24 && stretch(core, dash) == len(core) {
		return lo, hi, keyMeta
	}
	if colon := bytes.IndexByte(core, ':'); colon > 0 && colon <= 24 && stretch(core[:colon], dash) == colon && len(core) <= 128 {
		return lo, hi, keyMeta
	}
	return 0, 0, keyOver
}
