package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/config"
)

// checkCLIs asks every agent CLI for its version, in the environment that an
// execution would give it but for the credentials.
func checkCLIs(ctx context.Context, c *config.Config) []Finding {
	var programs []backend.Backend
	for _, b := range backend.All() {
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

// checkAPI says whether Anthropic's API can be asked without a CLI. Who does not
// use that needs no key.
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

func checkCLI(ctx context.Context, c *config.Config, b backend.Backend) Finding {
	f := Finding{Area: AreaCLIs, Name: b.Name(), Status: Warn}
	own := c.BackendEnv(b.Name())
	secrets := c.Secrets()
	for name, value := range own {
		if slices.Contains(secrets, value) {
			delete(own, name)
		}
	}
	env, err := backend.ChildEnv(b, agented.Spec{Backend: b.Name()}, own, c.Variable, nil)
	if err != nil {
		f.Text, f.Mend = "its environment cannot be made: "+agented.Message(err), b.Install()
		return f
	}
	path := ""
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	file, why := lookPath(b.Program(), path)
	if file == "" {
		f.Text, f.Mend = "not installed: "+why, b.Install()
		return f
	}
	version, err := backend.Version(ctx, file, env)
	if err != nil {
		f.Text = fmt.Sprintf("found at %s, but it does not run: %v", file, err)
		f.Mend = fmt.Sprintf("see what `%s --version` prints; or %s", file, b.Install())
		return f
	}
	f.Status, f.Text = OK, fmt.Sprintf("%s at %s", version, file)
	if known := tried[b.Name()]; older(version, known) {
		f.Status = Warn
		f.Text += fmt.Sprintf(", older than %s, the oldest that Agented was tried with: its output may be read wrong", known)
		f.Mend = b.Install()
	}
	return f
}

// tried are the oldest versions that Agented was tried with.
var tried = map[string]string{
	agented.BackendClaude: "2.1.197", agented.BackendCodex: "0.169.0", agented.BackendGemini: "0.61.0", agented.BackendOpenCode: "1.18.33",
}

// older reports whether version a comes before b; what cannot be compared does
// not.
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

// lookPath finds a program as an execution does: in folders that do not depend
// on where it runs. Without one it says why.
func lookPath(program, path string) (file, why string) {
	why = fmt.Sprintf("there is no `%s` on the PATH", program)
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, program)
		info, err := os.Stat(file)
		switch {
		case err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0:
			return file, ""
		case err == nil && info.IsDir():
		case err == nil:
			why = file + " may not be executed"
		default:
			if link, lerr := os.Lstat(file); lerr == nil && link.Mode()&fs.ModeSymlink != 0 {
				why = file + " is a link to nothing"
			}
		}
	}
	return "", why
}

// checkPluginRoot looks at the folder whose programs go on the PATH of claude
// executions.
func checkPluginRoot(c *config.Config) []Finding {
	root := c.ClaudePluginRoot
	if root == "" {
		return nil
	}
	f := Finding{Area: AreaSettings, Name: "CLAUDE_PLUGIN_ROOT", Status: Warn}
	info, err := os.Stat(root)
	switch {
	case err != nil:
		f.Text = root + " is not there, so claude finds none of the plugin's commands"
		f.Mend = "install the plugin there, or set CLAUDE_PLUGIN_ROOT to its folder"
		return []Finding{f}
	case !info.IsDir():
		f.Text, f.Mend = root+" is not a folder", "set CLAUDE_PLUGIN_ROOT to the plugin's folder"
		return []Finding{f}
	}
	var programs []string
	for _, dir := range []string{filepath.Join(root, "bin"), root} {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 {
			f.Text = dir + " can be changed by every user, and its programs come first on the PATH of claude executions"
			f.Mend = "chmod o-w " + dir
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
		f.Text = root + " brings no program, neither in itself nor in bin"
		f.Mend = "make the plugin's programs executable, or set CLAUDE_PLUGIN_ROOT to its folder"
		return []Finding{f}
	}
	slices.Sort(programs)
	names := strings.Join(programs[:min(3, len(programs))], ", ")
	if more := len(programs) - 3; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	f.Status, f.Text = OK, fmt.Sprintf("%s brings %s", root, names)
	return []Finding{f}
}
