package redact

import "bytes"

// A Stream masks lines that may come in pieces, and private keys that span
// lines. Use one for each stream of output. It is not safe for concurrent use.
type Stream struct {
	m     *Masker
	left  [lookback]byte // the end of what was taken from the line at hand
	nleft int
	begun bool // something of the line at hand was taken
	carry span // a mask that reaches into what was not taken; hi is 0 if there is none
	key   bool // the line lies in a private key block
}

// MaxHold is the most that a Stream keeps back for a token shape, in bytes. For
// a known value it keeps back at most the longest form of that value, which
// may be more: a value is never cut.
const MaxHold = maxShape

// NewStream returns a Stream at the start of a line. m may be nil.
func (m *Masker) NewStream() *Stream { return &Stream{m: m} }

// Mask appends to dst, masked, as much of buf as can be told now, and returns
// the extended slice and how many bytes of buf that was. The caller comes again
// with the rest of buf in front of what follows. At the end of a line final is
// true, all of buf is taken, and the next call begins a new line. The pieces
// joined are what the line masked in one go would be.
//
// n may be 0: all of buf may yet turn out to be a secret.
func (s *Stream) Mask(dst, buf []byte, final bool) (out []byte, n int) {
	if s.m == nil {
		return append(dst, buf...), len(buf)
	}
	if s.key && !s.begun {
		lo, hi, what := readKeyLine(buf, final)
		switch {
		case what == keyOver:
			s.key = false
		case !final:
			return dst, 0 // short, else it would not be a line of a key
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
		default: // only when the cut was forced: see cut
			s.carry = carry(s.carry, span{lo: max(0, x.lo-n), hi: x.hi - n, open: x.open || x.lo < n})
			if x.lo < n {
				spans = append(spans, span{lo: x.lo, hi: n, open: x.open})
			}
		}
	}
	out = appendMasked(dst, buf[:n], spans)
	s.take(buf[:n])
	return out, n
}

// carry joins two masks that reach over a cut; only the first mark counts.
func carry(a, b span) span {
	if a.hi == 0 {
		return b
	}
	return span{lo: min(a.lo, b.lo), hi: max(a.hi, b.hi), open: a.open || b.open}
}

// cut returns how much of an unfinished text may be taken: not into a match
// that may be unfinished, and not into one that lies across that place, so that
// a reader who knows only one piece sees no half of a secret.
//
// Secrets that overlap one another without end ("aaaaaaaa" in a long row of
// that letter) would hold the text for ever. Past MaxHold it is cut all the
// same, and the mask is carried over in the Stream.
func (s *scan) cut() int {
	n := s.hold
	for again := true; again; {
		again = false
		for _, x := range s.spans {
			if x.at < n && n < x.hi {
				n, again = x.at, true
			}
		}
	}
	if s.hold-n > MaxHold {
		return s.hold
	}
	return n
}

// take notes the end of b as left context of what follows.
func (s *Stream) take(b []byte) {
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

// Resume tells a Stream that begins in the middle of a log what the line before
// was, as it was written. A key whose lines were being masked goes on so.
func (s *Stream) Resume(masked []byte) {
	if s.m == nil {
		return
	}
	sc := scan{t: masked, final: true}
	s.m.scan(&sc)
	// A line that is nothing but a mask may be one of a key. If it was not, the
	// next line that does not look like a key's ends this.
	s.key = sc.key || onlyMask(masked)
}

// onlyMask reports whether t is a mask and what may stand before it in a line
// of a key.
func onlyMask(t []byte) bool {
	head, ok := bytes.CutSuffix(bytes.TrimSpace(t), []byte(Mask))
	if !ok {
		return false
	}
	_, _, what := readKeyLine(head, true)
	return what == keyMeta
}
