package api

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

// pages are the server's own HTML: they work without script and carry nothing
// inline, so that the content policy can be strict.
type pages struct {
	byName map[string]*template.Template
}

//go:embed pages
var pageFiles embed.FS

func newPages() (*pages, error) {
	p := &pages{byName: map[string]*template.Template{}}
	for _, name := range []string{"login", "setup", "docs", "message"} {
		t, err := template.New("frame.html").ParseFS(pageFiles, "pages/frame.html", "pages/"+name+".html")
		if err != nil {
			return nil, err
		}
		p.byName[name] = t
	}
	return p, nil
}

// write renders a page. It is rendered in full first: half a page cannot be
// taken back.
func (p *pages) write(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.byName[name].Execute(&b, data); err != nil {
		q := requestOf(r)
		q.server.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes())
	}
}

// stylesheet answers GET /static/style.css.
func (s *Server) stylesheet() http.HandlerFunc {
	text, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic(err) // it is compiled in
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(text)
	}
}
