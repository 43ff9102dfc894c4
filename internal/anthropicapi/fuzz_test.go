package anthropicapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bodyOf answers every request with the same bytes.
type bodyOf []byte

func (b bodyOf) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(b))}, nil
}

func FuzzAStream(f *testing.F) {
	f.Add([]byte("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n"))
	f.Add([]byte("data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"))
	f.Add([]byte("data: {\"type\":\"content_block_delta\",\ndata: \"delta\":{\"text\":1}}\n\n\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var out bytes.Buffer
		code := Run(t.Context(), Options{
			Session: "s", Dir: t.TempDir(), Prompt: "p", Key: "a-key-of-a-test", Pieces: true, Out: &out, Err: io.Discard,
			Client: &http.Client{Transport: bodyOf(body)}, Wait: func(context.Context, time.Duration) error { return nil },
		})
		last := ""
		for line := range strings.Lines(out.String()) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("line %q", line)
			}
			last = line
		}
		var end struct {
			Type  string
			Error bool `json:"is_error"`
		}
		if err := json.Unmarshal([]byte(last), &end); err != nil || end.Type != "result" || end.Error == (code == 0) {
			t.Fatalf("code %d, last line %s", code, last)
		}
	})
}

func FuzzAHistory(f *testing.F) {
	f.Add([]byte("{\"role\":\"user\",\"text\":\"a\"}\n{\"role\":\"assistant\",\"text\":\"b\"}\n{\"role\":\"us"))
	f.Add([]byte("\n\n{}\nnull\n{\"role\":\"user\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "s.jsonl"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := openHistory(dir, "s", true)
		if err != nil {
			return
		}
		defer h.close()
		if err := h.add(entry{Role: "user", Text: "more"}); err != nil {
			t.Fatal(err)
		}
		messages := h.messages()
		for i, m := range messages {
			if want := []string{"user", "assistant"}[i%2]; m["role"] != want {
				t.Fatalf("message %d is of %v", i, m["role"])
			}
		}
		again, _ := os.ReadFile(filepath.Join(dir, "s.jsonl"))
		if !bytes.HasSuffix(again, []byte("{\"role\":\"user\",\"text\":\"more\"}\n")) {
			t.Fatalf("history is %q", again)
		}
	})
}
