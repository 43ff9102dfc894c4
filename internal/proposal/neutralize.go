package proposal

import (
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// neutralize changes the texts so that they notify no person, fetch nothing when they are shown, and
// cannot imitate the server's markers.
func (p *Proposal) neutralize() {
	p.Title, p.Body = Line(p.Title), Markdown(p.Body)
	p.Description = clip(Line(p.Description), MaxStatus)
}

// zeroWidth separates characters without being visible.
const zeroWidth = "\u200b"

// Line neutralizes a text of one line, such as a title or the subject of a commit.
func Line(s string) string {
	s = mentions().ReplaceAllString(oneLine(s), "${1}@"+zeroWidth+"${2}")
	return clip(s, MaxTitle)
}

// Markdown neutralizes a text in Markdown:
//
//   - mentions (@name) and references to other repositories (owner/name#1) are interrupted by an
//     invisible space;
//   - HTML is escaped, and with it hidden comments;
//   - images become links, and the address of a link is always visible;
//   - control characters and characters that change the direction of text are removed.
//
// The content of code blocks stays as it is. Longer texts are truncated.
func Markdown(s string) string {
	out := markdown(s)
	for most := MaxText; utf8.RuneCountInString(out) > MaxText+1000; {
		most = most * 9 / 10
		out = markdown(clip(s, most))
	}
	return out
}

func markdown(s string) string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	s = strings.TrimSpace(plainText(s))
	if utf8.RuneCountInString(s) > MaxText {
		s = string([]rune(s)[:MaxText-100]) + "\n… (truncated)"
	}
	var out strings.Builder
	fence, unsure := "", false
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			out.WriteByte('\n')
		}
		// Only blocks that begin in the first column are recognized. Others are treated as text, which
		// is changed more than necessary. After an indented fence, which belongs to a list or not, it
		// is unknown which fences begin a block, so the rest is text.
		run := fenceOf(line)
		switch {
		case fence == "" && indented().MatchString(line):
			unsure = true
			line = markdownLine(pictures().ReplaceAllString(line, "${1}text "))
		case fence == "" && unsure:
			line = markdownLine(pictures().ReplaceAllString(line, "${1}text "))
		case fence == "" && run != "":
			fence = run
			info := strings.Fields(strings.TrimLeft(line, run[:1]))
			if len(info) > 0 && drawn[strings.ToLower(info[0])] {
				line = run + "text" // the forge draws these and may fetch what they name
			}
		case fence != "" && closes(line, fence):
			fence = ""
		case fence == "":
			line = markdownLine(pictures().ReplaceAllString(line, "${1}text "))
		}
		out.WriteString(line)
	}
	if fence != "" {
		out.WriteString("\n" + fence)
	}
	return out.String()
}

// drawn are languages of code blocks that are shown as pictures.
var drawn = map[string]bool{"mermaid": true, "geojson": true, "topojson": true, "stl": true, "math": true}

// fenceOf returns the characters of a fence at the start of a line, or "".
func fenceOf(line string) string {
	for _, c := range []string{"`", "~"} {
		n := len(line) - len(strings.TrimLeft(line, c))
		if n >= 3 && !(c == "`" && strings.Contains(line[n:], "`")) {
			return line[:n]
		}
	}
	return ""
}

// closes reports whether a line ends the block of a fence.
func closes(line, fence string) bool {
	rest := strings.TrimLeft(line, " ")
	if len(line)-len(rest) > 3 {
		return false
	}
	after := strings.TrimLeft(rest, fence[:1])
	return len(rest)-len(after) >= len(fence) && strings.Trim(after, " \t") == ""
}

// markdownLine neutralizes a line outside of code blocks.
func markdownLine(line string) string {
	line = entities().ReplaceAllString(line, "&amp;${1}")
	line = html().ReplaceAllString(line, "&lt;${1}")
	line = strings.ReplaceAll(line, "![", `!\[`)
	line = links().ReplaceAllStringFunc(line, func(s string) string {
		if strings.HasPrefix(s, "](#") {
			return s
		}
		return `]\` + s[1:]
	})
	line = strings.ReplaceAll(line, "]:", `]\:`)
	line = mentions().ReplaceAllString(line, "${1}@"+zeroWidth+"${2}")
	return references().ReplaceAllString(line, "${1}"+zeroWidth+"#${2}")
}

func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

var (
	mentions   = pattern(`(^|[^A-Za-z0-9])@([A-Za-z0-9])`)
	entities   = pattern(`&(#|[A-Za-z])`)
	references = pattern(`([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)#([0-9])`)
	html       = pattern(`<([A-Za-z/!?])`)
	indented   = pattern("^ {1,3}(```|~~~)")
	pictures   = pattern("(?i)((?:```+|~~~+)[ \\t]*)(?:mermaid|geojson|topojson|stl|math)(?:[ \\t]|$)")
	links      = pattern(`\]\(#?|\]\[`)
)

// plainText removes control characters, except for line breaks and tabs, and invisible characters
// that change how a text is shown.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x2069, r == 0xfeff, r >= 0xe0000 && r <= 0xe007f:
			return -1
		case r == 0x2028 || r == 0x2029:
			return '\n'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
