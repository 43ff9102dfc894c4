package webhook

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Limits of a dotted path into a body.
const (
	maxPath     = 300 // bytes
	maxSegments = 32
	maxVisits   = 100_000 // values visited for one path
)

// splitPath parses a dotted path: keys, list indexes (a.0.b or a[0].b), and *
// for every member. A backslash escapes the next character, for keys that
// contain a dot.
func splitPath(path string) ([]string, string) {
	if path == "" {
		return nil, "is empty: set a field of the body, for example issue.title"
	}
	if len(path) > maxPath {
		return nil, "is too long: use at most 300 bytes"
	}
	var out []string
	var b strings.Builder
	closed := false // a segment ended with ], so only . or [ may follow
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\':
			if i++; i == len(path) {
				return nil, `ends with \: write \\ for the character itself`
			}
			if closed {
				return nil, "needs a . after ]"
			}
			b.WriteByte(path[i])
		case c == '.':
			if b.Len() == 0 && !closed {
				return nil, "has an empty segment: write names with one dot between them"
			}
			if !closed {
				out = append(out, b.String())
			}
			b.Reset()
			closed = false
			if i == len(path)-1 {
				return nil, "ends with a dot: remove it"
			}
		case c == '[':
			end := strings.IndexByte(path[i:], ']')
			if end < 2 {
				return nil, `has a [ that is not followed by a number or * and ]: write \[ for the character itself`
			}
			inner := path[i+1 : i+end]
			if inner != "*" && !digits(inner) {
				return nil, "has brackets that contain neither a number nor *"
			}
			if b.Len() > 0 {
				out = append(out, b.String())
				b.Reset()
			} else if i > 0 && !closed {
				return nil, "has an empty segment before ["
			}
			out = append(out, inner)
			closed = true
			i += end
		case closed:
			return nil, "needs a . after ]"
		default:
			b.WriteByte(c)
		}
	}
	if !closed {
		out = append(out, b.String())
	}
	if len(out) > maxSegments {
		return nil, "has too many segments: use at most 32"
	}
	return out, ""
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != "" && len(s) < 10
}

// find returns the values at a path, members of an object in the order of their
// keys. It returns false if it stopped at the limit.
func find(root any, path []string) (found []any, all bool) {
	visits := 0
	var walk func(v any, rest []string) bool
	walk = func(v any, rest []string) bool {
		if visits++; visits > maxVisits {
			return false
		}
		if len(rest) == 0 {
			found = append(found, v)
			return true
		}
		switch v := v.(type) {
		case map[string]any:
			if rest[0] == "*" {
				for _, key := range slices.Sorted(maps.Keys(v)) {
					if !walk(v[key], rest[1:]) {
						return false
					}
				}
				return true
			}
			if member, ok := v[rest[0]]; ok {
				return walk(member, rest[1:])
			}
		case []any:
			if rest[0] == "*" {
				for _, member := range v {
					if !walk(member, rest[1:]) {
						return false
					}
				}
				return true
			}
			if i, err := strconv.Atoi(rest[0]); err == nil && digits(rest[0]) && i < len(v) {
				return walk(v[i], rest[1:])
			}
		}
		return true
	}
	all = walk(root, path)
	return found, all
}

// scalar returns the text of a string, number, boolean or null.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		form := byte('g')
		if v == math.Trunc(v) && math.Abs(v) < 1e15 {
			form = 'f' // 1000000, not 1e+06
		}
		return strconv.FormatFloat(v, form, -1, 64), true
	case int:
		return strconv.Itoa(v), true
	case nil:
		return "null", true
	}
	return "", false
}

// Lookup returns the text of the first value at a dotted path of the body, and
// whether there is one. Lists and objects are returned as JSON.
func (e *Event) Lookup(path string) (string, bool) {
	segments, wrong := splitPath(path)
	if wrong != "" {
		return "", false
	}
	found, _ := find(e.JSON, segments)
	if len(found) == 0 {
		return "", false
	}
	if s, ok := scalar(found[0]); ok {
		return s, true
	}
	out, err := json.Marshal(found[0])
	return string(out), err == nil
}
