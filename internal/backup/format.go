// Package backup writes all that a server keeps into one file, proves that such
// a file is whole, and makes a data folder of it again.
//
// # The file
//
// A tar archive, compressed with zstd, and behind it a skippable zstd frame of
// 48 bytes with the SHA-256 of everything before it: `zstd -dc FILE | tar t`
// lists it, and no bit can change unnoticed. The entries come in this order:
//
//	backup.json                        what it is: version of the format, when, by which program, with a key or without
//	secret_key.sealed                  SECRET_KEY under a passphrase, if it is in
//	agented.db                         the database as of one moment
//	executions/ID/attempt-N/exit.json  how an attempt ended that the database has as running, if it has
//	executions/ID/log or log.zst       the run log, whole records, at least as far as the database knows of it
//	SHA256SUMS                         one line for each entry before, as sha256sum writes it
//	manifest.json                      counts, and the SHA-256 of SHA256SUMS
//
// Unmasked output, sessions, keys of client commands, working directories and
// temporary files are not in it.
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

// formatVersion is that of the file.
const formatVersion = 1

// Names of the entries.
const (
	headName     = "backup.json"
	keyName      = "secret_key.sealed"
	dbName       = "agented.db"
	sumsName     = "SHA256SUMS"
	manifestName = "manifest.json"
	logsFolder   = "executions"
)

// maxSmall bounds the entries that are read into memory.
const maxSmall = 64 << 10

// Head is backup.json.
type Head struct {
	Format    int       `json:"format"`
	CreatedAt time.Time `json:"created_at"` // the database is as of this moment
	Program   string    `json:"program"`    // version of the one that wrote it
	Key       string    `json:"key"`        // sealed, or left out
	KeyID     string    `json:"key_id,omitempty"`
}

// What Head.Key says.
const (
	KeySealed  = "sealed"
	KeyLeftOut = "left out"
)

// Manifest is manifest.json.
type Manifest struct {
	Counts      store.CopyCounts `json:"counts"`
	Logs        int64            `json:"logs"`
	MissingLogs int64            `json:"missing_logs"` // that the database knows of and that were not there
	Files       int64            `json:"files"`
	Bytes       int64            `json:"bytes"` // of the files
	Sums        string           `json:"sha256sums"`
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

// sumLine is the line of a file in SHA256SUMS.
func sumLine(sum hash.Hash, name string) string { return fmt.Sprintf("%x  %s\n", sum.Sum(nil), name) }

// place is where an entry stands in the order of the file.
type place struct {
	stage     int // 0 head, 1 key, 2 database, 3 executions, 4 sums, 5 manifest
	execution agented.ExecutionID
	attempt   int // of an exit record; 0 is the log
}

var entryName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^executions/(exec-[0-9a-z]{26})/(?:log|log\.zst|attempt-([1-9][0-9]{0,5})/exit\.json)$`)
})

// placeOf returns where an entry of that name belongs; false for a name that no
// backup has. There is no way to write a name that leaves the folder.
func placeOf(name string) (place, bool) {
	switch name {
	case headName:
		return place{stage: 0}, true
	case keyName:
		return place{stage: 1}, true
	case dbName:
		return place{stage: 2}, true
	case sumsName:
		return place{stage: 4}, true
	case manifestName:
		return place{stage: 5}, true
	}
	m := entryName().FindStringSubmatch(name)
	if m == nil || path.Clean(name) != name || !agented.ValidID("exec", m[1]) {
		return place{}, false
	}
	p := place{stage: 3, execution: agented.ExecutionID(m[1])}
	p.attempt, _ = strconv.Atoi(m[2])
	return p, true
}

// before reports whether p may come before q: each place is there once, and an
// execution's exit comes before its log.
func (p place) before(q place) bool {
	if p.stage != q.stage {
		return p.stage < q.stage
	}
	if p.stage != 3 {
		return false
	}
	if c := strings.Compare(string(p.execution), string(q.execution)); c != 0 {
		return c < 0
	}
	return p.attempt > 0 && q.attempt == 0
}

// Report is what a backup holds, or a restore found.
type Report struct {
	File     string   `json:"file"`
	Size     int64    `json:"size"` // of the file
	SHA256   string   `json:"sha256"`
	Head     Head     `json:"backup"`
	Manifest Manifest `json:"manifest"`
	Lines    int64    `json:"log_lines,omitempty"` // read back from the logs
	Settled  int64    `json:"interrupted"`         // executions that ran when the backup was taken
	Restored string   `json:"restored_to,omitempty"`
	Key      string   `json:"key,omitempty"` // what became of it
	TookMS   int64    `json:"took_ms"`
	Warnings []string `json:"warnings,omitempty"`
}
