package backend

import (
	"encoding/json"

	"github.com/agented/agented"
)

// codex is OpenAI's Codex CLI.
type codex struct{}

func (codex) Name() string    { return agented.BackendCodex }
func (codex) Program() string { return "codex" }
func (codex) Install() string {
	return "install Codex with `npm install -g @openai/codex` and see that `codex` is on the server's PATH"
}

func (codex) Variables() []string {
	return []string{"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORGANIZATION", "OPENAI_PROJECT", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "CODEX_HOME"}
}

func (codex) Reader() Reader { return &codexReader{} }

func (codex) Plan(r Request) (Plan, error) {
	if err := checkResume(r); err != nil {
		return Plan{}, err
	}
	args := []string{"codex", "exec", "--json", "--skip-git-repo-check"}
	switch r.Spec.Permission {
	case agented.PermissionRead:
		args = append(args, "--sandbox", "read-only")
	case agented.PermissionFull:
		args = append(args, "--sandbox", "danger-full-access")
	default:
		args = append(args, "--sandbox", "workspace-write")
	}
	// Without these each start looks for updates, clones a list of plugins and
	// runs a login shell to take a picture of its environment.
	args = append(args, "--disable", "plugins", "--disable", "shell_snapshot", "-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false")
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	if base := r.Env["OPENAI_BASE_URL"]; base != "" {
		// The CLI does not read the variable.
		args = append(args, "-c", "openai_base_url="+tomlString(base))
	}
	if r.Spec.Permission != agented.PermissionRead {
		for _, dir := range r.Spec.Paths {
			args = append(args, "--add-dir="+dir)
		}
	}
	env := map[string]string{}
	if key := r.Env["OPENAI_API_KEY"]; key != "" {
		setUnless(env, r, "CODEX_API_KEY", key)
	}
	args = append(args, r.Spec.Args...)
	if r.Resume != "" {
		args = append(args, "resume", r.Resume)
	}
	args = append(args, "-") // the prompt is on standard input
	return Plan{Args: args, Env: env, Stdin: []byte(withSystem(r)), Capture: agented.CaptureFile}, nil
}

// tomlString writes a basic TOML string; JSON's escapes are a part of TOML's.
func tomlString(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}
