package workspace

import (
	"path"
	"strings"
)

// agentFiles are the files and folders from which agent CLIs read instructions, settings, hooks,
// servers and skills, at any depth of a repository.
var agentFiles = []string{
	".claude", ".claude.json", ".claude-plugin", ".mcp.json", "CLAUDE.md", "CLAUDE.local.md",
	"AGENTS.md", "AGENTS.override.md", "AGENTS.local.md", "AGENT.md", ".agents", ".agent",
	".codex", "GEMINI.md", ".gemini", "opencode.json", "opencode.jsonc", ".opencode",
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
		if fold(agentFiles, part) {
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

// neverRestored reports whether an agent file is removed even if the default branch contains it:
// the Gemini CLI has no option to ignore a project's settings, which can name commands that
// depend on other files of the checkout.
func neverRestored(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.EqualFold(part, ".gemini") {
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
