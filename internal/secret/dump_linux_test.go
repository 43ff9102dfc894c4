package secret_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/agented/agented/internal/secret"
	"golang.org/x/sys/unix"
)

func TestUndumpable(t *testing.T) {
	if os.Getenv("AGENTED_TEST_UNDUMPABLE") == "" {
		// In a child process, so that this process can still be debugged and
		// used with the race detector.
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "AGENTED_TEST_UNDUMPABLE=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "dumpable 0") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := secret.Undumpable(); err != nil {
		t.Fatal(err)
	}
	value, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("dumpable %d", value)
}
