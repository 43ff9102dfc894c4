package redact

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// Most log lines contain no secret, and these must not allocate.
func TestMaskLine_clean_line_allocations(t *testing.T) {
	m := New(append(benchSecrets(20), longToken))
	dst := make([]byte, 0, 8192)
	for _, kind := range []string{"text", "json"} {
		for _, line := range benchLines(kind) {
			if n := testing.AllocsPerRun(1, func() { dst = m.MaskLine(dst[:0], line) }); n > 0 {
				t.Errorf("%v allocations for %s", n, line)
			}
		}
	}
	for _, line := range strings.Split(hexdump([]byte(strings.Repeat("nothing to hide here ", 9)), 2, true), "\n") {
		row := []byte(line)
		if n := testing.AllocsPerRun(1, func() { dst = m.MaskLine(dst[:0], row) }); n > 0 {
			t.Errorf("%v allocations for %s", n, line)
		}
	}
}

// A piece of an encoding is detected at every offset of a line and of the
// encoding.
func TestMaskPieces_offsets(t *testing.T) {
	t.Parallel()
	m := New([]string{longToken})
	for _, enc := range []string{
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(longToken)), "=")[:120], hex.EncodeToString([]byte(longToken)),
	} {
		for at := 0; at+minPiece <= len(enc); at++ {
			for before := range textStep {
				line := strings.Repeat(".", before) + enc[at:at+minPiece] + "."
				if got, want := m.MaskString(line), strings.Repeat(".", before)+Mask+"."; got != want {
					t.Fatalf("characters %d to %d behind %d others: %s, want %s", at, at+minPiece, before, got, want)
				}
			}
		}
	}
}

// Two pieces that overlap or are adjacent are both masked completely.
func TestMaskPieces_adjacent(t *testing.T) {
	t.Parallel()
	m := New([]string{longToken})
	enc := hex.EncodeToString([]byte(longToken))
	for first := minPiece; first < 60; first++ {
		for before := range textStep {
			line := strings.Repeat(".", before) + enc[:first] + enc[100:100+minPiece] + "."
			got := strings.ReplaceAll(m.MaskString(line), Mask, "")
			if strings.Trim(got, ".") != "" {
				t.Fatalf("%d characters behind %d others: %q is left of %s", first, before, got, line)
			}
		}
	}
}

// Every group width of a dump, and every offset of a row in its line.
func TestMaskDump_groups(t *testing.T) {
	t.Parallel()
	m := New([]string{longToken})
	for _, group := range []int{1, 2, 4, 8} {
		for before := range 20 {
			row := strings.TrimSuffix(hexdump([]byte(longToken[7:23]), group, false), "\n")[10:]
			line := fmt.Sprintf("%s%s|", strings.Repeat("z", before), row)
			if got := m.MaskString(line); strings.Contains(got, "62") || !strings.Contains(got, Mask) {
				t.Errorf("groups of %d behind %d characters: %s", group, before, got)
			}
		}
	}
}
