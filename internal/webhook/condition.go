package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/agented/agented"
)

// Op says how a condition compares. The values are part of the API.
type Op string

// The operations.
const (
	OpEquals    Op = "equals"     // a value at the field is this one
	OpNotEquals Op = "not_equals" // none is; also when the field is not there
	OpContains  Op = "contains"   // a text holds this text, or a list this value
	OpRegex     Op = "regex"      // a text has a part that fits this RE2 pattern
	OpExists    Op = "exists"     // the field is there and not null
	OpNotExists Op = "not_exists"
)

// Ops lists the operations in the order that people see.
var Ops = []Op{OpEquals, OpNotEquals, OpContains, OpRegex, OpExists, OpNotExists}

// Group is conditions on the body: all of All and, if there are any, at least
// one of Any.
type Group struct {
	All []Condition `json:"all,omitempty"`
	Any []Condition `json:"any,omitempty"`
}

// Condition compares one field of the body, or is a group of its own.
//
// Field is a dotted path: keys, positions in a list (commits.0.id or
// commits[0].id) and * for every member; a backslash takes the next character
// as it is. When * finds several values, one that fits is enough. Value is a
// string, number, boolean or null; a string also equals a number, true, false
// or null that is written like it.
type Condition struct {
	Field string `json:"field,omitempty"`
	Op    Op     `json:"op,omitempty"`
	Value any    `json:"value,omitempty"`
	Group
}

// Bounds of conditions.
const (
	maxConditions = 100
	maxNesting    = 8
	maxPattern    = 500     // bytes of a regular expression
	maxProgram    = 1000    // instructions that it compiles to
	maxRegexText  = 1 << 16 // bytes of a text that it looks at
	maxWork       = 1 << 25 // bytes looked at, times instructions, for one event
	maxValueText  = 4096    // bytes of a value to compare with
)

// checker evaluates conditions within a bound of work.
type checker struct {
	body any
	work int // what is left
	seen int // conditions
}

// group returns "" when the group holds, else the reason of the first condition
// that said no.
func (c *checker) group(g *Group, depth int) string {
	if depth > maxNesting {
		return "the conditions are nested too deep"
	}
	for i := range g.All {
		if why := c.condition(&g.All[i], depth); why != "" {
			return why
		}
	}
	first := ""
	for i := range g.Any {
		why := c.condition(&g.Any[i], depth)
		if why == "" {
			return ""
		}
		if first == "" {
			first = why
		}
	}
	switch {
	case len(g.Any) > 1:
		return fmt.Sprintf("none of %d alternatives holds; the first: %s", len(g.Any), first)
	default:
		return first
	}
}

func (c *checker) condition(cond *Condition, depth int) string {
	if c.seen++; c.seen > maxConditions {
		return "there are too many conditions"
	}
	if len(cond.All) > 0 || len(cond.Any) > 0 {
		return c.group(&cond.Group, depth+1)
	}
	name := brief(cond.Field, 80)
	path, wrong := splitPath(cond.Field)
	if wrong != "" {
		return fmt.Sprintf("the field %s cannot be read: it %s", quote(name), wrong)
	}
	found, whole := find(c.body, path)
	if !whole {
		return fmt.Sprintf("the field %s stands for too many values", name)
	}
	switch cond.Op {
	case OpExists, OpNotExists:
		exists := false
		for _, v := range found {
			exists = exists || v != nil
		}
		switch {
		case exists && cond.Op == OpNotExists:
			return fmt.Sprintf("the field %s is there (%s), and should not be", name, got(found))
		case !exists && cond.Op == OpExists:
			return fmt.Sprintf("the field %s is not there", name)
		}
		return ""
	case OpEquals, OpNotEquals:
		equal := false
		for _, v := range found {
			equal = equal || same(v, cond.Value)
		}
		switch {
		case equal && cond.Op == OpNotEquals:
			return fmt.Sprintf("the field %s is %s, and should not be", name, show(cond.Value))
		case !equal && cond.Op == OpEquals:
			return fmt.Sprintf("the field %s is %s, not %s", name, got(found), show(cond.Value))
		}
		return ""
	case OpContains:
		for _, v := range found {
			if contains(v, cond.Value) {
				return ""
			}
		}
		return fmt.Sprintf("the field %s (%s) does not contain %s", name, got(found), show(cond.Value))
	case OpRegex:
		return c.regex(name, found, cond.Value)
	}
	return fmt.Sprintf("the condition on %s has no known operation (%s)", name, quote(brief(string(cond.Op), 40)))
}

