package publish

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
)

// proxy connects one git process with one repository. The token is added here, so that no process
// has it in its environment or its arguments. Besides reading, only the push of one commit to one
// new branch passes, for every client.
type proxy struct {
	listener net.Listener
	server   *http.Server
	prefix   string

	mu     sync.Mutex // guards the fields below
	ref    string     // that may be created; empty: none
	commit string
	status int   // of the last answer that was not a success
	err    error // of the last request without an answer
}

// newProxy listens on a loopback address.
func newProxy(r Remote) (*proxy, error) {
	target, err := url.Parse(r.URL)
	if err != nil || target.Host == "" || target.Scheme != "https" && target.Scheme != "http" {
		return nil, agented.Errorf(agented.Invalid, "the forge returned no address for git")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, prefix: "/" + rand.Text() + "/repository.git"}
	target.Path = strings.TrimSuffix(target.Path, "/")
	reverse := &httputil.ReverseProxy{
		Rewrite: func(q *httputil.ProxyRequest) {
			rest := strings.TrimPrefix(q.In.URL.Path, p.prefix)
			u := *target
			u.Path += rest
			u.RawQuery = q.In.URL.RawQuery
			q.Out.URL, q.Out.Host = &u, u.Host
			q.Out.Header.Del("Cookie")
			q.Out.SetBasicAuth(r.User, r.Token)
		},
		FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if res.StatusCode != http.StatusOK {
				p.status = res.StatusCode
			}
			res.Header.Del("Www-Authenticate") // git would try other credentials
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	p.server = &http.Server{
		ReadHeaderTimeout: 30 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if err := p.permit(q); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			reverse.ServeHTTP(w, q)
		}),
	}
	go func() { _ = p.server.Serve(l) }() // ends with Close
	return p, nil
}

// URL returns the address for git.
func (p *proxy) URL() string { return "http://" + p.listener.Addr().String() + p.prefix }

// Close ends all connections.
func (p *proxy) Close() { _ = p.server.Close() }

// allow permits the push of one commit to a new branch.
func (p *proxy) allow(branch, commit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ref, p.commit = "refs/heads/"+branch, commit
}

// permit returns an error for a request that is not forwarded.
func (p *proxy) permit(q *http.Request) error {
	rest, ok := strings.CutPrefix(q.URL.Path, p.prefix)
	if !ok {
		return errors.New("unknown repository")
	}
	p.mu.Lock()
	ref, commit := p.ref, p.commit
	p.mu.Unlock()
	switch service := q.URL.Query().Get("service"); {
	case q.Method == http.MethodGet && rest == "/info/refs" && q.URL.RawQuery == "service=git-upload-pack":
		return nil
	case q.Method == http.MethodGet && rest == "/info/refs" && service == "git-receive-pack" && ref != "":
		return nil
	case q.Method == http.MethodPost && rest == "/git-upload-pack" && q.URL.RawQuery == "":
		return nil
	case q.Method == http.MethodPost && rest == "/git-receive-pack" && q.URL.RawQuery == "" && ref != "" && q.Header.Get("Content-Encoding") == "":
		head, err := readCommands(q.Body, ref, commit)
		if err != nil {
			return err
		}
		q.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), q.Body), q.Body}
		return nil
	}
	return errors.New("not allowed")
}

// readCommands reads the commands of a push, and returns an error unless the only one creates the
// ref with the commit. It returns the bytes that it has read.
func readCommands(r io.Reader, ref, commit string) ([]byte, error) {
	var head []byte
	commands := 0
	for range 10_000 { // a shallow repository sends one line for each commit without parents
		size := make([]byte, 4)
		if _, err := io.ReadFull(r, size); err != nil {
			return nil, errors.New("the push has no commands")
		}
		head = append(head, size...)
		n, err := strconv.ParseUint(string(size), 16, 16)
		if err != nil || n > 0 && n < 5 {
			return nil, errors.New("the push has an invalid command")
		}
		if n == 0 {
			return head, nil // without a command, git only tests the connection
		}
		line := make([]byte, n-4)
		if _, err := io.ReadFull(r, line); err != nil {
			return nil, errors.New("the push has an incomplete command")
		}
		head = append(head, line...)
		if bytes.HasPrefix(line, []byte("shallow ")) {
			continue
		}
		text, _, _ := strings.Cut(string(line), "\x00")
		want := strings.Repeat("0", len(commit)) + " " + commit + " " + ref
		if commands++; commands > 1 || strings.TrimSuffix(text, "\n") != want {
			return nil, errors.New("only the commit of this publication may be pushed")
		}
	}
	return nil, errors.New("the push has too many commands")
}

// explain returns the error of a git process that failed because of the forge's answer, or nil if
// the forge answered without an error.
func (p *proxy) explain(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return &passing{text: "git could not reach the forge", cause: p.err}
	case p.status == http.StatusUnauthorized || p.status == http.StatusForbidden || p.status == http.StatusNotFound:
		return agented.Errorf(agented.Denied, "the forge does not let the server's credential use git in this repository (status %d): it needs the permission contents: write", p.status).Because(err)
	case p.status != 0:
		return &passing{text: fmt.Sprintf("the forge answered git with status %d", p.status), cause: err}
	}
	return nil
}
