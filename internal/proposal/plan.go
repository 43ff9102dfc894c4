package proposal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
)

// Masker masks secrets.
type Masker interface{ MaskString(s string) string }

// Input is what the publications of an attempt depend on.
type Input struct {
	Execution *agented.Execution // with its snapshot
	Attempt   int
	Dir       string          // the attempt's AGENTED_OUT
	Record    *changes.Record // what it changed; nil: nothing was recorded
	Result    string          // the agent's final text
	Mask      Masker
}

// Plan returns the publications of an attempt that succeeded, also those that a rule refuses.
// The same input gives the same publications.
func Plan(in Input) []agented.Publication {
	policy := in.Execution.Snapshot.Publish
	if len(policy.Kinds()) == 0 {
		return nil
	}
	files, more, err := read(in.Dir)
	pl := &planner{Input: in, policy: policy, target: in.Execution.Snapshot.PublishTo}
	if pl.target == nil {
		pl.target = &agented.PublishTarget{}
	}
	pl.repository = pl.findRepository()
	if pl.target.Repository != "" && !strings.EqualFold(pl.target.Repository, pl.repository) {
		pl.target = &agented.PublishTarget{} // its numbers and branches are those of another repository
	}
	if err != nil {
		pl.refuse(Proposal{}, RuleSchema, "The folder with the proposals could not be read.")
	}
	for _, f := range files {
		pl.file(f)
	}
	if more {
		pl.refuse(Proposal{}, RuleCount, fmt.Sprintf("There are more than %d proposals; the others were not read.", MaxFiles))
	}
	if len(files) == 0 && err == nil {
		pl.byDefault()
	}
	return pl.out
}

type planner struct {
	Input
	policy     *agented.Publish
	target     *agented.PublishTarget
	repository string
	out        []agented.Publication
}

// file adds the publication of one file.
func (pl *planner) file(f file) {
	if f.err != nil {
		pl.refuse(Proposal{}, RuleSchema, pl.Mask.MaskString("The file "+f.name+" "+f.err.Error()+"."))
		return
	}
	if text := string(f.text); pl.Mask.MaskString(text) != text {
		pl.refuse(Proposal{}, RuleSecret, pl.Mask.MaskString("The file "+f.name+" contains a secret."))
		return
	}
	p, err := parse(f.text)
	if err != nil {
		if !slices.Contains([]agented.PublicationKind{agented.PublishesPullRequest, agented.PublishesComment, agented.PublishesCommitStatus}, p.Kind) {
			p.Kind = "" // it can be any text of the agent
		}
		pl.refuse(Proposal{Kind: p.Kind}, RuleSchema, pl.Mask.MaskString("The file "+f.name+" "+err.Error()+"."))
		return
	}
	pl.add(p)
}

// byDefault proposes the result of an agent that wrote no proposal: a pull request if there are
// changes, otherwise a comment.
func (pl *planner) byDefault() {
	switch {
	case pl.policy.PullRequest != nil:
		if pl.Record != nil && pl.Record.FileCount > 0 {
			pl.add(Proposal{Kind: agented.PublishesPullRequest, Body: pl.Result})
			return
		}
		fallthrough
	default:
		if pl.policy.Comment != nil && pl.target.Number > 0 && strings.TrimSpace(pl.Result) != "" {
			pl.add(Proposal{Kind: agented.PublishesComment, Body: pl.Result})
		}
	}
}

// add adds a publication, refused if a rule does not allow it.
func (pl *planner) add(p Proposal) {
	if p.Kind == agented.PublishesPullRequest && p.Title == "" {
		p.Title = pl.defaultTitle()
	}
	if text := p.texts(); pl.Mask.MaskString(text) != text {
		pl.refuse(Proposal{Kind: p.Kind}, RuleSecret, "The proposal contains a secret.")
		return
	}
	p.neutralize()
	if text := p.texts(); pl.Mask.MaskString(text) != text { // invisible characters divided it
		pl.refuse(Proposal{Kind: p.Kind}, RuleSecret, "The proposal contains a secret.")
		return
	}
	switch {
	case !pl.policy.Allows(p.Kind):
		pl.refuse(p, RuleKind, fmt.Sprintf("The trigger does not allow %s: add it to publish.", p.Kind))
	case pl.counted(p.Kind):
		pl.refuse(p, RuleCount, fmt.Sprintf("There is more than one proposal of kind %s.", p.Kind))
	case pl.repository == "":
		pl.refuse(p, RuleRepository, "It is unknown which repository to write to: set publish.repository.")
	case p.Kind == agented.PublishesComment && pl.target.Number == 0:
		pl.refuse(p, RuleSubject, "The execution is not about a pull request or an issue, so there is nothing to comment on.")
	case p.Kind == agented.PublishesCommitStatus && !isCommit(pl.target.SHA):
		pl.refuse(p, RuleSubject, "The event is not about a commit, so there is nothing to set a status of.")
	default:
		if rule, reason := pl.checkChanges(p); rule != "" {
			pl.refuse(p, rule, reason)
			return
		}
		pl.append(p, agented.PublicationPending, "", "")
	}
}

