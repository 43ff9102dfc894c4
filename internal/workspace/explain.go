package workspace

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/agented/agented"
)

// failure is one kind of reason why a repository cannot be fetched.
type failure struct {
	class agented.Class
	text  string   // message, with the fix if there is one
	words []string // substrings of a lower-case line of git's output, any of which matches
}

// failures lists the messages of git, ssh and hosts in the order of matching: a rejected key is
// final, although ssh then also prints that the connection was closed.
var failures = []failure{
	{
		agented.ClassAgentFailure, "git refuses the repository because its files belong to another user: give them to the server's user, or run `git config --global --add safe.directory PATH` as that user",
		[]string{"dubious ownership"},
	},
	{
		agented.ClassAgentFailure, "the host key of the repository's server is not the known one: check the new key, then replace the line in the known_hosts file of the server's user",
		[]string{"remote host identification has changed", "host key for", "offending"},
	},
	{
		agented.ClassAgentFailure, "the host key of the repository's server is not known here: add it to the known_hosts file of the server's user, for example with `ssh-keyscan`, once you have checked it",
		[]string{"host key verification failed", "host key is known for", "no matching host key"},
	},
	{
		agented.ClassAgentFailure, "the private ssh key of the server's user cannot be used: correct its file mode or format",
		[]string{"unprotected private key file", "bad permissions", "error in libcrypto", "invalid format", "bad owner or permissions", "incorrect passphrase"},
	},
	{
		agented.ClassAgentFailure, "the repository refused the server's ssh key: add the public key of the server's user to the repository or its account",
		[]string{"permission denied (", "too many authentication failures", "no supported authentication methods", "no more authentication methods"},
	},
	{
		agented.ClassAgentFailure, "ssh is not configured correctly on this machine",
		[]string{"bad configuration option", "no matching key exchange method", "no matching cipher", "no matching mac", "cannot run ssh", "unable to fork", "ssh: not found", "ssh: command not found"},
	},
	{
		agented.ClassAgentFailure, "the TLS certificate of the repository's server is not trusted: name its authority in SSL_CERT_FILE",
		[]string{"certificate problem", "certificate verification failed", "server certificate"},
	},
	{
		agented.ClassAgentFailure, "the repository's server refuses this machine or account",
		[]string{"ip allow list", "saml sso", "account is suspended", "has been disabled", "access denied"},
	},
	{
		agented.ClassAgentFailure, "", // rejected credentials over https: see refusedText
		[]string{
			"authentication failed", "could not read username", "could not read password", "terminal prompts disabled", "the requested url returned error: 401",
			"the requested url returned error: 403", "invalid username or",
		},
	},
	{
		agented.ClassNetwork, "the repository could not be reached",
		[]string{
			"could not resolve host", "couldn't resolve host", "name or service not known", "temporary failure in name resolution", "nodename nor servname",
			"connection refused", "connection timed out", "operation timed out", "connection reset", "connection closed", "connection to", "broken pipe",
			"failed to connect", "couldn't connect", "network is unreachable", "no route to host", "host is down", "can't assign requested address",
			"kex_exchange_identification", "ssh_exchange_identification", "banner exchange", "not responding", "lost connection", "send disconnect",
			"early eof", "unexpected disconnect", "rpc failed", "the requested url returned error: 5", "the requested url returned error: 429",
			"operation too slow", "empty reply from server", "gnutls_handshake", "ssl_connect", "ssl_error_syscall", "try again later", "too many requests",
		},
	},
	{
		agented.ClassAgentFailure, "the repository does not exist, or the server has no access to it",
		[]string{"not found", "does not appear to be a git repository", "does not exist", "no such file or directory", "could not be found"},
	},
	{
		agented.ClassAgentFailure, "the repository's address cannot be used",
		[]string{"not allowed", "not supported"},
	},
	// Last, because it also follows every other failure over ssh.
	{agented.ClassNetwork, "the repository could not be reached", []string{"the remote end hung up"}},
}

// fromServer is the prefix of lines from the remote server, which are untrusted and are used only
// if there are no others.
const fromServer = "remote: "

// general matches the lines that git prints after every failure over ssh.
var general = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^(fatal: could not read from remote repository\.?|please make sure you have the correct access rights|and the repository exists\.?|fatal: the remote end hung up unexpectedly)$`)
})

// classify finds the kind of failure and the line that shows it.
func classify(said []string) (*failure, string) {
	for i := range failures {
		f := &failures[i]
		for _, line := range said {
			if strings.HasPrefix(line, "Warning: ") || general().MatchString(line) && f != &failures[len(failures)-1] {
				continue
			}
			if has(line, f.words...) {
				return f, line
			}
		}
	}
	return nil, causeLine(said)
}

// causeLine returns the line that most likely contains the cause: the line before git's general
// message; otherwise the first line of an error; otherwise the last line.
func causeLine(said []string) string {
	cause := ""
	for _, line := range said {
		if general().MatchString(line) {
			if cause != "" {
				return cause
			}
			continue
		}
		if strings.HasPrefix(cause, "fatal: ") || strings.HasPrefix(cause, "error: ") && !strings.HasPrefix(line, "fatal: ") {
			continue
		}
		cause = line
	}
	if cause == "" && len(said) > 0 {
		cause = said[0]
	}
	return cause
}

// explain converts git's output to a message and a class.
func (g *git) explain(c call, said []string, err error) *Error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return failed("git "+c.args[0]+" failed: "+plain(err), err)
	}
	if !c.network {
		return failed(fmt.Sprintf("git %s failed%s", c.args[0], quoted(g.mask(causeLine(said)))), err)
	}
	for _, line := range said {
		if strings.HasPrefix(line, fromServer) && !has(line, "not our ref") || !has(line, "couldn't find remote ref", "not our ref", "no such remote ref", "unadvertised object") {
			continue
		}
		if strings.Contains(line, "couldn't find remote ref HEAD") {
			return &Error{Class: agented.ClassAgentFailure, Text: "the repository is empty, or has no default branch: name a ref", Cause: errNoRef}
		}
		return &Error{Class: agented.ClassAgentFailure, Text: "the repository does not contain the requested ref" + quoted(g.mask(line)), Cause: errNoRef}
	}
	own := slices.DeleteFunc(slices.Clone(said), func(line string) bool { return strings.HasPrefix(line, fromServer) })
	f, line := classify(own)
	if f == nil && len(own) < len(said) {
		f, line = classify(said)
	}
	e := &Error{Class: agented.ClassAgentFailure, Text: "the repository could not be fetched", Cause: err}
	if f != nil {
		e.Class, e.Text = f.class, f.text
		if e.Text == "" {
			e.Text = g.refusedText()
		}
	}
	e.Text += quoted(g.mask(line))
	return e
}

// refusedText returns the message for credentials that were rejected over https.
func (g *git) refusedText() string {
	switch {
	case g.j.repo.Protocol == "ssh":
		return "the repository rejected the credentials of the server's user"
	case g.j.r.Token == "":
		return "the repository needs credentials, or does not exist: set the workspace's credential to the name of a variable with a token"
	}
	return "the repository rejected the credentials"
}

func has(text string, words ...string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(words, func(s string) bool { return strings.Contains(text, s) })
}
