package webhook

import (
	"regexp"
	"strings"
)

// maxGlob is the longest pattern, in bytes.
const maxGlob = 300

// maxMatched is the longest text that a pattern is held against, in bytes.
const maxMatched = 4096

// globs is a list of patterns that select texts. They are read in order and the
// last one that fits decides: a pattern after ! takes texts out again, and a
// list that starts with one begins with everything.
//
// In a pattern * stands for any text without a slash, ** for any text, ? for
// one character other than a slash; **/ at the start or after a slash also
// stands for nothing. A backslash takes the next character as it is.
type globs struct {
	patterns []globPattern
}

type globPattern struct {
	not     bool
	literal string // when re is nil
	re      *regexp.Regexp
}

// compileGlobs leaves patterns out that cannot be read; Validate tells them.
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

// match says no to a text that is longer than any path or name can be.
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

// globExpression is the pattern as a regular expression, which is matched in
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

// quoteByte quotes the character at i and moves i to its last byte.
func quoteByte(s string, i *int) string {
	end := *i + 1
	for end < len(s) && s[end]&0xc0 == 0x80 {
		end++
	}
	c := s[*i:end]
	*i = end - 1
	return regexp.QuoteMeta(c)
}
