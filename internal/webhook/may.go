package webhook

import "strings"

// MayMatch reports whether an event of GitHub's, of which only name, action and
// repository are known, could fire a trigger with this match. The action of a
// push is unknown, and so is an empty repository.
func (m *Match) MayMatch(name, action, repository string) bool {
	if name == "" || name == "ping" {
		return false
	}
	if repository != "" && len(m.Repositories) > 0 && !compileGlobs(m.Repositories, true).match(repository) {
		return false
	}
	if action == "" || name == "push" {
		return len(m.Events) == 0 || mayBe(m.Events, name)
	}
	if len(m.Actions) > 0 && !fold(m.Actions, action) {
		return false
	}
	return len(m.Events) == 0 || matchesEvent(m.Events, &Event{Name: name, Action: action})
}

// mayBe reports whether one of the events, with any action, has the name.
func mayBe(events []string, name string) bool {
	for _, want := range events {
		base, _, _ := strings.Cut(want, ".")
		if base == name || strings.ContainsAny(want, "*?") && compileGlobs([]string{base, want}, false).match(name) {
			return true
		}
	}
	return false
}
