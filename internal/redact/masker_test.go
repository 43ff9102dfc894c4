package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/agented/agented/internal/redact"
	"pgregory.net/rapid"
)

func goJSON(html bool) func(string) string {
	return func(s string) string {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		_ = e.Encode(s)
		return b.String()[1 : b.Len()-2]
	}
}

// asciiJSON encodes like json.dumps of Python, or like PHP with slash set, or
// like .NET with all set, which escapes everything special.
func asciiJSON(slash, all bool, hexFormat string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for _, r := range s {
			switch {
			case r == '"' && !all, r == '\\':
				b.WriteString(`\` + string(r))
			case r == '\t':
				b.WriteString(`\t`)
			case r == '/' && slash:
				b.WriteString(`\/`)
			case r > 126 || r < 32 || all && strings.ContainsRune(`"'&<>+=`, r):
				for _, u := range utf16.Encode([]rune{r}) {
					fmt.Fprintf(&b, hexFormat, u)
				}
			default:
				b.WriteRune(r)
			}
		}
		return b.String()
	}
}

func percentAll(format string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			if c := s[i]; strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~", c) >= 0 {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, format, c)
			}
		}
		return b.String()
	}
}

type form struct {
	name string
	make func(string) string
}

func forms() []form {
	std := goJSON(true)
	plain := goJSON(false)
	py := asciiJSON(false, false, `\u%04x`)
	fs := []form{
		{"raw", func(s string) string { return s }},
		{"Go JSON", std},
		{"JSON.stringify", plain},
		{"json.dumps", py},
		{"PHP", asciiJSON(true, false, `\u%04x`)},
		{".NET", asciiJSON(false, true, `\u%04X`)},
		{"JSON in JSON", func(s string) string { return plain(plain(s)) }},
		{"Go JSON in Go JSON", func(s string) string { return std(std(s)) }},
		{"json.dumps twice", func(s string) string { return py(py(s)) }},
		{"JSON three times", func(s string) string { return plain(plain(plain(s))) }},
		{"query", url.QueryEscape},
		{"path", url.PathEscape},
		{"percent upper", percentAll("%%%02X")},
		{"percent lower", percentAll("%%%02x")},
		{"percent twice", func(s string) string { return percentAll("%%%02X")(percentAll("%%%02X")(s)) }},
		{"hex", func(s string) string { return hex.EncodeToString([]byte(s)) }},
		{"HEX", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }},
	}
	return fs
}

func TestMask_encodings(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{
		"correcthorse", `pa"ss\wo/rd<&>'+=`, `C:\Users\me\key`, `\\server\share\x`, "ends-with-backslash\\", `\\\\\\x\\`, `"quoted value"`,
		"with space and\ttab", "p%40ss%25word", "100%sure%%yes", "pässwörd€😀!", "😀😀😀", "$up3r+s/cr=t==", "\\u0041\\u0042", `a\\b\c"d\`, "!@#$%^&*()", "a\x1bb\x00c\bdefg",
	} {
		m := redact.New([]string{"other-secret", secret})
		for _, f := range forms() {
			enc := f.make(secret)
			for _, around := range []string{"%s", "x%sx", `{"a":"%s"}`, " %s ", "%[1]s%[1]s", "0%s0", `\n%s\n`} {
				in := fmt.Sprintf(around, enc)
				got := m.MaskString(in)
				if strings.Contains(got, enc) || !strings.Contains(got, "***") || len(got) > len(in)-len(enc)+6 {
					t.Errorf("%s of %q: %q became %q", f.name, secret, in, got)
				}
			}
		}
	}
}

func TestMask_base64_alignment(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"hunter2hunter2", "12345678", "\xfb\xff\xbf~~~???>>>", `js"on\secret`, "pässwörd"} {
		m := redact.New([]string{secret})
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
			for before := range 7 {
				for after := range 4 {
					plain := strings.Repeat("u", before) + secret + strings.Repeat("z", after)
					text := enc.EncodeToString([]byte(plain))
					got := m.MaskString("Basic " + text + " end")
					// At most one character on each side contains bits of an
					// adjacent byte or of the padding.
					left := len(got) - len("Basic *** end")
					if !strings.Contains(got, "***") || left > (before*8+5)/6+(after*8+5)/6+2+strings.Count(text, "=") {
						t.Errorf("base64 of %q: %q became %q", plain, text, got)
					}
				}
			}
			in := enc.EncodeToString([]byte(goJSON(true)(secret)))
			if got := m.MaskString(in); !strings.Contains(got, "***") || len(got) > 8 {
				t.Errorf("base64 of JSON of %q: %q became %q", secret, in, got)
			}
		}
	}
}

