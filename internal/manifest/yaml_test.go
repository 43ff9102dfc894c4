package manifest

import (
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/term"
)

func TestYAMLMistakes(t *testing.T) {
	t.Parallel()
	const head = "name: x\nbackend: command\n"
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"unquoted_cron", head + "command: [ls]\nschedules:\n  - cron: */15 * * * *\n", []string{"line 5", `cron: "*/15 * * * *"`, "quotes"}},
		{"every_minute", head + "schedules:\n  - cron: * * * * *\n", []string{"line 4", `cron: "* * * * *"`}},
		{"at_sign", head + "schedules:\n  - cron: @daily\n", []string{"line 4", `cron: "@daily"`}},
		{"number_in_env", head + "command: [ls]\nenv: {PORT: 8080}\n", []string{"env.PORT", "line 4", `PORT: "8080"`}},
		{"boolean_in_env", head + "command: [ls]\nenv:\n  A: b\n  DEBUG: true\n", []string{"env.DEBUG", "line 6", `DEBUG: "true"`}},
		{"command_as_text", head + "command: echo hi\n", []string{"command", "line 3", `["echo", "hi"]`}},
		{"command_for_a_shell", head + "command: echo hi | wc\n", []string{"line 3", `["sh", "-c", "echo hi | wc"]`}},
		{"number_in_command", head + "command: [sleep, 5]\n", []string{"command.1", "line 3", `"5"`}},
		{"name_is_a_number", "backend: command\nname: 123\ncommand: [ls]\n", []string{"name", "line 2", `name: "123"`}},
		{"no_name", "backend: command\n", []string{"line 1", "no name"}},
		{"tab", "name: x\nretry:\n\tattempts: 3\n", []string{"line 3", "tab"}},
		{"colon_in_a_value", "name: x\nprompt: look: here\n", []string{"line 2", `prompt: "look: here"`}},
		{"braces_in_a_prompt", "name: x\nprompt: {message} please\n", []string{"line 2", `prompt: "{message} please"`}},
		{"not_an_object", "- just text\n", []string{"line 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Trigger.parse("f.yml", []byte(tt.file))
			if agented.KindOf(err) != agented.Invalid {
				t.Fatalf("error %v", err)
			}
			said := term.ErrorText(err)
			for _, want := range append(tt.want, "f.yml") {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in %q", want, said)
				}
			}
			if strings.Contains(said, "yaml:") {
				t.Errorf("the library speaks: %q", said)
			}
		})
	}
}

func TestApply_error_lines(t *testing.T) {
	t.Parallel()
	items, err := Trigger.parse("f.yml", []byte("name: a\nbackend: x\nschedules:\n  - cron: 1 2 3 4 5\n    zone: Nowhere\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = items[0].explain(Trigger, agented.InvalidFields([]agented.Field{{Path: "schedules.0.zone", Text: "is not a zone"}}))
	if said := term.ErrorText(err); !strings.Contains(said, "line 5") || !strings.Contains(said, "zone") {
		t.Errorf("%q", said)
	}
	err = items[0].explain(Trigger, agented.InvalidFields([]agented.Field{{Path: "promt", Text: "is not a field of this request"}}))
	if said := term.ErrorText(err); !strings.Contains(said, "is not a field of a trigger") {
		t.Errorf("%q", said)
	}
}
