package dotenv_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/agented/agented/internal/dotenv"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type corpus struct {
	PythonDotenv string `json:"python_dotenv"`
	Cases        []struct {
		Name         string            `json:"name"`
		File         string            `json:"file"`
		Environment  map[string]string `json:"environment"`
		Want         [][2]*string      `json:"want"`
		ProblemLines []int             `json:"problem_lines"`
	} `json:"cases"`
}

func readCorpus(t testing.TB) corpus {
	t.Helper()
	data, err := os.ReadFile("testdata/corpus.json")
	if err != nil {
		t.Fatal(err)
	}
	var c corpus
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func environment(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := m[name]
		return v, ok
	}
}

func TestParse_python_dotenv_corpus(t *testing.T) {
	t.Parallel()
	c := readCorpus(t)
	if len(c.Cases) < 100 {
		t.Fatalf("the corpus has %d cases, want at least 100", len(c.Cases))
	}
	for _, tc := range c.Cases {
		t.Run(tc.Name, func(t *testing.T) {
			t.Parallel()
			var want []dotenv.Var
			for _, kv := range tc.Want {
				v := dotenv.Var{Name: *kv[0]}
				if kv[1] != nil {
					v.Value, v.Set = *kv[1], true
				}
				want = append(want, v)
			}
			vars, problems := dotenv.Parse([]byte(tc.File), environment(tc.Environment))
			var lines []int
			for _, p := range problems {
				lines = append(lines, p.Line)
			}
			for i := range vars {
				vars[i].Line = 0 // not something that python-dotenv tells
			}
			if diff := cmp.Diff(want, vars); diff != "" {
				t.Errorf("file %q: (-python +ours)\n%s", tc.File, diff)
			}
			if len(tc.ProblemLines)+len(lines) > 0 {
				if diff := cmp.Diff(tc.ProblemLines, lines); diff != "" {
					t.Errorf("file %q: problem lines (-python +ours)\n%s", tc.File, diff)
				}
			}
		})
	}
}

func TestDifference_byte_order_mark(t *testing.T) {
	t.Parallel()
	vars, problems := dotenv.Parse([]byte("\uFEFFA=1\n"), nil)
	want := []dotenv.Var{{Name: "A", Value: "1", Set: true, Line: 1}}
	if diff := cmp.Diff(want, vars); diff != "" || problems != nil {
		t.Errorf("%s problems %v", diff, problems)
	}
}

func TestDifference_utf16(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"\xFF\xFEA\x00=\x001\x00\n\x00", "\xFE\xFF\x00A\x00=\x001"} {
		vars, problems := dotenv.Parse([]byte(data), nil)
		if vars != nil || len(problems) != 1 || !strings.Contains(problems[0].Text, "UTF-16") {
			t.Errorf("%q: vars %v, problems %v", data, vars, problems)
		}
	}
}

func TestDifference_invalid_bytes(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"A=x\x00y", "A=\x00", "\x00A=x", "A=p\xE4ss", "\xE4=1", `A="a` + "\x00" + `"`} {
		vars, problems := dotenv.Parse([]byte("B=1\n"+bad+"\nC=2\n"), nil)
		want := []dotenv.Var{{Name: "B", Value: "1", Set: true, Line: 1}, {Name: "C", Value: "2", Set: true, Line: 3}}
		if diff := cmp.Diff(want, vars); diff != "" {
			t.Errorf("%q: %s", bad, diff)
		}
		if len(problems) != 1 || problems[0].Line != 2 {
			t.Errorf("%q: problems %v, want one on line 2", bad, problems)
		}
	}
}

func TestDifference_interpolation_limit(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("A0=0123456789\n")
	for i := range 60 {
		name := string(rune('A' + i%26))
		b.WriteString(name + "=${A0}\nA0=${A0}${A0}\n")
	}
	vars, problems := dotenv.Parse([]byte(b.String()), nil)
	total := 0
	for _, v := range vars {
		total += len(v.Value)
	}
	if total > 4*dotenv.MaxInserted {
		t.Errorf("%d bytes of values from %d bytes of file", total, b.Len())
	}
	if len(problems) == 0 {
		t.Error("nothing was reported")
	}
}

