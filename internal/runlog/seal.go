package runlog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

const (
	// Larger frames hardly compress better, and a seek decodes a whole frame.
	frameTarget = 256 << 10
	// The largest frame of a record that zstd cannot compress.
	maxFrame = maxRecord + maxRecord/64 + 1024

	trailerSize   = 64
	trailerMagic  = "AGSEAL\r\n"
	skippableHead = 0x184D2A50 // start of a frame that decoders skip
)

// Seal compresses the log in dir permanently: log.zst replaces log and log.idx,
// and no writer can open it any more. Open readers are not affected. Seal may
// be repeated at any time, also after a crash; it leaves a sealed log
// unchanged. The original is removed only after the sealed file was read back,
// compared and synced. It returns NotFound if there is no log, and Conflict
// while a writer has it open.
func Seal(dir string) error {
	return seal(dir, bootID(), func(string) {})
}

// seal calls step before every change of the folder.
func seal(dir, boot string, step func(string)) error {
	path, sealed, temp := filepath.Join(dir, logName), filepath.Join(dir, sealedName), filepath.Join(dir, tempName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(sealed); err != nil {
			return agented.Errorf(agented.NotFound, "there is no log to seal").Because(err)
		}
		return cleanUp(dir, step)
	}
	if err != nil {
		return fmt.Errorf("seal run log: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return err
	}
	w := &Writer{dir: dir, f: f, boot: boot}
	defer w.abandon()
	if now, err := os.Stat(path); err != nil || !sameFile(f, now) {
		return cleanUp(dir, step) // another Seal was faster
	}
	if same, err := alreadySealed(dir, f); err != nil {
		return fmt.Errorf("seal run log: %w", err)
	} else if same {
		return cleanUp(dir, step)
	}
	// Opening it as a writer repairs the tail and explains lost numbers.
	step("repair")
	if err := w.recover(time.Now()); err != nil {
		return fmt.Errorf("seal run log: %w", err)
	}
	step("write")
	err = compress(w, temp)
	if err == nil {
		err = compare(w, temp)
	}
	if err != nil {
		os.Remove(temp) // it may be what fills the disk
		return fmt.Errorf("seal run log: %w", err)
	}
	step("rename")
	if err := os.Rename(temp, sealed); err != nil {
		return fmt.Errorf("seal run log: %w", err)
	}
	step("sync")
	if err := disk.SyncDir(dir); err != nil {
		return fmt.Errorf("seal run log: %w", err)
	}
	return cleanUp(dir, step)
}

// cleanUp removes the files that a sealed log replaces.
func cleanUp(dir string, step func(string)) error {
	for _, name := range []string{logName, indexName, tempName} {
		step("remove " + name)
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("seal run log: %w", err)
		}
	}
	return nil
}

func sameFile(f *os.File, st os.FileInfo) bool {
	mine, err := f.Stat()
	return err == nil && os.SameFile(mine, st)
}

// alreadySealed reports whether a seal was interrupted after its file was
// renamed: then that file contains everything in the log. (A late writer leaves
// an empty log.)
func alreadySealed(dir string, f *os.File) (bool, error) {
	s, err := openSealed(dir)
	if err != nil {
		return false, nil // no valid one: the log still has everything
	}
	defer s.close()
	l := &live{f: f, dir: dir}
	defer l.release()
	there, err := l.check()
	if !there || err != nil {
		return err == nil, err
	}
	has, err := l.end()
	if err != nil {
		return false, err
	}
	return s.size >= has.off, nil
}

// compress writes the log of w to path as frames, and syncs it.
func compress(w *Writer, path string) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(frameTarget))
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	bw := bufio.NewWriterSize(out, 64<<10)
	var (
		table    []byte
		frame    []byte // content of the current frame
		packed   []byte
		outSize  int64
		first    entry // of that frame
		flushErr error
	)
	flush := func() {
		packed = enc.EncodeAll(frame, packed[:0])
		if _, err := bw.Write(packed); err != nil {
			flushErr = err
		}
		outSize += int64(len(packed))
	}
	frame = w.head.append(nil)
	flush()
	frame = frame[:0]

	l := &live{f: w.f, dir: w.dir}
	defer l.release()
	c := cursor{src: l, off: headerSize}
	t := start
	end := func() {
		if len(frame) == 0 {
			return
		}
		before := outSize
		flush()
		first.attempt, first.a, first.b = uint32(len(frame)), before, outSize-before
		table = first.append(table)
		frame = frame[:0]
	}
	for flushErr == nil {
		// The bytes of the record as in the file: the window before the cursor
		// still contains them after the step.
		r, size, ok, err := c.peekFilled()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if len(frame)+size > frameTarget {
			end()
		}
		if len(frame) == 0 {
			first = t.entryFor(r.seq)
		}
		frame = append(frame, c.win[:size]...)
		t.add(r)
		c.skip(size)
	}
	end()
	if flushErr != nil {
		return flushErr
	}
	if t.off != w.t.off {
		return fmt.Errorf("damaged at byte %d, after line %d; it was not changed", t.off, t.seq)
	}
	if err := writeTable(bw, table, t); err != nil {
		return err
	}
	return out.Sync()
}

