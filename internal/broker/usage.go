package broker

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/agented/agented"
)

// Limits of what a scanner keeps of an answer.
const (
	maxName    = 128     // bytes of a field's name or a model's name
	maxUsage   = 8 << 10 // bytes of a usage object
	maxLineTag = 5       // bytes of "data:"
)

// scanner finds the model and the usage in an answer of a model's API, which it receives in pieces
// of any size. It needs constant memory, whatever the answer contains.
//
// It reads the fields usage, usageMetadata, model and modelVersion of the answer itself, and those
// in its fields message and response. Text of a model cannot imitate them: it is in strings, and
// the arguments of tools are deeper.
type scanner struct {
	sse bool // server-sent events: one document in each data line; otherwise one document

	tag     [maxLineTag]byte // beginning of the current line
	tagged  int              // bytes in tag
	dataNow bool             // the line is a data line
	skip    bool             // the line is another one

	doc   document
	model string
	total agented.Usage
}

// newScanner returns a scanner for an answer, or nil if its type has no usage.
func newScanner(contentType string) *scanner {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "text/event-stream":
		return &scanner{sse: true}
	case "application/json":
		return &scanner{}
	}
	return nil
}

// write scans the next piece.
func (s *scanner) write(p []byte) {
	for _, c := range p {
		if !s.sse {
			s.feed(c)
			continue
		}
		switch {
		case c == '\n' || c == '\r':
			s.doc, s.tagged, s.dataNow, s.skip = document{capture: s.doc.capture[:0]}, 0, false, false
		case s.dataNow:
			s.feed(c)
		case !s.skip:
			s.tag[s.tagged] = c
			s.tagged++
			if s.tagged == maxLineTag {
				s.dataNow = string(s.tag[:]) == "data:"
				s.skip = !s.dataNow
			}
		}
	}
}

// feed passes a byte to the document and keeps what it found.
func (s *scanner) feed(c byte) {
	switch s.doc.next(c) {
	case foundModel:
		s.model = string(s.doc.text)
	case foundUsage:
		s.add(s.doc.capture)
	}
}

// add merges a usage object. Later values replace earlier ones: the APIs send totals.
func (s *scanner) add(object []byte) {
	var c counts
	// A field of another type is skipped, and the others count.
	_ = json.Unmarshal(object, &c)
	u := c.usage()
	for _, f := range []struct{ to, from **int64 }{
		{&s.total.InputTokens, &u.InputTokens},
		{&s.total.OutputTokens, &u.OutputTokens},
		{&s.total.CacheReadTokens, &u.CacheReadTokens},
		{&s.total.CacheWriteTokens, &u.CacheWriteTokens},
	} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
}

// counts are the usage objects of all vendors.
type counts struct {
	// Anthropic Messages; OpenAI Responses with cached tokens in input_tokens.
	Input        number  `json:"input_tokens"`
	Output       number  `json:"output_tokens"`
	CacheRead    number  `json:"cache_read_input_tokens"`
	CacheWrite   number  `json:"cache_creation_input_tokens"`
	InputDetails details `json:"input_tokens_details"`
	// OpenAI Chat Completions.
	Prompt        number  `json:"prompt_tokens"`
	Completion    number  `json:"completion_tokens"`
	PromptDetails details `json:"prompt_tokens_details"`
	// Gemini.
	PromptCount number `json:"promptTokenCount"`
	ToolCount   number `json:"toolUsePromptTokenCount"`
	CachedCount number `json:"cachedContentTokenCount"`
	Candidates  number `json:"candidatesTokenCount"`
	Thoughts    number `json:"thoughtsTokenCount"`
}

type details struct {
	Cached number `json:"cached_tokens"`
}

// number is a token count; nil if it is unknown.
type number struct{ n *int64 }

// UnmarshalJSON accepts any value, and drops one that cannot be a count.
func (c *number) UnmarshalJSON(b []byte) error {
	const most = 1 << 40
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil && n >= 0 && n <= most {
		c.n = &n
	}
	return nil
}

// plus adds counts, of which each may be unknown.
func (c number) plus(d number) number {
	if c.n == nil {
		return d
	}
	if d.n == nil {
		return c
	}
	n := *c.n + *d.n
	return number{&n}
}

