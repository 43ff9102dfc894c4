package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/searchpath"
)

// checkCLIs runs every agent CLI with --version in the environment of an execution, without
// credentials.
func checkCLIs(ctx context.Context, c *config.Config) []Finding {
	var programs []agentcli.CLI
	for _, b := range registry.All() {
		if b.Program() != "" {
			programs = append(programs, b)
		}
	}
	out := make([]Finding, len(programs))
	var wg sync.WaitGroup
	for i, b := range programs {
		wg.Go(func() { out[i] = checkCLI(ctx, c, b) })
	}
	wg.Wait()
	return append(out, checkAPI(c))
}

// checkAPI reports whether the backend anthropic has a key. A missing key is no problem, because
// the backend is optional.
func checkAPI(c *config.Config) Finding {
	f := Finding{Area: AreaCLIs, Name: agented.BackendAnthropic, Status: OK, Text: "part of Agented; no key for its default account"}
	own := c.BackendEnv(agented.BackendAnthropic)
	if own["ANTHROPIC_API_KEY"] != "" {
		f.Text = "part of Agented, with ANTHROPIC_API_KEY"
		if own["ANTHROPIC_BASE_URL"] != "" {
			f.Text += " and the address in ANTHROPIC_BASE_URL"
		}
	}
	return f
}

func checkCLI(ctx context.Context, c *config.Config, b agentcli.CLI) Finding {
	f := Finding{Area: AreaCLIs, Name: b.Name(), Status: Warn}
	own := c.BackendEnv(b.Name())
	secrets := c.Secrets()
	for name, value := range own {
		if slices.Contains(secrets, value) {
			delete(own, name)
		}
	}
	env, err := registry.ChildEnv(b, agented.Spec{Backend: b.Name()}, own, c.Variable, nil)
	if err != nil {
		f.Text, f.Fix = "its environment cannot be created: "+agented.Message(err), b.Install()
		return f
	}
	path := ""
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	file, err := searchpath.Find(b.Program(), path)
	if errors.Is(err, searchpath.ErrNotFound) {
		err = fmt.Errorf("`%s` is not on the PATH", b.Program())
	}
	if err != nil {
		f.Text, f.Fix = "not installed: "+err.Error(), b.Install()
		return f
	}
	version, err := agentcli.Version(ctx, b, file, env)
	if errors.Is(err, context.DeadlineExceeded) {
		f.Text = fmt.Sprintf("found at %s, but slow: %v; the machine may be busy", file, err)
		f.Fix = fmt.Sprintf("run `%s --version` when the machine is less busy", file)
		return f
	}
	if err != nil {
		f.Text = fmt.Sprintf("found at %s, but it does not run: %v", file, err)
		f.Fix = fmt.Sprintf("check the output of `%s --version`; or %s", file, b.Install())
		return f
	}
	f.Status, f.Text = OK, fmt.Sprintf("%s at %s", version, file)
	if known := b.Rules().Tested; older(version, known) {
		f.Status = Warn
		f.Text += fmt.Sprintf(", older than %s, the oldest tested version: its output may be misinterpreted", known)
		f.Fix = b.Install()
	}
	return f
}

// older reports whether version a is older than b. It returns false for versions that cannot be
// compared.
func older(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		digits := strings.IndexFunc(x[i], func(r rune) bool { return r < '0' || r > '9' })
		if digits >= 0 {
			x[i] = x[i][:digits]
		}
		m, err := strconv.Atoi(x[i])
		n, err2 := strconv.Atoi(y[i])
		if err != nil || err2 != nil || m > n {
			return false
		}
		if m < n {
			return true
		}
	}
	return false
}

// checkPluginRoot checks the plugin folder whose programs are put on the PATH of claude
// executions.
func checkPluginRoot(c *config.Config) []Finding {
	root := c.BackendEnv(agented.BackendClaude)["CLAUDE_PLUGIN_ROOT"]
	if root == "" {
		return nil
	}
	f := Finding{Area: AreaSettings, Name: "CLAUDE_PLUGIN_ROOT", Status: Warn}
	info, err := os.Stat(root)
	switch {
	case err != nil:
		f.Text = root + " does not exist, so claude cannot find the plugin's commands"
		f.Fix = "install the plugin there, or set CLAUDE_PLUGIN_ROOT to its folder"
		return []Finding{f}
	case !info.IsDir():
		f.Text, f.Fix = root+" is not a folder", "set CLAUDE_PLUGIN_ROOT to the plugin's folder"
		return []Finding{f}
	}
	var programs []string
	for _, dir := range []string{filepath.Join(root, "bin"), root} {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 {
			f.Text = dir + " is writable by every user, and its programs come first on the PATH of claude executions"
			f.Fix = "chmod o-w " + dir
			return []Finding{f}
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				programs = append(programs, e.Name())
			}
		}
	}
	if len(programs) == 0 {
		f.Text = root + " contains no program, neither directly nor in bin"
		f.Fix = "make the plugin's programs executable, or set CLAUDE_PLUGIN_ROOT to its folder"
		return []Finding{f}
	}
	slices.Sort(programs)
	names := strings.Join(programs[:min(3, len(programs))], ", ")
	if more := len(programs) - 3; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	f.Status, f.Text = OK, fmt.Sprintf("%s contains %s", root, names)
	return []Finding{f}
}
