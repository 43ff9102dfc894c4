package runlog

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/agented/agented"
)

const (
	indexMagic  = "AGIDX\r\n\x1a"
	indexHeader = 32
	entrySize   = 56

	// A seek scans the records between two entries: checking 64 KiB takes about
	// 30 µs, and 56 bytes per 64 KiB of log are negligible.
	indexBytes = 64 << 10
	indexLines = 4096
)

// entry is a position in the log from which reading can start, with the counts
// of everything before it.
type entry struct {
	seq     agented.Seq // of the record at off
	off     int64       // in the log
	text    int64       // bytes of text before off
	lines   int64       // records before off
	attempt uint32      // see doc.go for these three, which differ in a sealed log
	a, b    int64
}

func (e entry) append(b []byte) []byte {
	var p [entrySize]byte
	binary.LittleEndian.PutUint32(p[4:], e.attempt)
	binary.LittleEndian.PutUint64(p[8:], uint64(e.seq))
	binary.LittleEndian.PutUint64(p[16:], uint64(e.off))
	binary.LittleEndian.PutUint64(p[24:], uint64(e.text))
	binary.LittleEndian.PutUint64(p[32:], uint64(e.lines))
	binary.LittleEndian.PutUint64(p[40:], uint64(e.a))
	binary.LittleEndian.PutUint64(p[48:], uint64(e.b))
	binary.LittleEndian.PutUint32(p[:], crc32.Checksum(p[4:], castagnoli))
	return append(b, p[:]...)
}

func decodeEntry(p []byte) (entry, bool) {
	if len(p) < entrySize || binary.LittleEndian.Uint32(p) != crc32.Checksum(p[4:entrySize], castagnoli) {
		return entry{}, false
	}
	e := entry{
		attempt: binary.LittleEndian.Uint32(p[4:]),
		seq:     agented.Seq(binary.LittleEndian.Uint64(p[8:])),
		off:     int64(binary.LittleEndian.Uint64(p[16:])),
		text:    int64(binary.LittleEndian.Uint64(p[24:])),
		lines:   int64(binary.LittleEndian.Uint64(p[32:])),
		a:       int64(binary.LittleEndian.Uint64(p[40:])),
		b:       int64(binary.LittleEndian.Uint64(p[48:])),
	}
	ok := e.seq > 0 && e.off >= headerSize && e.text >= 0 && e.lines >= 0 && e.a >= 0 && e.b >= 0
	return e, ok
}

func appendIndexHeader(b []byte, created int64) []byte {
	var p [indexHeader]byte
	copy(p[:], indexMagic)
	binary.LittleEndian.PutUint32(p[8:], formatVersion)
	binary.LittleEndian.PutUint64(p[16:], uint64(created))
	return append(b, p[:]...)
}

// indexOf reports whether p starts an index of the log with that creation time.
func indexOf(p []byte, created int64) bool {
	return len(p) >= indexHeader && string(p[:indexHeader]) == string(appendIndexHeader(nil, created))
}

// table is a sequence of entries in a file.
type table struct {
	r     io.ReaderAt
	start int64 // offset of the first entry
	count int64
}

// at reads entry i; false if it is damaged or does not exist.
func (t table) at(i int64) (entry, bool) {
	var p [entrySize]byte
	if _, err := t.r.ReadAt(p[:], t.start+i*entrySize); err != nil {
		return entry{}, false
	}
	return decodeEntry(p[:])
}

// last returns the last entry for which ok holds, given that it holds up to
// some entry and for none after it. A damaged entry counts as too far, which
// makes the scan longer but never wrong. It returns -1 if there is none.
func (t table) last(ok func(entry) bool) (entry, int64) {
	found, at := entry{}, int64(-1)
	lo, hi := int64(0), t.count
	for lo < hi {
		mid := lo + (hi-lo)/2
		e, good := t.at(mid)
		if good && ok(e) {
			found, at = e, mid
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return found, at
}

// tally counts everything before a position in the log.
type tally struct {
	off     int64
	seq     agented.Seq // of the last record before off, 0 if none
	text    int64
	lines   int64
	attempt uint32 // newest attempt that printed something
	rawEnd  [2]int64
}

func (e entry) tally() tally {
	return tally{off: e.off, seq: e.seq - 1, text: e.text, lines: e.lines, attempt: e.attempt, rawEnd: [2]int64{e.a, e.b}}
}

// entryFor returns the entry for the following record with the number seq.
func (t *tally) entryFor(seq agented.Seq) entry {
	return entry{seq: seq, off: t.off, text: t.text, lines: t.lines, attempt: t.attempt, a: t.rawEnd[0], b: t.rawEnd[1]}
}

func (t *tally) add(r *raw) {
	t.off += recordHeader + int64(len(r.content))
	t.seq = r.seq
	t.text += r.text()
	t.lines++
	if r.stream == codeSystem || r.attempt < t.attempt {
		return
	}
	if r.attempt > t.attempt {
		t.attempt, t.rawEnd = r.attempt, [2]int64{}
	}
	t.rawEnd[r.stream-codeStdout] = r.rawEnd
}

// due reports whether the next record should have an entry, if the previous one
// is e.
func (t *tally) due(e entry) bool {
	return t.off-e.off >= indexBytes || t.lines-e.lines >= indexLines
}
