package logsearch

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

// agrees fails unless the automaton and package regexp agree on each line,
// alone and with other lines, on the first and on later calls.
func agrees(t interface{ Fatalf(string, ...any) }, expr string, lines ...[]byte) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return
	}
	a := newAutomaton(expr)
	if a == nil {
		return
	}
	may := make([]bool, len(lines))
	for round := range 2 {
		a.sift(may, func(_, i int) ([]byte, bool) { return lines[i], true })
		for i, line := range lines {
			want, alone := re.Match(line), a.matches(line)
			full := len(a.spots) == maxStates // it may report possible matches then
			if (want || !full) && (may[i] != want || alone != want) {
				t.Fatalf("%q in %q: among others %v, alone %v, want %v (round %d)", expr, line, may[i], alone, want, round)
			}
		}
	}
}

var hardExpressions = []string{
	``, `a`, `[0-9]+z[0-9]+y`, `^$`, `^`, `$`, `^a|b$`, `\Aa\z`, `(?m)^a$`, `(?m:^)b`, `(?m)$\n^`, `\bab\b`, `\Bb`, `\b`, `\B`, `^\b`, `\B$`,
	`(?i)task`, `(?i)straße`, `(?i)K`, `[^a]`, `.`, `.{3}`, `^.{2}$`, `(?s).{3}`, `[à-ü]+x`, `[a-é]ax`, `\x{FFFD}`, `[\x{80}-\x{10FFFF}]`, `[^\x{FFFD}]b`, `\pL\d`, `日.語`,
	`(a|b)*c`, `(a*)*b`, `a{2,4}b{0,3}`, `(?:(?:ab)?){5}x`, `a??b`, `\C`, `[[:^alpha:]]{2}`, `x\x00y`, `(a|ab)(c|bcd)`, `.*.*.*=.*`, `[0-9].{10}z`, `\Qa.b\E`, `[^\n]\n`, `(?U)a+b`,
}

var hardLines = []string{
	"", "a", "b", "ab", "ba ab", "12z34y", "12z y", "a\nb", "\n", "a\n", "\na\nb", "TASK tasK", "ta\u017fk", "STRASSE straße STRAẞE", "\u212a", "é", "éax", "ü x", "x\xc3", "\xff\xfe", "\xe6\x97a", "日本語", "日\xe6\x9c語",
	"\ufffd", "\xef\xbf", "\xed\xa0\x80", "\xf0\x9f\x98\x80", "\xf4\x90\x80\x80", "x\x00y", "aaabbb", "=", "a.b", "_a-b_", "1é2", strings.Repeat("1a2b3c", 40) + "z",
}

func TestAutomaton_equals_regexp(t *testing.T) {
	t.Parallel()
	var lines [][]byte
	for _, line := range hardLines {
		lines = append(lines, []byte(line))
	}
	for _, expr := range hardExpressions {
		agrees(t, expr, lines...)
	}
}

// expressions generates random expressions.
func expressions() *rapid.Generator[string] {
	atom := rapid.SampledFrom([]string{
		"a", "b", "z", "k", "S", "0", " ", "ab", "é", "ü", "日", `\n`, `\x{FFFD}`, ".", "(?s:.)", "[ab]", "[^a]", "[^é]", "[0-9]", `\d`, `\w`, `\W`, `\s`, `\pL`, "[à-ü]", "[日-本]",
		"(?i:k)", "(?i:s)", "(?i:é)", "(?i:[j-l])", `\b`, `\B`, "^", "$", `\A`, `\z`, "(?m:^)", "(?m:$)", "",
	})
	shape := rapid.SampledFrom([]string{"%s", "%s%s", "%s%s", "%s%s%s", "(%s|%s)", "(?:%s|%s|%s)", "(%s)*", "(%s)+", "(%s)?", "(%s){2}", "(%s){1,3}", "(?i:%s%s)", "(%s)*?"})
	var expr func(depth int) *rapid.Generator[string]
	expr = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			if depth == 0 {
				return atom.Draw(t, "atom")
			}
			form := shape.Draw(t, "shape")
			parts := make([]any, strings.Count(form, "%s"))
			for i := range parts {
				parts[i] = expr(depth-1).Draw(t, "part")
			}
			return fmt.Sprintf(form, parts...)
		})
	}
	return rapid.Custom(func(t *rapid.T) string { return expr(rapid.IntRange(0, 4).Draw(t, "depth")).Draw(t, "expression") })
}

