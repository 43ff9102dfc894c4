package agented_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestAllowList(t *testing.T) {
	t.Parallel()
	list, err := agented.NewAllowList([]string{"Example.org", "*.wild.example", "git.example:8443", "any.example:*", "10.0.0.5", "10.1.0.0/16:3000", "[fd00::1]:9000", "fd01::/64", "github", "localhost:8080"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		port uint16
		want bool
	}{
		{"example.org", 443, true},
		{"EXAMPLE.ORG.", 80, true},
		{"example.org", 22, false},
		{"a.example.org", 443, false},
		{"example.org.evil.net", 443, false},
		{"a.wild.example", 443, true},
		{"a.b.wild.example", 443, true},
		{"wild.example", 443, false},
		{"xwild.example", 443, false},
		{".wild.example", 443, false},
		{"git.example", 8443, true},
		{"git.example", 443, false},
		{"any.example", 22, true},
		{"10.0.0.5", 80, true},
		{"10.0.0.5", 8080, false},
		{"10.0.0.6", 80, false},
		{"::ffff:10.0.0.5", 443, true},
		{"10.1.9.9", 3000, true},
		{"10.1.9.9", 80, false},
		{"fd00::1", 9000, true},
		{"fd01::2", 443, true},
		{"fd01:0:0:1::2", 443, false},
		{"fd01::2%eth0", 443, false},
		{"codeload.github.com", 443, true},
		{"codeload.github.com", 25, false},
		{"gitlab.com", 443, false},
		{"localhost", 8080, true},
		{"127.0.0.1", 8080, true},
		{"127.0.0.1", 80, false},
		{"", 443, false},
		{"exa mple.org", 443, false},
		{"example.org\x00", 443, false},
		{"*.wild.example", 443, false},
	} {
		if got := list.Host(c.host, c.port); got != c.want {
			t.Errorf("%q port %d: %v", c.host, c.port, got)
		}
	}
	if !list.Loopback() || !list.Addr(netip.MustParseAddr("::1"), 8080) {
		t.Error("localhost is not a loopback address")
	}
	if none, _ := agented.NewAllowList([]string{"example.org", "10.0.0.0/8"}); none.Loopback() {
		t.Error("a loopback address without one")
	}
}

func TestNetwork_validate(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		"example.org": "", "*.example.org": "", "github": "", "10.0.0.0/8": "", "[::1]:80": "", "host": "", "host_1:*": "",
		"": "is not a host", "https://example.org": "is a URL", "example.org/path": "is not a host", "*": "is not a host", "*.org": "is not a host", "a.*.org": "is not a host",
		"example.org:0": "port", "example.org:99999": "port", "example.org:x": "port", "0.0.0.0/0": "all addresses", "::/0": "all addresses",
		"user@example.org": "is not a host", "exämple.org": "is not a host", "127.1": "is not a host", "0x7f.1": "is not a host", "1.2.3.4.5": "is not a host", "-a.org": "is not a host", "a..org": "is not a host",
	} {
		s := agented.Spec{Backend: "command", Command: []string{"true"}, Overlap: agented.OverlapQueue, Sandbox: agented.SandboxStrict, Network: &agented.Network{Allow: []string{entry}}}
		text := ""
		for _, f := range s.Validate() {
			text += f.Path + " " + f.Text
		}
		if (text == "") != (want == "") || !strings.Contains(text, want) {
			t.Errorf("%q: %q", entry, text)
		}
	}
	for _, level := range []agented.Sandbox{agented.SandboxOff, agented.SandboxGuard} {
		s := agented.Spec{Backend: "command", Command: []string{"true"}, Overlap: agented.OverlapQueue, Sandbox: level, Network: &agented.Network{}}
		if bad := s.Validate(); len(bad) != 1 || bad[0].Path != "network" {
			t.Errorf("%s: %+v", level, bad)
		}
	}
}
