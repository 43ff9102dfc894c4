package backend

import (
	"github.com/agented/agented"
)

// gemini is Google's Gemini CLI.
type gemini struct{}

func (gemini) Name() string    { return agented.BackendGemini }
func (gemini) Program() string { return "gemini" }
func (gemini) Install() string {
	return "install the Gemini CLI with `npm install -g @google/gemini-cli` and see that `gemini` is on the server's PATH"
}

func (gemini) Variables() []string {
	return []string{
		"GEMINI_API_KEY", "GEMINI_CLI_HOME", "GEMINI_MODEL", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL",
		"GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_APPLICATION_CREDENTIALS",
	}
}

func (gemini) Reader() Reader { return &geminiReader{} }

func (gemini) Plan(r Request) (Plan, error) {
	if err := checkResume(r); err != nil {
		return Plan{}, err
	}
	args := []string{"gemini", "--output-format", "stream-json"}
	switch r.Spec.Permission {
	case agented.PermissionRead:
		args = append(args, "--approval-mode", "default")
	case agented.PermissionFull:
		args = append(args, "--approval-mode", "yolo")
	default:
		args = append(args, "--approval-mode", "auto_edit")
	}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	} else {
		args = append(args, "--session-id", sessionID(r.Execution, r.Attempt))
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	for _, dir := range r.Spec.Paths {
		args = append(args, "--include-directories="+dir)
	}
	env := map[string]string{}
	setUnless(env, r, "GEMINI_CLI_TRUST_WORKSPACE", "true", "GEMINI_CLI_NO_RELAUNCH", "true")
	args = append(args, r.Spec.Args...)
	return Plan{Args: args, Env: env, Stdin: []byte(withSystem(r)), Capture: agented.CaptureFile}, nil
}
