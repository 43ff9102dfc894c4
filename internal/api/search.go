package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// LogHits are the lines of a log that hold what was looked for.
type LogHits struct {
	Hits      []LogHit    `json:"hits"`
	NextAfter agented.Seq `json:"next_after" doc:"Last line that was looked at: ask for the rest with after set to it"`
	Done      bool        `json:"done" doc:"The end of the log, as it is now, was reached"`
	LastSeq   agented.Seq `json:"last_seq" doc:"Last line of the log at this moment"`
	Note      string      `json:"note,omitempty" doc:"Why there is nothing to search, when retention took the log"`
}

// LogHit is one of them.
type LogHit struct {
	Seq     agented.Seq    `json:"seq" doc:"Number of the line; of its first part if it was cut"`
	At      time.Time      `json:"timestamp"`
	Attempt int            `json:"attempt"`
	Stream  agented.Stream `json:"stream" enum:"stdout,stderr,system"`
	Excerpt string         `json:"excerpt" doc:"The line around the first match, at most 240 bytes, without escape sequences"`
}

type searchInput struct {
	ID    string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Query string `query:"q" required:"true" minLength:"1" maxLength:"1000" doc:"What to look for"`
	Regex bool   `query:"regex" doc:"q is a regular expression (RE2 syntax)"`
	Case  bool   `query:"case" doc:"Upper and lower case differ. Default: they do not"`
	After int64  `query:"after" minimum:"0" doc:"Look behind this line"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"Hits at most"`
}

const (
	searchTime = 2 * time.Second // of one answer
	maxExcerpt = 240
	maxJoined  = 8 << 20 // bytes of the parts of one line that are looked at together
)

func (s *Server) searchLog(ctx context.Context, in *searchInput) (*output[LogHits], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	look, err := newSearch(in.Query, in.Regex, in.Case)
	if err != nil {
		return nil, err
	}
	e, err := s.o.DB.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &output[LogHits]{LogHits{Hits: []LogHit{}, NextAfter: agented.Seq(in.After)}}
	log, err := runlog.OpenReader(s.o.Layout.Execution(id))
	if errors.Is(err, agented.NotFound) {
		out.Body.Done, out.Body.Note = true, removed(e)
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if out.Body.LastSeq, err = log.LastSeq(); err != nil {
		return nil, err
	}
	if err := log.SeekAfter(agented.Seq(in.After)); err != nil {
		return nil, err
	}
	look.limit, look.hits = in.Limit, &out.Body
	look.mask, look.masks = s.masker().MaskLine, !s.masker().Empty()
	if err := look.run(ctx, log, time.Now().Add(searchTime)); err != nil {
		return nil, err
	}
	// A cut line is looked at when its end is there, and stands where it began.
	slices.SortFunc(out.Body.Hits, func(a, b LogHit) int { return cmp.Compare(a.Seq, b.Seq) })
	return out, nil
}

// newSearch returns a search that lacks its limit and what it masks.
func newSearch(query string, isRegex, exact bool) (*search, error) {
	find, err := finder(query, isRegex, exact)
	if err != nil {
		return nil, err
	}
	q := &search{find: find, need: needed(query, isRegex, exact)}
	if !isRegex {
		query = regexp.QuoteMeta(query)
	}
	switch {
	case !exact: // a text in any case is found a little more often than by finder: a k may be a Kelvin sign
		q.auto = newAutomaton("(?i)" + query)
	case isRegex:
		q.auto = newAutomaton(query)
	}
	return q, nil
}

// finder returns what finds the first match in a text: its bounds, or nil.
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
		return nil, agented.InvalidFields([]agented.Field{{Path: "query.q", Text: "is not a regular expression of the kind that is understood here (RE2): " + text}})
	}
	return func(text []byte) []int { return re.FindIndex(text) }, nil
}

// needed returns a text that every match holds, as long a one as can be told;
// nil if there is none that is worth looking for. Finding out that it is not in
// a line is much cheaper than to try the line.
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
	// What masks a secret is not in the line as it was printed.
	// Bytes that are no UTF-8 match U+FFFD, and are not it.
	if len(query) < 2 || strings.ContainsAny(query, "*\uFFFD") {
		return nil
	}
	return []byte(query)
}

