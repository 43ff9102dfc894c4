package agentcli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

func TestTranscript_recorded_runs(t *testing.T) {
	paths, err := filepath.Glob("*/testdata/samples/*.out")
	if err != nil || len(paths) == 0 {
		t.Fatal("no samples", err)
	}
	texts, calls := map[string]int{}, map[string]int{}
	for _, path := range paths {
		cli, _, _ := strings.Cut(filepath.Base(path), "-")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tr := newTranscript(cli)
		open := map[string]bool{}
		for line := range bytes.Lines(b) {
			for _, s := range tr.Line(line) {
				switch s.Kind {
				case agentcli.ItemText:
					texts[cli]++
				case agentcli.ItemToolCall:
					calls[cli]++
					open[s.ID] = true
					if s.Tool == "" || s.ID == "" {
						t.Errorf("%s: a call without name or id: %+v", path, s)
					}
				case agentcli.ItemToolResult:
					if !open[s.ID] {
						t.Errorf("%s: an answer to no call: %+v", path, s)
					}
				}
			}
		}
	}
	for _, cli := range []string{agented.BackendClaude, agented.BackendCodex, agented.BackendGemini, agented.BackendOpenCode} {
		if texts[cli] == 0 || calls[cli] == 0 {
			t.Errorf("%s: %d texts, %d calls", cli, texts[cli], calls[cli])
		}
	}
}

func TestTranscript_pieces_once(t *testing.T) {
	tr := newTranscript(agented.BackendClaude)
	var text strings.Builder
	for _, line := range []string{
		`{"type":"stream_event","event":{"type":"message_start"}}`,
		`{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hel"}}}`,
		`{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"lo"}}}`,
		`{"type":"assistant","message":{"content":[{"type":"text","text":"Hello"}]}}`,
		`{"type":"stream_event","event":{"type":"message_start"}}`,
		`{"type":"assistant","message":{"content":[{"type":"text","text":", world"}]}}`,
	} {
		for _, s := range tr.Line([]byte(line)) {
			text.WriteString(s.Text)
		}
	}
	if text.String() != "Hello, world" {
		t.Errorf("told %q", text.String())
	}
}

func FuzzTranscript(f *testing.F) {
	paths, _ := filepath.Glob("*/testdata/samples/*.out")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(b[:min(len(b), 8<<10)]) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, cli := range agented.Backends {
			for _, s := range newTranscript(cli).Line(line) {
				if len(s.Input) > 2*agentcli.MaxItem+100 || s.Kind == agentcli.ItemToolResult && len(s.Text) > agentcli.MaxItem {
					t.Errorf("%s: too much is kept: %d and %d bytes", cli, len(s.Input), len(s.Text))
				}
			}
		}
	})
}
