package logsearch

import (
	"bytes"
	"regexp"
	"testing"
)

func TestNeeded(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		`error[0-9]+: .*failed`: "failed",
		`(panic|fatal): x`:      ": x",
		`a+b?`:                  "",
		`(?i)error`:             "",
		`x(hello)+y`:            "hello",
		`^$`:                    "",
		`a\*\*\*b`:              "",
		`[a-w]+=9[0-9]{4}z`:     "=9",
	} {
		if got := needed(query, true, true); string(got) != want {
			t.Errorf("%s needs %q, want %q", query, got, want)
		}
	}
	if got := needed("plain text", false, true); string(got) != "plain text" {
		t.Errorf("a plain text needs %q", got)
	}
	if got := needed("plain text", false, false); got != nil {
		t.Errorf("a text in any case needs %q", got)
	}
}

func FuzzNeeded(f *testing.F) {
	f.Add(`error[0-9]+: .*failed`, "xx error12: it failed")
	f.Add(`(ab|cd)ef*g{2,3}`, "cdeffgg")
	f.Add(`(?i:a)bc|d`, "d")
	f.Fuzz(func(t *testing.T, query, text string) {
		re, err := regexp.Compile(query)
		if err != nil || len(query) > 200 {
			return
		}
		need := needed(query, true, true)
		if m := re.Find([]byte(text)); m != nil && need != nil && !bytes.Contains(m, need) {
			t.Fatalf("%q matches %q, which does not hold %q", query, m, need)
		}
	})
}
