package agentcli_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file, or writes the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.FromSlash(name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make generate writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; make generate accepts it):\n%s", path, diff)
	}
}

// theExecution is an id for plans that must not change.
const theExecution agented.ExecutionID = "exec-01jdbq3k5e0123456789abcdef"

// planText formats a plan for a readable diff.
func planText(p agentcli.Plan) string {
	var b strings.Builder
	for _, a := range p.Args {
		b.WriteString("arg     " + a + "\n")
	}
	var names []string
	for name := range p.Env {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString("env     " + name + "=" + p.Env[name] + "\n")
	}
	stdin := "/dev/null"
	if p.Stdin != nil {
		text, _ := json.Marshal(string(p.Stdin))
		stdin = string(text)
	}
	b.WriteString("stdin   " + stdin + "\ncapture " + string(p.Capture) + "\n")
	return b.String()
}

func TestGoldenCommandLines(t *testing.T) {
	t.Parallel()
	for _, b := range registry.All() {
		if b.Name() == agented.BackendCommand {
			continue
		}
		t.Run(b.Name(), func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			for _, permission := range []agented.Permission{agented.PermissionRead, agented.PermissionEdit, agented.PermissionFull} {
				for _, model := range []string{"", "some/model-1"} {
					for _, resume := range []string{"", "0a1b2c3d-0000-4000-8000-000000000000"} {
						for _, root := range []bool{false, true} {
							for _, extra := range []string{"", "with"} {
								r := agentcli.Request{
									Spec:   agented.Spec{Backend: b.Name(), Permission: permission, Model: model},
									Prompt: "--version\nis not a flag", Execution: theExecution, Attempt: 2, Resume: resume, Root: root,
									Self: "/opt/agented", State: "/data/sessions",
									Env: map[string]string{"PATH": "/bin"},
								}
								title := "permission " + string(permission)
								if model != "" {
									title += ", model"
								}
								if resume != "" {
									title += ", resume"
								}
								if root {
									title += ", root"
								}
								if extra != "" {
									title += ", args, paths, account"
									r.Spec.Args = []string{"--extra", "two words"}
									r.Spec.Paths = []string{"/srv/a", "/srv/b c"}
									r.Env["OPENAI_API_KEY"], r.Env["OPENAI_BASE_URL"] = "the-key", `http://h/v1"x`
								}
								plan, err := b.Plan(r)
								if err != nil {
									t.Fatalf("%s: %v", title, err)
								}
								out.WriteString("# " + title + "\n" + planText(plan) + "\n")
							}
						}
					}
				}
			}
			golden(t, b.Name()+"/testdata/argv.golden", out.String())
		})
	}
}

func TestGoldenCommandOfTheTrigger(t *testing.T) {
	t.Parallel()
	b, _ := registry.ByName(agented.BackendCommand)
	var out strings.Builder
	for _, tty := range []bool{false, true} {
		plan, err := b.Plan(agentcli.Request{Spec: agented.Spec{Backend: "command", Command: []string{"sh", "-c", "echo hi"}, TTY: tty}, Env: map[string]string{}})
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(planText(plan) + "\n")
	}
	golden(t, "command/testdata/argv.golden", out.String())
	if _, err := b.Plan(agentcli.Request{}); err == nil {
		t.Error("a trigger without a command is planned")
	}
}

func TestPlan_deterministic(t *testing.T) {
	t.Parallel()
	for _, b := range registry.All() {
		r := agentcli.Request{Spec: agented.Spec{Backend: b.Name(), Command: []string{"x"}}, Prompt: "p", Execution: theExecution, Attempt: 1}
		one, err1 := b.Plan(r)
		two, err2 := b.Plan(r)
		if diff := cmp.Diff(one, two); diff != "" || err1 != nil || err2 != nil {
			t.Errorf("%s: %v %v %s", b.Name(), err1, err2, diff)
		}
		r.Attempt = 2
		if other, _ := b.Plan(r); b.Name() == agented.BackendClaude && cmp.Equal(one.Args, other.Args) {
			t.Error("two attempts share one claude session id")
		}
	}
}

func TestPlan_prompt_not_in_arguments(t *testing.T) {
	t.Parallel()
	for _, b := range registry.All() {
		if b.Name() == agented.BackendCommand {
			continue
		}
		for _, prompt := range []string{"-h", "--dangerously-skip-permissions", "- list", "resume", strings.Repeat("long ", 100_000)} {
			plan, err := b.Plan(agentcli.Request{Spec: agented.Spec{Backend: b.Name()}, Prompt: prompt, Execution: theExecution, Attempt: 1, State: "/s"})
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(plan.Args, prompt) || string(plan.Stdin) != prompt {
				t.Errorf("%s: prompt %.20q is not on standard input alone", b.Name(), prompt)
			}
		}
	}
}

func TestPlan_invalid_session_id(t *testing.T) {
	t.Parallel()
	for _, b := range registry.All() {
		if b.Name() == agented.BackendCommand {
			continue
		}
		for _, id := range []string{"--yolo", "-", "a b", "x;y", "../x", strings.Repeat("a", 300)} {
			if _, err := b.Plan(agentcli.Request{Spec: agented.Spec{Backend: b.Name()}, Resume: id}); agented.KindOf(err) != agented.Invalid {
				t.Errorf("%s resumes %.10q: %v", b.Name(), id, err)
			}
		}
	}
}

func TestPlan_trigger_variables_win(t *testing.T) {
	t.Parallel()
	for _, b := range registry.All() {
		r := agentcli.Request{
			Spec: agented.Spec{Backend: b.Name(), Command: []string{"x"}, TTY: true, Permission: agented.PermissionFull}, Root: true,
			Execution: theExecution, Attempt: 1, Env: map[string]string{"OPENAI_API_KEY": "k"},
		}
		plan, err := b.Plan(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(plan.Env) == 0 {
			t.Errorf("%s: the plan adds no variable", b.Name())
		}
		for name := range plan.Env {
			r.Env[name] = "the trigger's"
		}
		if plan, err = b.Plan(r); err != nil || len(plan.Env) != 0 {
			t.Errorf("%s: the plan replaces %v (%v)", b.Name(), plan.Env, err)
		}
	}
}

func TestBackends_complete(t *testing.T) {
	t.Parallel()
	var names []string
	for _, b := range registry.All() {
		names = append(names, b.Name())
		if got, ok := registry.ByName(b.Name()); !ok || got.Name() != b.Name() {
			t.Errorf("ByName(%s) = %v, %v", b.Name(), got, ok)
		}
		ours := b.Name() == agented.BackendCommand || b.Name() == agented.BackendAnthropic
		if !ours && (b.Program() == "" || !strings.Contains(b.Install(), "npm install -g")) {
			t.Errorf("%s does not say how to install %q: %q", b.Name(), b.Program(), b.Install())
		}
	}
	if diff := cmp.Diff(agented.Backends, names); diff != "" {
		t.Error(diff)
	}
	if _, ok := registry.ByName("cluade"); ok {
		t.Error("a backend that is not there was found")
	}
}
