package redact_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/agented/agented/internal/redact"
	"pgregory.net/rapid"
)

func maskLines(s *redact.Stream, lines []string) []string {
	var out []string
	for _, l := range lines {
		masked, n := s.Mask(nil, []byte(l), true)
		if n != len(l) {
			panic(fmt.Sprintf("%d of %d bytes taken at the end of a line", n, len(l)))
		}
		out = append(out, string(masked))
	}
	return out
}

func keyText(prefix string) []string {
	var lines []string
	lines = append(lines, prefix+"-----BEGIN RSA "+"PRIVATE KEY-----")
	for range 5 {
		lines = append(lines, prefix+rep(60)+"+/Aa")
	}
	return append(lines, prefix+"Zm9v==", prefix+"-----END RSA "+"PRIVATE KEY-----")
}

func TestStream_private_key(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "  ", "+", "> ", "\t", "   "} {
		lines := append(append([]string{"before"}, keyText(prefix)...), "after", rep(64))
		got := maskLines(redact.New(nil).NewStream(), lines)
		for i, l := range got {
			want := lines[i]
			if i >= 2 && i <= 7 {
				want = prefix + "***"
			}
			if l != want {
				t.Errorf("prefix %q, line %d: %q became %q", prefix, i, lines[i], l)
			}
		}
	}
}

func TestStream_private_key_forms(t *testing.T) {
	t.Parallel()
	b := rep(60) + "+/Aa"
	for _, c := range []struct{ name, in, want string }{
		{"encrypted", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n" + b + "\n-----END RSA PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n***\n-----END RSA PRIVATE KEY-----"},
		{"cat -n", "1\t-----BEGIN OPENSSH PRIVATE KEY-----\n2\t" + b + "\n3\tYWJj\n4\t-----END OPENSSH PRIVATE KEY-----\n5\tYWJj", "1\t-----BEGIN OPENSSH PRIVATE KEY-----\n2\t***\n3\t***\n4\t-----END OPENSSH PRIVATE KEY-----\n5\tYWJj"},
		{"numbered with arrows", "     1→-----BEGIN PRIVATE KEY-----\n     2→" + b + "\n    10→YWJj\n", "     1→-----BEGIN PRIVATE KEY-----\n     2→***\n    10→***\n"},
		{"in JSON", `{"private_key":"-----BEGIN PRIVATE KEY-----\n` + b + `\nYWJj\n-----END PRIVATE KEY-----\n","x":1}`, `{"private_key":"-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----\n","x":1}`},
		{"in JSON in JSON", `\"-----BEGIN EC PRIVATE KEY-----\\n` + b + `\\n-----END EC PRIVATE KEY-----\\n\"`, `\"-----BEGIN EC PRIVATE KEY-----***-----END EC PRIVATE KEY-----\\n\"`},
		{"cut off in JSON", `"-----BEGIN PRIVATE KEY-----\n` + b + `\n` + b + `"`, `"-----BEGIN PRIVATE KEY-----***"`},
		{"spaces for line ends", "-----BEGIN PRIVATE KEY----- " + b + " YWJj -----END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY----- ***-----END PRIVATE KEY-----"},
		{"in source", "\"-----BEGIN PRIVATE KEY-----\\n\" +\n  \"" + b + "\\n\" +\n  \"-----END PRIVATE KEY-----\";\nfoo", "\"-----BEGIN PRIVATE KEY-----\\n\" +\n  \"***\\n\" +\n  \"-----END PRIVATE KEY-----\";\nfoo"},
		{"CRLF", "-----BEGIN PRIVATE KEY-----\r\n" + b + "\r\n-----END PRIVATE KEY-----\r", "-----BEGIN PRIVATE KEY-----\r\n***\r\n-----END PRIVATE KEY-----\r"},
		{"no key at all", "-----BEGIN PRIVATE KEY-----\nis what it says.\nword", "-----BEGIN PRIVATE KEY-----\nis what it says.\nword"},
		{"prose", "write -----BEGIN PRIVATE KEY----- first\n" + b, "write -----BEGIN PRIVATE KEY----- first\n" + b},
		{"certificate", "-----BEGIN CERTIFICATE-----\n" + b + "\n-----END CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\n" + b + "\n-----END CERTIFICATE-----"},
	} {
		got := strings.Join(maskLines(redact.New(nil).NewStream(), strings.Split(c.in, "\n")), "\n")
		if got != c.want {
			t.Errorf("%s:\n%s\nbecame\n%s\nwant\n%s", c.name, c.in, got, c.want)
		}
	}
}

func TestMaskLine_private_key(t *testing.T) {
	t.Parallel()
	got := redact.New(nil).MaskString("see\n" + strings.Join(keyText(""), "\n") + "\nend")
	if want := "see\n-----BEGIN RSA PRIVATE KEY-----\n***-----END RSA PRIVATE KEY-----\nend"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestStream_resume_in_key(t *testing.T) {
	t.Parallel()
	lines := keyText("+ ")
	m := redact.New(nil)
	for at := 1; at < len(lines); at++ {
		masked := maskLines(m.NewStream(), lines)
		s := m.NewStream()
		s.Resume([]byte(masked[at-1]))
		for i, got := range maskLines(s, lines[at:]) {
			if got != masked[at+i] {
				t.Errorf("from line %d: line %d became %q, want %q", at, at+i, got, masked[at+i])
			}
		}
	}
	s := m.NewStream()
	s.Resume([]byte("token ***"))
	if got, _ := s.Mask(nil, []byte(rep(64)), true); string(got) != rep(64) {
		t.Errorf("%q after an ordinary line with a mask", got)
	}
}

func TestStream_hold(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"correct horse"})
	for _, c := range []struct {
		in   string
		want int
	}{
		{"Continue? [y/N] ", 16},
		{"say cor", 4},
		{"say corn", 8},
		{"say correct horse", 17},
		{"say c", 4},
		{"token ghp_abc", 6},
		{"token ghp_abc ", 14},
		{"Authorization: Be", 0},
		{"https://user:pa", 5},
		{"https://host/a", 13}, // "authorization",
		{"a -----BEGIN RSA PRI", 2},
		{"", 0},
	} {
		if _, n := m.NewStream().Mask(nil, []byte(c.in), false); n != c.want {
			t.Errorf("%q: %d bytes taken, want %d", c.in, n, c.want)
		}
	}
}