func (c *checker) regex(name string, found []any, value any) string {
	pattern, _ := value.(string)
	re, size, wrong := compilePattern(pattern)
	if wrong != "" {
		return fmt.Sprintf("the pattern for %s %s", name, wrong)
	}
	for _, v := range found {
		s, ok := scalar(v)
		if !ok || v == nil {
			continue
		}
		s = cut(s, maxRegexText)
		if c.work -= (len(s) + 1) * size; c.work < 0 {
			return fmt.Sprintf("the pattern for %s would take too long on this body", name)
		}
		if re.MatchString(s) {
			return ""
		}
	}
	return fmt.Sprintf("the field %s (%s) does not fit the pattern %s", name, got(found), quote(brief(pattern, 80)))
}

// compilePattern compiles an RE2 pattern and says how large its program is: a
// match takes at most that many steps for each byte of the text.
func compilePattern(pattern string) (re *regexp.Regexp, size int, wrong string) {
	if pattern == "" {
		return nil, 0, "is empty: give a regular expression"
	}
	if len(pattern) > maxPattern {
		return nil, 0, "is too long: use at most 500 bytes"
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		if e, ok := err.(*syntax.Error); ok {
			return nil, 0, fmt.Sprintf("is not a regular expression (RE2): %s", e.Code)
		}
		return nil, 0, "is not a regular expression (RE2)"
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, 0, "is not a regular expression (RE2)"
	}
	if len(prog.Inst) > maxProgram {
		return nil, 0, "repeats too much: use smaller counts"
	}
	re, err = regexp.Compile(pattern)
	if err != nil {
		return nil, 0, "is not a regular expression (RE2)"
	}
	return re, len(prog.Inst), ""
}

// same compares a value of the body with one of a condition.
func same(v, want any) bool {
	s, ok := scalar(v)
	if !ok {
		return false
	}
	w, ok := scalar(want)
	if !ok {
		return false
	}
	if text, isText := want.(string); isText {
		return s == text
	}
	if _, isText := v.(string); isText {
		return false // "1" in the body is not the number 1
	}
	if s == w {
		return kindOf(v) == kindOf(want)
	}
	if kindOf(v) != 'n' || kindOf(want) != 'n' {
		return false
	}
	a, errA := strconv.ParseFloat(s, 64)
	b, errB := strconv.ParseFloat(w, 64)
	const exact = 1 << 53 // beyond it two integers may share one float
	return errA == nil && errB == nil && a == b && a < exact && a > -exact
}

func kindOf(v any) byte {
	switch v.(type) {
	case string:
		return 's'
	case bool:
		return 'b'
	case nil:
		return '0'
	}
	return 'n'
}

func contains(v, want any) bool {
	switch v := v.(type) {
	case string:
		w, ok := scalar(want)
		return ok && w != "" && strings.Contains(v, w)
	case []any:
		for _, member := range v {
			if same(member, want) {
				return true
			}
		}
	}
	return false
}

// got shows what was found at a field, in a few words.
func got(found []any) string {
	if len(found) == 0 {
		return "not there"
	}
	shown := show(found[0])
	if len(found) > 1 {
		shown += fmt.Sprintf(" and %d more", len(found)-1)
	}
	return shown
}

