package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

const longToken = "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Kj"

// wrap breaks text into lines of n characters.
func wrap(text string, n int, sep string) string {
	var b strings.Builder
	for len(text) > n {
		b.WriteString(text[:n] + sep)
		text = text[n:]
	}
	return b.String() + text
}

// maskAll masks a text line by line, as in a log.
func maskAll(m *Masker, text string) string {
	var out []byte
	st := m.NewStream()
	for line := range strings.SplitSeq(text, "\n") {
		out, _ = st.Mask(out, []byte(line), true)
		out = append(out, '\n')
	}
	return string(out)
}

// readable returns a piece of n characters of the token that is readable in the
// text or in its decoded lines.
func readable(text string, n int) string {
	all := text
	for _, line := range append(strings.Split(text, "\n"), strings.ReplaceAll(text, "\n", ""), strings.ReplaceAll(text, `\n`, "")) {
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" *\"\\|:", r) }) {
			for cut := range min(4, len(word)) {
				w := strings.TrimRight(word[cut:], "=")
				for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
					got, _ := enc.DecodeString(w[:len(w)/4*4])
					all += "\n" + string(got)
					again, _ := base64.RawStdEncoding.DecodeString(string(got)[:len(got)/4*4])
					all += "\n" + string(again)
				}
				got, _ := hex.DecodeString(w[:len(w)/2*2])
				all += "\n" + string(got)
			}
		}
	}
	for i := 0; i+n <= len(longToken); i++ {
		if strings.Contains(all, longToken[i:i+n]) {
			return longToken[i : i+n]
		}
	}
	return ""
}

func hexdump(b []byte, group int, ascii bool) string {
	var out strings.Builder
	for at := 0; at < len(b); at += 16 {
		row := b[at:min(at+16, len(b))]
		fmt.Fprintf(&out, "%08x: ", at)
		for i, c := range row {
			fmt.Fprintf(&out, "%02x", c)
			if (i+1)%group == 0 {
				out.WriteByte(' ')
			}
		}
		if ascii {
			out.WriteString(" " + string(row))
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func TestMaskPieces(t *testing.T) {
	t.Parallel()
	m := New([]string{longToken})
	b64 := base64.StdEncoding.EncodeToString
	twice := b64([]byte(wrap(b64([]byte(longToken)), 76, "\n") + "\n"))
	inJSON, _ := json.Marshal(map[string]string{"output": wrap(b64([]byte(longToken)), 76, "\n")})
	percent, escaped := "", ""
	for _, c := range []byte(longToken) {
		percent += fmt.Sprintf("%%%02X", c)
		escaped += fmt.Sprintf(`\x%02x`, c)
	}
	for name, text := range map[string]string{
		"base64, 76 columns":       wrap(b64([]byte(longToken)), 76, "\n"),
		"base64, 64 columns":       wrap(b64([]byte(longToken)), 64, "\n"),
		"base64, 76, offset 1":     wrap(b64([]byte("A"+longToken)), 76, "\n"),
		"base64, 76, offset 2":     wrap(b64([]byte("T_TOKEN="+longToken+"\nX=1\n")), 76, "\n"),
		"base64 in JSON":           string(inJSON),
		"base64, carriage returns": wrap(b64([]byte(longToken)), 64, "\r\n"),
		"URL-safe base64":          wrap(base64.URLEncoding.EncodeToString([]byte(longToken)), 76, "\n"),
		"base64 of base64":         wrap(twice, 76, "\n"),
		"xxd -p":                   wrap(hex.EncodeToString([]byte(longToken)), 60, "\n"),
		"hex in upper case":        wrap(strings.ToUpper(hex.EncodeToString([]byte(longToken))), 60, "\n"),
		"xxd":                      hexdump([]byte(longToken), 2, true),
		"hexdump -C":               hexdump([]byte(longToken), 1, true),
		"xxd with a name before":   hexdump([]byte("T_TOKEN="+longToken), 2, true),
		"escaped for a URL":        percent,
		"escaped for C":            escaped,
		"query":                    "https://x.example/?t=" + url.QueryEscape(longToken),
		"colours":                  "\x1b[01;31m\x1b[Kgi\x1b[m\x1b[Kthub_pat" + strings.TrimPrefix(longToken, "github_pat")[:20] + "\x1b[31m" + longToken[30:],
		"colours in JSON":          `{"out":"\u001b[01;31m` + longToken[:40] + `\u001b[m\u001b[K` + longToken[40:] + `"}`,
	} {
		masked := maskAll(m, text)
		if piece := readable(masked, 16); piece != "" {
			t.Errorf("%s: %q can be read from\n%s", name, piece, masked)
		}
		if strings.Contains(name, "dump") || strings.Contains(name, "xxd") {
			for i := 0; i+12 <= len(longToken); i++ {
				if enc := hexdump([]byte(longToken[i:i+12]), 2, false)[10:]; strings.Contains(masked, strings.TrimSpace(enc)) {
					t.Errorf("%s: bytes %q stand in\n%s", name, longToken[i:i+12], masked)
				}
			}
		}
	}
}

func TestMaskPieces_other_text(t *testing.T) {
	t.Parallel()
	m := New([]string{longToken, "another secret of mine with words in it"})
	for _, text := range []string{
		base64.StdEncoding.EncodeToString([]byte("nothing here that anybody would want to hide, and more of the same")),
		hex.EncodeToString([]byte("nothing here that anybody would want to hide, and more of the same")),
		hexdump([]byte("nothing here that anybody would want to hide"), 2, true),
		"\x1b[32mok\x1b[0m  github.com/agented/agented 0.01s", "2026-11-23 13:55:01 10 20 30 40 50 60 70 80", "commit 0123456789abcdef0123456789abcdef01234567",
	} {
		if got := strings.TrimSuffix(maskAll(m, text), "\n"); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// However a line is split, the concatenated pieces equal the masked line.
func TestMaskPieces_split_lines(t *testing.T) {
	t.Parallel()
	m := New([]string{longToken})
	line := []byte("x " + base64.StdEncoding.EncodeToString([]byte("ab" + longToken))[:70] + " y " + hex.EncodeToString([]byte(longToken))[20:80] + " z")
	want := m.MaskLine(nil, line)
	if bytes.Equal(want, line) {
		t.Fatal("nothing is masked")
	}
	for cut := range len(line) {
		var out []byte
		st := m.NewStream()
		out, n := st.Mask(out, line[:cut], false)
		out, _ = st.Mask(out, line[n:], true)
		if !bytes.Equal(out, want) {
			t.Errorf("cut at %d: %q, want %q", cut, out, want)
		}
	}
}
