package webhook

import (
	"regexp"
	"strings"
)

// maxGlob is the length of the longest pattern, in bytes.
const maxGlob = 300

// maxMatched is the length of the longest text to match, in bytes.
const maxMatched = 4096

// globs is a list of patterns that select texts. The last matching pattern
// decides: a pattern after ! excludes texts, and a list that starts with one
// initially includes all texts.
//
// In a pattern * matches any text without a slash, ** any text, ? one character
// other than a slash; **/ at the start or after a slash also matches nothing. A
// backslash escapes the next character.
type globs struct {
	patterns []globPattern
}

type globPattern struct {
	not     bool
	literal string // if re is nil
	re      *regexp.Regexp
}

// compileGlobs skips invalid patterns; Validate reports them.
func compileGlobs(list []string, foldCase bool) globs {
	var out globs
	for _, text := range list {
		if wrongGlob(text) != "" {
			continue
		}
		p := globPattern{}
		text, p.not = strings.CutPrefix(text, "!")
		if strings.ContainsAny(text, `*?\`) || foldCase {
			re, err := regexp.Compile(globExpression(text, foldCase))
			if err != nil {
				continue
			}
			p.re = re
		} else {
			p.literal = text
		}
		out.patterns = append(out.patterns, p)
	}
	return out
}

func wrongGlob(text string) string {
	bare, _ := strings.CutPrefix(text, "!")
	switch {
	case bare == "":
		return "is empty: write a name or a pattern"
	case len(text) > maxGlob:
		return "is too long: use at most 300 bytes"
	case strings.HasSuffix(strings.ReplaceAll(bare, `\\`, ""), `\`):
		return `ends with \: write \\ for the character itself`
	}
	return ""
}

// match returns false for a text that is longer than any path or name.
func (g globs) match(text string) bool {
	if len(text) > maxMatched {
		return false
	}
	selected := len(g.patterns) > 0 && g.patterns[0].not
	for _, p := range g.patterns {
		if p.not == selected && p.fits(text) {
			selected = !p.not
		}
	}
	return selected
}

func (p globPattern) fits(text string) bool {
	if p.re == nil {
		return text == p.literal
	}
	return p.re.MatchString(text)
}

// globExpression converts the pattern to a regular expression, which matches in
// time linear in the text.
func globExpression(pattern string, foldCase bool) string {
	var b strings.Builder
	b.WriteString(`\A`)
	if foldCase {
		b.WriteString(`(?i)`)
	}
	b.WriteString(`(?s:`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**/") && (i == 0 || pattern[i-1] == '/'):
			b.WriteString(`(?:.*/)?`)
			i += 2
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(`.*`)
			i++
		case c == '*':
			b.WriteString(`[^/]*`)
		case c == '?':
			b.WriteString(`[^/]`)
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteString(quoteByte(pattern, &i))
		default:
			b.WriteString(quoteByte(pattern, &i))
		}
	}
	b.WriteString(`)\z`)
	return b.String()
}

// quoteByte quotes the character at i and advances i to its last byte.
func quoteByte(s string, i *int) string {
	end := *i + 1
	for end < len(s) && s[end]&0xc0 == 0x80 {
		end++
	}
	c := s[*i:end]
	*i = end - 1
	return regexp.QuoteMeta(c)
}

// MatchPath reports whether one of the patterns matches a path, ignoring case. Patterns are those of
// the conditions of webhooks, without exclusions.
func MatchPath(patterns []string, path string) bool { return compileGlobs(patterns, true).match(path) }
