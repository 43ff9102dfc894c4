package dispatch

import (
	"slices"
	"testing"

	"github.com/agented/agented"
)

func TestMaskedEnv(t *testing.T) {
	t.Parallel()
	spec := agented.Spec{
		Env: map[string]*string{
			"HOOK": new("https://example.org/hook"), "DIR": new("/srv/project"), "MY_TOKEN": new("a-plain-token"),
			"SERVER_TOKEN": nil, "SERVER_DIR": nil,
		},
		PlainEnv: []string{"DIR", "MY_TOKEN"},
	}
	server := map[string]string{"SERVER_TOKEN": "token-of-the-server", "SERVER_DIR": "/srv/of/the/server"}
	d := &Dispatcher{o: Options{Environment: Environment{Lookup: func(name string) (string, bool) { v, ok := server[name]; return v, ok }}}}
	got, err := d.secretsOf(t.Context(), &agented.Execution{Snapshot: spec})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want := []string{"https://example.org/hook", "token-of-the-server"}; !slices.Equal(got, want) {
		t.Errorf("masked %q, want %q", got, want)
	}
}

func TestMaskedEnv_credential(t *testing.T) {
	t.Parallel()
	spec := agented.Spec{Workspace: &agented.Workspace{Credential: "FORGE"}, Env: map[string]*string{"FORGE": nil}}
	d := &Dispatcher{o: Options{Environment: Environment{Lookup: func(string) (string, bool) { return "credential-of-the-server", true }}}}
	got, err := d.secretsOf(t.Context(), &agented.Execution{Snapshot: spec})
	if err != nil || !slices.Equal(got, []string{"credential-of-the-server"}) {
		t.Errorf("masked %q, %v: a credential is a secret whatever the name of its variable is", got, err)
	}
}

func TestLiveEnv(t *testing.T) {
	t.Parallel()
	snapshot := agented.Spec{
		Env:      map[string]*string{"A": new("old"), "B": new("old"), "C": new("old"), "GONE": new("old")},
		PlainEnv: []string{"A", "C", "GONE"},
	}
	live := &agented.Trigger{Spec: agented.Spec{Env: map[string]*string{"A": new("new"), "B": new("new"), "C": new("new")}, PlainEnv: []string{"B", "C"}}}
	got := new(Dispatcher).withLiveValues(snapshot, live)
	if want := []string{"B", "C", "GONE"}; !slices.Equal(got.PlainEnv, want) {
		t.Errorf("plain %q, want %q: a value has the mark of the trigger that it comes from", got.PlainEnv, want)
	}
	if *got.Env["A"] != "new" || *got.Env["GONE"] != "old" || !slices.Equal(snapshot.PlainEnv, []string{"A", "C", "GONE"}) {
		t.Errorf("env %v, snapshot %q", got.Env, snapshot.PlainEnv)
	}
	marked := snapshot
	marked.PlainEnv = nil
	if !sameWork(snapshot, marked) {
		t.Error("a mark of a variable makes it other work")
	}
}