// writeTable writes the table of frames and the trailer as a skippable frame, and flushes w.
func writeTable(w *bufio.Writer, table []byte, t tally) error {
	var skip [8]byte
	binary.LittleEndian.PutUint32(skip[:], skippableHead)
	binary.LittleEndian.PutUint32(skip[4:], uint32(len(table)+trailerSize))
	w.Write(skip[:])
	w.Write(table)
	w.Write(appendTrailer(nil, int64(len(table)/entrySize), t))
	return w.Flush()
}

// compare reads the sealed file at path and compares it with the log.
func compare(w *Writer, path string) error {
	s, err := openSealedFile(path)
	if err != nil {
		return err
	}
	defer s.close()
	l := &live{f: w.f, dir: w.dir}
	defer l.release()
	for off := int64(headerSize); off < w.t.off; {
		got, err := s.window(off, recordHeader)
		if err != nil {
			return err
		}
		if len(got) == 0 {
			return errors.New("the sealed file differs from the log")
		}
		for len(got) > 0 {
			want, err := l.window(off, recordHeader)
			if err != nil {
				return err
			}
			n := min(len(got), len(want))
			if n == 0 || !bytes.Equal(got[:n], want[:n]) {
				return errors.New("the sealed file differs from the log")
			}
			got, off = got[n:], off+int64(n)
		}
	}
	if s.size != w.t.off || s.total.seq != w.t.seq || s.total.text != w.t.text || s.total.lines != w.t.lines {
		return errors.New("the sealed file differs from the log")
	}
	return nil
}

func appendTrailer(b []byte, count int64, t tally) []byte {
	var p [trailerSize]byte
	binary.LittleEndian.PutUint32(p[4:], formatVersion)
	binary.LittleEndian.PutUint64(p[8:], uint64(count))
	binary.LittleEndian.PutUint64(p[16:], uint64(t.off))
	binary.LittleEndian.PutUint64(p[24:], uint64(t.seq))
	binary.LittleEndian.PutUint64(p[32:], uint64(t.text))
	binary.LittleEndian.PutUint64(p[40:], uint64(t.lines))
	copy(p[56:], trailerMagic)
	binary.LittleEndian.PutUint32(p[:], crc32.Checksum(p[4:], castagnoli))
	return append(b, p[:]...)
}

// decodeTrailer decodes the last bytes of a sealed file of the given size.
func decodeTrailer(p []byte, size int64) (count int64, t tally, err error) {
	if len(p) < trailerSize || string(p[56:64]) != trailerMagic {
		return 0, tally{}, errNotLog
	}
	if binary.LittleEndian.Uint32(p[4:]) != formatVersion {
		return 0, tally{}, errVersion
	}
	if binary.LittleEndian.Uint32(p) != crc32.Checksum(p[4:trailerSize], castagnoli) {
		return 0, tally{}, errBadHeader
	}
	count = int64(binary.LittleEndian.Uint64(p[8:]))
	t = tally{
		off:   int64(binary.LittleEndian.Uint64(p[16:])),
		seq:   agented.Seq(binary.LittleEndian.Uint64(p[24:])),
		text:  int64(binary.LittleEndian.Uint64(p[32:])),
		lines: int64(binary.LittleEndian.Uint64(p[40:])),
	}
	if count < 0 || count > (size-trailerSize)/entrySize || t.off < headerSize || t.seq < 0 || t.text < 0 || t.lines < 0 {
		return 0, tally{}, errBadHeader
	}
	return count, t, nil
}

