package workspace

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/agented/agented/internal/disk"
)

// safeConfig writes a configuration file for git with the safe.directory entries of the server's
// user and of the machine, and nothing else, and returns its path. It returns the null device if
// there are none.
//
// Git ignores safe.directory in the repository and on the command line when it reads a repository
// on this machine, so a file is needed.
func (m *Manager) safeConfig(home string) string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "PATH"} {
		if value, ok := m.o.Lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	var text strings.Builder
	for _, scope := range []string{"--system", "--global"} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		cmd := exec.CommandContext(ctx, m.o.program, "config", scope, "--null", "--get-all", "safe.directory")
		cmd.Dir, cmd.Env = home, env
		out, err := cmd.Output()
		cancel()
		if err != nil {
			continue // no such file, or no such entry
		}
		for dir := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(dir)
			text.WriteString("\tdirectory = \"" + escaped + "\"\n")
		}
	}
	if text.Len() == 0 {
		return os.DevNull
	}
	path := filepath.Join(home, "safe.config")
	if err := disk.ReplaceFile(path, []byte("[safe]\n"+text.String()), 0o600); err != nil {
		m.o.Log.Warn("write git's list of safe directories", "err", err)
		return os.DevNull
	}
	return path
}
