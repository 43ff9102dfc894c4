// Package diffs has the handlers of what executions changed: lists of files, patches and artifacts.
package diffs

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
)

// Options are what the handlers work with. All fields are required.
type Options struct {
	DB      *store.DB
	Layout  agented.Layout
	Streams *sse.Streams
	Masker  func() *redact.Masker
}

// Routes returns the routes of changes and artifacts.
func Routes(o Options) []rest.Route {
	const viewer = agented.RoleViewer
	h := &diffs{o}
	id := rest.PathParam("id", "The execution's id, exec-…")
	attempt := rest.QueryParam("attempt", "integer", "Number of the attempt; default: the latest that has changes")
	return []rest.Route{
		rest.Op("GET /api/v1/executions/{id}/changes", viewer, h.list, rest.About{
			ID: "get-changes", Tag: "changes", Summary: "Show what an execution changed", Errors: []int{http.StatusNotFound},
			Text: "Returns the files, commits and artifacts of one attempt. The files are those of the git repository in which it ran, compared with their state at the start; in a workspace, with the state before the first attempt. `recorded` is false, and `reason` explains it, if there is nothing to return.",
		}).Reaching(rest.OwnExecution),
		rest.Raw("GET /api/v1/executions/{id}/changes.patch", viewer, h.patch, rest.About{
			ID: "download-patch", Tag: "changes", Summary: "Download the changes as a patch",
			Text:    "Returns the patch in git's format. Binary files are listed without their content. Known secrets are overwritten with asterisks. Supports range requests.",
			Params:  []*huma.Param{id, attempt},
			Answers: map[string]*huma.Response{"200": rest.Describe("The patch", "text/plain"), "206": rest.Describe("The requested range", "text/plain")},
			Errors:  []int{http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable},
		}).Streams().Reaching(rest.OwnExecution),
		rest.Op("GET /api/v1/executions/{id}/changes/files/{index}", viewer, h.file, rest.About{
			ID: "get-changed-file", Tag: "changes", Summary: "Show how a file changed", Errors: []int{http.StatusNotFound},
			Text: "Returns the changed lines of one file, by its index in the list of files.",
		}).Reaching(rest.OwnExecution),
		rest.Raw("GET /api/v1/executions/{id}/artifacts/{index}", viewer, h.artifact, rest.About{
			ID: "download-artifact", Tag: "changes", Summary: "Download an artifact",
			Text:    "Returns a file that the attempt left in its artifacts folder, by its index in `artifacts` of the changes, as it is. Supports range requests.",
			Params:  []*huma.Param{id, rest.PathParam("index", "Index in the list of artifacts, from 0"), attempt},
			Answers: map[string]*huma.Response{"200": rest.Describe("The file", "application/octet-stream"), "206": rest.Describe("The requested range", "application/octet-stream")},
			Errors:  []int{http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable},
		}).Streams().Reaching(rest.OwnExecution),
	}
}

// ChangesView is what an attempt changed.
type ChangesView struct {
	Recorded  bool           `json:"recorded" doc:"There is something to return"`
	Attempt   int            `json:"attempt" doc:"Number of the attempt; 0 if nothing was recorded"`
	Attempts  []int          `json:"attempts" doc:"Numbers of the attempts with changes"`
	Git       bool           `json:"git" doc:"It ran in a git repository"`
	Base      string         `json:"base" doc:"Commit that was checked out at the start; empty: none"`
	Head      string         `json:"head" doc:"Commit at the end"`
	Commits   []CommitView   `json:"commits" doc:"Commits that it added, newest first"`
	Files     []FileView     `json:"files" doc:"Changed files by path"`
	FileCount int            `json:"file_count" doc:"Number of changed files, also of those beyond the limit of the list"`
	Added     int            `json:"added" doc:"Added lines of all files"`
	Removed   int            `json:"removed" doc:"Removed lines of all files"`
	Truncated bool           `json:"truncated" doc:"The patch, or a part of a list, is missing because of a limit or an error"`
	Reason    string         `json:"reason" doc:"Why it is truncated, or not recorded"`
	PatchSize int64          `json:"patch_size" doc:"Size of the patch in bytes; 0: there is none"`
	Artifacts []ArtifactView `json:"artifacts" doc:"Files that it left in the folder artifacts of AGENTED_OUT"`
}

// CommitView is a commit that an attempt added.
type CommitView struct {
	ID      string    `json:"id"`
	Author  string    `json:"author"`
	At      time.Time `json:"at"`
	Subject string    `json:"subject"`
}

