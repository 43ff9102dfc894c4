package webhook

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agented/agented"
)

// knownEvents are the events that GitHub sends.
var knownEvents = strings.Fields(`branch_protection_configuration branch_protection_rule check_run check_suite
	code_scanning_alert commit_comment create custom_property custom_property_values delete dependabot_alert
	deploy_key deployment deployment_protection_rule deployment_review deployment_status discussion
	discussion_comment fork github_app_authorization gollum installation installation_repositories
	installation_target issue_comment issue_dependencies issues label marketplace_purchase member membership
	merge_group meta milestone org_block organization package page_build personal_access_token_request ping
	project project_card project_column projects_v2 projects_v2_item projects_v2_status_update public
	pull_request pull_request_review pull_request_review_comment pull_request_review_thread push
	registry_package release repository repository_advisory repository_dispatch repository_import
	repository_ruleset repository_vulnerability_alert secret_scanning_alert secret_scanning_alert_location
	secret_scanning_scan security_advisory security_and_analysis sponsorship star status sub_issues team
	team_add watch workflow_dispatch workflow_job workflow_run`)

// knownActions are common actions, for suggestions.
var knownActions = strings.Fields(`added answered appeared_in_branch archived assigned auto_merge_disabled
	auto_merge_enabled checks_requested closed completed converted_to_draft created deleted demilestoned
	dequeued dismissed edited enqueued fixed forced in_progress labeled locked milestoned moved opened pinned
	prereleased privatized publicized published pushed queued ready_for_review released removed renamed
	reopened reopened_by_user requested requested_action rerequested resolved review_request_removed
	review_requested revoked started submitted synchronize transferred unanswered unarchived unassigned
	unlabeled unlocked unpinned unpublished unresolved updated waiting`)

// knownAssociations are GitHub's relations of an author to a repository.
var knownAssociations = []string{"OWNER", "MEMBER", "COLLABORATOR", "CONTRIBUTOR", "FIRST_TIMER", "FIRST_TIME_CONTRIBUTOR", "MANNEQUIN", "NONE"}

const maxEntries = 200 // per list

// Validate returns every invalid field of the match with its fix. With
// [KindGitHub] an event or action that resembles a known one is rejected too;
// one that resembles none may be newer than this program, and other senders
// have their own.
func (m *Match) Validate(kind Kind) []agented.Field {
	var bad []agented.Field
	no := func(path, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(format, args...)})
	}
	size := func(path string, list []string) bool {
		if len(list) > maxEntries {
			no(path, "has too many entries: use at most %d", maxEntries)
			return false
		}
		return true
	}
	if size("events", m.Events) {
		for i, s := range m.Events {
			validateEvent(fmt.Sprintf("events.%d", i), s, kind == KindGitHub, no)
		}
	}
	if size("actions", m.Actions) {
		for i, s := range m.Actions {
			validateWord(fmt.Sprintf("actions.%d", i), "action", s, kind == KindGitHub, knownActions, no)
		}
	}
	for _, l := range []struct {
		path string
		list []string
	}{
		{"repositories", m.Repositories},
		{"branches", m.Branches},
		{"bases", m.Bases},
		{"authors", m.Authors},
		{"exclude_authors", m.ExcludeAuthors},
		{"paths", m.Paths},
	} {
		if !size(l.path, l.list) {
			continue
		}
		for i, s := range l.list {
			validateGlob(l.path, i, s, no)
		}
	}
	if size("labels", m.Labels) {
		for i, s := range m.Labels {
			if strings.TrimSpace(s) == "" || len(s) > maxGlob {
				no(fmt.Sprintf("labels.%d", i), "is not a label: write its name, at most %d bytes", maxGlob)
			}
		}
	}
	switch c := m.Command; {
	case c == "":
	case len(c) > 100:
		no("command", "is too long: use at most 100 bytes")
	case strings.ContainsAny(c, " \t\r\n") || Clean(c) != c:
		no("command", "must be one word, such as /review: what follows it on the line are its arguments")
	case c[0] != '/' && c[0] != '@' && c[0] != '!':
		no("command", "must start with /, @ or !, so that no ordinary sentence matches: for example %q", "/"+brief(c, 60))
	}
	for i, s := range m.Associations {
		if s != "*" && !slices.Contains(knownAssociations, s) {
			no(fmt.Sprintf("associations.%d", i), "is unknown: use one of %s%s", join(knownAssociations), suggest(brief(s, 60), knownAssociations))
		}
	}
	if m.Conditions != nil {
		m.Conditions.validate("conditions", 0, &bad)
	}
	return bad
}

// validateGlob checks an entry of a list of patterns.
func validateGlob(list string, i int, s string, no func(path, format string, args ...any)) {
	path := fmt.Sprintf("%s.%d", list, i)
	bare := strings.TrimPrefix(s, "!")
	switch wrong := wrongGlob(s); {
	case wrong != "":
		no(path, "%s", wrong)
	case strings.TrimSpace(s) != s || Clean(s) != s:
		no(path, "has white space at its ends or an invisible character: remove it")
	case list == "repositories" && !strings.Contains(bare, "/") && !strings.Contains(bare, "**"):
		no(path, "is not a repository: write owner/name, or owner/* for all of an owner")
	case (list == "branches" || list == "bases") && strings.HasPrefix(bare, "refs/heads/"):
		no(path, "must be only the branch's name: %q", brief(strings.Replace(s, "refs/heads/", "", 1), 80))
	case list == "paths" && (strings.HasPrefix(bare, "/") || strings.HasPrefix(bare, "./")):
		no(path, "is relative to the top of the repository: remove / and ./ at its start")
	case strings.HasPrefix(bare, "@") && strings.HasSuffix(list, "authors"):
		no(path, "is a login without the @: use %q", brief(strings.Replace(s, "@", "", 1), 80))
	}
}

func validateEvent(path, s string, github bool, no func(path, format string, args ...any)) {
	if strings.ContainsAny(s, "*?") {
		if wrong := wrongGlob(s); wrong != "" || strings.HasPrefix(s, "!") {
			no(path, "is not a pattern of events: write it like check_*")
		}
		return
	}
	if name, action, dotted := strings.Cut(s, "."); github && dotted {
		validateWord(path, "event", name, github, knownEvents, no)
		validateWord(path, "action", action, github, knownActions, no)
		return
	}
	validateWord(path, "event", s, github, knownEvents, no)
}

func validateWord(path, what, s string, github bool, known []string, no func(path, format string, args ...any)) {
	switch {
	case !validWord(s):
		no(path, "is not the name of an %s: use letters, digits, _, - and dots, at most %d bytes", what, maxWord)
	case !github || slices.Contains(known, s):
	case what == "action" && s == "merged":
		no(path, `is not an action of GitHub: use "closed" with the condition that pull_request.merged equals true`)
	default:
		if near := agented.Nearest(s, known); near != "" {
			no(path, "%q is not an %s that GitHub sends; did you mean %q?", s, what, near)
		}
	}
}
