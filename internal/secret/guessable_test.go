package secret

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestCheckPassword(t *testing.T) {
	t.Parallel()
	for password, says := range map[string]string{
		"short":                         "at least 10 characters",
		"aaaaaaaaaa":                    "repeats",
		"abababababab":                  "repeats",
		"1122112211":                    "repeats",
		"abc1abc1abc1":                  "repeats",
		"1234567890":                    "sequence",
		"0987654321":                    "sequence",
		"abcdefghijkl":                  "sequence",
		"qwertyuiop":                    "sequence",
		"1qaz2wsx3edc":                  "sequence",
		"zyxwvutsrq1":                   "sequence",
		"password12":                    "common",
		"Password2026!":                 "common",
		"P@ssw0rd!!!1":                  "common",
		"123letmein456":                 "common",
		"change-me-now":                 "common",
		"ann.lee is here":               "name",
		"x ANN.LEE x 42":                "name",
		"":                              "at least",
		"correct horse battery":         "",
		"another long password":         "",
		"8302750193":                    "",
		"tr0ub4dor&3xyz":                "",
		"eine lange Nacht":              "",
		strings.Repeat("long word ", 9): "",
	} {
		err := CheckPassword(password, "Ann.Lee", "al")
		switch {
		case says == "" && err != nil:
			t.Errorf("%q: %v", password, err)
		case says != "" && (agented.KindOf(err) != agented.Invalid || err == nil || !strings.Contains(agented.Message(err), says)):
			t.Errorf("%q: %v, want %q", password, err, says)
		}
	}
}
