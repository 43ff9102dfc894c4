// Package backup writes all data of a server to one file, verifies such a file, and restores it
// to a data folder.
//
// # The file
//
// A tar archive, compressed with zstd, followed by a skippable zstd frame of 48 bytes with the
// SHA-256 of everything before it: `zstd -dc FILE | tar t` lists it, and every changed bit is
// detected. The entries have this order:
//
//	backup.json                        version of the format, time, program, and whether it contains the key
//	secret_key.sealed                  SECRET_KEY, encrypted with a passphrase; optional
//	agented.db                         a consistent copy of the database
//	executions/ID/attempt-N/exit.json  exit record of an attempt that the database records as running, if it has ended
//	executions/ID/log or log.zst       the run log in whole records, at least up to the last line in the database
//	executions/ID/changes/N/NAME       what attempt N changed: record, patch and artifacts
//	conversations/ID/files/NAME        attachments of a conversation
//	conversations/ID/sessions/NAME     histories that the anthropic backend resumes
//	SHA256SUMS                         one line per entry above, in the format of sha256sum
//	manifest.json                      counts, and the SHA-256 of SHA256SUMS
//
// It does not contain unmasked output, login sessions, keys of client commands, working
// directories and temporary files.
package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// formatVersion is the version of the file format. Version 2 added the files of conversations, and
// version 3 the changes of executions; older versions can also be read.
const formatVersion = 3

// Names of the entries.
const (
	headName     = "backup.json"
	keyName      = "secret_key.sealed"
	dbName       = "agented.db"
	sumsName     = "SHA256SUMS"
	manifestName = "manifest.json"
	logsFolder   = "executions"
	convFolder   = "conversations"
)

// maxSmall is the maximum size of the entries that are read into memory, in bytes.
const maxSmall = 64 << 10

// Head is the content of backup.json.
type Head struct {
	Format    int       `json:"format"`
	CreatedAt time.Time `json:"created_at"` // the time of the database copy
	Program   string    `json:"program"`    // version of the program that wrote it
	Key       string    `json:"key"`        // sealed, or left out
	KeyID     string    `json:"key_id,omitempty"`
}

// Values of Head.Key.
const (
	KeySealed  = "sealed"
	KeyLeftOut = "left out"
)

// Manifest is the content of manifest.json.
type Manifest struct {
	Counts      store.CopyCounts `json:"counts"`
	Logs        int64            `json:"logs"`
	MissingLogs int64            `json:"missing_logs"` // logs in the database that were missing on disk
	// Conversations is the number of conversation files: attachments and histories.
	Conversations int64 `json:"conversation_files,omitempty"`
	// Changes is the number of files with what executions changed.
	Changes int64  `json:"changes_files,omitempty"`
	Files   int64  `json:"files"`
	Bytes   int64  `json:"bytes"` // total size of the files
	Sums    string `json:"sha256sums"`
}

// The frame at the end of the file.
const (
	frameMagic  = 0x184D2A5B // of a skippable frame
	frameHead   = 8
	frameMark   = "AGBACKUP"
	trailerSize = frameHead + len(frameMark) + sha256.Size
)

func trailer(sum []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, frameMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(trailerSize-frameHead))
	b = append(b, frameMark...)
	return append(b, sum...)
}

// sumLine returns the line of a file in SHA256SUMS.
func sumLine(sum hash.Hash, name string) string { return fmt.Sprintf("%x  %s\n", sum.Sum(nil), name) }

// place is the position of an entry in the order of the file.
type place struct {
	stage        int // 0 head, 1 key, 2 database, 3 executions, then as named below
	execution    agented.ExecutionID
	attempt      int // of an exit record; 0 for the log
	conversation agented.ConversationID
	rest         string // folder and name of a conversation's file, or of a file with changes
}

// The last stages.
const (
	stageConversations = 4
	stageSums          = 5
	stageManifest      = 6
)

var entryName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^executions/(exec-[0-9a-z]{26})/(?:log|log\.zst|attempt-([1-9][0-9]{0,5})/exit\.json)$`)
})

var changesName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^executions/(exec-[0-9a-z]{26})/(changes/[1-9][0-9]{0,5}/(?:record\.zst|patch\.zst|full\.zst|artifacts/(?:0|[1-9][0-9]{0,5})))$`)
})

// placeOf returns the position of the entry with that name; it returns false for a name that no
// backup contains, which includes every name outside the folder.
func placeOf(name string) (place, bool) {
	switch name {
	case headName:
		return place{stage: 0}, true
	case keyName:
		return place{stage: 1}, true
	case dbName:
		return place{stage: 2}, true
	case sumsName:
		return place{stage: stageSums}, true
	case manifestName:
		return place{stage: stageManifest}, true
	}
	if p, ok := conversationPlace(name); ok {
		return p, true
	}
	if m := changesName().FindStringSubmatch(name); m != nil && agented.ValidID("exec", m[1]) {
		return place{stage: 3, execution: agented.ExecutionID(m[1]), rest: m[2]}, true
	}
	m := entryName().FindStringSubmatch(name)
	if m == nil || path.Clean(name) != name || !agented.ValidID("exec", m[1]) {
		return place{}, false
	}
	p := place{stage: 3, execution: agented.ExecutionID(m[1])}
	p.attempt, _ = strconv.Atoi(m[2])
	return p, true
}

// before reports whether p may precede q: each position occurs once, and an execution's exit
// record precedes its log, which precedes its changes.
func (p place) before(q place) bool {
	if p.stage != q.stage {
		return p.stage < q.stage
	}
	if p.stage == stageConversations {
		if c := strings.Compare(string(p.conversation), string(q.conversation)); c != 0 {
			return c < 0
		}
		return p.rest < q.rest
	}
	if p.stage != 3 {
		return false
	}
	if c := strings.Compare(string(p.execution), string(q.execution)); c != 0 {
		return c < 0
	}
	if p.rest != "" || q.rest != "" {
		return p.rest < q.rest
	}
	return p.attempt > 0 && q.attempt == 0
}

// Report describes the content of a backup or the result of a restore.
type Report struct {
	File       string   `json:"file"`
	Size       int64    `json:"size"` // of the file
	SHA256     string   `json:"sha256"`
	Head       Head     `json:"backup"`
	Manifest   Manifest `json:"manifest"`
	Lines      int64    `json:"log_lines,omitempty"` // read back from the logs
	Settled    int64    `json:"interrupted"`         // executions that were running at the time of the backup
	Restored   string   `json:"restored_to,omitempty"`
	Held       bool     `json:"held,omitempty"` // the restored server starts in drain mode
	Key        string   `json:"key,omitempty"`  // what was done with the key
	DurationMS int64    `json:"duration_ms"`
	Warnings   []string `json:"warnings,omitempty"`
}
