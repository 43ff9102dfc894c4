package hub

import (
	"bytes"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

const hexDigits = "0123456789abcdef"

// plain are the bytes that need no escape in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// AppendJSONString appends s as a JSON string. Each byte of invalid UTF-8
// becomes U+FFFD. The result has no line break, so that it fits in one data
// line of an event.
func AppendJSONString[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			// Converting at most four bytes does not allocate.
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(dst, s[from:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			from = i
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// AppendTime appends t as a JSON string: RFC 3339, UTC, always microseconds.
func AppendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, `"2006-01-02T15:04:05.000000Z"`)
}

// A clock appends times like AppendTime. Since lines come in bursts, it caches
// the part that changes once a second.
type clock struct {
	second int64
	text   [21]byte // `"2006-01-02T15:04:05.`
}

func (c *clock) append(dst []byte, t time.Time) []byte {
	if s := t.Unix(); s != c.second || c.text[0] == 0 {
		t.UTC().AppendFormat(c.text[:0], `"2006-01-02T15:04:05.`)
		c.second = s
	}
	dst = append(dst, c.text[:]...)
	us := t.Nanosecond() / 1000
	for unit := 100000; unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+us/unit%10))
	}
	return append(dst, 'Z', '"')
}

// line appends the JSON object of one line.
func (c *clock) line(dst []byte, l *agented.LogLine) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendInt(dst, int64(l.Seq), 10)
	return c.rest(append(dst, ','), l)
}

// rest appends the fields after seq of a line's object.
func (c *clock) rest(dst []byte, l *agented.LogLine) []byte {
	dst = append(dst, `"attempt":`...)
	dst = strconv.AppendInt(dst, int64(l.Attempt), 10)
	dst = append(dst, `,"timestamp":`...)
	dst = c.append(dst, l.At)
	dst = append(dst, `,"stream":"`...)
	dst = append(dst, l.Stream...)
	dst = append(dst, `","content":`...)
	dst = AppendJSONString(dst, l.Content)
	if l.Part != agented.PartWhole {
		dst = append(dst, `,"part":"`...)
		dst = append(dst, l.Part...)
		dst = append(dst, '"')
	}
	if l.NoEOL {
		dst = append(dst, `,"no_eol":true`...)
	}
	return append(dst, '}')
}

// lineEnd ends the event of a line.
const lineEnd = "}\n\n"

// frame appends the event of one line.
func (c *clock) frame(dst []byte, l *agented.LogLine) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, int64(l.Seq), 10)
	dst = append(dst, "\nevent: log\ndata: "...)
	dst = c.line(dst, l)
	return append(dst, "\n\n"...)
}

// AppendLine appends the JSON object of one line, as in streams and responses.
func AppendLine(dst []byte, l *agented.LogLine) []byte {
	var c clock
	return c.line(dst, l)
}

// AppendAnnotated appends the JSON object of one line with the fields of an annotator.
func AppendAnnotated(dst []byte, l *agented.LogLine, a Annotator) []byte {
	dst = AppendLine(dst, l)
	return append(a.Append(dst[:len(dst)-1], l), '}')
}

// Frames without content.
var (
	heartbeatFrame = []byte(": heartbeat\n\n")
	retryFrame     = []byte("retry: 1000\n\n")
)

// frameEnd ends every frame, and cannot occur inside one: data is JSON without
// line breaks.
var frameEnd = []byte("\n\n")

// behind returns the part of frames, which have ascending ids, with ids above
// seq.
func behind(frames []byte, seq int64) []byte {
	for len(frames) > 0 {
		if n := frameID(frames); n < 0 || n > seq {
			return frames
		}
		end := bytes.Index(frames, frameEnd)
		if end < 0 {
			return nil
		}
		frames = frames[end+len(frameEnd):]
	}
	return nil
}

