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
	"github.com/agented/agented/internal/format"
)

// Op is the operator of a condition. The values are part of the API.
type Op string

// The operators.
const (
	OpEquals    Op = "equals"     // a value of the field equals the operand
	OpNotEquals Op = "not_equals" // no value equals it; also true if the field is missing
	OpContains  Op = "contains"   // a text contains the operand, or a list contains it as an element
	OpRegex     Op = "regex"      // a text contains a match of this RE2 pattern
	OpExists    Op = "exists"     // the field exists and is not null
	OpNotExists Op = "not_exists"
)

// Ops lists the operators in display order.
var Ops = []Op{OpEquals, OpNotEquals, OpContains, OpRegex, OpExists, OpNotExists}

// Group is a group of conditions on the body: all conditions of All and, if Any
// is not empty, at least one of Any.
type Group struct {
	All []Condition `json:"all,omitempty"`
	Any []Condition `json:"any,omitempty"`
}

// Condition compares one field of the body, or is a nested group.
//
// Field is a dotted path: keys, list indexes (commits.0.id or commits[0].id)
// and * for every member; a backslash escapes the next character. If * matches
// several values, one match is enough. Value is a string, number, boolean or
// null; a string also equals a number, true, false or null with the same
// spelling.
type Condition struct {
	Field string `json:"field,omitempty"`
	Op    Op     `json:"op,omitempty"`
	Value any    `json:"value,omitempty"`
	Group
}

// Limits of conditions.
const (
	maxConditions = 100
	maxNesting    = 8
	maxPattern    = 500     // bytes of a regular expression
	maxProgram    = 1000    // instructions of its program
	maxRegexText  = 1 << 16 // bytes of text that it examines
	maxWork       = 1 << 25 // bytes examined times instructions, for one event
	maxValueText  = 4096    // bytes of an operand
)

// checker evaluates conditions with a work limit.
type checker struct {
	body any
	work int // remaining work
	seen int // evaluated conditions
}

// group returns "" if the group matches, otherwise the reason of the first
// condition that does not.
func (c *checker) group(g *Group, depth int) string {
	if depth > maxNesting {
		return "the conditions are nested too deeply"
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
		return fmt.Sprintf("none of %d alternatives matches; the first: %s", len(g.Any), first)
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
		return fmt.Sprintf("the field %s matches too many values", name)
	}
	switch cond.Op {
	case OpExists, OpNotExists:
		exists := false
		for _, v := range found {
			exists = exists || v != nil
		}
		switch {
		case exists && cond.Op == OpNotExists:
			return fmt.Sprintf("the field %s exists (%s), but must not", name, formatFound(found))
		case !exists && cond.Op == OpExists:
			return fmt.Sprintf("the field %s does not exist", name)
		}
		return ""
	case OpEquals, OpNotEquals:
		equal := false
		for _, v := range found {
			equal = equal || equalValues(v, cond.Value)
		}
		switch {
		case equal && cond.Op == OpNotEquals:
			return fmt.Sprintf("the field %s is %s, but must not be", name, show(cond.Value))
		case !equal && cond.Op == OpEquals:
			return fmt.Sprintf("the field %s is %s, not %s", name, formatFound(found), show(cond.Value))
		}
		return ""
	case OpContains:
		for _, v := range found {
			if contains(v, cond.Value) {
				return ""
			}
		}
		return fmt.Sprintf("the field %s (%s) does not contain %s", name, formatFound(found), show(cond.Value))
	case OpRegex:
		return c.regex(name, found, cond.Value)
	}
	return fmt.Sprintf("the condition on %s has an unknown operation (%s)", name, quote(brief(string(cond.Op), 40)))
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
		s = format.Truncate(s, maxRegexText)
		if c.work -= (len(s) + 1) * size; c.work < 0 {
			return fmt.Sprintf("the pattern for %s would take too long on this body", name)
		}
		if re.MatchString(s) {
			return ""
		}
	}
	return fmt.Sprintf("the field %s (%s) does not match the pattern %s", name, formatFound(found), quote(brief(pattern, 80)))
}

// compilePattern compiles an RE2 pattern and returns the size of its program: a
// match takes at most that many steps per byte of text.
func compilePattern(pattern string) (re *regexp.Regexp, size int, wrong string) {
	if pattern == "" {
		return nil, 0, "is empty: set a regular expression"
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
		return nil, 0, "repeats too often: use smaller counts"
	}
	re, err = regexp.Compile(pattern)
	if err != nil {
		return nil, 0, "is not a regular expression (RE2)"
	}
	return re, len(prog.Inst), ""
}

// equalValues compares a value of the body with an operand.
func equalValues(v, want any) bool {
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
		return false // the text "1" in the body is not the number 1
	}
	if s == w {
		return kindOf(v) == kindOf(want)
	}
	if kindOf(v) != 'n' || kindOf(want) != 'n' {
		return false
	}
	a, errA := strconv.ParseFloat(s, 64)
	b, errB := strconv.ParseFloat(w, 64)
	const exact = 1 << 53 // larger integers may have the same float
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
			if equalValues(member, want) {
				return true
			}
		}
	}
	return false
}

// formatFound formats the values of a field for a reason.
func formatFound(found []any) string {
	if len(found) == 0 {
		return "missing"
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

// quote returns a cleaned text in quotes.
func quote(s string) string { return `"` + s + `"` }

// validate appends the errors of the group at the path to bad and returns its
// number of conditions.
func (g *Group) validate(at string, depth int, bad *[]agented.Field) int {
	no := func(path, text string) { *bad = append(*bad, agented.Field{Path: path, Text: text}) }
	if depth > maxNesting {
		no(at, fmt.Sprintf("is nested too deeply: use at most %d levels", maxNesting))
		return 0
	}
	if len(g.All) == 0 && len(g.Any) == 0 {
		no(at, `is empty: add "all" or "any" with conditions, or remove it`)
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
					no(path, "is both a group and a condition: move the condition into the group")
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
			no(path+".value", "is required: set what the field must contain")
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
		no(path+".op", fmt.Sprintf("is unknown: use one of %s%s", join(Ops), suggest(brief(string(c.Op), 40), texts(Ops))))
	}
}

// UnmarshalJSON decodes a condition. Numbers keep their digits, since ids can
// exceed the range of a float; an unknown name is an error.
func (c *Condition) UnmarshalJSON(data []byte) error {
	type plain Condition
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(c))
}

// MarshalJSON keeps a null value, which would otherwise be omitted.
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
