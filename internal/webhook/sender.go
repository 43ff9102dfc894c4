package webhook

import (
	"net/http"
	"strings"

	"github.com/agented/agented"
)

// readName reads the event from the headers of GitHub, and of forges that send
// GitHub's headers in addition to their own.
func (e *Event) readName(h http.Header) error {
	for _, name := range []string{"X-Github-Event", "X-Gitea-Event", "X-Forgejo-Event", "X-Gogs-Event"} {
		values := h.Values(name)
		if len(values) == 0 {
			continue
		}
		if name != "X-Github-Event" {
			e.Kind = KindGitea
			if e.GitHub {
				break
			}
		}
		if len(values) > 1 || !validWord(values[0]) {
			header := strings.Replace(name, "Github", "GitHub", 1)
			return agented.Errorf(agented.Invalid, "the header %s is not one event: use letters, digits, _, - and dots, at most %d bytes", header, maxWord)
		}
		e.GitHub, e.Name = true, values[0]
		if e.Kind == "" {
			e.Kind = KindGitHub
		}
	}
	return nil
}

// readSender reads a call that is not from GitHub.
func (e *Event) readSender(h http.Header, body map[string]any) {
	switch {
	case word(body, "object_kind") != "":
		e.readGitLab(body)
		return
	case bitbucketEvent(h, body) != "":
		e.readBitbucket(bitbucketEvent(h, body), body)
		return
	case len(h.Values("X-Signature-Timestamp")) > 0:
		e.Kind = KindDiscord
	case text(body, "command") != "" && text(body, "response_url") != "" && e.Form != nil:
		e.Kind, e.Name, e.Action = KindSlack, "slash_command", ""
		e.Sender = text(body, "user_name")
		return
	}
	// Event names of other senders, most specific first.
	names := []string{headerWord(h, "Sentry-Hook-Resource"), headerWord(h, "X-Shopify-Topic"), word(body, "type"), word(body, "event"), word(body, "webhookEvent")}
	inner := object(body, "event")
	names = append(names, word(inner, "event_type"), word(inner, "type"))
	for _, name := range names {
		if name != "" {
			e.Name = name
			break
		}
	}
	if e.Name == "event_callback" { // Slack: the event is in a nested object
		e.Kind = KindSlack
		if e.Action = word(inner, "type"); e.Action != "" {
			e.Words = []string{e.Action}
		}
	}
}

// headerWord returns the value of a header that occurs once and is a name,
// otherwise "".
func headerWord(h http.Header, name string) string {
	if values := h.Values(name); len(values) == 1 && validWord(values[0]) {
		return values[0]
	}
	return ""
}

// Answer is the response that the sender of a call requires.
type Answer struct {
	Status int
	Body   map[string]any // nil for none
}

// Challenge returns the response to an authentic call that verifies the
// endpoint, and false for other calls.
func (e *Event) Challenge() (Answer, bool) {
	body, _ := e.JSON.(map[string]any)
	kind, _ := scalar(body["type"])
	switch challenge := text(body, "challenge"); {
	case kind == "url_verification" && challenge != "" && len(challenge) <= 1000:
		return Answer{http.StatusOK, map[string]any{"challenge": challenge}}, true
	case e.Kind == KindDiscord && kind == "1" && body["event"] == nil:
		return Answer{http.StatusOK, map[string]any{"type": 1}}, true
	case e.Kind == KindDiscord && kind == "0":
		return Answer{http.StatusNoContent, nil}, true
	}
	return Answer{}, false
}

// Reply returns the response that the sender of an authentic call shows to the
// user who caused it, and false for senders that show nothing. text is one
// sentence.
func (e *Event) Reply(text string) (Answer, bool) {
	body, _ := e.JSON.(map[string]any)
	switch {
	case e.Kind == KindSlack && e.Name == "slash_command":
		return Answer{http.StatusOK, map[string]any{"response_type": "ephemeral", "text": text}}, true
	case e.Kind == KindDiscord && body["event"] == nil:
		return Answer{http.StatusOK, map[string]any{"type": 4, "data": map[string]any{"content": text, "flags": 64}}}, true
	case e.Kind == KindDiscord:
		return Answer{http.StatusNoContent, nil}, true
	}
	return Answer{}, false
}