// usage converts the counts. Its input tokens are those that were not cached.
func (c *counts) usage() agented.Usage {
	switch {
	case c.Prompt.n != nil || c.Completion.n != nil:
		return split(c.Prompt, c.PromptDetails.Cached, c.Completion)
	case c.PromptCount.n != nil || c.Candidates.n != nil:
		return split(c.PromptCount.plus(c.ToolCount), c.CachedCount, c.Candidates.plus(c.Thoughts))
	case c.InputDetails.Cached.n != nil:
		return split(c.Input, c.InputDetails.Cached, c.Output)
	}
	return agented.Usage{InputTokens: c.Input.n, OutputTokens: c.Output.n, CacheReadTokens: c.CacheRead.n, CacheWriteTokens: c.CacheWrite.n}
}

// split returns a usage from an input that contains the cached tokens.
func split(input, cached, output number) agented.Usage {
	u := agented.Usage{InputTokens: input.n, CacheReadTokens: cached.n, OutputTokens: output.n}
	if input.n != nil && cached.n != nil {
		rest := max(*input.n-*cached.n, 0)
		u.InputTokens = &rest
	}
	return u
}

// found is what a byte completed.
type found int

const (
	foundNothing found = iota
	foundModel         // in document.text
	foundUsage         // in document.capture
)

// document follows the structure of one JSON document.
type document struct {
	rootList bool    // its root is an array of answers
	level    int     // open objects and arrays, without that array
	object   [3]bool // by level: it is an object whose fields count
	key      [3]string
	value    [3]bool // by level: after the colon

	inString, escaped bool
	keep              bool // the string is kept in text
	text              []byte

	capturing bool
	capture   []byte
	depth     int
}

// next follows one byte.
func (d *document) next(c byte) found {
	if d.capturing {
		return d.captureNext(c)
	}
	if d.inString {
		return d.stringNext(c)
	}
	counts := d.level > 0 && d.level < len(d.object) && d.object[d.level]
	switch c {
	case '"':
		d.inString, d.keep, d.text = true, counts, d.text[:0]
	case '{', '[':
		if c == '[' && d.level == 0 && !d.rootList {
			d.rootList = true
			return foundNothing
		}
		if key := d.here(counts); c == '{' && (key == "usage" || key == "usageMetadata") {
			d.capturing, d.capture, d.depth = true, append(d.capture[:0], c), 1
			return foundNothing
		}
		wrapped := d.level == 1 && (d.here(counts) == "message" || d.here(counts) == "response")
		d.level++
		if d.level < len(d.object) {
			d.object[d.level] = c == '{' && (d.level == 1 || wrapped)
			d.value[d.level], d.key[d.level] = false, ""
		}
	case '}', ']':
		d.level = max(d.level-1, 0)
	case ':':
		if counts {
			d.value[d.level] = true
		}
	case ',':
		if counts {
			d.value[d.level], d.key[d.level] = false, ""
		}
	}
	return foundNothing
}

// here returns the name of the field whose value begins, or "".
func (d *document) here(counts bool) string {
	if counts && d.value[d.level] {
		return d.key[d.level]
	}
	return ""
}

// stringNext follows one byte of a string.
func (d *document) stringNext(c byte) found {
	switch {
	case d.escaped:
		d.escaped = false
	case c == '\\':
		d.escaped = true
	case c == '"':
		d.inString = false
		if !d.keep {
			return foundNothing
		}
		if !d.value[d.level] {
			d.key[d.level] = string(d.text)
		} else if key := d.key[d.level]; (key == "model" || key == "modelVersion") && len(d.text) > 0 {
			return foundModel
		}
		return foundNothing
	}
	if d.keep && len(d.text) < maxName {
		d.text = append(d.text, c)
	}
	return foundNothing
}

// captureNext follows one byte of a usage object.
func (d *document) captureNext(c byte) found {
	if len(d.capture) <= maxUsage {
		d.capture = append(d.capture, c)
	}
	switch {
	case d.inString:
		switch {
		case d.escaped:
			d.escaped = false
		case c == '\\':
			d.escaped = true
		case c == '"':
			d.inString = false
		}
	case c == '"':
		d.inString = true
	case c == '{' || c == '[':
		d.depth++
	case c == '}' || c == ']':
		if d.depth--; d.depth == 0 {
			d.capturing = false
			if len(d.capture) <= maxUsage {
				return foundUsage
			}
		}
	}
	return foundNothing
}
