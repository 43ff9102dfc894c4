package term

import (
	"strings"
	"testing"
)

func TestSanitiser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "héllo\tworld\n日本", "héllo\tworld\n日本"},
		{"colours", "\x1b[1;31mred\x1b[0m \x1b[38;5;8mgrey\x1b[m \x1b[38:2::1:2:3mx", "\x1b[1;31mred\x1b[0m \x1b[38;5;8mgrey\x1b[m \x1b[38:2::1:2:3mx"},
		{"hidden_text", "\x1b[8mx\x1b[0;08my", "xy"},
		{"clipboard", "a\x1b]52;c;aGk=\ab\x1b]52;c;aGk=\x1b\\c", "abc"},
		{"title", "\x1b]0;title\adone", "done"},
		{"clear_and_move", "\x1b[2J\x1b[H\x1b[10;10Hx\x1b[?1049h\x1b[6n", "x"},
		{"private_m", "\x1b[>4;2mx\x1b[?1mz", "xz"},
		{"c1_forms", "\u009b2Ja\u009d52;c;x\u009cb\u0090q\x1b\\c\u009b31md", "abc\x1b[31md"},
		{"strings", "\x1bPq#0\x1b\\a\x1b_x\x1b\\b\x1b^y\x1b\\c\x1bXz\x1b\\d", "abcd"},
		{"charset_and_reset", "\x1b(0a\x1bcb\x1b#8c\x1b7d", "abcd"},
		{"controls", "a\bb\ac\x00d\x7fe\x0ef", "abcdef"},
		{"unterminated_string_ends_at_line", "\x1b]0;x\nnext", "\nnext"},
		{"cancelled", "\x1b[12\x18x\x1b]0;\x1ay", "xy"},
		{"escape_in_control", "\x1b[2\x1b[31mx", "\x1b[31mx"},
		{"incomplete", "x\x1b[", "x"},
		{"line_ends", "a\r\nb\rc", "a\nb\nc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (&Sanitiser{Colours: true}).Clean(tt.in); got != tt.want {
				t.Errorf("whole: %q, want %q", got, tt.want)
			}
			var b strings.Builder // the same in pieces of one byte's character each
			s := &Sanitiser{Colours: true}
			for _, r := range tt.in {
				b.WriteString(s.Clean(string(r)))
			}
			if b.String() != tt.want {
				t.Errorf("in pieces: %q, want %q", b.String(), tt.want)
			}
			if got := Safe(tt.in); strings.Contains(got, "\x1b") {
				t.Errorf("without colours: %q", got)
			}
		})
	}
}

func FuzzSanitiser(f *testing.F) {
	f.Add("\x1b]52;c;x\a\x1b[31m", 3)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		text = strings.ToValidUTF8(text, "")
		cut = max(0, min(cut, len(text)))
		for cut > 0 && cut < len(text) && text[cut]&0xc0 == 0x80 {
			cut--
		}
		s, once := &Sanitiser{Colours: true}, &Sanitiser{Colours: true}
		got := s.Clean(text[:cut]) + s.Clean(text[cut:])
		if want := once.Clean(text); got != want {
			t.Fatalf("in two pieces %q, at once %q", got, want)
		}
		for rest := got; ; {
			i := strings.IndexByte(rest, 0x1b)
			if i < 0 {
				break
			}
			j := strings.IndexByte(rest[i:], 'm')
			if !strings.HasPrefix(rest[i:], "\x1b[") || j < 0 || strings.Trim(rest[i+2:i+j], "0123456789;:") != "" {
				t.Fatalf("%q is left", rest[i:])
			}
			rest = rest[i+j:]
		}
		if strings.ContainsAny(got, "\a\b\r\x00\x7f\u009b\u009d") {
			t.Fatalf("%q has control characters", got)
		}
	})
}
