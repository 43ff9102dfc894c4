package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program with the scripts in testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			// The environment of the tests, which may be that of an agent, is not passed on.
			e.Vars = []string{
				"WORK=" + e.WorkDir, "HOME=" + filepath.Join(e.WorkDir, "home"), "TMPDIR=" + os.TempDir(),
				"PATH=" + filepath.Dir(binary) + string(filepath.ListSeparator) + os.Getenv("PATH"),
			}
			return os.MkdirAll(filepath.Join(e.WorkDir, "home"), 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits,
		},
	})
}

// exits CODE COMMAND…: the command ends with exactly that exit code. Its output is available to
// stdout and stderr, as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG…]")
	}
	// exec distinguishes success and failure only, so a shell compares the code.
	script := `"$@"; code=$?; if [ "$code" != "$want" ]; then echo "exit code $code, want $want" >&2; exit 1; fi`
	ts.Setenv("want", args[0])
	ts.Check(ts.Exec("sh", append([]string{"-c", script, "sh"}, args[1:]...)...))
}
