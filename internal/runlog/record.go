package runlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/agented/agented"
)

// MaxLine is the largest content of one record in bytes. Callers split longer
// lines into parts.
const MaxLine = 1 << 20

// FileName is the log in an execution's folder while it can be written.
const FileName = "log"

const (
	headerSize    = 128
	recordHeader  = 40
	maxRecord     = recordHeader + MaxLine
	formatVersion = 1
	maxBootID     = 63
	maxSeq        = 1 << 53 // largest number that JSON represents exactly; no log reaches it

	logMagic = "AGLOG\r\n\x1a"
)

// Names of the files in an execution's folder.
const (
	logName    = FileName
	indexName  = "log.idx"
	sealedName = "log.zst"
	tempName   = "log.zst.tmp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is a log line and its position in the attempt's raw output.
type Record struct {
	agented.LogLine
	// RawEnd is the offset in the attempt's raw stream just after this record's
	// bytes: where reading resumes after a crash. 0 if there is no raw stream.
	RawEnd int64
}

// header is the start of a log file.
type header struct {
	created  int64 // µs
	reserved agented.Seq
	boot     string
}

var (
	errNotLog    = errors.New("not a run log")
	errVersion   = errors.New("run log of a newer version")
	errBadHeader = errors.New("damaged header")
)

func (h header) append(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	p := b[start:]
	copy(p, logMagic)
	binary.LittleEndian.PutUint32(p[8:], formatVersion)
	binary.LittleEndian.PutUint64(p[16:], uint64(h.created))
	binary.LittleEndian.PutUint64(p[24:], uint64(h.reserved))
	p[32] = byte(copy(p[33:33+maxBootID], h.boot))
	binary.LittleEndian.PutUint32(p[12:], crc32.Checksum(p[16:headerSize], castagnoli))
	return b
}

// decodeHeader decodes the first headerSize bytes of a log. After errBadHeader
// the records can still be read.
func decodeHeader(p []byte) (header, error) {
	if len(p) < headerSize || string(p[:8]) != logMagic {
		return header{}, errNotLog
	}
	if binary.LittleEndian.Uint32(p[8:]) != formatVersion {
		return header{}, errVersion
	}
	if binary.LittleEndian.Uint32(p[12:]) != crc32.Checksum(p[16:headerSize], castagnoli) || p[32] > maxBootID {
		return header{}, errBadHeader
	}
	h := header{
		created:  int64(binary.LittleEndian.Uint64(p[16:])),
		reserved: agented.Seq(binary.LittleEndian.Uint64(p[24:])),
		boot:     string(p[33 : 33+int(p[32])]),
	}
	if h.reserved < 0 || h.reserved > maxSeq {
		return header{}, errBadHeader
	}
	return h, nil
}

const (
	flagPart  = 3
	flagNoEOL = 4
)

// appendRecord appends the encoding of r with the given number to b.
func appendRecord(b []byte, r *Record, seq agented.Seq) []byte {
	var p [recordHeader]byte
	binary.LittleEndian.PutUint32(p[4:], uint32(len(r.Content)))
	binary.LittleEndian.PutUint64(p[8:], uint64(seq))
	binary.LittleEndian.PutUint64(p[16:], uint64(r.At.UnixMicro()))
	binary.LittleEndian.PutUint64(p[24:], uint64(r.RawEnd))
	binary.LittleEndian.PutUint32(p[32:], uint32(r.Attempt))
	p[36] = streamCode(r.Stream)
	p[37] = partCode(r.Part)
	if r.NoEOL {
		p[37] |= flagNoEOL
	}
	start := len(b)
	b = append(b, p[:]...)
	b = append(b, r.Content...)
	binary.LittleEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}

// raw is a decoded record that still points into its buffer.
type raw struct {
	seq     agented.Seq
	at      int64 // µs
	rawEnd  int64
	attempt uint32
	stream  byte
	flags   byte
	content []byte
}

type decodeResult uint8

const (
	whole decodeResult = iota
	short              // the bytes end before the record does
	bad                // the bytes are not a record
)

// decode decodes the record at the start of b. size is its length in the file
// if it is whole, or the length needed to decode more if it is short. The
// fields are only set for a whole record.
func (r *raw) decode(b []byte) (size int, v decodeResult) {
	if len(b) < recordHeader {
		return recordHeader, short
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > MaxLine || b[36] < codeStdout || b[36] > codeSystem || b[37]&^(flagPart|flagNoEOL) != 0 || b[38] != 0 || b[39] != 0 {
		return 0, bad
	}
	size = recordHeader + int(n)
	if len(b) < size {
		return size, short
	}
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:size], castagnoli) {
		return 0, bad
	}
	seq, rawEnd := agented.Seq(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[24:]))
	if seq <= 0 || seq > maxSeq || rawEnd < 0 {
		return 0, bad
	}
	// Field by field, here and in line: a copy of the whole struct would stall
	// on the stores just before it.
	r.seq = seq
	r.at = int64(binary.LittleEndian.Uint64(b[16:]))
	r.rawEnd = rawEnd
	r.attempt = binary.LittleEndian.Uint32(b[32:])
	r.stream = b[36]
	r.flags = b[37]
	r.content = b[recordHeader:size:size]
	return size, whole
}

// line converts the record to a log line.
func (r *raw) line(l *agented.LogLine) {
	l.Seq = r.seq
	l.At = time.UnixMicro(r.at).UTC()
	l.Attempt = int(r.attempt)
	l.Stream = streams[r.stream]
	l.Part = parts[r.flags&flagPart]
	l.NoEOL = r.flags&flagNoEOL != 0
	l.Content = r.content
}

// newline reports whether the record's text ends with a newline.
func (r *raw) newline() bool {
	p := r.flags & flagPart
	return r.flags&flagNoEOL == 0 && (p == 0 || p == 3)
}

// text returns how many bytes the record adds to the text of the log.
func (r *raw) text() int64 {
	if r.stream == codeSystem {
		return 0
	}
	n := int64(len(r.content))
	if r.newline() {
		n++
	}
	return n
}

const (
	codeStdout = 1
	codeStderr = 2
	codeSystem = 3
)

var (
	streams = [4]agented.Stream{1: agented.Stdout, 2: agented.Stderr, 3: agented.System}
	parts   = [4]agented.Part{agented.PartWhole, agented.PartFirst, agented.PartMiddle, agented.PartLast}
)

func streamCode(s agented.Stream) byte {
	for i, v := range streams {
		if v == s {
			return byte(i)
		}
	}
	return 0
}

func partCode(p agented.Part) byte {
	for i, v := range parts {
		if v == p {
			return byte(i)
		}
	}
	return 0
}
