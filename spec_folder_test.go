package agented

import (
	"strings"
	"testing"
)

func TestSpecValidate_folders(t *testing.T) {
	for path, want := range map[string]string{
		"/srv/a\nb": "line break", "/srv/a\x00": "control character", "~/project": "~ is not expanded", "project": "absolute",
	} {
		if got := folderError(path); !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	if got := folderError("/srv/a b"); got != "" {
		t.Errorf("a good path: %q", got)
	}
}

func TestSpecValidate_prompt_size(t *testing.T) {
	text := strings.Repeat("f({name}) <>&\"\n", MaxPrompt/15)
	s := Spec{Backend: BackendClaude, Prompt: EscapeTemplate(text), Overlap: OverlapQueue, Permission: PermissionEdit}
	if bad := s.Validate(); len(bad) > 0 {
		t.Errorf("a prompt of %d bytes is refused: %v", len(text), bad)
	}
	s.Prompt += strings.Repeat("x", 100)
	if bad := s.Validate(); len(bad) == 0 {
		t.Error("a prompt beyond the limit passes")
	}
	c := Spec{Backend: BackendCommand, Command: []string{"cat"}, Prompt: "a\x00b", Overlap: OverlapQueue}
	if bad := c.Validate(); len(bad) != 1 || bad[0].Path != "prompt" {
		t.Errorf("NUL in the prompt of a command: %v", bad)
	}
}
