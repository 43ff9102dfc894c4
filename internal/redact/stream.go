package redact

import (
	"bytes"
	"unicode/utf8"
)

// A Stream masks lines that may arrive in pieces, and private keys that span
// lines. Use one for each stream of output. It must not be used concurrently.
type Stream struct {
	m     *Masker
	left  [lookback]byte // the end of the consumed part of the current line
	nleft int
	begun bool // a part of the current line was consumed
	carry span // a mask that extends into the part that was not consumed; hi is 0 if there is none
	key   bool // the line is in a private key block
}

// MaxHold is the most that a Stream holds back for a token shape, in bytes. For
// a known value it holds back at most the longest form of that value, which may
// be more: a value is never split.
const MaxHold = maxShape

// NewStream returns a Stream at the start of a line. m may be nil.
func (m *Masker) NewStream() *Stream { return &Stream{m: m} }

// Mask appends to dst as much of buf as can already be masked, and returns the
// extended slice and how many bytes of buf it consumed. The caller passes the
// rest of buf again, followed by more text. At the end of a line final is true:
// all of buf is consumed, and the next call begins a new line. A piece ends
// between two characters: no valid UTF-8 is split. The concatenated pieces
// equal the masked line.
//
// n may be 0: all of buf may still become a secret, or one character.
func (s *Stream) Mask(dst, buf []byte, final bool) (out []byte, n int) {
	if s.m == nil {
		n = len(buf)
		if !final {
			n = wholeRunes(buf, n)
		}
		return append(dst, buf[:n]...), n
	}
	if s.key && !s.begun {
		lo, hi, what := readKeyLine(buf, final)
		switch {
		case what == keyOver:
			s.key = false
		case !final:
			return dst, 0 // short, otherwise it would not be a line of a key
		case what == keyBody:
			return appendMasked(dst, buf, []span{{lo: lo, hi: hi}}), len(buf)
		default:
			return append(dst, buf...), len(buf)
		}
	}
	sc := scan{t: buf, left: s.left[:s.nleft], final: final}
	if s.carry.hi > 0 {
		sc.spans = append(sc.spans, s.carry)
	}
	s.m.scan(&sc)
	if final {
		out = appendMasked(dst, buf, sc.spans)
		*s = Stream{m: s.m, key: sc.key}
		return out, len(buf)
	}

	n = sc.cut()
	if n == 0 {
		return dst, 0
	}
	s.carry = span{}
	spans := sc.spans[:0]
	for _, x := range sc.spans {
		switch {
		case x.at >= n && x.lo >= n: // found again next time
		case x.hi <= n:
			spans = append(spans, x)
		default: // only after a forced cut: see cut
			s.carry = carry(s.carry, span{lo: max(0, x.lo-n), hi: x.hi - n, open: x.open || x.lo < n})
			if x.lo < n {
				spans = append(spans, span{lo: x.lo, hi: n, open: x.open})
			}
		}
	}
	out = appendMasked(dst, buf[:n], spans)
	s.setLeft(buf[:n])
	return out, n
}

// carry merges two masks that extend over a cut; only the first mask counts.
func carry(a, b span) span {
	if a.hi == 0 {
		return b
	}
	return span{lo: min(a.lo, b.lo), hi: max(a.hi, b.hi), open: a.open || b.open}
}

// cut returns how much of an incomplete text may be consumed: not into a match
// that may be incomplete, and not into one that extends over that position, so
// that no single piece contains half of a secret.
//
// Secrets that overlap each other without end ("aaaaaaaa" in a long sequence of
// that letter) would hold the text back without limit. After MaxHold it is cut
// anyway, and the Stream carries the mask over.
func (s *scan) cut() int {
	n := wholeRunes(s.t, s.hold)
	for again := true; again; {
		again = false
		for _, x := range s.spans {
			if x.at < n && n < x.hi {
				n, again = wholeRunes(s.t, x.at), true
			}
		}
	}
	if s.hold-n > MaxHold {
		return wholeRunes(s.t, s.hold)
	}
	return n
}

// wholeRunes returns the largest length up to n at which t can be split between
// two characters. Invalid UTF-8 can be split anywhere.
func wholeRunes(t []byte, n int) int {
	for i := n - 1; i >= max(n-utf8.UTFMax+1, 0); i-- {
		if !utf8.RuneStart(t[i]) {
			continue
		}
		if utf8.FullRune(t[i:n]) {
			return n
		}
		return i
	}
	return n
}

// setLeft stores the end of b as left context of the following text.
func (s *Stream) setLeft(b []byte) {
	if len(b) == 0 {
		return
	}
	s.begun = true
	if len(b) >= lookback {
		s.nleft = copy(s.left[:], b[len(b)-lookback:])
		return
	}
	keep := min(s.nleft, lookback-len(b))
	copy(s.left[:], s.left[s.nleft-keep:s.nleft])
	s.nleft = keep + copy(s.left[keep:], b)
}

// Resume passes the previous line, as written, to a Stream that begins in the
// middle of a log, so that masking of a key continues.
func (s *Stream) Resume(masked []byte) {
	if s.m == nil {
		return
	}
	sc := scan{t: masked, final: true}
	s.m.scan(&sc)
	// A line that is only a mask may be part of a key. Otherwise, the next line
	// that does not look like part of a key ends this.
	s.key = sc.key || onlyMask(masked)
}

// onlyMask reports whether t consists of a mask and an allowed prefix of a key
// line.
func onlyMask(t []byte) bool {
	head, ok := bytes.CutSuffix(bytes.TrimSpace(t), []byte(Mask))
	if !ok {
		return false
	}
	_, _, what := readKeyLine(head, true)
	return what == keyMeta
}