var (
	// One decoder for all readers of the process; it allows as many concurrent
	// calls as there are processors.
	decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(2*maxRecord), zstd.WithDecoderMaxWindow(2*maxRecord), zstd.WithDecodeAllCapLimit(true))
	})
	frames = sync.Pool{New: func() any { b := make([]byte, frameTarget); return &b }}
	packs  = sync.Pool{New: func() any { b := make([]byte, 0, frameTarget/2); return &b }}
)

// sealedLog reads a sealed log.
type sealedLog struct {
	f     *os.File
	table table
	total tally
	size  int64 // of the log before sealing

	buf   *[]byte // from frames; nil when not in use
	large []byte  // used instead of buf for a frame of one large record
	frame []byte  // content of the current frame, in buf or large
	off   int64   // offset of frame in the log
	next  int64   // index of the entry after the current frame's
}

func openSealed(dir string) (*sealedLog, error) {
	return openSealedFile(filepath.Join(dir, sealedName))
}

func openSealedFile(path string) (*sealedLog, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s, err := readSealed(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func readSealed(f *os.File) (*sealedLog, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var p [trailerSize]byte
	if st.Size() < trailerSize {
		return nil, errNotLog
	}
	if _, err := f.ReadAt(p[:], st.Size()-trailerSize); err != nil {
		return nil, err
	}
	count, t, err := decodeTrailer(p[:], st.Size())
	if err != nil {
		return nil, err
	}
	return &sealedLog{
		f: f, total: t, size: t.off,
		table: table{r: f, start: st.Size() - trailerSize - count*entrySize, count: count},
	}, nil
}

func (s *sealedLog) close() error {
	s.release()
	return s.f.Close()
}

func (s *sealedLog) release() {
	if s.buf != nil {
		frames.Put(s.buf)
	}
	s.buf, s.large, s.frame = nil, nil, nil
}

func (s *sealedLog) near(ok func(entry) bool) (tally, error) {
	e, i := s.table.last(ok)
	if i < 0 {
		return start, nil
	}
	return tally{off: e.off, seq: e.seq - 1, text: e.text, lines: e.lines}, nil
}

func (s *sealedLog) end() (tally, error)   { return s.total, nil }
func (s *sealedLog) beyond(off int64) bool { return off < s.size }

// short returns false: a sealed log does not grow.
func (s *sealedLog) short() bool { return false }

func (s *sealedLog) window(off int64, _ int) ([]byte, error) {
	if off >= s.size {
		return nil, nil
	}
	if off >= s.off && off < s.off+int64(len(s.frame)) {
		return s.frame[off-s.off:], nil
	}
	e, ok := s.table.at(s.next)
	i := s.next
	if !ok || e.off != off {
		if e, i = s.table.last(func(e entry) bool { return e.off <= off }); i < 0 {
			return nil, fmt.Errorf("read sealed run log: no frame for byte %d", off)
		}
	}
	if err := s.decode(e); err != nil {
		s.frame = nil
		return nil, fmt.Errorf("read sealed run log: frame at byte %d: %w", e.a, err)
	}
	s.off, s.next = e.off, i+1
	if off-e.off >= int64(len(s.frame)) {
		return nil, fmt.Errorf("read sealed run log: no frame for byte %d", off)
	}
	return s.frame[off-e.off:], nil
}

// decode reads the frame of e. It validates the entry before it allocates
// memory.
func (s *sealedLog) decode(e entry) error {
	n := int(e.attempt)
	if n > maxRecord || e.b > maxFrame || e.a > s.table.start-e.b {
		return errBadHeader
	}
	dec, err := decoder()
	if err != nil {
		return err
	}
	pack := packs.Get().(*[]byte)
	defer packs.Put(pack)
	in := *pack
	if int(e.b) <= cap(in) {
		in = in[:e.b]
	} else {
		in = make([]byte, e.b) // not returned to the pool: incompressible frames are rare
	}
	if _, err := s.f.ReadAt(in, e.a); err != nil {
		return err
	}
	var into []byte
	if n <= frameTarget {
		if s.buf == nil {
			s.buf = frames.Get().(*[]byte)
		}
		s.large = nil
		into = (*s.buf)[:0:n]
	} else {
		if cap(s.large) < n {
			s.large = make([]byte, 0, maxRecord)
		}
		into = s.large[:0:n]
	}
	out, err := dec.DecodeAll(in, into)
	if err != nil {
		return err
	}
	if len(out) != n {
		return fmt.Errorf("%d bytes instead of %d", len(out), n)
	}
	s.frame = out
	return nil
}
