package broker

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// GitRoute is a repository that git reaches through the broker, which adds the credential.
type GitRoute struct {
	Prefix     string `json:"prefix"`     // path of the repository at the broker, which is secret too
	Repository string `json:"repository"` // address with http or https, without a user
	User       string `json:"user"`
	Token      string `json:"token"`
	Push       bool   `json:"push"` // otherwise git can only fetch
}

// newGitRoute returns the route of a repository.
func newGitRoute(g *GitAccess) (*GitRoute, error) {
	u, err := url.Parse(g.Repository)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" {
		return nil, errors.New("the address of the workspace's repository is not one of https")
	}
	user := "x-access-token"
	if u.User != nil {
		user = u.User.Username()
	}
	u.User = nil
	return &GitRoute{
		Prefix: "/git/" + rand.Text() + "/repository.git", Repository: strings.TrimRight(u.String(), "/"),
		User: user, Token: g.Token, Push: g.Push,
	}, nil
}

// GitConfig returns settings with which git reaches the repository through the broker.
func (h *Handed) GitConfig() [][2]string {
	if h == nil || h.Config.Git == nil {
		return nil
	}
	name := "url." + h.base + h.Config.Git.Prefix + ".insteadOf"
	out := [][2]string{{name, h.gitAddress}}
	for _, address := range []string{h.Config.Git.Repository, strings.TrimSuffix(h.Config.Git.Repository, ".git") + ".git"} {
		if address != h.gitAddress {
			out = append(out, [2]string{name, address})
		}
	}
	return out
}

// gitProxy forwards the requests of git's smart protocol to one repository.
type gitProxy struct {
	GitRoute
	proxy *httputil.ReverseProxy
}

func newGitProxy(g *GitRoute, transport http.RoundTripper) (*gitProxy, error) {
	if g == nil {
		return nil, nil
	}
	to, err := url.Parse(g.Repository)
	if err != nil || g.Prefix == "" || to.Host == "" {
		return nil, errors.New("the address of the workspace's repository is not a URL")
	}
	p := &gitProxy{GitRoute: *g}
	p.proxy = &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // at once
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Path = strings.TrimPrefix(r.Out.URL.Path, g.Prefix)
			r.SetURL(to)
			r.Out.Host = to.Host
			r.Out.Header.Del("Cookie")
			r.Out.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(g.User+":"+g.Token)))
		},
		ModifyResponse: func(res *http.Response) error {
			res.Header.Del("Set-Cookie")
			res.Header.Del("Www-Authenticate")
			switch {
			case res.StatusCode == http.StatusUnauthorized:
				return errors.New("the credential of the workspace was refused")
			case res.StatusCode >= 300 && res.StatusCode < 400:
				return errors.New("the repository has moved: change the address of the workspace")
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // git has closed the connection
			}
			http.Error(w, to.Host+": "+clip(err.Error(), 300), http.StatusBadGateway)
		},
	}
	return p, nil
}

// handles reports whether a request is one for the repository, and answers it.
func (p *gitProxy) handles(w http.ResponseWriter, r *http.Request) bool {
	if p == nil || !strings.HasPrefix(r.URL.Path, "/git/") {
		return false
	}
	path, ok := strings.CutPrefix(r.URL.Path, p.Prefix)
	service := gitService(r, path)
	switch {
	case !ok || service == "" || r.URL.RawPath != "":
		http.Error(w, "the broker of this execution answers for the repository of its workspace only", http.StatusForbidden)
	case service == receivePack && !p.Push:
		http.Error(w, "the workspace of this execution allows git to fetch only: set access to push", http.StatusForbidden)
	default:
		p.proxy.ServeHTTP(w, r)
	}
	return true
}

// The services of git's smart protocol.
const (
	uploadPack  = "git-upload-pack"
	receivePack = "git-receive-pack"
)

// gitService returns the service that a request uses, or "" if it is not one of the smart protocol.
func gitService(r *http.Request, path string) string {
	for _, service := range []string{uploadPack, receivePack} {
		switch {
		case r.Method == http.MethodGet && path == "/info/refs" && r.URL.RawQuery == "service="+service,
			r.Method == http.MethodPost && path == "/"+service && r.URL.RawQuery == "":
			return service
		}
	}
	return ""
}
