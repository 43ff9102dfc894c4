package workspace

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
)

// otherAgentFiles are agent files, at any depth of a repository, that belong to no CLI of the registry:
// conventions that several of them follow, and files of other agents.
var otherAgentFiles = []string{
	"AGENTS.local.md", "AGENT.md", ".agents", ".agent",
	".cursor", ".cursorrules", ".windsurf", ".windsurfrules", ".clinerules", ".roo", ".roorules", ".junie", ".kiro", ".amp",
	".continue", ".goosehints", ".aider.conf.yml", ".qwen", "QWEN.md", ".rules", "CONTEXT.md",
}

// sharedFolders contain both agent files and other files.
var sharedFolders = map[string][]string{
	".github": {"copilot-instructions.md", "instructions", "prompts", "agents", "chatmodes", "skills", "hooks", "copilot"},
	".vscode": {"mcp.json"},
}

// rootFiles are read by the CLIs or their runtimes from the folder in which they start.
var rootFiles = []string{"bunfig.toml", ".ripgreprc"}

// protectedPath returns the part of a slash-separated path that names an agent file, or "". It
// ignores case, because some file systems do.
func protectedPath(name string, symlink bool) string {
	parts := strings.Split(name, "/")
	if len(parts) == 1 {
		lower := strings.ToLower(name)
		if lower == ".env" || strings.HasPrefix(lower, ".env.") && !exampleEnv(lower) || fold(rootFiles, name) {
			return name
		}
	}
	for i, part := range parts {
		if agentFile(part) {
			return path.Join(parts[:i+1]...)
		}
		for folder, files := range sharedFolders {
			if !strings.EqualFold(part, folder) {
				continue
			}
			if i+1 < len(parts) && fold(files, parts[i+1]) {
				return path.Join(parts[:i+2]...)
			}
			if i+1 == len(parts) && symlink {
				return name // it can lead to a folder with agent files
			}
		}
	}
	return ""
}

// exampleEnv reports whether the name is that of a template, which no program loads.
func exampleEnv(name string) bool {
	for _, end := range []string{".example", ".sample", ".template", ".dist"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// agentFile reports whether an agent CLI reads instructions, settings, hooks, servers or skills from
// a file or folder of that name.
func agentFile(name string) bool {
	if fold(otherAgentFiles, name) {
		return true
	}
	for _, cli := range registry.All() {
		if fold(cli.Rules().ProjectFiles, name) {
			return true
		}
	}
	return false
}

// neverRestored reports whether an agent file is removed even if the default branch contains it.
func neverRestored(name string) bool {
	parts := strings.Split(name, "/")
	for _, cli := range registry.All() {
		if slices.ContainsFunc(parts, func(part string) bool { return fold(cli.Rules().NeverRestored, part) }) {
			return true
		}
	}
	return false
}

func fold(list []string, s string) bool {
	for _, x := range list {
		if strings.EqualFold(x, s) {
			return true
		}
	}
	return false
}

// AgentFile returns the part of a name in a repository that agent CLIs read instructions or settings
// from, or "".
func AgentFile(name string, symlink bool) string { return protectedPath(name, symlink) }

// MirrorObjects returns the folder with the objects of the mirror that the execution's checkout was
// made from, and the mirror's file of shallow commits. They are empty if there is no mirror any more.
func (m *Manager) MirrorObjects(id agented.ExecutionID) (objects, shallow string) {
	b, err := os.ReadFile(filepath.Join(m.o.Layout.Execution(id), marker))
	var c Checkout
	if err != nil || json.Unmarshal(b, &c) != nil || c.Mirror == "" || filepath.Base(c.Mirror) != c.Mirror {
		return "", ""
	}
	mirror := filepath.Join(m.root(), c.Mirror, "mirror.git")
	if info, err := os.Stat(filepath.Join(mirror, "objects")); err != nil || !info.IsDir() {
		return "", ""
	}
	return filepath.Join(mirror, "objects"), filepath.Join(mirror, "shallow")
}
