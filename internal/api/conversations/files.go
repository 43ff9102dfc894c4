package conversations

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// files handles uploads of files for messages.
type files struct {
	db      *store.DB
	layout  agented.Layout
	writing sync.Mutex // held while a file is put in its place
}

// routes returns the route of uploads.
func (h *files) routes() []rest.Route {
	return []rest.Route{
		rest.Raw("PUT /api/v1/conversations/{id}/files/{name}", agented.RoleOperator, h.put, rest.About{
			ID: "upload-conversation-file", Tag: "conversations", Summary: "Upload a file for a message",
			Text:    "Limits: 16 MiB per file, 200 files and 256 MiB per conversation. A message lists the names of its files; the agent finds them in a folder of the conversation. An existing file of the same name is replaced.",
			Params:  []*huma.Param{idParam(), rest.PathParam("name", "Letters, digits, spaces, -, _ and .; at most 100 bytes")},
			Answers: map[string]*huma.Response{"204": rest.Describe("The file is stored", "")},
			Body:    &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}}},
			Errors:  []int{http.StatusNotFound, http.StatusUnprocessableEntity}, MaxBody: maxFile,
		}),
	}
}

// Limits of attachments.
const (
	maxFile     = 16 << 20
	maxFileName = 100
)

// checkFileName returns why name cannot be the name of an attachment, or "".
// The name becomes a file name, and is read by agents and people.
func checkFileName(name string) string {
	if name == "" || len(name) > maxFileName || !utf8.ValidString(name) {
		return "names must have 1 to 100 bytes"
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || strings.HasPrefix(name, " ") || strings.HasSuffix(name, " ") {
		return "names must not start with . or -, and must not start or end with a space"
	}
	for _, c := range name {
		if c < 0x20 || c == 0x7f || strings.ContainsRune(`/\:*?"<>|`+"`$'", c) {
			return "names must not contain / \\ : * ? \" < > | ` $ ' or control characters"
		}
	}
	return ""
}

func (h *files) put(w http.ResponseWriter, r *http.Request) {
	c, err := find(r.Context(), h.db, r.PathValue("id"))
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	name := r.PathValue("name")
	if wrong := checkFileName(name); wrong != "" {
		rest.Fail(w, r, agented.InvalidFields([]agented.Field{{Path: "path.name", Text: wrong}}))
		return
	}
	dir := filepath.Join(h.layout.Conversation(c.ID), "files")
	if err := h.write(dir, name, http.MaxBytesReader(w, r.Body, maxFile)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			err = agented.Errorf(agented.TooLarge, "the file is too large: the limit is %d bytes", int64(maxFile))
		}
		rest.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// Limits of all files of one conversation.
const (
	maxConversationFiles = 200
	maxConversationBytes = 256 << 20
)

// checkQuota returns an error if a file of that size would exceed the limits of
// the conversation. The file replaces one of the same name.
func checkQuota(dir, name string, size int64) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	files, bytes := 1, size
	for _, f := range list {
		if f.Name() == name || strings.HasPrefix(f.Name(), ".coming-") {
			continue
		}
		files++
		if info, err := f.Info(); err == nil {
			bytes += info.Size()
		}
	}
	switch {
	case files > maxConversationFiles:
		return agented.Errorf(agented.TooLarge, "the conversation has %d files, which is the limit: start another conversation, or replace a file", maxConversationFiles)
	case bytes > maxConversationBytes:
		return agented.Errorf(agented.TooLarge, "the files of the conversation would have %d bytes, and the limit is %d: start another conversation", bytes, int64(maxConversationBytes))
	}
	return nil
}

// write stores a file atomically.
func (h *files) write(dir, name string, from io.Reader) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkQuota(dir, name, 0); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".coming-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	size, err := io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	h.writing.Lock() // concurrent uploads must not exceed the quota
	defer h.writing.Unlock()
	if err := checkQuota(dir, name, size); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}