func TestStream_max_hold(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"aaaaaaaa"})
	s := m.NewStream()
	var out, buf []byte
	for i := range 200 {
		buf = append(buf, bytes.Repeat([]byte("a"), 1000)...)
		var n int
		out, n = s.Mask(out, buf, i == 199)
		if buf = buf[n:]; len(buf) > redact.MaxHold+2000 {
			t.Fatalf("%d bytes are held", len(buf))
		}
	}
	if string(out) != "***" {
		t.Errorf("got %d bytes: %.40q", len(out), out)
	}
}

func TestStream_long_value(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 50_000)
	for i := range b {
		b[i] = byte('!' + r.IntN('~'-'!'))
	}
	secret := string(b)
	m := redact.New([]string{secret})
	for _, enc := range []string{secret, goJSON(true)(secret), url.QueryEscape(secret)} {
		text := []byte("a " + enc + " b")
		joined, _ := pieces(m, text, func() int { return 3000 })
		if string(joined) != "a *** b" {
			t.Errorf("got %d bytes", len(joined))
		}
	}
}

func TestStream_key_lines_in_pieces(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"correct horse"})
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.OneOf(
			rapid.SampledFrom([]string{
				"-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----", rep(64), "  12→" + rep(64), "12\t" + rep(20), "Proc-Type: 4,ENCRYPTED", "", " ",
				"text, correct horse", "\"" + rep(30) + "\\n\" +", "Zm9v==", "> " + rep(64), "word",
			}),
			rapid.StringMatching(`[a-z0-9+/= \\":→-]{0,30}`),
		)
		lines := rapid.SliceOfN(line, 1, 8).Draw(t, "lines")
		whole := maskLines(m.NewStream(), lines)
		s := m.NewStream()
		for i, l := range lines {
			var got, buf []byte
			for text := []byte(l); ; {
				n := min(rapid.IntRange(1, 9).Draw(t, "cut"), len(text))
				buf, text = append(buf, text[:n]...), text[n:]
				var took int
				got, took = s.Mask(got, buf, len(text) == 0)
				buf = buf[took:]
				if len(text) == 0 {
					break
				}
			}
			if string(got) != whole[i] {
				t.Fatalf("line %d of %q in pieces became %q, in one go %q", i, lines, got, whole[i])
			}
		}
	})
}

func FuzzStreamLines(f *testing.F) {
	f.Add(strings.Join(keyText("+"), "\n")+"\nafter", uint8(7))
	f.Add("-----BEGIN PRIVATE KEY-----\nProc-Type: 4\n\nAAAA\n1→BB\n\xe2\x86", uint8(1))
	f.Fuzz(func(t *testing.T, text string, step uint8) {
		m := redact.New([]string{"correct horse"})
		a, b := m.NewStream(), m.NewStream()
		for l := range strings.SplitSeq(text, "\n") {
			whole, n := a.Mask(nil, []byte(l), true)
			if n != len(l) {
				t.Fatalf("%d of %d taken", n, len(l))
			}
			var got, buf []byte
			for rest := []byte(l); ; {
				k := min(int(step)+1, len(rest))
				buf, rest = append(buf, rest[:k]...), rest[k:]
				got, n = b.Mask(got, buf, len(rest) == 0)
				if buf = buf[n:]; len(rest) == 0 {
					break
				}
			}
			if !bytes.Equal(got, whole) {
				t.Fatalf("%q in pieces became %q, in one go %q", l, got, whole)
			}
		}
	})
}
