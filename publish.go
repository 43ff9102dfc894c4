package agented

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Publish lists what the server may write to the forge, such as GitHub, for the executions of a
// trigger. An agent proposes; the server checks the proposal and writes with its own token. The
// JSON names are those of the API.
type Publish struct {
	Repository   string               `json:"repository,omitempty"`   // owner/name; empty: that of the event, otherwise that of the workspace
	Hold         bool                 `json:"hold,omitempty"`         // nothing is written until a person approves it
	PullRequest  *PublishPullRequest  `json:"pull_request,omitempty"` // nil: not allowed, as for the other kinds
	Comment      *PublishComment      `json:"comment,omitempty"`
	CommitStatus *PublishCommitStatus `json:"commit_status,omitempty"`
}

// PublishPullRequest allows one pull request with the changes of an execution.
type PublishPullRequest struct {
	BranchPrefix   string   `json:"branch_prefix,omitempty"` // of the new branch; empty: agented/
	Base           string   `json:"base,omitempty"`          // branch to merge into; empty: that of the event, the workspace's ref, or the default branch
	Draft          bool     `json:"draft,omitempty"`
	Labels         []string `json:"labels,omitempty"`
	Author         string   `json:"author,omitempty"`          // of the commit, as Name <address>; empty: Agented
	MaxFiles       int      `json:"max_files,omitempty"`       // changed files; 0: DefaultPublishFiles
	MaxBytes       int64    `json:"max_bytes,omitempty"`       // of the changed files together; 0: DefaultPublishBytes
	ForbiddenPaths []string `json:"forbidden_paths,omitempty"` // patterns, in addition to the built-in ones
	AllowPaths     []string `json:"allow_paths,omitempty"`     // patterns of paths that the built-in list does not apply to
}

// PublishComment allows one comment on the pull request or issue of the event.
type PublishComment struct {
	New bool `json:"new,omitempty"` // write a new comment each time, instead of updating the trigger's earlier one
}

// PublishCommitStatus allows one status on the commit of the event. The trigger names its context, so
// that an agent cannot replace the result of another check.
type PublishCommitStatus struct {
	Context string `json:"context,omitempty"` // empty: DefaultStatusContext and the name of the trigger
}

// Defaults and limits of Publish.
const (
	DefaultBranchPrefix  = "agented/"
	DefaultStatusContext = "agented/" // the name of the trigger follows
	DefaultPublishAuthor = "Agented <agented@localhost>"
	DefaultPublishFiles  = 100
	DefaultPublishBytes  = 5 << 20
	maxPublishFiles      = 3000
	maxPublishBytes      = 64 << 20
	maxPublishLabels     = 20
	maxPublishPaths      = 100
	maxStatusContext     = 100 // bytes
)

// PublicationKind is what is written. The values are part of the API.
type PublicationKind string

// The kinds.
const (
	PublishesPullRequest  PublicationKind = "pull_request"
	PublishesComment      PublicationKind = "comment"
	PublishesCommitStatus PublicationKind = "commit_status"
)

// Noun returns the kind for people.
func (k PublicationKind) Noun() string { return strings.ReplaceAll(string(k), "_", " ") }

// Kinds lists the kinds that p allows.
func (p *Publish) Kinds() []PublicationKind {
	var out []PublicationKind
	if p == nil {
		return out
	}
	if p.PullRequest != nil {
		out = append(out, PublishesPullRequest)
	}
	if p.Comment != nil {
		out = append(out, PublishesComment)
	}
	if p.CommitStatus != nil {
		out = append(out, PublishesCommitStatus)
	}
	return out
}

// Allows reports whether p allows a kind.
func (p *Publish) Allows(k PublicationKind) bool { return slices.Contains(p.Kinds(), k) }

// PublishTarget is what an event is about. Only the server sets it, when an event fires a trigger
// that publishes.
type PublishTarget struct {
	Repository  string `json:"repository,omitempty"` // owner/name
	Number      int    `json:"number,omitempty"`     // of the pull request or the issue
	PullRequest bool   `json:"pull_request,omitempty"`
	SHA         string `json:"sha,omitempty"`    // head commit of the event
	Branch      string `json:"branch,omitempty"` // head branch of the pull request, or the branch that was pushed
	Base        string `json:"base,omitempty"`   // base branch of the pull request
	Fork        bool   `json:"fork,omitempty"`   // the head branch belongs to another repository
}

