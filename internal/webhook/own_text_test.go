package webhook

import (
	"testing"

	"github.com/agented/agented"
)

// TestOwnText_status finds the execution in the address of a commit status, before that of the commit.
func TestOwnText_status(t *testing.T) {
	t.Parallel()
	id := agented.ExecutionID("exec-01jd8gk8f0zr4s2k6c3v9m5x7q")
	e := &Event{Name: "status", JSON: map[string]any{
		"target_url": "https://github.com/o/r/commit/abc" + agented.PublicationAnchor(id, 2),
		"commit":     map[string]any{"commit": map[string]any{"message": "x\n\n" + agented.PublicationTrailer + ": exec-01jd8gk8f0zr4s2k6c3v9m5x7r"}},
	}}
	if by, ok := agented.PublishedBy(e.OwnText()); !ok || by != id {
		t.Errorf("PublishedBy(%q) = %q, %v", e.OwnText(), by, ok)
	}
}
