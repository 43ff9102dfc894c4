package backend

import (
	"github.com/agented/agented"
)

// openCode is OpenCode.
type openCode struct{}

func (openCode) Name() string    { return agented.BackendOpenCode }
func (openCode) Program() string { return "opencode" }
func (openCode) Install() string {
	return "install OpenCode with `npm install -g opencode-ai` and see that `opencode` is on the server's PATH"
}

func (openCode) Variables() []string {
	return []string{"OPENCODE_HOME", "OPENCODE_API_KEY", "OPENCODE_AUTH_CONTENT", "OPENCODE_CONFIG", "OPENCODE_CONFIG_CONTENT", "OPENCODE_CONFIG_DIR", "OPENCODE_DB"}
}

func (openCode) Reader() Reader { return &openCodeReader{} }

// openCodeRules are the permission rules, as OPENCODE_PERMISSION takes them:
// they are laid over those of the configuration.
var openCodeRules = map[agented.Permission]string{
	agented.PermissionRead: `{"*":"deny","read":"allow","grep":"allow","glob":"allow","list":"allow","todowrite":"allow","todoread":"allow"}`,
	agented.PermissionEdit: `{"*":"allow","bash":"deny","webfetch":"deny","external_directory":"deny"}`,
	agented.PermissionFull: `{"*":"allow"}`,
}

func (openCode) Plan(r Request) (Plan, error) {
	if err := checkResume(r); err != nil {
		return Plan{}, err
	}
	// Without its log it waits out a limit without a word.
	args := []string{"opencode", "run", "--format", "json", "--print-logs", "--log-level", "ERROR"}
	if r.Resume != "" {
		args = append(args, "--session", r.Resume)
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	permission := r.Spec.Permission
	if _, known := openCodeRules[permission]; !known {
		permission = agented.PermissionEdit
	}
	if permission == agented.PermissionFull {
		args = append(args, "--auto")
	}
	env := map[string]string{}
	setUnless(
		env, r,
		"OPENCODE_PERMISSION", openCodeRules[permission], "OPENCODE_DISABLE_AUTOUPDATE", "1", "OPENCODE_DISABLE_LSP_DOWNLOAD", "1",
		"OPENCODE_DISABLE_TERMINAL_TITLE", "1",
	)
	args = append(args, r.Spec.Args...)
	return Plan{Args: args, Env: env, Stdin: []byte(withSystem(r)), Capture: agented.CaptureFile}, nil
}
