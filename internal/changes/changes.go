// Package changes records which files an attempt changed in a git repository, and the files that it
// left as artifacts.
//
// [Take] stores the state of a working tree before an attempt starts, uncommitted work included.
// [Make] compares the working tree with it after the attempt and stores commits, a file list and a
// patch. Both use a private git directory with its own configuration, index and objects, which
// borrows the objects of the repository. The repository is only read: no hook, filter, attribute,
// file system monitor, external diff or submodule of it takes effect, and nothing is written to it.
//
// In the folder of an execution:
//
//	changes/start/         the private git directory, and start.json
//	changes/N/record.zst   the record of attempt N, JSON
//	changes/N/patch.zst    its patch, independent zstd frames
//	changes/N/full.zst     its full patch, if a publication needs it
//	changes/N/artifacts/I  its artifacts, named by their index
//	out/N/                 the folder that attempt N may fill (AGENTED_OUT)
package changes

import (
	"path/filepath"
	"strconv"
	"time"

	"github.com/agented/agented"
)

// Limits bound the work and the size of a record. Zero fields mean the defaults.
type Limits struct {
	Time          time.Duration // of Take, and of the comparison in Make
	Patch         int64         // compressed bytes of a patch
	PatchText     int64         // bytes of a patch
	Files         int           // files in the list
	Paths         int           // changed and untracked paths in a working tree
	FileBytes     int64         // larger files are compared by size and time only
	TotalBytes    int64         // bytes of changed and untracked files that are compared by content
	Commits       int           // commits in the list
	Artifacts     int           // number of artifacts
	ArtifactBytes int64         // total size of the artifacts
}

// Defaults returns the limits with zero fields set to their defaults.
func (l Limits) Defaults() Limits {
	set(&l.Time, time.Minute)
	set(&l.Patch, 20<<20)
	set(&l.PatchText, 256<<20)
	set(&l.Files, 50_000)
	set(&l.Paths, 200_000)
	set(&l.FileBytes, 32<<20)
	set(&l.TotalBytes, 1<<30)
	set(&l.Commits, 500)
	set(&l.Artifacts, 1000)
	set(&l.ArtifactBytes, 256<<20)
	return l
}

func set[T int | int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// Status is how a file changed. The values are part of the API.
type Status string

// The statuses.
const (
	Added       Status = "added"
	Modified    Status = "modified"
	Deleted     Status = "deleted"
	Renamed     Status = "renamed"
	TypeChanged Status = "type_changed" // such as a file that became a symbolic link
)

// File is one changed file.
type File struct {
	Path    string `json:"path"` // invalid UTF-8 is replaced
	Old     string `json:"old_path,omitempty"`
	Status  Status `json:"status"`
	Added   int    `json:"added"`
	Removed int    `json:"removed"`
	Binary  bool   `json:"binary,omitempty"`
	Mode    string `json:"mode,omitempty"` // of git: 100644, 100755, 120000 (symbolic link) or 160000 (submodule)
	OldMode string `json:"old_mode,omitempty"`
	Size    *int64 `json:"size,omitempty"` // in bytes; set for binary files
	OldSize *int64 `json:"old_size,omitempty"`

	At  int64 `json:"at"`  // offset of its part of the patch
	Len int64 `json:"len"` // 0: the patch has no part for it
}

// Commit is a commit that an attempt added.
type Commit struct {
	ID      string    `json:"id"`
	Author  string    `json:"author"`
	At      time.Time `json:"at"`
	Subject string    `json:"subject"`
}

// Artifact is a file that an attempt left in its artifacts folder.
type Artifact struct {
	Path string `json:"path"` // relative; invalid UTF-8 is replaced
	Size int64  `json:"size"`
}

// Record is what one attempt changed.
type Record struct {
	Version   int        `json:"version"`
	Git       bool       `json:"git"`  // there was a repository to compare
	Base      string     `json:"base"` // commit that was checked out at the start; empty if there was none
	Head      string     `json:"head"` // commit at the end
	Commits   []Commit   `json:"commits"`
	Files     []File     `json:"files"`
	FileCount int        `json:"file_count"` // also those beyond the limit of Files
	Added     int        `json:"added"`
	Removed   int        `json:"removed"`
	Truncated bool       `json:"truncated"` // the patch, or a part of a list, is missing
	Reason    string     `json:"reason"`    // why it is truncated or could not be made; one sentence or more
	Artifacts []Artifact `json:"artifacts"`
	PatchSize int64      `json:"patch_size"` // in bytes
	Frames    [][2]int64 `json:"frames"`     // size and compressed size of each frame of the patch
	Full      *Full      `json:"full,omitempty"`
}

// version is the version of the format of records.
const version = 1

// Summary returns the counts of the record.
func (r *Record) Summary(attempt int) agented.Changes {
	s := agented.Changes{
		Attempt: attempt, Base: r.Base, Head: r.Head, Commits: len(r.Commits), Files: r.FileCount, Added: r.Added, Removed: r.Removed,
		Artifacts: len(r.Artifacts), Truncated: r.Truncated, Reason: r.Reason,
	}
	for _, a := range r.Artifacts {
		s.ArtifactBytes += a.Size
	}
	return s
}

// note adds a sentence to the reason.
func (r *Record) note(text string) {
	if r.Reason != "" {
		r.Reason += " "
	}
	r.Reason += text
}

// Folders gives the paths below the folder of an execution.
type Folders struct{ Execution string }

func (f Folders) root() string  { return filepath.Join(f.Execution, "changes") }
func (f Folders) start() string { return filepath.Join(f.root(), "start") }

// Attempt is the folder with the record of an attempt.
func (f Folders) Attempt(n int) string { return filepath.Join(f.root(), strconv.Itoa(n)) }

// Outs is the parent of the folders that the attempts may fill.
func (f Folders) Outs() string { return filepath.Join(f.Execution, "out") }

// Out is the folder that an attempt may fill.
func (f Folders) Out(n int) string { return filepath.Join(f.Outs(), strconv.Itoa(n)) }

const (
	artifactsName = "artifacts"
	recordName    = "record.zst"
	patchName     = "patch.zst"
)
