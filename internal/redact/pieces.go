package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
)

// Programs wrap base64 and hex: base64(1) after 76 characters, openssl after
// 64, xxd -p after 60. The encoding of a long secret is then split in the log.
// Pieces are found by grams, which are runs of eight characters of an encoding.
const (
	gramLen = 8
	// minPieces is the length, in bytes, of the shortest secret whose encodings
	// are also detected in pieces: the remaining part of a shorter one reveals
	// little.
	minPieces = 16
	// The text is examined in steps of textStep, so that every piece of
	// minPiece characters contains a whole gram at one of them. The filter
	// contains every gram; the index contains one in gramStep, which saves
	// memory, and the others are found through adjacent ones.
	textStep = 12
	gramStep = 3
	minPiece = gramLen + textStep - 1
)

// gram is a position in an encoding.
type gram struct {
	chars uint64
	enc   uint32 // index in pieces.encodings
	at    uint32
}

// pieces finds pieces of the encodings of a set of secrets. A nil *pieces finds
// none.
type pieces struct {
	encodings [][]byte
	grams     []gram   // in buckets of equal upper bits of their hash
	ends      []uint32 // where each bucket ends in grams
	bucket    uint8    // shift of a hash to its bucket
	filter    []uint64
	shift     uint8     // shift of a hash to a word of filter
	bytes     [256]bool // bytes of the encodings
}

// newPieces indexes the encodings of the values that are long enough.
func newPieces(lines []string) *pieces {
	p := new(pieces)
	for _, line := range lines {
		if len(line) < minPieces {
			continue
		}
		lower := hex.AppendEncode(nil, []byte(line))
		p.index(lower)
		p.index(bytes.ToUpper(lower))
		for _, once := range appendBase64(nil, []byte(line)) {
			p.index(once)
			if bytes.ContainsAny(once, "-_") {
				continue // the standard alphabet repeats often enough
			}
			for before := range 3 {
				p.index(atOffset(base64.RawStdEncoding, once, before))
			}
		}
	}
	return p.sealed()
}

// sealed sorts the index and builds its filter; nil for an empty one.
func (p *pieces) sealed() *pieces {
	if len(p.grams) == 0 {
		return nil
	}
	p.fillBuckets()
	total := 0
	for _, enc := range p.encodings {
		total += len(enc)
		for _, c := range enc {
			p.bytes[c] = true
		}
	}
	bits := 4
	for 64<<bits < 12*total {
		bits++
	}
	p.shift = uint8(64 - bits)
	p.filter = make([]uint64, 1<<bits)
	for _, enc := range p.encodings {
		for at := 0; at+gramLen <= len(enc); at++ {
			h := spread(binary.LittleEndian.Uint64(enc[at:]))
			p.filter[h>>p.shift] |= filterBits(h)
		}
	}
	return p
}

// fillBuckets orders the grams by bucket, in linear time.
func (p *pieces) fillBuckets() {
	bits := 4
	for 1<<bits < len(p.grams) {
		bits++
	}
	p.bucket = uint8(64 - bits)
	p.ends = make([]uint32, 1<<bits)
	for _, g := range p.grams {
		p.ends[spread(g.chars)>>p.bucket]++
	}
	sum := uint32(0)
	for i, n := range p.ends {
		p.ends[i] = sum // the start, until the bucket is filled
		sum += n
	}
	ordered := make([]gram, len(p.grams))
	for _, g := range p.grams {
		b := spread(g.chars) >> p.bucket
		ordered[p.ends[b]] = g
		p.ends[b]++
	}
	p.grams = ordered
}

// near returns the bucket of chars: all grams with these characters, and perhaps
// others.
func (p *pieces) near(chars uint64) []gram {
	b := spread(chars) >> p.bucket
	from := uint32(0)
	if b > 0 {
		from = p.ends[b-1]
	}
	return p.grams[from:p.ends[b]]
}

// spread is a hash whose upper half depends on every byte of v.
func spread(v uint64) uint64 { return (v ^ v>>32 ^ 0x5851F42D4C957F2D) * 0x9E3779B97F4A7C15 }

// filterBits returns the three bits of a hash in its word of the filter. Text
// without a gram of the index passes the filter about once in a thousand
// lookups.
func filterBits(h uint64) uint64 {
	return powers[h>>42&63] | powers[h>>36&63] | powers[h>>30&63]
}

// powers contains the powers of two. A load is cheaper than a shift by a variable.
var powers = func() (t [64]uint64) {
	for i := range t {
		t[i] = 1 << i
	}
	return t
}()

// may reports whether chars may be a gram of an encoding.
func (p *pieces) may(chars uint64) bool {
	h := spread(chars)
	bits := filterBits(h)
	return p.filter[h>>p.shift]&bits == bits
}

func (p *pieces) index(enc []byte) {
	id := uint32(len(p.encodings))
	p.encodings = append(p.encodings, enc)
	for at := 0; at+gramLen <= len(enc); at += gramStep {
		p.grams = append(p.grams, gram{binary.LittleEndian.Uint64(enc[at:]), id, uint32(at)})
	}
}

// find adds the spans of all pieces in the text. At the end of an incomplete
// text it lowers hold to where a piece may begin.
func (p *pieces) find(s *scan) {
	if p == nil {
		return
	}
	t := s.t
	filter, shift := p.filter, p.shift
	for i := 0; i+gramLen <= len(t); i += textStep {
		h := spread(binary.LittleEndian.Uint64(t[i:]))
		if bits := filterBits(h); filter[h>>shift]&bits != bits {
			continue
		}
		// Skip to the first position that a piece ending after this one can
		// have.
		if end := p.at(s, i); end-minPiece > i {
			i = (end - minPiece) / textStep * textStep
		}
	}
	if s.final {
		return
	}
	// A piece that is still too short may grow.
	from := len(t)
	for from > 0 && len(t)-from < minPiece && encoded.has(t[from-1]) {
		from--
	}
	s.hold = min(s.hold, from)
}

// at searches for pieces around the gram at i and returns the end of the
// longest.
func (p *pieces) at(s *scan, i int) (end int) {
	t := s.t
	for k := max(0, i-gramStep+1); k < i+gramStep && k+gramLen <= len(t); k++ {
		chars := binary.LittleEndian.Uint64(t[k:])
		if !p.may(chars) {
			continue
		}
		for _, g := range p.near(chars) {
			if g.chars != chars {
				continue
			}
			lo, hi := p.extend(t, k, g)
			if hi-lo < minPiece {
				continue
			}
			if hi == len(t) && !s.final {
				s.hold = min(s.hold, lo)
			}
			s.add(span{at: lo, lo: lo, hi: hi})
			end = max(end, hi)
		}
	}
	return end
}

// extend returns how far the text around the gram at i matches its encoding.
func (p *pieces) extend(t []byte, i int, g gram) (lo, hi int) {
	enc := p.encodings[g.enc]
	lo, a := i, int(g.at)
	for lo > 0 && a > 0 && t[lo-1] == enc[a-1] {
		lo, a = lo-1, a-1
	}
	hi, b := i+gramLen, int(g.at)+gramLen
	for hi < len(t) && b < len(enc) && t[hi] == enc[b] {
		hi, b = hi+1, b+1
	}
	return lo, hi
}

// encoded are the characters of base64 and hex.
var encoded = class{lo: digits | 1<<'+' | 1<<'/' | 1<<'-' | 1<<'=', hi: letters | 1<<('_'-64)}