func TestDifference_problem_line(t *testing.T) {
	t.Parallel()
	_, problems := dotenv.Parse([]byte("A=1\n\n\n\n=2\n"), nil)
	if len(problems) != 1 || problems[0].Line != 5 {
		t.Errorf("problems %v, want one on line 5", problems)
	}
}

func TestProblem_hides_content(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	for _, line := range []string{
		"=" + secret, "A " + secret, `A="` + secret, "A='" + secret, `A="x" ` + secret, "'" + secret, "''" + secret,
		"A=" + secret + "\x00", "A=" + secret + "\xff",
	} {
		_, problems := dotenv.Parse([]byte(line), nil)
		if len(problems) != 1 {
			t.Errorf("%q: %d problems, want 1", line, len(problems))
			continue
		}
		if text := problems[0].String(); strings.Contains(text, secret) || !strings.HasPrefix(text, "line 1: ") {
			t.Errorf("%q: %q", line, text)
		}
	}
}

func TestParse_line_numbers(t *testing.T) {
	t.Parallel()
	vars, _ := dotenv.Parse([]byte("A=1\n\nB=\"x\ny\"\r\nC=3\nA=2"), nil)
	want := []dotenv.Var{
		{Name: "A", Value: "2", Set: true, Line: 6},
		{Name: "B", Value: "x\ny", Set: true, Line: 3},
		{Name: "C", Value: "3", Set: true, Line: 5},
	}
	if diff := cmp.Diff(want, vars); diff != "" {
		t.Error(diff)
	}
}

// quote writes a value so that Parse reads it back. The grammar has no escape for
// ${, but a default is not expanded again.
func quote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", `\r`).Replace(s)
	return `"` + strings.ReplaceAll(s, "${", "${:-$}{") + `"`
}

func TestParse_round_trip(t *testing.T) {
	t.Parallel()
	piece := rapid.OneOf(
		rapid.StringMatching(`[^\x00]{0,12}`),
		rapid.SampledFrom([]string{"${", "}", "$", "\\", "\"", "'", "#", " #", "\n", "\r\n", "\r", ":-", "=", "export ", "\u00a0", "\ufeff"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		want := strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "")
		name := rapid.StringMatching(`[A-Z_][A-Z0-9_]{0,10}`).Draw(t, "name")
		if !utf8.ValidString(want) || strings.Contains(want, "\x00") {
			t.Skip("no such value")
		}
		vars, problems := dotenv.Parse([]byte(name+"="+quote(want)+" # end\nEND=1\n"), nil)
		if len(problems) != 0 || len(vars) != 2 && name != "END" || vars[0].Value != want && name != "END" {
			t.Fatalf("wrote %q, read %+v, problems %v", want, vars, problems)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, tc := range readCorpus(f).Cases {
		f.Add([]byte(tc.File))
	}
	f.Add([]byte("\uFEFFA=1"))
	f.Add([]byte("A=\"${A:${B:-\x00}\xff"))
	f.Add([]byte(strings.Repeat("A=${A}${A}x\n", 40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		vars, problems := dotenv.Parse(data, environment(map[string]string{"EXT": "outside"}))
		last := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r"))
		seen := make(map[string]bool)
		total := 0
		for _, v := range vars {
			if v.Name == "" || seen[v.Name] {
				t.Errorf("name %q is empty or comes twice", v.Name)
			}
			seen[v.Name] = true
			if v.Line < 1 || v.Line > last {
				t.Errorf("%q is said to be on line %d of %d", v.Name, v.Line, last)
			}
			if strings.ContainsAny(v.Value, "\x00") || !utf8.ValidString(v.Value) {
				t.Errorf("%q has a value that no variable can hold", v.Name)
			}
			if !v.Set && v.Value != "" {
				t.Errorf("bare name %q has a value", v.Name)
			}
			total += len(v.Value)
		}
		if total > len(data)+dotenv.MaxInserted {
			t.Errorf("%d bytes of values from %d bytes of file", total, len(data))
		}
		at := 0
		for _, p := range problems {
			if p.Line < 1 || p.Line > last || p.Line < at || p.Text == "" {
				t.Errorf("problem %+v in a file of %d lines", p, last)
			}
			at = p.Line
		}
	})
}
