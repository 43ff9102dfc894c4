package anthropicapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/agented/agented/internal/filelock"
)

// maxHistory is the maximum size that is read of a conversation, in bytes. No model accepts as
// much.
const maxHistory = 32 << 20

var errNoHistory = errors.New("no such conversation")

// entry is one line of a history.
type entry struct {
	Role  string `json:"role"` // user or assistant
	Text  string `json:"text"`
	Model string `json:"model,omitempty"`
	Stop  string `json:"stop_reason,omitempty"`
}

// history is a conversation: an append-only file with one JSON object per line. An incomplete
// last line, left by a kill, is removed when the conversation is resumed. One process at a time
// can open it.
type history struct {
	f       *os.File
	entries []entry
	skipped int // invalid lines
}

// openHistory opens the conversation, or creates it.
func openHistory(dir, session string, resume bool) (*history, error) {
	if dir == "" || !validSession(session) {
		return nil, errors.New("there is no folder for it, or its id is invalid")
	}
	flags := os.O_RDWR | os.O_APPEND | syscall.O_NOFOLLOW
	if !resume {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(filepath.Join(dir, session+".jsonl"), flags, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoHistory
	}
	if err != nil {
		return nil, err
	}
	h := &history{f: f}
	if err := h.load(resume); err != nil {
		filelock.Release(f)
		return nil, err
	}
	return h, nil
}

func (h *history) load(resume bool) error {
	if err := filelock.Try(h.f); err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	if !resume {
		return h.f.Truncate(0)
	}
	text, err := io.ReadAll(io.LimitReader(h.f, maxHistory+1))
	if err != nil {
		return err
	}
	if len(text) > maxHistory {
		return errors.New("it is too long to be continued: start a new one")
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	if whole < len(text) {
		if err := h.f.Truncate(int64(whole)); err != nil {
			return err
		}
	}
	asked := false
	for line := range bytes.Lines(text[:whole]) {
		var e entry
		if json.Unmarshal(line, &e) != nil || e.Role != "user" && e.Role != "assistant" {
			h.skipped++
			continue
		}
		asked = asked || e.Role == "user"
		h.entries = append(h.entries, e)
	}
	if !asked {
		return errNoHistory
	}
	return nil
}

// add appends one line and syncs the file.
func (h *history) add(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := h.f.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := h.f.Sync(); err != nil {
		return err
	}
	h.entries = append(h.entries, e)
	return nil
}

func (h *history) close() { _ = filelock.Release(h.f) } // everything is on disk

// messages returns the conversation in the form that the API accepts: roles alternate, and no
// text is empty.
func (h *history) messages() []object {
	var out []object
	last := ""
	for _, e := range h.entries {
		if e.Text == "" || e.Role == "assistant" && last == "" {
			continue
		}
		block := object{"type": "text", "text": e.Text}
		if e.Role == last {
			m := out[len(out)-1]
			m["content"] = append(m["content"].([]object), block)
			continue
		}
		out = append(out, object{"role": e.Role, "content": []object{block}})
		last = e.Role
	}
	return out
}

// validSession reports whether an id is valid as a file name.
func validSession(id string) bool {
	for i, c := range []byte(id) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return id != "" && len(id) <= 200
}