// literal is the longest text that must be in every match of an expression.
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

// search goes through a log.
type search struct {
	find  func([]byte) []int
	need  []byte     // is in every match; nil is unknown
	auto  *automaton // where it says no there is no match; nil is unknown
	limit int
	hits  *LogHits
	mask  func(dst, line []byte) []byte
	masks bool

	may   []bool // of the lines that were read together, those to look at
	rooms [lanes]room
	open  map[cutKey]*cutLine // lines whose last part has not come
	moved bool                // NextAfter is not where the search began
}

// room is where the text of a line is made what people may see.
type room struct{ masked, plain []byte }

// cutKey says which line a part belongs to: a stream has one at a time.
type cutKey struct {
	attempt int
	stream  agented.Stream
}

type cutLine struct {
	first agented.LogLine
	text  []byte
}

func (q *search) run(ctx context.Context, log *runlog.Reader, until time.Time) error {
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
		q.sift(lines)
		for i := range lines {
			if q.may[i] {
				q.line(&lines[i])
			}
			if len(q.open) > 0 && len(q.hits.Hits) >= 2*q.limit {
				q.giveUp()
			}
			if len(q.open) > 0 {
				continue // the place to go on from lies before the line that is open
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
		// What was found behind that place will be found again.
		q.hits.Hits = slices.DeleteFunc(q.hits.Hits, func(h LogHit) bool { return h.Seq > q.hits.NextAfter })
		return nil
	}
}

// sift tells the lines that have no match from those that must be looked at.
func (q *search) sift(lines []agented.LogLine) {
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

// settled notes that everything up to a line was looked at.
func (q *search) settled(at agented.Seq) { q.hits.NextAfter, q.moved = at, true }

// giveUp looks at the lines that are open as far as they came.
func (q *search) giveUp() {
	for key, c := range q.open {
		delete(q.open, key)
		q.look(&c.first, c.text)
	}
}

// line looks at a line, and at one that was cut when its last part is there.
func (q *search) line(l *agented.LogLine) {
	key := cutKey{l.Attempt, l.Stream}
	switch c := q.open[key]; {
	case l.Part == agented.PartWhole:
		q.look(l, l.Content)
	case l.Part == agented.PartFirst:
		if q.open == nil {
			q.open = map[cutKey]*cutLine{}
		}
		first := *l
		q.open[key] = &cutLine{first: first, text: append([]byte(nil), l.Content...)}
	case c == nil: // its beginning lies before where the search started
		q.look(l, l.Content)
	default:
		c.text = append(c.text, l.Content...)
		if l.Part == agented.PartLast || len(c.text) > maxJoined {
			delete(q.open, key)
			q.look(&c.first, c.text)
		}
	}
}

// visible returns the text of a line as people may see it, until it is asked for
// the next line of the same lane; false if what every match needs is not in it.
// With apart nothing may be masked yet: a match that lies between the masks is
// in the line as it was printed too, so where that has none there is none.
func (q *search) visible(lane int, text []byte, apart bool) ([]byte, bool) {
	escapes := bytes.IndexByte(text, 0x1b) >= 0
	// Escape sequences, which are not a part of the text, may lie in between.
	if q.need != nil && !escapes && !bytes.Contains(text, q.need) {
		return nil, false
	}
	r := &q.rooms[lane]
	// What is masked must not be found either, or a search could guess it.
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

func (q *search) look(l *agented.LogLine, text []byte) {
	text, ok := q.visible(0, text, false)
	if !ok || q.auto != nil && !q.auto.matches(text) {
		return
	}
	at := q.find(text)
	if at == nil {
		return
	}
	from := max(0, at[0]-maxExcerpt/3)
	for from > 0 && text[from]&0xc0 == 0x80 {
		from--
	}
	q.hits.Hits = append(q.hits.Hits, LogHit{
		Seq: l.Seq, At: shown(l.At), Attempt: l.Attempt, Stream: l.Stream,
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