func TestMask_lines_of_value(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"first line of it\r\nab\n   second line\t\n\n--------\nfirst line of it", "second line"})
	if m.Len() != 2 || m.Empty() {
		t.Errorf("%d lines were taken, want 2", m.Len())
	}
	in := "1 first line of it 2 ab second line -------- second"
	if got, want := m.MaskString(in), "1 *** 2 ab *** -------- second"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMask_overlapping_values(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"abcdefgh", "abcdefghijkl", "ijklmnop", "zabcdefgh"})
	for in, want := range map[string]string{
		"-abcdefgh-":             "-***-",
		"-abcdefghijkl-":         "-***-",
		"-abcdefghijklmnop-":     "-***-",
		"-zabcdefghijklmnop-":    "-***-",
		"abcdefgh abcdefgh":      "*** ***",
		"abcdefg":                "abcdefg",
		"abcdefghabcdefghijklmn": "******mn",
	} {
		if got := m.MaskString(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestMask_nil(t *testing.T) {
	t.Parallel()
	var m *redact.Masker
	in := "ghp_" + rep(36)
	if got := m.MaskString(in); got != in {
		t.Errorf("MaskString gave %q", got)
	}
	if got := string(m.MaskLine([]byte("a"), []byte(in))); got != "a"+in {
		t.Errorf("MaskLine gave %q", got)
	}
	out, n := m.NewStream().Mask(nil, []byte(in), false)
	if string(out) != in || n != len(in) || !m.Empty() || m.Len() != 0 {
		t.Errorf("Stream gave %q, %d", out, n)
	}
}

func TestMaskLine_append(t *testing.T) {
	m := redact.New([]string{"correct horse battery"})
	dst := make([]byte, 0, 256)
	line := []byte(`{"level":"info","msg":"nothing to see here, \"move on\"","n":12345}`)
	if n := testing.AllocsPerRun(100, func() { dst = m.MaskLine(dst[:0], line) }); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
	if got := string(m.MaskLine([]byte("a "), []byte("b correct horse battery c"))); got != "a b *** c" {
		t.Errorf("got %q", got)
	}
}

// pieces masks text with a Stream that receives it in the given pieces.
func pieces(m *redact.Masker, text []byte, cut func() int) (joined []byte, parts [][]byte) {
	s := m.NewStream()
	var buf []byte
	for len(text) > 0 {
		n := min(max(cut(), 1), len(text))
		buf, text = append(buf, text[:n]...), text[n:]
		before := len(joined)
		var took int
		joined, took = s.Mask(joined, buf, len(text) == 0)
		parts = append(parts, slices.Clone(joined[before:]))
		buf = buf[took:]
	}
	return joined, parts
}

// secretish generates text of few letters, so that it often overlaps itself.
func secretish() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[ab]{8,12}`),
		rapid.StringMatching(`[a-zA-Z0-9]{8,40}`),
		rapid.StringMatching(`[a"\\/<%+ é😀]{8,20}`),
		rapid.StringMatching(`[!-~]{8,60}`),
	).Filter(func(s string) bool {
		s = strings.TrimSpace(s)
		return len(s) >= 8 && !strings.Contains(s, "*") && strings.Trim(s, s[:1]) != ""
	})
}

func filler() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[ab]{0,12}`),
		rapid.StringMatching(`[ -~]{0,40}`),
		rapid.SampledFrom([]string{
			"\\", "\\\\", "%", "%2", "%25", "\\u00", "\n", "\t", " ", "Authorization: ", "Bearer ", "x-api-key: ", "https://u:", "@h", "eyJ", ".eyJ", "sk-", "sk-ant-",
			"ghp_" + rep(36), "AKIA" + upper(16), "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0." + rep(20), "https://user:pass@host", "Authorization: Bearer " + rep(20),
			"-----BEGIN RSA PRIVATE KEY-----", `\nMIIEpAIBAAKCAQEA1234567890\n`, "-----END RSA PRIVATE KEY-----", "\x1b[31m", "\xff\xfe",
		}),
	)
}

func TestStream_pieces_equal_line(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(secretish(), 0, 4).Draw(t, "secrets")
		m := redact.New(secrets)
		fs := forms()
		var b strings.Builder
		var inside []string
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			b.WriteString(filler().Draw(t, "filler"))
			if len(secrets) > 0 && rapid.Bool().Draw(t, "secret") {
				s := strings.TrimSpace(rapid.SampledFrom(secrets).Draw(t, "which"))
				enc := fs[rapid.IntRange(0, len(fs)-1).Draw(t, "form")].make(s)
				inside = append(inside, enc)
				b.WriteString(enc)
			}
		}
		text := []byte(b.String())
		whole := m.MaskLine(nil, text)
		joined, _ := pieces(m, text, func() int { return rapid.IntRange(1, 24).Draw(t, "cut") })
		if !bytes.Equal(joined, whole) {
			t.Fatalf("%q in pieces became\n%q, in one go\n%q", text, joined, whole)
		}
		for _, enc := range inside {
			if bytes.Contains(joined, []byte(enc)) {
				t.Fatalf("%q is left in %q", enc, joined)
			}
		}
		if got := m.MaskString(string(text)); got != string(whole) {
			t.Fatalf("MaskString gave %q, MaskLine %q", got, whole)
		}
	})
}

func FuzzStreamPieces(f *testing.F) {
	f.Add("correct horse", "say correct horse, or Y29ycmVjdCBob3JzZQ== now", uint64(1))
	f.Add(`a"b\c/d<e`, `{"x":"a\"b\\c\/d\u003ce"} a%22b%5Cc%2Fd%3Ce`, uint64(2))
	f.Add("aaaaaaaa", strings.Repeat("a", 200), uint64(3))
	f.Add("\\\\\\\\x\\\\\\", strings.Repeat("\\", 70)+"x"+strings.Repeat("\\", 9), uint64(4))
	f.Add("%25%25%25", "%2525%2525%2525%25", uint64(5))
	f.Add("", "Authorization: Bearer "+rep(30)+" https://u:p@h -----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0\\n-----END PRIVATE KEY-----", uint64(6))
	f.Add("password\nsecond line", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."+rep(30)+"\x1b[1;31mghp_"+rep(36), uint64(7))
	f.Fuzz(func(t *testing.T, secret, text string, seed uint64) {
		m := redact.New([]string{secret, "another value"})
		whole := m.MaskLine(nil, []byte(text))
		r := rand.New(rand.NewPCG(seed, 0))
		joined, _ := pieces(m, []byte(text), func() int { return 1 + r.IntN(20) })
		if !bytes.Equal(joined, whole) {
			t.Fatalf("secret %q: %q in pieces became\n%q, in one go\n%q", secret, text, joined, whole)
		}
		for line := range strings.FieldsFuncSeq(secret, func(r rune) bool { return r == '\n' || r == '\r' }) {
			line = strings.TrimSpace(line)
			// A mask may replace letters of a value that contains *, and rulers
			// are not masked.
			if len(line) >= 8 && !strings.Contains(line, "*") && strings.Trim(line, line[:1]) != "" && bytes.Contains(whole, []byte(line)) {
				t.Fatalf("%q is left in %q", line, whole)
			}
		}
	})
}
