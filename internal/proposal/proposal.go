// Package proposal reads what an agent proposes to publish, and decides which publications of an
// execution follow from it. An agent writes the files, so every byte of them is checked.
package proposal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// Limits of proposals.
const (
	MaxFiles     = 20        // proposals of an attempt
	MaxFileBytes = 512 << 10 // of one proposal
	MaxTitle     = 250       // characters
	MaxStatus    = 140       // characters of the description of a commit status
	MaxText      = 60_000    // characters of a text; GitHub's limit is 65,536
)

// Rules that refuse a proposal. They are part of the API.
const (
	RuleSchema     = "schema"     // the file is not a valid proposal
	RuleKind       = "kind"       // the trigger does not allow it
	RuleCount      = "count"      // too many proposals
	RuleSecret     = "secret"     // it contains a secret
	RuleRepository = "repository" // it is unknown which repository to write to
	RuleSubject    = "subject"    // there is no pull request or issue to write to
	RuleChanges    = "changes"    // there are no changes, or they were not recorded
)

// Repairable reports whether the agent of an execution can propose what a rule allows. Otherwise the
// execution itself has nothing to write to.
func Repairable(rule string) bool { return rule != RuleRepository && rule != RuleSubject }

// Proposal is the content of a file. Fields that its kind does not have must be absent.
type Proposal struct {
	Kind  agented.PublicationKind `json:"kind"`
	Title string                  `json:"title,omitempty"` // pull_request
	Body  string                  `json:"body,omitempty"`  // pull_request and comment: Markdown

	State       string `json:"state,omitempty"`       // commit_status: success, failure, error or pending
	Description string `json:"description,omitempty"` // commit_status: one line
}

// file is a file of the folder.
type file struct {
	name string
	text []byte
	err  error // a sentence for users
}

// read returns the files *.json in the folder, by name.
func read(dir string) (files []file, more bool, err error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer d.Close()
	names := []string{}
	for seen := 0; seen < 10_000; {
		list, err := d.ReadDir(200)
		seen += len(list)
		for _, e := range list {
			if strings.HasSuffix(e.Name(), ".json") && !e.IsDir() {
				names = append(names, e.Name())
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), MaxFiles)] {
		f := file{name: strings.ToValidUTF8(name, "\uFFFD")}
		f.text, f.err = readFile(root, name)
		files = append(files, f)
	}
	return files, len(names) > MaxFiles, nil
}

func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, errors.New("cannot be read, or is a symbolic link")
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil || !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case info.Size() > MaxFileBytes:
		return nil, fmt.Errorf("has more than %d KiB", MaxFileBytes>>10)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil || len(b) > MaxFileBytes {
		return nil, errors.New("cannot be read")
	}
	return b, nil
}

// parse parses a proposal. The error is a phrase that follows the file's name.
func parse(text []byte) (Proposal, error) {
	var p Proposal
	if !utf8.Valid(text) {
		return p, errors.New("is not UTF-8 text")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("is not a valid proposal: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return p, errors.New("has text after its JSON object")
	}
	return p, p.check()
}

// check checks the fields of a kind.
func (p *Proposal) check() error {
	if p.Kind != agented.PublishesCommitStatus && p.State+p.Description != "" {
		return errors.New("has a state or a description, which only a commit_status has")
	}
	switch p.Kind {
	case agented.PublishesPullRequest:
	case agented.PublishesComment:
		if p.Title != "" {
			return errors.New("has a title, which a comment does not have")
		}
		if strings.TrimSpace(p.Body) == "" {
			return errors.New("has no body")
		}
	case agented.PublishesCommitStatus:
		return p.checkStatus()
	case "":
		return errors.New("has no kind")
	default:
		return fmt.Errorf("has the unknown kind %q", clip(string(p.Kind), 40))
	}
	if strings.ContainsAny(p.Title, "\r\n") || utf8.RuneCountInString(p.Title) > MaxTitle {
		return fmt.Errorf("has a title that is not one line of at most %d characters", MaxTitle)
	}
	return nil
}

// checkStatus checks the fields of a commit status.
func (p *Proposal) checkStatus() error {
	switch {
	case p.Title+p.Body != "":
		return errors.New("has a title or a body, which a commit_status does not have: use description")
	case !slices.Contains([]string{"success", "failure", "error", "pending"}, p.State):
		return fmt.Errorf("has the state %q: use success, failure, error or pending", clip(p.State, 40))
	case strings.ContainsAny(p.Description, "\r\n") || utf8.RuneCountInString(p.Description) > MaxStatus:
		return fmt.Errorf("has a description that is not one line of at most %d characters", MaxStatus)
	}
	return nil
}

// clip shortens a text to a number of characters.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// Decode parses a proposal that was stored.
func Decode(text []byte) (Proposal, error) {
	var p Proposal
	err := json.Unmarshal(text, &p)
	return p, err
}
