package broker

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReport_masks_refused checks that an address with a secret in it is never on disk, also if it
// is refused repeatedly.
func TestReport_masks_refused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "broker.jsonl")
	b, err := New(Config{Allow: []string{}}, Options{File: file, Mask: func(s string) string { return strings.ReplaceAll(s, "the-secret", "***") }})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r := httptest.NewRequest("CONNECT", "the-secret.example:443", nil)
		w := httptest.NewRecorder()
		if b.ServeHTTP(w, r); w.Code != 403 {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
	}
	b.Close()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "***.example:443"); n != 2 || strings.Contains(string(text), "the-secret") || !strings.Contains(string(text), `"count":3`) {
		t.Errorf("%s", text)
	}
}
