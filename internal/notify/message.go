package notify

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/notices"
)

// Message is a notification for people: without secrets and control characters.
type Message struct {
	ID      string // the same for every attempt to send it
	Kind    agented.NotificationKind
	Title   string // one line
	Text    string // may have several lines
	Link    string // page about it; empty: none
	At      time.Time
	Trigger agented.TriggerID
	Name    string // of the trigger
	Exec    agented.ExecutionID
	Subject string
	More    int // further events that are not listed
}

// titles are the first words of messages by kind.
var titles = map[agented.NotificationKind]string{
	agented.NotifyFailed:      "failed",
	agented.NotifyRecovered:   "recovered",
	agented.NotifyNeedsPerson: "needs a person",
	agented.NotifyPaused:      "is paused",
	agented.NotifyParked:      "is parked",
	agented.NotifyBudget:      "budget",
	agented.NotifyBackup:      "backup failed",
	agented.NotifyNoEffect:    "had no effect",
	agented.NotifyHeld:        "waits for approval",
	agented.NotifyDeadMan:     "has not succeeded in time",
	agented.NotifyChannel:     "a notification was not delivered",
	notices.KindTest:          "test",
	notices.KindDigest:        "digest",
}

// message formats a notification. base is the public URL of the server, empty if unknown.
func message(n *notices.Notification, base string, mask func(string) string) Message {
	m := Message{
		ID: n.ID, Kind: n.Kind, At: n.At, Trigger: n.Trigger, Name: clean(mask(n.TriggerName)), Exec: n.Execution, Subject: clean(mask(n.Subject)), More: n.More,
		Text: lines(mask(n.Text)),
	}
	what := titles[n.Kind]
	switch {
	case n.Kind == notices.KindTest, n.Kind == notices.KindDigest:
		m.Title = "Agented: " + what
	case m.Name != "":
		m.Title = m.Name + " " + what
	default:
		m.Title = "Agented: " + what
	}
	if m.More > 0 {
		m.Title += fmt.Sprintf(", and %s more", thousands(m.More))
	}
	m.Title = format.Truncate(m.Title, 200)
	m.Link = link(&m, base)
	return m
}

// link returns the page about a message.
func link(m *Message, base string) string {
	switch {
	case base == "":
		return ""
	case m.Exec != "":
		return base + "/executions/" + url.PathEscape(string(m.Exec))
	case m.Trigger != "":
		return base + "/triggers/" + url.PathEscape(string(m.Trigger))
	}
	return base + "/"
}

// clean returns text as one line without control characters.
func clean(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == ' ' || unicode.Is(unicode.Bidi_Control, r) }), " ")
}

// lines is clean for a text with several lines.
func lines(text string) string {
	parts := strings.Split(text, "\n")
	for i := range parts {
		parts[i] = clean(parts[i])
	}
	return strings.TrimSpace(strings.Join(parts, "\n"))
}

// thousands formats a number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
