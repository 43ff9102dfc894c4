package agented_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]agented.Address{
		"reviewer":          {Kind: agented.ToAgent, Name: "reviewer"},
		"Agent:Reviewer":    {Kind: agented.ToAgent, Name: "Reviewer"},
		"user:Ann Lee":      {Kind: agented.ToUser, Name: "Ann Lee"},
		"group:team-1":      {Kind: agented.ToGroup, Name: "team-1"},
		"topic:builds.main": {Kind: agented.ToTopic, Name: "builds.main"},
		"user:a:b":          {Kind: agented.ToUser, Name: "a:b"},
		"":                  {},
		"agent:":            {},
		"agent:-x":          {},
		"agent:..":          {},
		"topic:a/b":         {},
		"group:a b":         {},
		"user:":             {},
		"user:a\nb":         {},
		"nobody:x":          {},
		"agent:a:b":         {},
		"agent:\u202eevil":  {},
		strings.Repeat("a", agented.MaxAgentName+1): {},
	} {
		got, err := agented.ParseAddress(text)
		if got != want || (err == nil) != (want != agented.Address{}) {
			t.Errorf("%.30q is read as %v, %v; want %v", text, got, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"reviewer", "user:Ann", "topic:a.b", "trigger:x", "agent:\x00", ":", "AGENT:x", "agent:agent:x", "user:\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := agented.ParseAddress(text)
		if err != nil {
			if (a != agented.Address{}) || agented.KindOf(err) != agented.Invalid {
				t.Fatalf("%q: %v, %v", text, a, err)
			}
			if said := agented.Message(err); len(said) > 800 {
				t.Fatalf("the error is %d bytes long", len(said))
			}
			return
		}
		if strings.IndexFunc(a.Name, unicode.IsControl) >= 0 || !utf8.ValidString(a.Name) || a.Name == "" {
			t.Fatalf("%q is the name %q", text, a.Name)
		}
		if again, err := agented.ParseAddress(a.String()); err != nil || again != a {
			t.Fatalf("%v is read again as %v, %v", a, again, err)
		}
	})
}

func FuzzBusMessageValidate(f *testing.F) {
	f.Add("message", "normal", "subject", "body", "key", "agent:x")
	f.Add("", "urgent", "a\nb", "\x00", strings.Repeat("k", 201), "trigger:x")
	f.Add("alert", "high", "\u202e", "\xff\xfe", "\x1b[31m", "topic:t")
	f.Fuzz(func(t *testing.T, kind, priority, subject, body, key, to string) {
		address, _ := agented.ParseAddress(to)
		m := agented.BusMessage{
			Type: agented.MessageType(kind), Priority: agented.Priority(priority), To: address, Subject: subject, Body: body, Key: key,
		}
		for _, bad := range m.Validate() {
			if bad.Path == "" || bad.Text == "" || len(bad.Text) > 400 {
				t.Fatalf("%+v", bad)
			}
		}
		if len(m.Validate()) > 0 {
			return
		}
		if strings.ContainsFunc(subject+key, unicode.IsControl) || strings.ContainsRune(body, 0) || len(body) > agented.MaxBody || subject+body == "" || address.Kind == agented.ToTrigger {
			t.Fatalf("%+v stands", m)
		}
		if !utf8.ValidString(subject) || !utf8.ValidString(body) || !utf8.ValidString(key) {
			t.Fatalf("%+v stands and is no text", m)
		}
	})
}
