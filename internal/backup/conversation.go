package backup

import (
	"archive/tar"
	"context"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// conversationFolders are the folders of a conversation that a backup contains, in the order of
// the archive: attachments, and histories of the anthropic backend.
var conversationFolders = [...]string{"files", "sessions"}

// maxPlainName is the maximum length of a file name, in bytes.
const maxPlainName = 200

// plainName reports whether a backup includes a file with that name.
func plainName(name string) bool {
	if name == "" || len(name) > maxPlainName || name[0] == '.' || !utf8.ValidString(name) || strings.ContainsAny(name, `/\`) {
		return false
	}
	return !strings.ContainsFunc(name, unicode.IsControl)
}

// conversationPlace parses the name of a conversation's file in the archive.
func conversationPlace(name string) (place, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != convFolder || !agented.ValidID("conv", parts[1]) || !plainName(parts[3]) {
		return place{}, false
	}
	for _, folder := range conversationFolders {
		if parts[2] == folder {
			return place{stage: stageConversations, conversation: agented.ConversationID(parts[1]), rest: folder + "/" + parts[3]}, true
		}
	}
	return place{}, false
}

// conversations adds the files of each conversation in the copy of the database. Agents can write
// to these folders, so only regular files are included.
func (w *writer) conversations(ctx context.Context, copied string) error {
	db, err := store.OpenCopy(ctx, copied)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Conversations(ctx, func(id agented.ConversationID) error {
		for _, folder := range conversationFolders {
			dir := filepath.Join(w.src.Layout.Conversation(id), folder)
			entries, err := os.ReadDir(dir) // sorted by name
			if err != nil {
				continue // most conversations have none
			}
			for _, e := range entries {
				if !e.Type().IsRegular() || !plainName(e.Name()) {
					continue
				}
				if err := w.conversationFile(ctx, id, folder, filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (w *writer) conversationFile(ctx context.Context, id agented.ConversationID, folder, path string) error {
	warn := func(err error) {
		if len(w.report.Warnings) < 10 {
			w.report.Warnings = append(w.report.Warnings, fmt.Sprintf("the file %s of %s could not be read: %v", filepath.Base(path), id, err))
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if os.IsNotExist(err) {
		return nil // removed meanwhile
	}
	if err != nil {
		warn(err)
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	w.report.Manifest.Conversations++
	// A history may grow meanwhile, and an agent may truncate a file: the entry keeps the size
	// determined here and is padded with zeros in the second case.
	return w.add(ctx, strings.Join([]string{convFolder, string(id), folder, filepath.Base(path)}, "/"), st.Size(), io.MultiReader(f, zeros{}))
}

// zeros reads zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// conversation reads a file of a conversation.
func (r *reader) conversation(ctx context.Context, p place, h *tar.Header, t io.Reader, sum hash.Hash) error {
	if r.report.Head.Format < 2 {
		return bad("it contains the entry %q, which a backup of format %d cannot contain", r.tail, r.report.Head.Format)
	}
	there, err := r.db.HasConversation(ctx, p.conversation)
	if err != nil {
		return err
	}
	if !there {
		return bad("%s belongs to a conversation that is not in its database", r.tail)
	}
	path := filepath.Join(r.dir, filepath.FromSlash(h.Name))
	if err := r.file(ctx, h, t, sum, path); err != nil {
		return err
	}
	r.report.Manifest.Conversations++
	if r.keep {
		return nil
	}
	return os.Remove(path)
}
