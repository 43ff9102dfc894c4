package shim

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// A secret can equal a word of a CLI's protocol; the masked line then cannot be
// parsed. The bundle of an agent's attempt therefore keeps masked lines as they were
// printed, in unmaskedFile: entries in the order of the run log, each with the number
// of its record, a checksum of the masked content, and a length before the text. The
// file is removed with the raw output.

const (
	unmaskedHeader = 16
	// maxUnmasked bounds the file. Records after that are read as they are masked.
	maxUnmasked = 64 << 20
)

// unmaskedText is the content of a record in a batch before masking.
type unmaskedText struct {
	rec  int // index in the batch
	text []byte
}

// unmaskedWriter writes the file. A nil *unmaskedWriter writes nothing.
type unmaskedWriter struct {
	path   string
	f      *os.File // nil until there is something to write
	size   int64
	failed bool // reported once, then nothing more is written
}

// write adds the texts of a batch whose first record is about to get a number. It
// must come before the records are in the log, so that a reader finds them.
func (u *unmaskedWriter) write(first agented.Seq, recs []runlog.Record, texts []unmaskedText) {
	if u == nil || u.failed || len(texts) == 0 {
		return
	}
	var out []byte
	for _, t := range texts {
		if u.size+int64(len(out)+unmaskedHeader+len(t.text)) > maxUnmasked {
			break
		}
		var head [unmaskedHeader]byte
		binary.LittleEndian.PutUint64(head[:], uint64(first)+uint64(t.rec))
		binary.LittleEndian.PutUint32(head[8:], checksum(recs[t.rec].Content))
		binary.LittleEndian.PutUint32(head[12:], uint32(len(t.text)))
		out = append(append(out, head[:]...), t.text...)
	}
	if len(out) == 0 {
		return
	}
	var err error
	if u.f == nil {
		u.f, err = os.OpenFile(u.path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	}
	if err == nil {
		_, err = u.f.WriteAt(out, u.size)
	}
	if err != nil {
		u.failed = true
		fmt.Fprintln(os.Stderr, err)
		if u.f != nil {
			_ = u.f.Truncate(u.size)
		}
		return
	}
	u.size += int64(len(out))
}

func (u *unmaskedWriter) close() {
	if u != nil && u.f != nil {
		u.f.Close()
	}
}

// resumeUnmasked opens the file of an attempt whose shim was killed, without the
// entries of records that did not get into the log.
func resumeUnmasked(bundle string, last agented.Seq) *unmaskedWriter {
	u := &unmaskedWriter{path: filepath.Join(bundle, unmaskedFile)}
	f, err := os.OpenFile(u.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return u
	}
	if err != nil {
		u.failed = true
		return u
	}
	u.f = f
	r := bufio.NewReader(f)
	for {
		head, err := r.Peek(unmaskedHeader)
		if err != nil {
			break
		}
		seq, _, length := entryOf(head)
		n, err := r.Discard(unmaskedHeader + length)
		if err != nil || seq > last {
			break
		}
		u.size += int64(n)
	}
	if err := f.Truncate(u.size); err != nil {
		u.failed = true
	}
	return u
}

func entryOf(head []byte) (seq agented.Seq, sum uint32, length int) {
	return agented.Seq(binary.LittleEndian.Uint64(head)), binary.LittleEndian.Uint32(head[8:]), int(binary.LittleEndian.Uint32(head[12:]))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Unmasked reads the lines of an attempt before masking. Line must be called in the
// order of the run log.
type Unmasked struct {
	path string
	f    *os.File
	r    *bufio.Reader
	text []byte
}

// NewUnmasked returns an Unmasked for the attempt of a bundle.
func NewUnmasked(bundle string) *Unmasked {
	return &Unmasked{path: filepath.Join(bundle, unmaskedFile)}
}

// Refresh opens the file if it has been created since the last call. Call it after
// reading lines from the log and before calling Line for them.
func (u *Unmasked) Refresh() {
	if u.f != nil {
		return
	}
	if f, err := os.Open(u.path); err == nil {
		u.f, u.r = f, bufio.NewReaderSize(f, 32<<10)
	}
}

// Line returns a line of the log before masking. The text is valid until the next call;
// ok is false if nothing in the line was masked or the text was not kept.
func (u *Unmasked) Line(l *agented.LogLine) (text []byte, ok bool) {
	for u.f != nil {
		head, err := u.r.Peek(unmaskedHeader)
		if err != nil {
			return nil, false // more may come
		}
		seq, sum, length := entryOf(head)
		if seq > l.Seq {
			return nil, false
		}
		if length > 2*runlog.MaxLine {
			u.Close() // damaged
			return nil, false
		}
		if seq < l.Seq || sum != checksum(l.Content) {
			if _, err := u.r.Discard(unmaskedHeader + length); err != nil {
				u.Close() // not whole; Refresh begins again
				return nil, false
			}
			continue
		}
		_, _ = u.r.Discard(unmaskedHeader)
		u.text = append(u.text[:0], make([]byte, length)...)
		if _, err := io.ReadFull(u.r, u.text); err != nil {
			u.Close()
			return nil, false
		}
		return u.text, true
	}
	return nil, false
}

// Close closes the file.
func (u *Unmasked) Close() {
	if u.f != nil {
		u.f.Close()
		u.f, u.r = nil, nil
	}
}
