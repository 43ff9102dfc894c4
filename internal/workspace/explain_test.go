package workspace

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/agented/agented"
)

// TestExplain contains the output of OpenSSH, git and hosts, with their line endings, with the
// class and the part that the message must quote.
func TestExplain(t *testing.T) {
	t.Parallel()
	const general = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n"
	exit := exec.Command("false").Run()
	for name, c := range map[string]struct {
		said  string
		class agented.Class
		holds []string
	}{
		"public key":       {"git@git.example: Permission denied (publickey).\r\n" + general, agented.ClassAgentFailure, []string{"Permission denied (publickey)", "public key"}},
		"other methods":    {"git@git.example: Permission denied (publickey,password,keyboard-interactive).\r\n" + general, agented.ClassAgentFailure, []string{"Permission denied"}},
		"many keys":        {"Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures\r\nDisconnected from 192.0.2.1 port 22\r\n" + general, agented.ClassAgentFailure, []string{"Too many authentication failures"}},
		"unknown host key": {"No ED25519 host key is known for git.example and you have requested strict checking.\r\nHost key verification failed.\r\n" + general, agented.ClassAgentFailure, []string{"known_hosts", "host key is known for"}},
		"host key alone":   {"Host key verification failed.\r\n" + general, agented.ClassAgentFailure, []string{"known_hosts", "Host key verification failed"}},
		"changed host key": {"@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nHost key for git.example has changed and you have requested strict checking.\r\nHost key verification failed.\r\n" + general, agented.ClassAgentFailure, []string{"not the known one"}},
		"key file mode":    {"@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\r\nPermissions 0644 for '/home/a/.ssh/id' are too open.\r\ngit@git.example: Permission denied (publickey).\r\n" + general, agented.ClassAgentFailure, []string{"file mode"}},
		"resolve":          {"ssh: Could not resolve hostname git.example: Name or service not known\r\n" + general, agented.ClassNetwork, []string{"Could not resolve hostname"}},
		"resolve for now":  {"ssh: Could not resolve hostname git.example: Temporary failure in name resolution\r\n" + general, agented.ClassNetwork, []string{"Temporary failure"}},
		"refused":          {"ssh: connect to host git.example port 22: Connection refused\r\n" + general, agented.ClassNetwork, []string{"Connection refused"}},
		"timed out":        {"ssh: connect to host git.example port 22: Connection timed out\r\n" + general, agented.ClassNetwork, []string{"Connection timed out"}},
		"no route":         {"ssh: connect to host git.example port 22: No route to host\r\n" + general, agented.ClassNetwork, []string{"No route to host"}},
		"key exchange":     {"kex_exchange_identification: read: Connection reset by peer\r\nConnection reset by 192.0.2.1 port 22\r\n" + general, agented.ClassNetwork, []string{"reset"}},
		"closed":           {"Connection closed by 192.0.2.1 port 22\r\n" + general, agented.ClassNetwork, []string{"Connection closed"}},
		"no answer":        {"Timeout, server git.example not responding.\r\nfatal: the remote end hung up unexpectedly\nfatal: early EOF\n", agented.ClassNetwork, []string{"not responding"}},
		"only hung up":     {"fatal: the remote end hung up unexpectedly\n", agented.ClassNetwork, []string{"hung up"}},
		"allow list":       {"ERROR: The organization has an IP allow list enabled\r\n" + general, agented.ClassAgentFailure, []string{"allow list"}},
		"hosted not found": {"ERROR: Repository not found.\n" + general, agented.ClassAgentFailure, []string{"the repository does not exist", "Repository not found"}},
		"unknown words":    {"ERROR: The moon is in the wrong phase\r\n" + general, agented.ClassAgentFailure, []string{"could not be fetched", "wrong phase"}},
		"nothing else":     {general, agented.ClassAgentFailure, []string{"Could not read from remote repository"}},
		"a warning first":  {"Warning: Permanently added 'git.example' (ED25519) to the list of known hosts.\r\ngit@git.example: Permission denied (publickey).\r\n" + general, agented.ClassAgentFailure, []string{"Permission denied (publickey)"}},
		"a banner":         {"remote: connection refused is what this banner talks about\ngit@git.example: Permission denied (publickey).\r\n" + general, agented.ClassAgentFailure, []string{"Permission denied (publickey)"}},
		"ownership":        {"fatal: detected dubious ownership in repository at '/srv/r.git'\nTo add an exception for this directory, call:\n\n\tgit config --global --add safe.directory /srv/r.git\n" + general, agented.ClassAgentFailure, []string{"another user", "safe.directory", "/srv/r.git"}},
		"https gateway":    {"error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502\nfatal: expected flush after ref listing\n", agented.ClassNetwork, []string{"502"}},
		"https forbidden":  {"remote: Write access to repository not granted.\nfatal: unable to access 'https://git.example/o/r.git/': The requested URL returned error: 403\n", agented.ClassAgentFailure, []string{"credential", "403"}},
		"certificate":      {"fatal: unable to access 'https://git.example/o/r.git/': SSL certificate problem: self-signed certificate\n", agented.ClassAgentFailure, []string{"SSL_CERT_FILE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &words{}
			for _, b := range []byte(c.said) { // a write may end between \r and \n
				if _, err := w.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			g := &git{j: &job{repo: agented.Repository{Protocol: "ssh"}, m: New(Options{})}}
			if strings.HasPrefix(name, "https") {
				g.j.repo.Protocol = "https"
			}
			e := g.explain(call{args: []string{"fetch"}, network: true}, w.all(), exit)
			if e.Class != c.class {
				t.Errorf("class %s, want %s: %s", e.Class, c.class, e.Text)
			}
			for _, part := range c.holds {
				if !strings.Contains(e.Text, part) {
					t.Errorf("%q does not hold %q", e.Text, part)
				}
			}
		})
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	var progress []string
	w := &words{say: func(s string) { progress = append(progress, s) }}
	if _, err := w.Write([]byte("Receiving objects: 1%\rReceiving objects: 2%\rfatal: one\r\nfatal: two\nlast\r")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(w.all(), "|"); got != "fatal: one|fatal: two|last" {
		t.Errorf("kept %q", got)
	}
}
