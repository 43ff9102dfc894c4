package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/web"
)

// uiPaths are the addresses of the user interface. Each answers with its one
// page, whose script looks at the address: one that is not here is a 404 of the
// server, as ever.
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

// uiRoutes are the ways to the user interface. They are open: there is nothing
// in the files that is not in the source, and who is not logged in is sent to
// the login page.
func (s *Server) uiRoutes() []route {
	out := []route{raw("GET /assets/{path...}", agented.RoleNone, (*Server).asset, about{})}
	for _, p := range uiPaths {
		out = append(out, raw("GET "+p, agented.RoleNone, (*Server).index, about{}))
	}
	return out
}

// index answers with the page of the user interface.
func (s *Server) index() http.HandlerFunc {
	files, built := web.Dist()
	page, err := newUIFile(files, "index.html")
	if err != nil {
		panic(err) // it is compiled in
	}
	return func(w http.ResponseWriter, r *http.Request) {
		// Whether there is a session decides what is answered, so the page is
		// asked for anew each time; its tag makes that a 304.
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Vary", "Cookie")
		if built && strings.Contains(r.Header.Get("Accept"), "text/html") && s.whoAmI(r).Name == "" {
			s.toLogin(w, r)
			return
		}
		page.serve(w, r)
	}
}

// asset answers GET /assets/… with the interface's files, whose names change
// with their contents. Each is read when it is first asked for.
func (s *Server) asset() http.HandlerFunc {
	root, _ := web.Dist()
	var files sync.Map // name → *uiFile
	return func(w http.ResponseWriter, r *http.Request) {
		name := "assets/" + r.PathValue("path")
		f, known := files.Load(name)
		if !known {
			file, err := newUIFile(root, name)
			if err != nil || compressed(name) {
				s.fail(w, r, agented.Errorf(agented.NotFound, "there is no such file"))
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

// uiFile is a file of the interface in the forms in which it can be sent.
type uiFile struct {
	kind  string
	plain []byte
	forms []uiForm // the smallest first
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
			r.Header.Del("Range") // of which bytes would be open to doubt
		}
		h.Set("ETag", form.tag)
		if form.coding != "" {
			// ServeContent leaves the length out for a coded answer.
			h.Set("Content-Length", strconv.Itoa(len(form.bytes)))
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(form.bytes))
		return
	}
}

// accepts reports whether an Accept-Encoding names a coding and does not refuse
// it.
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
