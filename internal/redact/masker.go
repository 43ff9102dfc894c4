// Package redact masks secrets in text: given values in the forms in which
// programs print them, and strings that have the shape of a token.
//
// Masking depends only on the text of a match and on a few bytes before it,
// never on where the text is split. This allows a [Stream] to mask a long line
// in pieces with the same result as the whole line. Only rows of hex dumps, and
// values with colours inside, are only detected in whole lines.
package redact

import (
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"
)

// Mask replaces every secret. Overlapping secrets share one mask.
const Mask = "***"

// MinLen is the length of the shortest masked value, in bytes. Masking shorter
// values would remove ordinary words, and reveal the value by their absence.
const MinLen = 8

const (
	tableBits = 13
	hashMul   = 0x9E3779B1 // 2^32 divided by the golden ratio spreads adjacent keys
	lookback  = 16         // bytes before a match that may affect it
)

// A Masker masks a fixed set of values and all known token shapes. It is
// immutable and safe for concurrent use. A nil *Masker masks nothing.
type Masker struct {
	pats  []pattern
	lines int // distinct values, before their encodings

	pieces *pieces // of encodings
	raw    *pieces // of the values themselves, for decoded dumps

	// Every possible match begins with one of a few hundred three-byte strings.
	// table maps the hash of such a string to the index of its first entry plus
	// one; entries are sorted by hash. Most text only reads zeros in table.
	table   [1 << tableBits]uint16
	entries []entry
}

type entry struct {
	key  uint32 // three bytes, the first one lowest
	id   int32  // index in pats; a shape s is stored as ^s
	hash uint16
}

// New returns a Masker for the given secret values. A value with several lines
// is split into lines; surrounding white space is ignored; lines shorter than
// [MinLen] and rulers such as "--------" are omitted.
func New(values []string) *Masker {
	m := &Masker{}
	seen := make(map[string]bool)
	for _, v := range values {
		for line := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == '\n' || r == '\r' }) {
			line = strings.TrimSpace(line)
			if len(line) < MinLen || ruler(line) || seen[line] {
				continue
			}
			seen[line] = true
			m.lines++
		}
	}
	lines := make([]string, 0, len(seen))
	for line := range seen {
		lines = append(lines, line)
	}
	slices.Sort(lines)
	m.pats = patterns(lines)
	m.pieces, m.raw = newPieces(lines), newRaw(lines)

	for id := range m.pats {
		m.pats[id].anchors(func(key uint32) { m.anchor(key, int32(id)) })
	}
	for id := range shapes {
		shapes[id].anchors(func(key uint32) { m.anchor(key, ^int32(id)) })
	}
	m.index()
	return m
}

// ruler reports whether s is one repeated punctuation mark, which is not a
// secret but a likely line in a key file or a banner.
func ruler(s string) bool {
	return !alnum.has(s[0]) && s[0] < 0x80 && strings.Count(s, s[:1]) == len(s)
}

func (m *Masker) anchor(key uint32, id int32) {
	m.entries = append(m.entries, entry{key: key, id: id, hash: hash(key)})
}

func (m *Masker) index() {
	slices.SortFunc(m.entries, func(a, b entry) int {
		if a.hash != b.hash {
			return int(a.hash) - int(b.hash)
		}
		if a.key != b.key {
			return int(a.key) - int(b.key)
		}
		return int(a.id) - int(b.id)
	})
	m.entries = slices.Clip(slices.Compact(m.entries))
	// With more entries than an index can address (thousands of secrets) the
	// table only contains where a search begins.
	for i, e := range m.entries {
		if m.table[e.hash] == 0 {
			m.table[e.hash] = uint16(min(i+1, maxIndex))
		}
	}
}

const maxIndex = 1<<16 - 1

func hash(key uint32) uint16 { return uint16((key * hashMul) >> (32 - tableBits)) }

func key3(a, b, c byte) uint32 { return uint32(a) | uint32(b)<<8 | uint32(c)<<16 }

// Empty reports whether m has no values, so that only token shapes are masked.
func (m *Masker) Empty() bool { return m == nil || m.lines == 0 }

// Len returns the number of distinct values (lines of values) that m masks.
func (m *Masker) Len() int {
	if m == nil {
		return 0
	}
	return m.lines
}

// MaskLine appends line to dst with every secret replaced by [Mask], and
// returns the extended slice. It does not allocate if dst has room and nothing
// is masked. dst must not overlap line. The text may have several lines, but a
// private key whose lines are passed in separate calls is only detected by a
// [Stream].
func (m *Masker) MaskLine(dst, line []byte) []byte {
	if m == nil {
		return append(dst, line...)
	}
	sc := scan{t: line, final: true}
	m.scan(&sc)
	return appendMasked(dst, line, sc.spans)
}

// MaskString returns s with every secret replaced by [Mask]; s itself if there
// is none.
func (m *Masker) MaskString(s string) string {
	if m == nil || s == "" {
		return s
	}
	t := unsafe.Slice(unsafe.StringData(s), len(s)) // read only
	sc := scan{t: t, final: true}
	m.scan(&sc)
	if len(sc.spans) == 0 {
		return s
	}
	return string(appendMasked(make([]byte, 0, len(s)+len(Mask)), t, sc.spans))
}

