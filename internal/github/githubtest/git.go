package githubtest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cloneURL returns the address of a repository for git: that of the server if it has one.
func (s *Server) cloneURL(r *Repo) string {
	if r.GitDir == "" {
		return "https://github.com/" + r.Name + ".git"
	}
	return s.URL + "/" + r.Name + ".git"
}

// serveGit answers git over HTTP for repositories with a GitDir. Pushes are in Calls. It returns
// false if the request is not one of git.
func (s *Server) serveGit(w http.ResponseWriter, r *http.Request, body []byte) bool {
	name, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	if !ok || strings.Count(name, "/") != 1 {
		return false
	}
	_, token, _ := r.BasicAuth()
	s.mu.Lock()
	as, known := s.tokens[token]
	repo := s.repos[strings.ToLower(name)]
	f := s.fault(r.Method, r.URL.Path)
	c := Call{N: len(s.calls) + 1, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Credential: as.name}
	if strings.HasSuffix(rest, "git-receive-pack") && len(body) > 4 {
		c.Body = string(body[:min(len(body), 300)])
	}
	s.mu.Unlock()
	answer := httptest.NewRecorder()
	switch {
	case !known || !as.expires.IsZero() && !s.now().Before(as.expires):
		answer.WriteHeader(http.StatusUnauthorized)
	case repo == nil || repo.GitDir == "":
		answer.WriteHeader(http.StatusNotFound)
	case f != nil && !f.Done:
		answer.WriteHeader(f.Status)
	default:
		s.runGit(answer, r, repo, rest, body)
		c.Done = answer.Code == http.StatusOK
	}
	if f != nil && f.Done {
		answer = httptest.NewRecorder()
		answer.WriteHeader(f.Status)
	}
	c.Status = answer.Code
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	if f != nil && f.Hang {
		<-r.Context().Done()
		return true
	}
	if f != nil && f.Drop {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		}
		return true
	}
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
	return true
}

// runGit runs git http-backend.
func (s *Server) runGit(w http.ResponseWriter, r *http.Request, repo *Repo, rest string, body []byte) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		panic(err)
	}
	q := r.Clone(r.Context())
	q.Body, q.ContentLength, q.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	q.URL.Path = "/" + filepath.Base(repo.GitDir) + "/" + rest
	handler := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Root: "/",
		Env: []string{
			"GIT_PROJECT_ROOT=" + filepath.Dir(repo.GitDir), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=standin",
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
		},
		InheritEnv: []string{"PATH"},
	}
	handler.ServeHTTP(w, q)
}
