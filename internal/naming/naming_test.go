package naming_test

import (
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/naming"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"":                               "no visible",
		"\u200b":                         "invisible",
		"\u200b\u200b":                   "invisible",
		"\ufeffnightly":                  "invisible",
		"night\u2060ly":                  "invisible",
		"\u200c\u200d":                   "no visible",
		"\u200e\u200f\u061c":             "no visible",
		"\u00ad":                         "no visible",
		"\u2800":                         "no visible",
		"\u3164":                         "no visible",
		"\ufe0f\u0301":                   "no visible",
		"\U000e0061\U000e007f":           "no visible",
		"\u2003 \u00a0":                  "no visible",
		"a\x00b":                         "control",
		"a\tb":                           "control",
		"a\nb":                           "control",
		"a\u0085b":                       "control",
		"a\u2028b":                       "control",
		"a\x7fb":                         "control",
		"a\xffb":                         "UTF-8",
		"trg-1":                          "trg-…",
		"TRG-x":                          "trg-…",
		"exec-summary":                   "exec-…",
		"agt-a":                          "agt-…",
		"acc-a":                          "acc-…",
		"\uff54\uff52\uff47-a":           "trg-…",
		"conv-a":                         "conv-…",
		"bud-a":                          "bud-…",
		agented.NewID("key", time.Now()): "key-…",
		strings.ToUpper(agented.NewID("node", time.Now())): "node-…",
	} {
		if got := naming.Check(name); !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want one with %q", name, got, want)
		}
	}
	for r := range rune(0x10000) {
		if r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			if got := naming.Check("a" + string(r) + "b"); !strings.Contains(got, "direction") {
				t.Errorf("U+%04X: got %q", r, got)
			}
		}
	}
}

func TestCheck_good(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"nightly", "Nightly build (v2)", "café", "cafe\u0301", "日本語", "شبانه\u200cروز", "👩\u200d💻", "❤️", "🏴\U000e0067\U000e0062\U000e007f",
		"הגדרות \u200eA", "key-rotation", "node-22", "msg-router", "test-1", "execute", "trg", "trg-", "a trg-1", "accounts", "-", "…", "\U000e2fe0x",
	} {
		if got := naming.Check(name); got != "" {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{
		{"café", "cafe\u0301"},
		{"CAFÉ", "cafe\u0301"},
		{"Nightly", "nIGHTLY"},
		{"\u1e69", "s\u0307\u0323"},
		{"한글", "\u1112\u1161\u11ab\u1100\u1173\u11af"},
		{"Å", "\u212b"},
	} {
		if !naming.Same(pair[0], pair[1]) {
			t.Errorf("%q and %q are two names", pair[0], pair[1])
		}
		if k := naming.Key(pair[0]); naming.Key(k) != k {
			t.Errorf("the key of the key %q is %q", k, naming.Key(k))
		}
	}
	for _, pair := range [][2]string{{"cafe", "café"}, {"a", "b"}, {"ﬁ", "fi"}} {
		if naming.Same(pair[0], pair[1]) {
			t.Errorf("%q and %q are one name", pair[0], pair[1])
		}
	}
}