// FileView is a changed file.
type FileView struct {
	Path    string `json:"path" doc:"Path in the repository; bytes that are not UTF-8 are replaced"`
	Old     string `json:"old_path,omitempty" doc:"Path before it was renamed"`
	Status  string `json:"status" enum:"added,modified,deleted,renamed,type_changed"`
	Added   int    `json:"added" doc:"Added lines"`
	Removed int    `json:"removed" doc:"Removed lines"`
	Binary  bool   `json:"binary,omitempty" doc:"It is compared by size only"`
	Mode    string `json:"mode,omitempty" doc:"Mode of git: 100644, 100755, 120000 (symbolic link) or 160000 (submodule)"`
	OldMode string `json:"old_mode,omitempty" doc:"Mode before, if it changed"`
	Size    *int64 `json:"size,omitempty" doc:"Size of a binary file in bytes"`
	OldSize *int64 `json:"old_size,omitempty" doc:"Size before"`
}

// ArtifactView is a file that an attempt left.
type ArtifactView struct {
	Path string `json:"path"`
	Size int64  `json:"size" doc:"In bytes"`
}

// FileDiff is how one file changed.
type FileDiff struct {
	Attempt   int        `json:"attempt"`
	File      FileView   `json:"file"`
	Hunks     []HunkView `json:"hunks" doc:"Groups of changed lines; empty for binary files"`
	Truncated bool       `json:"truncated" doc:"The lines beyond the limit are only in the patch"`
}

// HunkView is a group of changed lines with their context.
type HunkView struct {
	OldStart int      `json:"old_start" doc:"Number of its first line before"`
	NewStart int      `json:"new_start" doc:"Number of its first line after"`
	Heading  string   `json:"heading" doc:"What contains it, such as a function"`
	Lines    []string `json:"lines" doc:"Each line begins with a space (unchanged), - (removed), + (added) or \\ (a note of git)"`
}

type diffs struct{ Options }

// found is a record with where it is.
type found struct {
	*changes.Record
	execution *agented.Execution
	folders   changes.Folders
	attempt   int
	attempts  []int
}

// find returns the record of an attempt; 0 is the latest that has one. The record is nil if nothing
// was recorded.
func (h *diffs) find(ctx context.Context, id string, attempt int) (*found, error) {
	if !agented.ValidID("exec", id) {
		return nil, agented.Errorf(agented.NotFound, "no execution has this id")
	}
	e, err := h.DB.Execution(ctx, agented.ExecutionID(id))
	if err != nil {
		return nil, err
	}
	f := &found{execution: e, folders: changes.Folders{Execution: h.Layout.Execution(e.ID)}, attempt: attempt, attempts: []int{}}
	for i := range e.Attempts {
		// Only those whose end is stored: recording may be in progress.
		if e.Attempts[i].Changes != nil {
			f.attempts = append(f.attempts, e.Attempts[i].Number)
		}
	}
	if attempt == 0 && len(f.attempts) > 0 {
		f.attempt = f.attempts[len(f.attempts)-1]
	}
	if !slices.Contains(f.attempts, f.attempt) {
		return f, nil
	}
	r, err := changes.Load(f.folders, f.attempt)
	if errors.Is(err, agented.NotFound) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	if m := h.Masker(); !m.Empty() {
		r.Mask(m)
	}
	f.Record = r
	return f, nil
}

// missing returns why nothing was recorded.
func (f *found) missing() string {
	e := f.execution
	switch i := slices.IndexFunc(e.Attempts, func(a agented.Attempt) bool { return a.Number == f.attempt && a.Changes != nil }); {
	case !e.LogRemovedAt.IsZero():
		return "The changes were removed by retention on " + e.LogRemovedAt.UTC().Format("2006-01-02 15:04") + " UTC."
	case i >= 0 && e.Attempts[i].Changes.Reason != "":
		return e.Attempts[i].Changes.Reason
	case i >= 0:
		return "The files with the changes do not exist any more."
	case f.attempt > e.AttemptNo:
		return "There is no such attempt."
	case !e.State.Final() && (f.attempt == 0 || f.attempt == e.AttemptNo):
		return "Changes are recorded when the attempt ends."
	}
	return "The attempt ran in no git repository, or did not start, and left no artifacts."
}

// need is find for requests that need a record.
func (h *diffs) need(ctx context.Context, id string, attempt int) (*found, error) {
	f, err := h.find(ctx, id, attempt)
	if err == nil && f.Record == nil {
		return nil, agented.Errorf(agented.NotFound, "%s", f.missing())
	}
	return f, err
}

type changesInput struct {
	ID      string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Attempt int    `query:"attempt" minimum:"0" doc:"Number of the attempt; default: the latest that has changes"`
}

