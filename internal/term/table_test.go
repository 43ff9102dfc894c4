package term

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	rows := [][]string{{"a", "리뷰", "한국어 이름"}, {"bb", "日本語の名前", "x"}, {"c", "e\u0301", strings.Repeat("long ", 30)}}
	if err := writeTable(&b, []string{"ID", "NAME", "NOTE"}, rows, 40, nil); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	column := textWidth(lines[0][:strings.Index(lines[0], "NOTE")])
	for i, note := range []string{"한국어", "x", "long"} {
		line := lines[i+1]
		if at := textWidth(line[:strings.LastIndex(line[:strings.Index(line, note)]+note, note)]); at != column {
			t.Errorf("%q begins at column %d, want %d", line, at, column)
		}
		if textWidth(line) > 40 {
			t.Errorf("%q is %d columns wide", line, textWidth(line))
		}
	}
}
