package pages

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/web"
)

// uiPaths are the paths of the user interface. Each serves its single page,
// whose script reads the path; at other paths the page has status 404.
var uiPaths = []string{
	"/{$}",
	"/executions",
	"/executions/{id}",
	"/triggers",
	"/triggers/{id}",
	"/deliveries",
	"/deliveries/{id}",
	"/schedule",
	"/conversations",
	"/conversations/{id}",
	"/agents",
	"/agents/{id}",
	"/inbox",
	"/accounts",
	"/usage",
	"/chains/{id}",
	"/settings",
	"/settings/{part}",
}

// uiRoutes returns the routes of the user interface. They are public: the files
// contain nothing that is not in the source, and anonymous users are redirected
// to the login page.
func (p *Pages) uiRoutes() []rest.Route {
	out := []rest.Route{rest.Raw("GET /assets/{path...}", agented.RoleNone, p.asset(), rest.About{})}
	for _, path := range uiPaths {
		out = append(out, rest.Raw("GET "+path, agented.RoleNone, p.index(), rest.About{}))
	}
	return out
}

// index serves the page of the user interface.
func (p *Pages) index() http.HandlerFunc {
	files, built := web.Dist()
	index, err := newIndexPages(files)
	if err != nil {
		panic(err) // it is embedded
	}
	return func(w http.ResponseWriter, r *http.Request) {
		// The response depends on the session, so the page is revalidated each
		// time; its ETag makes that a 304.
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Vary", "Cookie")
		if built && strings.Contains(r.Header.Get("Accept"), "text/html") && rest.Identify(r).Name == "" {
			rest.ToLogin(w, r)
			return
		}
		index.at(r.URL.Path).serve(w, r)
	}
}

// indexPages holds the page of the user interface for every depth of a path.
// Its references are relative to the URL in the browser, so that they are valid
// under any base path.
type indexPages struct{ byDepth []*uiFile }

func newIndexPages(files fs.FS) (*indexPages, error) {
	page, err := newUIFile(files, "index.html")
	if err != nil {
		return nil, err
	}
	p := new(indexPages)
	for depth := range maxDepth {
		to := "./"
		if depth > 0 {
			to = strings.Repeat("../", depth)
		}
		plain := bytes.ReplaceAll(page.plain, []byte(`="/assets/`), []byte(`="./assets/`))
		plain = bytes.ReplaceAll(plain, []byte(`="./`), []byte(`="`+to))
		if bytes.Equal(plain, page.plain) {
			p.byDepth = append(p.byDepth, page) // with its compressed forms
			continue
		}
		sum := sha256.Sum256(plain)
		p.byDepth = append(p.byDepth, &uiFile{kind: page.kind, plain: plain, forms: []uiForm{{bytes: plain, tag: `"` + hex.EncodeToString(sum[:12]) + `"`}}})
	}
	return p, nil
}

// maxDepth limits the depth of unknown paths that get the page, for which its references
// are relative.
const maxDepth = 12

// Unmatched serves the page of the user interface at unknown paths, with status 404: its
// script shows that there is nothing. A path of the interface with a slash at its end is
// redirected.
func (p *Pages) Unmatched() http.Handler {
	index := p.index()
	known := http.NewServeMux()
	for _, path := range uiPaths {
		known.Handle("GET "+path, http.NotFoundHandler())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := strings.TrimRight(r.URL.Path, "/"); path != "" && path != r.URL.Path {
			to := r.Clone(r.Context())
			to.URL.Path = path
			if _, pattern := known.Handler(to); pattern != "" {
				w.Header().Set("Location", (&url.URL{Path: path, RawQuery: r.URL.RawQuery}).String())
				w.WriteHeader(http.StatusPermanentRedirect)
				return
			}
		}
		if strings.Count(r.URL.Path, "/") >= maxDepth {
			rest.Fail(w, r, agented.Errorf(agented.NotFound, "there is nothing at this path"))
			return
		}
		r.Header.Del("If-None-Match") // 304 would stand for 200
		r.Header.Del("Range")
		index(&notFound{ResponseWriter: w}, r)
	})
}

// notFound turns status 200 into 404.
type notFound struct{ http.ResponseWriter }

func (w *notFound) WriteHeader(status int) {
	if status == http.StatusOK {
		status = http.StatusNotFound
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap supports http.ResponseController.
func (w *notFound) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// at returns the page for a path of the user interface.
func (p *indexPages) at(path string) *uiFile {
	depth := max(0, strings.Count(path, "/")-1)
	return p.byDepth[min(depth, len(p.byDepth)-1)]
}

// asset serves GET /assets/…, the files of the user interface, whose names
// change with their contents. Each file is read on its first request.
func (p *Pages) asset() http.HandlerFunc {
	root, _ := web.Dist()
	var files sync.Map // name → *uiFile
	return func(w http.ResponseWriter, r *http.Request) {
		name := "assets/" + r.PathValue("path")
		f, known := files.Load(name)
		if !known {
			file, err := newUIFile(root, name)
			if err != nil || compressed(name) {
				rest.Fail(w, r, agented.Errorf(agented.NotFound, "there is no such file"))
				return
			}
			f, _ = files.LoadOrStore(name, file)
		}
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		f.(*uiFile).serve(w, r)
	}
}

func compressed(name string) bool {
	return strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".br")
}

// uiFile is a file of the user interface in its content encodings.
type uiFile struct {
	kind  string
	plain []byte
	forms []uiForm // smallest first
}

type uiForm struct {
	coding string
	bytes  []byte
	tag    string
}

func newUIFile(root fs.FS, name string) (*uiFile, error) {
	plain, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	kind := mime.TypeByExtension(path.Ext(name))
	if kind == "" {
		kind = "application/octet-stream"
	}
	f := &uiFile{kind: kind, plain: plain}
	sum := sha256.Sum256(plain)
	tag := hex.EncodeToString(sum[:12])
	for _, c := range []struct{ suffix, coding string }{{".br", "br"}, {".gz", "gzip"}} {
		if b, err := fs.ReadFile(root, name+c.suffix); err == nil {
			f.forms = append(f.forms, uiForm{coding: c.coding, bytes: b, tag: `"` + tag + "-" + c.coding + `"`})
		}
	}
	f.forms = append(f.forms, uiForm{bytes: plain, tag: `"` + tag + `"`})
	return f, nil
}

func (f *uiFile) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	if len(f.forms) > 1 {
		h.Add("Vary", "Accept-Encoding")
	}
	accept := r.Header.Get("Accept-Encoding")
	for _, form := range f.forms {
		if form.coding != "" && !accepts(accept, form.coding) {
			continue
		}
		if form.coding != "" {
			h.Set("Content-Encoding", form.coding)
			r.Header.Del("Range") // ranges of encoded bytes are ambiguous
		}
		h.Set("ETag", form.tag)
		if form.coding != "" {
			// ServeContent omits the length of an encoded response.
			h.Set("Content-Length", strconv.Itoa(len(form.bytes)))
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(form.bytes))
		return
	}
}

// accepts reports whether an Accept-Encoding header lists a coding and does not
// reject it.
func accepts(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		q := strings.TrimSpace(params)
		if v, ok := strings.CutPrefix(strings.ReplaceAll(q, " ", ""), "q="); ok {
			weight, err := strconv.ParseFloat(v, 64)
			return err == nil && weight > 0
		}
		return true
	}
	return false
}