func show(v any) string {
	switch v := v.(type) {
	case string:
		return quote(brief(v, 80))
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case map[string]any:
		return "an object"
	}
	if s, ok := scalar(v); ok {
		return brief(s, 80)
	}
	return "something else"
}

// quote is a cleaned text in quotes.
func quote(s string) string { return `"` + s + `"` }

// validate adds what is wrong with the group at the path to bad and returns how
// many conditions it has.
func (g *Group) validate(at string, depth int, bad *[]agented.Field) int {
	no := func(path, text string) { *bad = append(*bad, agented.Field{Path: path, Text: text}) }
	if depth > maxNesting {
		no(at, fmt.Sprintf("is nested too deep: use at most %d levels", maxNesting))
		return 0
	}
	if len(g.All) == 0 && len(g.Any) == 0 {
		no(at, `is empty: give "all" or "any" with conditions, or remove it`)
	}
	n := 0
	for _, part := range []struct {
		name string
		list []Condition
	}{{"all", g.All}, {"any", g.Any}} {
		for i := range part.list {
			path := fmt.Sprintf("%s.%s.%d", at, part.name, i)
			if n++; n > maxConditions {
				no(at, fmt.Sprintf("has too many conditions: use at most %d", maxConditions))
				return n
			}
			c := &part.list[i]
			if len(c.All) > 0 || len(c.Any) > 0 {
				if c.Field != "" || c.Op != "" || c.Value != nil {
					no(path, "is both a group and a condition: put the condition into the group")
				}
				n += c.validate(path, depth+1, bad)
				if n > maxConditions && depth == 0 {
					no(at, fmt.Sprintf("has too many conditions: use at most %d", maxConditions))
					return n
				}
				continue
			}
			c.validateLeaf(path, no)
		}
	}
	return n
}

func (c *Condition) validateLeaf(path string, no func(path, text string)) {
	if _, wrong := splitPath(c.Field); wrong != "" {
		no(path+".field", wrong)
	}
	switch c.Op {
	case OpEquals, OpNotEquals, OpContains:
		s, ok := scalar(c.Value)
		switch {
		case !ok:
			no(path+".value", "must be a text, a number, true, false or null")
		case len(s) > maxValueText:
			no(path+".value", fmt.Sprintf("is too long: use at most %d bytes", maxValueText))
		case c.Op == OpContains && (s == "" || c.Value == nil):
			no(path+".value", "is required: say what the field must contain")
		}
	case OpRegex:
		pattern, ok := c.Value.(string)
		if !ok {
			no(path+".value", "must be a regular expression as text")
		} else if _, _, wrong := compilePattern(pattern); wrong != "" {
			no(path+".value", wrong)
		}
	case OpExists, OpNotExists:
		if c.Value != nil {
			no(path+".value", fmt.Sprintf("does not apply to %s: remove it", c.Op))
		}
	case "":
		no(path+".op", fmt.Sprintf("is required: use one of %s", join(Ops)))
	default:
		no(path+".op", fmt.Sprintf("is not known: use one of %s%s", join(Ops), suggest(brief(string(c.Op), 40), texts(Ops))))
	}
}

// UnmarshalJSON reads a condition. Numbers keep their digits, since ids may be
// larger than a float holds; a name that is not known is an error.
func (c *Condition) UnmarshalJSON(data []byte) error {
	type plain Condition
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(c))
}

// MarshalJSON keeps a value of null, which otherwise looks like none.
func (c Condition) MarshalJSON() ([]byte, error) {
	type plain struct {
		Field string           `json:"field,omitempty"`
		Op    Op               `json:"op,omitempty"`
		Value *json.RawMessage `json:"value,omitempty"`
		Group
	}
	p := plain{Field: c.Field, Op: c.Op, Group: c.Group}
	if c.Value != nil || c.Op == OpEquals || c.Op == OpNotEquals {
		raw, err := json.Marshal(c.Value)
		if err != nil {
			return nil, err
		}
		p.Value = (*json.RawMessage)(&raw)
	}
	return json.Marshal(p)
}