func (h *diffs) list(ctx context.Context, in *changesInput) (*rest.Output[ChangesView], error) {
	f, err := h.find(ctx, in.ID, in.Attempt)
	if err != nil {
		return nil, err
	}
	r := f.Record
	if r == nil {
		return rest.Reply(ChangesView{
			Attempts: f.attempts, Reason: f.missing(), Commits: []CommitView{}, Files: []FileView{}, Artifacts: []ArtifactView{},
		}), nil
	}
	v := ChangesView{
		Recorded: true, Attempt: f.attempt, Attempts: f.attempts, Git: r.Git, Base: r.Base, Head: r.Head, FileCount: r.FileCount,
		Added: r.Added, Removed: r.Removed, Truncated: r.Truncated, Reason: r.Reason, PatchSize: r.PatchSize,
		Commits: make([]CommitView, len(r.Commits)), Files: make([]FileView, len(r.Files)), Artifacts: make([]ArtifactView, len(r.Artifacts)),
	}
	for i, c := range r.Commits {
		v.Commits[i] = CommitView(c)
	}
	for i := range r.Files {
		v.Files[i] = viewFile(&r.Files[i])
	}
	for i, a := range r.Artifacts {
		v.Artifacts[i] = ArtifactView(a)
	}
	return rest.Reply(v), nil
}

func viewFile(f *changes.File) FileView {
	return FileView{
		Path: f.Path, Old: f.Old, Status: string(f.Status), Added: f.Added, Removed: f.Removed, Binary: f.Binary,
		Mode: f.Mode, OldMode: f.OldMode, Size: f.Size, OldSize: f.OldSize,
	}
}

type fileInput struct {
	ID      string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Attempt int    `query:"attempt" minimum:"0" doc:"Number of the attempt; default: the latest that has changes"`
	Index   int    `path:"index" minimum:"0" doc:"Index in the list of files, from 0"`
}

// Limits of the lines of one file.
const (
	maxLines = 20_000
	maxBytes = 4 << 20
)

func (h *diffs) file(ctx context.Context, in *fileInput) (*rest.Output[FileDiff], error) {
	f, err := h.need(ctx, in.ID, in.Attempt)
	if err != nil {
		return nil, err
	}
	if in.Index >= len(f.Files) {
		return nil, agented.Errorf(agented.NotFound, "the list has only %d files", len(f.Files))
	}
	file := &f.Files[in.Index]
	v := FileDiff{Attempt: f.attempt, File: viewFile(file), Hunks: []HunkView{}, Truncated: file.Len == 0 && f.Truncated && !file.Binary}
	if file.Len == 0 {
		return rest.Reply(v), nil
	}
	p, err := changes.OpenPatch(f.folders, f.attempt, f.Record)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	text := h.masked(p)
	if _, err := text.Seek(file.At, io.SeekStart); err != nil {
		return nil, err
	}
	hunks, cut, err := changes.Hunks(io.LimitReader(text, min(file.Len, maxBytes)), maxLines)
	if err != nil {
		return nil, err
	}
	v.Truncated = cut || file.Len > maxBytes
	for _, hunk := range hunks {
		v.Hunks = append(v.Hunks, HunkView(hunk))
	}
	return rest.Reply(v), nil
}

// masked overwrites secrets that became known after the patch was written.
func (h *diffs) masked(p *changes.Patch) io.ReadSeeker {
	if m := h.Masker(); !m.Empty() {
		return redact.NewReader(p, p.Size(), m)
	}
	return p
}

// attemptOf reads the number of the attempt from a query.
func attemptOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("attempt")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, rest.InQuery(agented.InvalidFields([]agented.Field{{Path: "attempt", Text: "must be the number of an attempt"}}))
	}
	return n, nil
}

func (h *diffs) patch(w http.ResponseWriter, r *http.Request) {
	attempt, err := attemptOf(r)
	var f *found
	if err == nil {
		f, err = h.need(r.Context(), r.PathValue("id"), attempt)
	}
	if err == nil && f.PatchSize == 0 && f.Truncated {
		err = agented.Errorf(agented.NotFound, "%s", f.Reason)
	}
	var p *changes.Patch
	if err == nil {
		p, err = changes.OpenPatch(f.folders, f.attempt, f.Record)
	}
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	defer p.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", `inline; filename="`+string(f.execution.ID)+`.patch"`)
	h.Streams.ServeContent(w, r, time.Time{}, h.masked(p))
}

func (h *diffs) artifact(w http.ResponseWriter, r *http.Request) {
	attempt, err := attemptOf(r)
	var f *found
	if err == nil {
		f, err = h.need(r.Context(), r.PathValue("id"), attempt)
	}
	index, numErr := strconv.Atoi(r.PathValue("index"))
	if err == nil && (numErr != nil || index < 0 || index >= len(f.Artifacts)) {
		err = agented.Errorf(agented.NotFound, "the attempt has no such artifact")
	}
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	file, err := changes.OpenArtifact(f.folders, f.attempt, index)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	defer file.Close()
	name := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '_'
		}
		return c
	}, path.Base(f.Artifacts[index].Path))
	// The agent wrote the file: browsers must save it, and never show it as a page of this server.
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(name))
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Streams.ServeContent(w, r, time.Time{}, file)
}