func TestAutomaton_random_expressions(t *testing.T) {
	t.Parallel()
	expr := expressions()
	piece := rapid.SampledFrom([]string{"a", "b", "z", "k", "K", "s", "S", "0", "7", " ", "\n", "_", "é", "É", "ü", "日", "本", "\u212a", "\u017f", "\ufffd", "\xe6", "\x97", "\xff", "\xc3", "\xf0\x9f"})
	line := rapid.Custom(func(t *rapid.T) []byte {
		return []byte(strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), ""))
	})
	rapid.Check(t, func(t *rapid.T) {
		e := expr.Draw(t, "expression")
		agrees(t, e, rapid.SliceOfN(line, 1, 9).Draw(t, "lines")...)
	})
}

func TestSearch_masked_lines(t *testing.T) {
	t.Parallel()
	expr := expressions()
	masker := redact.New([]string{"abz0abz0", "kk éékS77", "\xa9abababab"})
	piece := rapid.SampledFrom([]string{"abz0abz0", "kk éékS77", "\xc3\xa9abababab", "abz0", "a", "b", "z", "k", "S", "0", " ", "*", "é", "\xc3", "\x1b[1m", "\x1b"})
	rapid.Check(t, func(t *rapid.T) {
		e := expr.Draw(t, "expression")
		if rapid.Bool().Draw(t, "quoted") {
			e = regexp.QuoteMeta(strings.Join(rapid.SliceOfN(piece, 1, 3).Draw(t, "query"), ""))
		}
		exact := rapid.Bool().Draw(t, "exact")
		find, err := finder(e, true, exact)
		if err != nil {
			return
		}
		var hits Result
		look, err := newSearch(e, true, exact)
		if err != nil {
			t.Fatal(err)
		}
		look.limit, look.hits, look.mask, look.masks = 200, &hits, masker.MaskLine, true
		var want, got []agented.Seq
		var lines []agented.LogLine
		for i := range 6 {
			text := []byte(strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "pieces"), ""))
			lines = append(lines, agented.LogLine{Seq: agented.Seq(i), Content: text})
			if find(stripEscapes(nil, masker.MaskLine(nil, text))) != nil {
				want = append(want, agented.Seq(i))
			}
		}
		look.sift(lines)
		for i := range lines {
			if look.may[i] {
				look.line(&lines[i])
			}
		}
		for _, h := range hits.Hits {
			got = append(got, h.Seq)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q (exact %v): found %v, want %v", e, exact, got, want)
		}
	})
}

func FuzzAutomaton(f *testing.F) {
	for i, expr := range hardExpressions {
		f.Add(expr, []byte(hardLines[i%len(hardLines)]), []byte("an error12: It failed"))
	}
	f.Fuzz(func(t *testing.T, expr string, one, other []byte) {
		if len(expr) > 100 || len(one)+len(other) > 1000 {
			return
		}
		agrees(t, expr, one, other, append(bytes.Clone(one), other...), nil, one[len(one)/2:], other)
	})
}

// A full table costs speed, but misses no line.
func TestAutomaton_full_table(t *testing.T) {
	t.Parallel()
	a := newAutomaton(`[01].{14}z`)
	long := make([]byte, 1<<16)
	for i, x := 0, uint32(1); i < len(long); i++ {
		x = x*1664525 + 1013904223
		long[i] = "01ab"[x>>30]
	}
	if a.matches([]byte("short")) || !a.matches(long) || len(a.spots) != maxStates {
		t.Errorf("%d states", len(a.spots))
	}
	if a.matches([]byte("short")) || !a.matches([]byte("0--------------z")) {
		t.Error("what is known is not told any more")
	}
	if newAutomaton(`[a-f]{900}[0-9]{900}`) != nil {
		t.Error("an expression of any size has an automaton")
	}
}

// Not parallel: it counts the allocations of the whole process.
func TestSearch_allocations(t *testing.T) {
	hits, lines := Result{}, linesToSearch(t, 1000)
	for _, c := range []struct {
		query        string
		regex, exact bool
	}{{"no such text", false, true}, {"no such text", false, false}, {"[0-9]+z[0-9]+y", true, true}, {"[0-9]+ lost [0-9]+", true, false}} {
		look, err := newSearch(c.query, c.regex, c.exact)
		if err != nil {
			t.Fatal(err)
		}
		look.limit, look.hits = 200, &hits
		pass := func() {
			look.sift(lines)
			for i := range lines {
				if look.may[i] {
					look.line(&lines[i])
				}
			}
		}
		pass()
		if n := testing.AllocsPerRun(20, pass); n != 0 || hits.Hits != nil {
			t.Errorf("%s: %v allocations for %d lines, found %v", c.query, n, len(lines), hits.Hits)
		}
	}
}