// span is one part of the text to mask: t[lo:hi]. at is where its match begins,
// which is before lo if a context, such as a header name, is part of the match.
type span struct {
	at, lo, hi int
	open       bool // its mask was written with an earlier piece
}

// scan is the scan of one text.
type scan struct {
	t     []byte
	left  []byte // up to lookback bytes before t in the same line
	final bool   // t is complete
	plain bool   // t was derived from a line: dumps and colours are not searched
	spans []span // result, sorted by lo after scan
	hold  int    // result: a match that begins here or later may be incomplete
	key   bool   // result: the text ends inside a private key block

	valFrom, valTo int // the last run of bytes that value examined
}

// need is the result of a matcher at the end of the text: no match at the end
// of a line, otherwise "more text needed".
func (s *scan) need() matchResult {
	if s.final {
		return none
	}
	return partial
}

type matchResult uint8

const (
	none matchResult = iota
	partial
	match
)

// scan finds all matches at all positions, so that the union of overlapping
// ones is masked.
func (m *Masker) scan(s *scan) {
	t := s.t
	s.hold = len(t)
	table := &m.table
	i := 0
	for ; i+8 <= len(t); i += 6 {
		v := binary.LittleEndian.Uint64(t[i:])
		h0 := uint32(v) << 8 >> 8 * hashMul >> (32 - tableBits)
		h1 := uint32(v>>8) << 8 >> 8 * hashMul >> (32 - tableBits)
		h2 := uint32(v>>16) << 8 >> 8 * hashMul >> (32 - tableBits)
		h3 := uint32(v>>24) << 8 >> 8 * hashMul >> (32 - tableBits)
		h4 := uint32(v>>32) << 8 >> 8 * hashMul >> (32 - tableBits)
		h5 := uint32(v>>40) << 8 >> 8 * hashMul >> (32 - tableBits)
		e0, e1, e2 := table[h0], table[h1], table[h2]
		e3, e4, e5 := table[h3], table[h4], table[h5]
		if e0|e1|e2|e3|e4|e5 == 0 {
			continue
		}
		for k, e := range [...]uint16{e0, e1, e2, e3, e4, e5} {
			if e != 0 {
				m.try(s, i+k)
			}
		}
	}
	for ; i+3 <= len(t); i++ {
		m.try(s, i)
	}
	if !s.final {
		for ; i < len(t) && i < s.hold; i++ {
			if m.begins(s, i) {
				s.hold = i
			}
		}
	}
	m.pieces.find(s)
	if s.final && len(s.left) == 0 && !s.plain {
		m.dumps(s)
		m.coloured(s)
	}
	if !slices.IsSortedFunc(s.spans, byStart) {
		slices.SortStableFunc(s.spans, byStart)
	}
}

func byStart(a, b span) int { return a.lo - b.lo }

// try runs every matcher that may match at i.
func (m *Masker) try(s *scan, i int) {
	k := key3(s.t[i], s.t[i+1], s.t[i+2])
	h := hash(k)
	first := m.table[h]
	if first == 0 {
		return
	}
	e := int(first) - 1
	for e < len(m.entries) && m.entries[e].hash < h {
		e++ // only above maxIndex
	}
	for ; e < len(m.entries) && m.entries[e].hash == h; e++ {
		if m.entries[e].key != k {
			continue
		}
		lo, hi, v := i, 0, none
		if id := m.entries[e].id; id >= 0 {
			hi, v = m.pats[id].match(s, i)
		} else if !s.plain { // shapes contain no colours
			lo, hi, v = shapes[^id].match(s, i)
		}
		switch v {
		case partial:
			s.hold = min(s.hold, i)
		case match:
			s.add(span{at: i, lo: lo, hi: hi})
		}
	}
}

// add records x, merged with the last span if they overlap: otherwise a secret
// of one repeated letter would produce a span per byte.
func (s *scan) add(x span) {
	if n := len(s.spans); n > 0 {
		if l := &s.spans[n-1]; x.lo >= l.lo && x.lo < l.hi {
			l.hi = max(l.hi, x.hi)
			return
		}
	}
	s.spans = append(s.spans, x)
}

// begins reports whether the text from i, shorter than an anchor, is the start
// of an anchor.
func (m *Masker) begins(s *scan, i int) bool {
	tail := s.t[i:]
	want, mask := uint32(tail[0]), uint32(0xff)
	if len(tail) > 1 {
		want, mask = want|uint32(tail[1])<<8, 0xffff
	}
	fresh := s.starts(i, alnum)
	return slices.ContainsFunc(m.entries, func(e entry) bool {
		return e.key&mask == want && (e.id >= 0 || fresh || shapes[^e.id].anywhere())
	})
}

// appendMasked appends t with the spans, sorted by lo, replaced. Overlapping
// spans become one mask, adjacent ones do not: a split may be between them.
func appendMasked(dst, t []byte, spans []span) []byte {
	from := 0
	for i := 0; i < len(spans); {
		lo, hi, open := spans[i].lo, spans[i].hi, spans[i].open
		for i++; i < len(spans) && spans[i].lo < hi; i++ {
			hi = max(hi, spans[i].hi)
			open = open || spans[i].open
		}
		dst = append(dst, t[from:lo]...)
		if !open {
			dst = append(dst, Mask...)
		}
		from = hi
	}
	return append(dst, t[from:]...)
}
