package agented_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/agented/agented"
)

func TestStateCanBecome(t *testing.T) {
	t.Parallel()
	want := map[agented.State][]agented.State{
		agented.StatePending: {agented.StateRunning, agented.StateFailed, agented.StateCancelled},
		agented.StateRunning: {
			agented.StatePending, agented.StateSuccess, agented.StateFailed,
			agented.StateTimeout, agented.StateCancelled, agented.StateInterrupted,
		},
	}
	for _, from := range agented.States {
		for _, to := range agented.States {
			if got := from.CanBecome(to); got != slices.Contains(want[from], to) {
				t.Errorf("%s to %s: CanBecome says %v", from, to, got)
			}
		}
		if from.Final() != (len(want[from]) == 0) {
			t.Errorf("%s: Final says %v", from, from.Final())
		}
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	var ids []string
	for i := range 1000 {
		ids = append(ids, agented.NewID("exec", at.Add(time.Duration(i)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) {
		t.Error("ids of later times sort before earlier ones")
	}
	for _, id := range ids {
		if !agented.ValidID("exec", id) {
			t.Fatalf("%q is not valid", id)
		}
	}
	for _, bad := range []string{"", "exec-", "exec-../../../../../../etc/passwd", "trg-" + ids[0][5:], ids[0] + "0", strings.ToUpper(ids[0]), ids[0][:30] + "/"} {
		if agented.ValidID("exec", bad) {
			t.Errorf("%q is taken for an execution's id", bad)
		}
	}
}

func TestError_hides_cause(t *testing.T) {
	t.Parallel()
	cause := errors.New("open /secret/place: denied")
	err := error(agented.Errorf(agented.Unavailable, "draining; try again shortly").Because(cause))
	if !errors.Is(err, agented.Unavailable) || errors.Is(err, agented.Internal) || !errors.Is(err, cause) {
		t.Errorf("kinds of %v are mixed up", err)
	}
	if got := agented.Message(err); got != "draining; try again shortly" {
		t.Errorf("Message = %q", got)
	}
	if got := agented.Message(cause); got != "internal error" {
		t.Errorf("Message of a plain error = %q, which tells too much", got)
	}
	if got := agented.KindOf(cause); got != agented.Internal {
		t.Errorf("KindOf a plain error = %v", got)
	}
}

func TestRoleAllows(t *testing.T) {
	t.Parallel()
	order := []agented.Role{agented.RoleNone, agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin}
	for i, have := range order {
		for j, need := range order {
			if have.Allows(need) != (i >= j) {
				t.Errorf("%q allows %q: %v", have, need, have.Allows(need))
			}
		}
	}
	if agented.Role("root").Allows(agented.RoleViewer) {
		t.Error("an unknown role may read")
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	values := map[string]string{"message": "see {trigger_id}", "trigger_id": "trg-1", "vars.who": "you"}
	for _, c := range []struct{ name, in, want string }{
		{"plain", "hello", "hello"},
		{"filled", "{trigger_id}: {message}", "trg-1: see {trigger_id}"},
		{"vars", "hi {vars.who}{vars.none}", "hi you"},
		{"json is text", `{"a": {"b": 1}} {} { x }`, `{"a": {"b": 1}} {} { x }`},
		{"escaped", "{{message}} and {message}", "{message} and see {trigger_id}"},
		{"code", "func f() {return}", "func f() {return}"},
		{"lone braces", "{{ {{ }}", "{{ {{ }}"},
		{"escaped twice", "{{a}}{{b}}", "{a}{b}"},
	} {
		got := agented.Render(c.in, values)
		if c.name == "code" {
			// {return} reads like a placeholder: it is refused when saved.
			if bad := agented.CheckTemplate(c.in); len(bad) != 1 {
				t.Errorf("%s: CheckTemplate = %q", c.name, bad)
			}
			continue
		}
		if got != c.want {
			t.Errorf("%s: Render(%q) = %q, want %q", c.name, c.in, got, c.want)
		}
		if n := agented.RenderedSize(c.in, values); n < len(got) {
			t.Errorf("%s: RenderedSize = %d, rendered are %d", c.name, n, len(got))
		}
	}
}

func TestCheckTemplate_unknown_name(t *testing.T) {
	t.Parallel()
	got := agented.CheckTemplate("{mesage} {vars.x} {paths} {zzzzzzzzz} {{free}}")
	if len(got) != 2 || !strings.Contains(got[0], `did you mean "message"?`) || strings.Contains(got[1], "did you mean") {
		t.Errorf("CheckTemplate = %q", got)
	}
}

func TestRender_escaped_names(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z][a-z_]{0,10}`).Draw(t, "name")
		text := rapid.StringMatching(`[^{}]{0,20}`).Draw(t, "text")
		in := text + "{{" + name + "}}" + text
		if got, want := agented.Render(in, nil), text+"{"+name+"}"+text; got != want {
			t.Fatalf("Render(%q) = %q, want %q", in, got, want)
		}
		if bad := agented.CheckTemplate(in); len(bad) != 0 {
			t.Fatalf("CheckTemplate(%q) = %q", in, bad)
		}
	})
}

func TestTriggerValidate(t *testing.T) {
	t.Parallel()
	text := "x"
	good := func() agented.Trigger {
		return agented.Trigger{Name: "hello", Spec: agented.Spec{
			Backend: "command", Command: []string{"sh", "-c", "echo hi"},
			TimeoutSeconds: agented.DefaultTimeoutSeconds, MaxConcurrent: 1,
		}.WithDefaults()}
	}
	agent := func() agented.Trigger {
		t := good()
		t.Spec = agented.Spec{Backend: "claude", Prompt: "Say {message}"}.WithDefaults()
		return t
	}
	for _, c := range []struct {
		name   string
		change func(*agented.Trigger)
		from   func() agented.Trigger
		want   []string
	}{
		{"minimal", func(*agented.Trigger) {}, good, nil},
		{"agent", func(*agented.Trigger) {}, agent, nil},
		{"no name", func(t *agented.Trigger) { t.Name = " " }, good, []string{"name"}},
		{"no backend", func(t *agented.Trigger) { t.Spec.Backend = "" }, good, []string{"backend"}},
		{"typo", func(t *agented.Trigger) { t.Spec.Backend = "cluade" }, good, []string{"backend"}},
		{"no command", func(t *agented.Trigger) { t.Spec.Command = nil }, good, []string{"command"}},
		{"NUL", func(t *agented.Trigger) { t.Spec.Command = []string{"a", "b\x00"} }, good, []string{"command.1"}},
		{"relative", func(t *agented.Trigger) { t.Spec.WorkingDir = "here" }, good, []string{"working_dir"}},
		{"negative", func(t *agented.Trigger) {
			t.Spec.TimeoutSeconds, t.Spec.SilenceSeconds, t.Spec.MaxConcurrent = -1, -1, -1
		}, good, []string{"timeout_seconds", "silence_timeout_seconds", "max_concurrent"}},
		{"overlap", func(t *agented.Trigger) { t.Spec.Overlap = "both" }, good, []string{"overlap"}},
		{"env", func(t *agented.Trigger) {
			t.Spec.Env = map[string]*string{"OK": &text, "B=D": &text, "AGENTED_X": nil, "1A": nil}
		}, good, []string{"env.1A", "env.AGENTED_X", "env.B=D"}},
		{"no prompt", func(t *agented.Trigger) { t.Spec.Prompt = "\n" }, agent, []string{"prompt"}},
		{"bad placeholder", func(t *agented.Trigger) { t.Spec.Prompt = "{massage}" }, agent, []string{"prompt"}},
		{"flag as model", func(t *agented.Trigger) { t.Spec.Model = "--yolo" }, agent, []string{"model"}},
		{"permission", func(t *agented.Trigger) { t.Spec.Permission = "all" }, agent, []string{"permission"}},
	} {
		trigger := c.from()
		c.change(&trigger)
		var got []string
		for _, f := range trigger.Validate() {
			got = append(got, f.Path)
			if f.Text == "" {
				t.Errorf("%s: %s is refused without a reason", c.name, f.Path)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: refused fields (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestSecretName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"MY_TOKEN": true, "ANTHROPIC_API_KEY": true, "db_password": true, "GH_PAT": true, "PGPASSWORD": true,
		"MODE": false, "PATH": false, "KEYBOARD": false, "PWD": false, "MONKEY": false, "GREETING": false,
	} {
		if got := agented.SecretName(name); got != want {
			t.Errorf("SecretName(%q) = %v", name, got)
		}
	}
}

func TestOutcomeState(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[agented.Outcome]agented.State{
		agented.OutcomeSuccess: agented.StateSuccess, agented.OutcomeFailed: agented.StateFailed,
		agented.OutcomeRateLimited: agented.StateFailed, agented.OutcomeTransient: agented.StateFailed,
		agented.OutcomeAuth: agented.StateFailed, agented.OutcomeTimeout: agented.StateTimeout,
		agented.OutcomeCancelled: agented.StateCancelled, agented.OutcomeInterrupted: agented.StateInterrupted,
	} {
		if got := outcome.State(); got != want {
			t.Errorf("%s ends in %s, want %s", outcome, got, want)
		}
	}
}

func TestEscapeTemplate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom([]rune("{}ab_. \n")), 0, 30, -1).Draw(t, "text")
		if got := agented.Render(agented.EscapeTemplate(text), map[string]string{"a": "X"}); got != text {
			t.Fatalf("%q is escaped to %q, which renders to %q", text, agented.EscapeTemplate(text), got)
		}
	})
}
