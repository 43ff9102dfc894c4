package sse

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The clients come from npm; scripts/install-node-tests.sh installs them into
// the folder that AGENTED_TEST_NODE names.
func TestStream_npm_clients(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("AGENTED_TEST_NODE")
	if folder == "" {
		t.Skip("AGENTED_TEST_NODE is not set: run scripts/install-node-tests.sh and set it to what --print says")
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules")); err != nil {
		reason, _ := os.ReadFile(filepath.Join(folder, "reason.txt"))
		t.Skipf("the clients are not installed in %s: %v %s", folder, err, strings.TrimSpace(string(reason)))
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	for _, script := range []string{"eventsource.mjs", "fetch-event-source.mjs"} {
		t.Run(strings.TrimSuffix(script, ".mjs"), func(t *testing.T) {
			t.Parallel()
			const total = 3000
			s := newStreamFixture(t)
			w := s.writer()
			s.write(w, 100)
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			var stderr strings.Builder
			cmd := exec.CommandContext(ctx, node, filepath.Join("testdata", script), folder, s.url("stream?after=0"))
			cmd.Stderr = &stderr
			done := make(chan struct{})
			var out []byte
			var failed error
			go func() {
				defer close(done)
				out, failed = cmd.Output()
			}()
			eventually(t, "the client to come", func() bool { return s.streams.Hub.Readers() == 1 })
			// It reconnects a second after each cut, according to the stream's
			// retry field.
			write, cut := time.NewTicker(20*time.Millisecond), time.NewTicker(1300*time.Millisecond)
			defer write.Stop()
			defer cut.Stop()
			cuts := 0
			for int(w.LastSeq()) < total {
				select {
				case <-write.C:
					s.write(w, 10)
				case <-cut.C:
					s.cut()
					cuts++
				}
			}
			s.finish(total)
			<-done
			if failed != nil {
				t.Fatalf("%v: %s%s", failed, out, stderr.String())
			}
			var got struct {
				Lines, Opens int
				Complete     map[string]any
				LastID       string
				Problems     []string
				Ended        string
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			t.Logf("%d cuts: %s", cuts, out)
			if got.Lines != total || len(got.Problems) > 0 || got.Ended != "204" || got.Opens < 3 ||
				got.Complete["id"] != "3001" || got.Complete["status"] != "success" {
				t.Errorf("the client saw %s", out)
			}
		})
	}
}
