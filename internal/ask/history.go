package ask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// maxHistory bounds what is read of a conversation. No model takes as much.
const maxHistory = 32 << 20

var errNoHistory = errors.New("no such conversation")

// entry is one line of a history.
type entry struct {
	Role  string `json:"role"` // user or assistant
	Text  string `json:"text"`
	Model string `json:"model,omitempty"`
	Stop  string `json:"stop_reason,omitempty"`
}

// history is a conversation: a file with one JSON object per line, which only
// grows. A line that a kill cut short was never said; it is taken off when the
// conversation goes on. One process at a time has it.
type history struct {
	f       *os.File
	entries []entry
	skipped int // lines that make no sense
}

// openHistory opens the conversation for going on, or makes it.
func openHistory(dir, session string, resume bool) (*history, error) {
	if dir == "" || !validSession(session) {
		return nil, errors.New("there is no folder for it, or its id makes no sense")
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
		f.Close()
		return nil, err
	}
	return h, nil
}

func (h *history) load(resume bool) error {
	if err := syscall.Flock(int(h.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process is at it: %w", err)
	}
	if !resume {
		return h.f.Truncate(0)
	}
	text, err := io.ReadAll(io.LimitReader(h.f, maxHistory+1))
	if err != nil {
		return err
	}
	if len(text) > maxHistory {
		return errors.New("it is too long to go on: begin a new one")
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

// add appends one line and returns when it survives a power cut.
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

func (h *history) close() { _ = h.f.Close() } // all of it is on disk

// messages is the conversation as the API takes it: the roles alternate, and no
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

// validSession reports whether an id can be a file's name.
func validSession(id string) bool {
	for i, c := range []byte(id) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return id != "" && len(id) <= 200
}
