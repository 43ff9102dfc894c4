// Package logsearch finds the lines of an execution's log that contain a text or
// match a regular expression. Secrets are masked before a line is searched, and
// escape sequences are ignored.
package logsearch

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Hit is one matching line.
type Hit struct {
	Seq     agented.Seq // number of the line; of its first part if it was split
	At      time.Time
	Attempt int
	Stream  agented.Stream
	Excerpt string // text around the first match, at most 240 bytes, without escape sequences
}

// Result is the result of a search.
type Result struct {
	Hits      []Hit       // in the order of the log
	NextAfter agented.Seq // last line that was searched: continue after it
	Done      bool        // the current end of the log, or Stop, was reached
	Count     int64       // with Options.Count: matching lines up to NextAfter
}

// Options configures a search.
type Options struct {
	Regex  bool           // the query is a regular expression (RE2 syntax)
	Case   bool           // match case
	After  agented.Seq    // the log is positioned after this line
	Limit  int            // maximum number of hits
	Stop   agented.Seq    // search only lines before this one; 0 means all
	Count  bool           // count the hits instead of returning them; Limit is ignored
	Masker *redact.Masker // masked text cannot be found; nil masks nothing
	Until  time.Time      // when to stop; the result is then incomplete
}

const (
	maxExcerpt = 240
	maxJoined  = 8 << 20 // bytes of the parts of one line that are searched as one
)

// New prepares a search. A query that is not a valid regular expression is an
// Invalid error without the name of a field.
func New(query string, o Options) (*Search, error) {
	s, err := newSearch(query, o.Regex, o.Case)
	if err != nil {
		return nil, err
	}
	s.limit, s.hits = o.Limit, &Result{Hits: []Hit{}, NextAfter: o.After}
	s.mask, s.masks = o.Masker.MaskLine, !o.Masker.Empty()
	s.until, s.stop, s.count = o.Until, o.Stop, o.Count
	if s.count {
		s.limit = math.MaxInt / 2
	}
	return s, nil
}

// Run searches a log from its position, until the limit of hits, the end of the
// log, the time limit or the end of ctx.
func (q *Search) Run(ctx context.Context, log *runlog.Reader) (*Result, error) {
	if err := q.run(ctx, log, q.until); err != nil {
		return nil, err
	}
	q.counted()
	// A split line is searched when its end is available, and sorted by its
	// start.
	slices.SortFunc(q.hits.Hits, func(a, b Hit) int { return cmp.Compare(a.Seq, b.Seq) })
	return q.hits, nil
}

// newSearch returns a search without its limit and masker.
func newSearch(query string, isRegex, exact bool) (*Search, error) {
	find, err := finder(query, isRegex, exact)
	if err != nil {
		return nil, err
	}
	q := &Search{find: find, need: needed(query, isRegex, exact)}
	if !isRegex {
		query = regexp.QuoteMeta(query)
	}
	switch {
	case isRegex && strings.ContainsAny(query, "^$"):
		// A line also begins after a carriage return, which the automaton does
		// not handle.
	case !exact: // case-insensitive text matches slightly more than finder: k also matches the Kelvin sign
		q.auto = newAutomaton("(?i)" + query)
	case isRegex:
		q.auto = newAutomaton(query)
	}
	return q, nil
}

// finder returns a function that finds the bounds of the first match in a text,
// or nil.
func finder(query string, isRegex, exact bool) (func([]byte) []int, error) {
	if !isRegex {
		if exact {
			want := []byte(query)
			return func(text []byte) []int { return bounds(bytes.Index(text, want), len(want)) }, nil
		}
		if ascii(query) {
			want := bytes.ToLower([]byte(query))
			var low []byte
			return func(text []byte) []int {
				low = low[:0]
				for _, c := range text {
					if 'A' <= c && c <= 'Z' {
						c += 'a' - 'A'
					}
					low = append(low, c)
				}
				return bounds(bytes.Index(low, want), len(want))
			}, nil
		}
		query = regexp.QuoteMeta(query)
	}
	if !exact {
		query = "(?i)" + query
	}
	re, err := regexp.Compile(query)
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		return nil, agented.Errorf(agented.Invalid, "is not a valid regular expression (RE2 syntax): %s", text)
	}
	return func(text []byte) []int {
		if at := re.FindIndex(text); at != nil || bytes.IndexByte(text, '\r') < 0 {
			return at
		}
		// A progress bar rewrites its line after each carriage return.
		from := 0
		for part := range bytes.SplitSeq(text, []byte("\r")) {
			if at := re.FindIndex(part); at != nil {
				return []int{from + at[0], from + at[1]}
			}
			from += len(part) + 1
		}
		return nil
	}, nil
}