// checkChanges checks the recorded changes for a pull request.
func (pl *planner) checkChanges(p Proposal) (rule, reason string) {
	if p.Kind != agented.PublishesPullRequest {
		return "", ""
	}
	switch r := pl.Record; {
	case pl.Execution.Snapshot.Workspace == nil:
		return RuleChanges, "The execution has no workspace, so there is nothing to open a pull request with."
	case r == nil || !r.Git:
		return RuleChanges, "The changes of the execution were not recorded."
	case r.FileCount == 0:
		return RuleChanges, "The execution changed no file."
	case r.Full == nil:
		return RuleChanges, "The changes of the execution were not recorded completely. " + r.Reason
	case !r.Full.Stored:
		return r.Full.Rule, r.Full.Reason
	}
	return "", ""
}

func (pl *planner) counted(k agented.PublicationKind) bool {
	return slices.ContainsFunc(pl.out, func(p agented.Publication) bool {
		return p.Kind == k && p.Status != agented.PublicationRefused
	})
}

func (pl *planner) refuse(p Proposal, rule, reason string) {
	pl.append(p, agented.PublicationRefused, rule, reason)
}

func (pl *planner) append(p Proposal, status agented.PublicationStatus, rule, reason string) {
	text, err := json.Marshal(p)
	if err != nil {
		text = []byte("{}") // strings always encode
	}
	v := agented.Publication{
		Execution: pl.Execution.ID, Attempt: pl.Attempt, Kind: p.Kind, Status: status, Rule: rule, Reason: reason,
		Repository: pl.repository, Title: p.label(), Proposal: text, Hold: pl.policy.Hold,
	}
	if p.Kind == agented.PublishesComment {
		v.Subject = pl.target.Number
	}
	if pl.target.PullRequest || p.Kind == agented.PublishesCommitStatus {
		v.SHA = pl.target.SHA
	}
	if p.Kind == agented.PublishesPullRequest && pl.policy.PullRequest != nil {
		v.Branch = Branch(pl.policy.PullRequest, pl.Execution.ID)
	}
	pl.out = append(pl.out, v)
}

func isCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == "" && strings.Trim(s, "0") != ""
}

// Branch returns the branch of an execution's pull request.
func Branch(pr *agented.PublishPullRequest, id agented.ExecutionID) string {
	prefix := pr.BranchPrefix
	if prefix == "" {
		prefix = agented.DefaultBranchPrefix
	}
	return prefix + string(id)
}

// findRepository returns the repository to write to, or "".
func (pl *planner) findRepository() string {
	for _, name := range []string{pl.policy.Repository, pl.target.Repository, RepositoryOf(pl.Execution.Snapshot.Workspace)} {
		if agented.ValidRepositoryName(name) {
			return name
		}
	}
	return ""
}

// RepositoryOf returns owner/name of a workspace's address, or "".
func RepositoryOf(w *agented.Workspace) string {
	if w == nil {
		return ""
	}
	r, err := agented.ParseRepository(w.Repository)
	if err != nil || r.Protocol == "file" {
		return ""
	}
	path := r.Address
	if _, rest, ok := strings.Cut(path, "://"); ok {
		_, path, _ = strings.Cut(rest, "/")
	} else {
		_, path, _ = strings.Cut(path, ":")
	}
	path = strings.Trim(strings.TrimSuffix(strings.Trim(path, "/"), ".git"), "/")
	if !agented.ValidRepositoryName(path) {
		return ""
	}
	return path
}

// defaultTitle returns the subject of the first commit of the agent, or one that names the trigger.
func (pl *planner) defaultTitle() string {
	if r := pl.Record; r != nil && len(r.Commits) > 0 {
		if subject := oneLine(r.Commits[len(r.Commits)-1].Subject); subject != "" {
			return clip(subject, MaxTitle)
		}
	}
	return clip(oneLine("Changes by "+pl.Execution.TriggerName), MaxTitle)
}

// texts returns all texts of the proposal.
func (p *Proposal) texts() string {
	return strings.Join([]string{p.Title, p.Body, p.State, p.Description}, "\n")
}

// label describes the proposal in one line.
func (p *Proposal) label() string {
	text := p.Title
	if p.Kind == agented.PublishesCommitStatus {
		text = strings.TrimSuffix(p.State+": "+p.Description, ": ")
	}
	if text == "" {
		text = oneLine(p.Body)
	}
	return clip(text, 120)
}

func oneLine(s string) string { return strings.Join(strings.Fields(plainText(s)), " ") }