// frameID returns the id of the first of frames; -1 if it has none.
func frameID(frames []byte) int64 {
	id, ok := bytes.CutPrefix(frames, []byte("id: "))
	if !ok {
		return -1
	}
	n := int64(0)
	for _, c := range id {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// state is the part of an execution that streams show, encoded once for all
// readers.
type state struct {
	event  int64  // EventSeq of its execution
	fields string // the status object without its closing brace
	end    []byte // the data of complete; nil while not final
	last   int64  // the execution's last line; exact when final
	n      int    // number of the attempt
}

// shown returns a copy of e in which secrets in texts from a CLI are masked.
func shown(e *agented.Execution, m *redact.Masker) *agented.Execution {
	if m == nil {
		return e
	}
	c := *e
	c.Reason, c.Error = m.MaskString(e.Reason), m.MaskString(e.Error)
	c.Attempts = slices.Clone(e.Attempts)
	for i := range c.Attempts {
		c.Attempts[i].Reason = m.MaskString(c.Attempts[i].Reason)
	}
	return &c
}

func newState(e *agented.Execution) *state {
	b := []byte(`{"execution_id":`)
	b = AppendJSONString(b, e.ID)
	b = append(b, `,"status":"`...)
	b = append(b, e.State...)
	b = append(b, `","attempt":`...)
	b = strconv.AppendInt(b, int64(e.AttemptNo), 10)
	b = append(b, `,"reason":`...)
	b = AppendJSONString(b, e.Reason)
	b = append(b, `,"cancel_requested":`...)
	b = strconv.AppendBool(b, e.CancelAsked && !e.State.Final())
	b = append(b, `,"scheduled_at":`...)
	b = appendKnown(b, e.ScheduledAt)
	b = append(b, `,"started_at":`...)
	b = appendKnown(b, e.StartedAt)
	s := &state{event: e.EventSeq, fields: string(b), last: int64(e.LastSeq), n: e.AttemptNo}
	if !e.State.Final() {
		return s
	}
	b = append(b[:0], `{"status":"`...)
	b = append(b, e.State...)
	b = append(b, `","exit_code":`...)
	if e.ExitCode == nil {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, int64(*e.ExitCode), 10)
	}
	b = append(b, `,"error_message":`...)
	b = AppendJSONString(b, e.Error)
	b = append(b, `,"duration_ms":`...)
	if e.StartedAt.IsZero() || e.FinishedAt.IsZero() {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, e.Duration().Milliseconds(), 10)
	}
	b = append(b, `,"finished_at":`...)
	b = appendKnown(b, e.FinishedAt)
	s.end = append(b, '}')
	return s
}

func appendKnown(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, "null"...)
	}
	return AppendTime(dst, t)
}

// first appends the status that opens a stream; its id is the position where
// the stream starts.
func (s *state) first(dst []byte, from int64, note string) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, from, 10)
	dst = append(dst, "\nevent: status\ndata: "...)
	dst = append(dst, s.fields...)
	if note != "" {
		dst = append(dst, `,"note":`...)
		dst = AppendJSONString(dst, note)
	}
	return append(dst, "}\n\n"...)
}

// changed appends a later status.
func (s *state) changed(dst []byte) []byte {
	dst = append(dst, "event: status\ndata: "...)
	dst = append(dst, s.fields...)
	return append(dst, "}\n\n"...)
}

// complete appends the last event of a stream.
func (s *state) complete(dst []byte) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, s.last+1, 10)
	dst = append(dst, "\nevent: complete\ndata: "...)
	dst = append(dst, s.end...)
	return append(dst, "\n\n"...)
}

// notice appends a line that is in no log: without id and seq.
func (s *state) notice(dst []byte, now time.Time, text string) []byte {
	dst = append(dst, "event: log\ndata: {"...)
	dst = new(clock).rest(dst, &agented.LogLine{Attempt: s.n, At: now, Stream: agented.System, Content: []byte(text)})
	return append(dst, "\n\n"...)
}