// validatePublish validates what a trigger may publish.
func (s *Spec) validatePublish(refuse func(path, format string, args ...any)) {
	p := s.Publish
	if p == nil {
		return
	}
	if len(p.Kinds()) == 0 {
		refuse("publish", "allows nothing: add what may be written, such as pull_request: {} or comment: {}, or remove it")
	}
	if p.Repository != "" && !ValidRepositoryName(p.Repository) {
		refuse("publish.repository", "is not the name of a repository: write it as owner/name")
	}
	if c := p.CommitStatus; c != nil && (len(c.Context) > maxStatusContext || strings.TrimSpace(c.Context) != c.Context || hasControl(c.Context) || !utf8.ValidString(c.Context)) {
		refuse("publish.commit_status.context", "must be one line of at most %d bytes, such as agented/review", maxStatusContext)
	}
	if pr := p.PullRequest; pr != nil {
		if s.Workspace == nil && s.Agent == "" {
			refuse("publish.pull_request", "needs a workspace: a pull request contains the changes of a checkout")
		}
		pr.validate(refuse)
	}
}

func (pr *PublishPullRequest) validate(refuse func(path, format string, args ...any)) {
	const at = "publish.pull_request."
	if pr.BranchPrefix != "" && (!ValidRef(pr.BranchPrefix+"x") || len(pr.BranchPrefix) > 100) {
		refuse(at+"branch_prefix", "cannot begin the name of a branch: use one such as agented/")
	}
	if pr.Base != "" && (!ValidRef(pr.Base) || strings.HasPrefix(pr.Base, "refs/")) {
		refuse(at+"base", "is not the name of a branch, such as main")
	}
	if len(pr.Labels) > maxPublishLabels {
		refuse(at+"labels", "are too many: use at most %d", maxPublishLabels)
	}
	for i, l := range pr.Labels {
		if strings.TrimSpace(l) != l || l == "" || len(l) > 100 || hasControl(l) || !utf8.ValidString(l) {
			refuse(fmt.Sprintf("%slabels.%d", at, i), "is not the name of a label")
		}
	}
	if _, _, ok := pr.CommitAuthor(); !ok {
		refuse(at+"author", "must be a name and an address, such as Review Bot <bot@example.com>")
	}
	if pr.MaxFiles < 0 || pr.MaxFiles > maxPublishFiles {
		refuse(at+"max_files", "must be from 1 to %d; 0 is the default of %d", maxPublishFiles, DefaultPublishFiles)
	}
	if pr.MaxBytes < 0 || pr.MaxBytes > maxPublishBytes {
		refuse(at+"max_bytes", "must be from 1 to %d; 0 is the default of %d", maxPublishBytes, DefaultPublishBytes)
	}
	for field, list := range map[string][]string{"forbidden_paths": pr.ForbiddenPaths, "allow_paths": pr.AllowPaths} {
		if len(list) > maxPublishPaths {
			refuse(at+field, "are too many: use at most %d patterns", maxPublishPaths)
		}
		for i, pattern := range list {
			if pattern == "" || len(pattern) > 290 || hasControl(pattern) || strings.HasPrefix(pattern, "/") || strings.HasPrefix(pattern, "!") ||
				strings.HasSuffix(strings.ReplaceAll(pattern, `\\`, ""), `\`) {
				refuse(fmt.Sprintf("%s%s.%d", at, field, i), "is not a pattern of paths: write a path in the repository, such as deploy/** or *.lock")
			}
		}
	}
}

// CommitAuthor returns name and address of the author of commits. It returns false if the field is
// invalid.
func (pr *PublishPullRequest) CommitAuthor() (name, address string, ok bool) {
	author := pr.Author
	if author == "" {
		author = DefaultPublishAuthor
	}
	name, rest, _ := strings.Cut(author, " <")
	address, ok = strings.CutSuffix(rest, ">")
	bad := func(s string) bool {
		return s == "" || strings.TrimSpace(s) != s || hasControl(s) || strings.ContainsAny(s, "<>")
	}
	return name, address, ok && !bad(name) && !bad(address) && len(author) <= 200 && utf8.ValidString(author) && strings.Contains(address, "@")
}

// ValidRepositoryName reports whether s is owner/name.
func ValidRepositoryName(s string) bool {
	owner, name, ok := strings.Cut(s, "/")
	return ok && validRepositoryPart(owner) && validRepositoryPart(name) && !strings.HasSuffix(name, ".git")
}

func validRepositoryPart(s string) bool {
	for _, c := range []byte(s) {
		if !letterOrDigit(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 100 && s[0] != '-' && strings.Trim(s, ".") != ""
}

// PublicationStatus is the state of a publication. The values are stored and part of the API.
type PublicationStatus string

// The statuses.
const (
	PublicationPending    PublicationStatus = "pending"    // it is being checked and written, or waits to be tried again
	PublicationHeld       PublicationStatus = "held"       // it was checked, and waits for a person
	PublicationPublished  PublicationStatus = "published"  // final: it was written
	PublicationSuperseded PublicationStatus = "superseded" // final: the pull request has newer commits, and nothing was written
	PublicationRefused    PublicationStatus = "refused"    // final: a rule does not allow it
	PublicationFailed     PublicationStatus = "failed"     // final: it could not be written
	PublicationRejected   PublicationStatus = "rejected"   // final: a person rejected it
)

// PublicationStatuses lists the statuses.
var PublicationStatuses = []PublicationStatus{
	PublicationPending, PublicationHeld, PublicationPublished, PublicationSuperseded, PublicationRefused, PublicationFailed, PublicationRejected,
}

// Final reports whether the status does not change any more.
func (s PublicationStatus) Final() bool { return s != PublicationPending && s != PublicationHeld }

// Publication is one write to a forge that an execution proposed.
type Publication struct {
	Execution  ExecutionID
	Number     int // from 1, within the execution
	Attempt    int
	Trigger    TriggerID
	Kind       PublicationKind
	Status     PublicationStatus
	Rule       string // that refused it; otherwise empty
	Reason     string // why it waits, or has its status; a sentence
	Repository string // owner/name
	Subject    int    // number of the pull request or issue that it is about; 0: none
	SHA        string // commit that must still be the head of the pull request; empty: no guard
	Title      string // for display
	Proposal   []byte // JSON, masked
	URL        string // of what was written
	RemoteID   int64  // id of what was written, on the forge
	Branch     string // that was pushed
	Commit     string // that was pushed
	Tries      int    // failed tries since the last success or approval
	Hold       bool   // it needs an approval
	DecidedBy  string // who approved or rejected it
	DecidedAt  time.Time
	DueAt      time.Time // of the next try; zero unless pending
	GiveUpAt   time.Time // after which a failed try is the last one
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Lines of texts that the server writes to a forge, which identify the execution.
const (
	PublicationTrailer = "Agented-Execution" // of commits
	publicationMark    = "agented:publication"
	publicationAnchor  = "#agented-publication=" // in addresses
)

// PublicationMarker returns the hidden comment in texts of a publication.
func PublicationMarker(id ExecutionID, number int) string {
	return fmt.Sprintf("<!-- %s %s/%d -->", publicationMark, id, number)
}

// PublicationKey identifies a publication to a forge that has a field for it.
func PublicationKey(id ExecutionID, number int) string { return fmt.Sprintf("%s/%d", id, number) }

// PublicationAnchor returns the end of an address that identifies the publication, for what has an
// address and no text.
func PublicationAnchor(id ExecutionID, number int) string {
	return publicationAnchor + PublicationKey(id, number)
}

// PublishedBy returns the execution that a text of a forge names as its origin, by marker, anchor or
// trailer. The text may be forged: the caller must check that the execution published.
func PublishedBy(text string) (ExecutionID, bool) {
	for _, before := range []string{"<!-- " + publicationMark + " ", publicationAnchor, PublicationTrailer + ": "} {
		at := strings.LastIndex(text, before)
		if at < 0 {
			continue
		}
		if id, ok := leadingExecution(text[at+len(before):]); ok {
			return id, true
		}
	}
	return "", false
}

func leadingExecution(s string) (ExecutionID, bool) {
	end := strings.IndexFunc(s, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') })
	if end >= 0 {
		s = s[:end]
	}
	return ExecutionID(s), ValidID("exec", s)
}
