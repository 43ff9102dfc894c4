package shim

import (
	"os"
	"testing"

	"github.com/agented/agented"
)

// Not parallel: it changes what all shims of this process are.
func TestAShimIsAProgramInMemoryWhereThatCanBeRun(t *testing.T) {
	text, err := os.ReadFile("/proc/self/exe") // the tests' program can be a shim
	if err != nil {
		t.Fatal(err)
	}
	path, err := unpack(string(text))
	if err != nil {
		t.Fatal(err)
	}
	use := func(path string) {
		program.mu.Lock()
		program.path = path
		program.mu.Unlock()
	}
	defer use("")
	for name, path := range map[string]string{"in memory": path, "cannot be run": "/dev/null"} {
		t.Run(name, func(t *testing.T) {
			use(path)
			exit := newRun(t, agented.CapturePipe, "echo done").do()
			if exit.Cause != agented.CauseExit || exit.Code == nil || *exit.Code != 0 {
				t.Fatalf("%+v", exit)
			}
			now, err := selfPath()
			if err != nil || name == "in memory" && now != path || name != "in memory" && now != "/proc/self/exe" {
				t.Errorf("%s, %v", now, err)
			}
		})
	}
}