// needed returns the longest known text that every match contains, or nil if
// there is none worth searching for. Checking a line for it is much cheaper
// than matching the line.
func needed(query string, isRegex, exact bool) []byte {
	if !exact {
		return nil
	}
	if isRegex {
		re, err := syntax.Parse(query, syntax.Perl)
		if err != nil {
			return nil
		}
		query = literal(re.Simplify())
	}
	// The replacement of a masked secret is not in the line as printed. Invalid
	// UTF-8 matches U+FFFD, but its bytes differ.
	if len(query) < 2 || strings.ContainsAny(query, "*\uFFFD") {
		return nil
	}
	return []byte(query)
}

// literal returns the longest text that must be in every match of an
// expression.
func literal(re *syntax.Regexp) (out string) {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return string(re.Rune)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return literal(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if l := literal(sub); len(l) > len(out) {
				out = l
			}
		}
	}
	return out
}

func bounds(at, size int) []int {
	if at < 0 {
		return nil
	}
	return []int{at, at + size}
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// Search is a prepared search through one log. It must not be used twice.
type Search struct {
	find  func([]byte) []int
	need  []byte     // text in every match; nil if unknown
	auto  *automaton // no match without a match of it; nil if unknown
	limit int
	stop  agented.Seq // 0: none
	count bool
	until time.Time
	hits  *Result
	mask  func(dst, line []byte) []byte
	masks bool

	may   []bool // for the lines that were read together: which of them may match
	rooms [lanes]room
	open  map[cutKey]*cutLine // lines whose last part has not been read
	moved bool                // NextAfter differs from the start of the search
}

// room holds the buffers for the visible text of a line.
type room struct{ masked, plain []byte }

// cutKey identifies the line of a part: a stream has one open line at a time.
type cutKey struct {
	attempt int
	stream  agented.Stream
}

// cutLine is a line whose last part has not been read.
type cutLine struct {
	first agented.LogLine
	parts runlog.Joiner
}

func (q *Search) run(ctx context.Context, log *runlog.Reader, until time.Time) error {
	var lines []agented.LogLine
	var err error
	for {
		if lines, err = log.Next(lines[:0], 128, 0); err != nil {
			return err
		}
		if len(lines) == 0 {
			q.giveUp() // the rest is not written yet
			q.hits.Done = true
			return nil
		}
		if n := len(lines); q.stop > 0 && lines[n-1].Seq >= q.stop {
			lines = slices.DeleteFunc(lines, func(l agented.LogLine) bool { return l.Seq >= q.stop })
			if len(lines) == 0 {
				q.giveUp()
				q.hits.Done = true
				return nil
			}
		}
		q.sift(lines)
		for i := range lines {
			if q.may[i] {
				q.line(&lines[i])
			}
			if len(q.open) > 0 && len(q.hits.Hits) >= 2*q.limit {
				q.giveUp()
			}
			if len(q.open) > 0 {
				continue // the position to continue from is before the open line
			}
			q.settled(lines[i].Seq)
			if len(q.hits.Hits) >= q.limit {
				return nil
			}
		}
		if ctx.Err() == nil && time.Now().Before(until) {
			continue
		}
		if len(q.open) > 0 && !q.moved {
			q.giveUp()
			q.settled(lines[len(lines)-1].Seq)
		}
		// Hits after that position will be found again.
		q.hits.Hits = slices.DeleteFunc(q.hits.Hits, func(h Hit) bool { return h.Seq > q.hits.NextAfter })
		return nil
	}
}

// sift determines which lines may match.
func (q *Search) sift(lines []agented.LogLine) {
	q.may = slices.Grow(q.may[:0], len(lines))[:len(lines)]
	if q.auto != nil {
		q.auto.sift(q.may, func(lane, i int) ([]byte, bool) {
			if lines[i].Part != agented.PartWhole {
				return nil, false
			}
			return q.visible(lane, lines[i].Content, q.auto.apart)
		})
	}
	for i := range lines {
		q.may[i] = q.may[i] || q.auto == nil || lines[i].Part != agented.PartWhole
	}
}

// settled records that everything up to a line has been searched.
func (q *Search) settled(at agented.Seq) {
	q.hits.NextAfter, q.moved = at, true
	if len(q.hits.Hits) >= 1024 {
		q.counted()
	}
}

// counted replaces the hits by their number, if only that is wanted. No line is open.
func (q *Search) counted() {
	if q.count {
		q.hits.Count += int64(len(q.hits.Hits))
		q.hits.Hits = q.hits.Hits[:0]
	}
}

// giveUp searches the available parts of open lines.
func (q *Search) giveUp() {
	for key := range q.open {
		q.giveUpLine(key)
	}
}

// giveUpLine searches the available parts of an open line.
func (q *Search) giveUpLine(key cutKey) {
	c := q.open[key]
	delete(q.open, key)
	for _, text := range c.parts.Incomplete() {
		q.examine(&c.first, text)
	}
}

// line searches a line; a split line is searched when its last part is read.
func (q *Search) line(l *agented.LogLine) {
	key := cutKey{l.Attempt, l.Stream}
	switch c := q.open[key]; {
	case l.Part == agented.PartWhole:
		q.examine(l, l.Content)
	case l.Part == agented.PartFirst:
		if q.open == nil {
			q.open = map[cutKey]*cutLine{}
		}
		c = &cutLine{first: *l, parts: runlog.Joiner{Max: math.MaxInt}}
		c.parts.Add(l.Part, l.Stream, l.Content)
		q.open[key] = c
	case c == nil: // its beginning is before the start of the search
		q.examine(l, l.Content)
	default:
		if text, complete := c.parts.Add(l.Part, l.Stream, l.Content); complete {
			delete(q.open, key)
			q.examine(&c.first, text)
		} else if c.parts.Len(l.Stream) > maxJoined {
			q.giveUpLine(key)
		}
	}
}

// visible returns the masked text of a line without escape sequences, valid
// until the next call for the same lane, or false if the line lacks the needed
// text. With apart, masking is skipped: a match between masks is also in the
// line as printed, so a line without a match as printed has none.
func (q *Search) visible(lane int, text []byte, apart bool) ([]byte, bool) {
	escapes := bytes.IndexByte(text, 0x1b) >= 0
	// Escape sequences are not part of the text, but may interrupt it.
	if q.need != nil && !escapes && !bytes.Contains(text, q.need) {
		return nil, false
	}
	r := &q.rooms[lane]
	// Masked text must not be searchable, or a search could guess a secret.
	if q.masks && (escapes || !apart) {
		r.masked = q.mask(r.masked[:0], text)
		text = r.masked
	}
	if escapes && bytes.IndexByte(text, 0x1b) >= 0 {
		r.plain = stripEscapes(r.plain[:0], text)
		text = r.plain
	}
	return text, true
}

func (q *Search) examine(l *agented.LogLine, text []byte) {
	text, ok := q.visible(0, text, false)
	if !ok || q.auto != nil && !q.auto.matches(text) {
		return
	}
	at := q.find(text)
	if at == nil {
		return
	}
	if q.count {
		q.hits.Hits = append(q.hits.Hits, Hit{Seq: l.Seq})
		return
	}
	from := max(0, at[0]-maxExcerpt/3)
	for from > 0 && text[from]&0xc0 == 0x80 {
		from--
	}
	q.hits.Hits = append(q.hits.Hits, Hit{
		Seq: l.Seq, At: l.At, Attempt: l.Attempt, Stream: l.Stream,
		Excerpt: string(bytes.ToValidUTF8(text[from:min(len(text), from+maxExcerpt)], nil)),
	})
}

// stripEscapes appends text without terminal escape sequences.
func stripEscapes(dst, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		if text[i] != 0x1b {
			dst = append(dst, text[i])
			continue
		}
		if i+1 >= len(text) {
			break
		}
		i++
		switch text[i] {
		case '[': // CSI: up to a letter
			for i++; i < len(text) && (text[i] < 0x40 || text[i] > 0x7e); i++ {
			}
		case ']': // OSC: up to BEL or ESC \
			for i++; i < len(text) && text[i] != 0x07; i++ {
				if text[i] == 0x1b {
					i++
					break
				}
			}
		}
	}
	return dst
}
