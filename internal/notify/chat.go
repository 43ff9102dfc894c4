package notify

import (
	"net/url"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// The texts of agents and of people outside are data: in a chat they must not become
// mentions, links or markup.

var (
	slackEscape    = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	markdownEscape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "~", `\~`, "`", "\\`", "|", `\|`, "[", `\[`, "]", `\]`, "(", `\(`, ")", `\)`,
		"<", `\<`, ">", `\>`, "#", `\#`)
)

type slackMessage struct {
	Text        string `json:"text"`
	UnfurlLinks bool   `json:"unfurl_links"`
	UnfurlMedia bool   `json:"unfurl_media"`
}

func slackBody(m Message) slackMessage {
	text := "*" + strings.ReplaceAll(slackEscape.Replace(m.Title), "*", "∗") + "*"
	if m.Text != "" {
		text += "\n" + slackEscape.Replace(format.Truncate(m.Text, 3000))
	}
	if m.Link != "" {
		text += "\n<" + slackEscape.Replace(m.Link) + "|Open>"
	}
	return slackMessage{Text: text}
}

type discordMessage struct {
	Content  string `json:"content"`
	Flags    int    `json:"flags"`
	Mentions struct {
		Parse []string `json:"parse"`
	} `json:"allowed_mentions"`
}

func discordBody(m Message) discordMessage {
	const suppressEmbeds = 4
	text := "**" + markdownEscape.Replace(m.Title) + "**"
	if m.Text != "" {
		text += "\n" + markdownEscape.Replace(m.Text)
	}
	if r := []rune(text); len(r) > 1700 { // the limit is 2000 characters
		text = string(r[:1700]) + "…"
	}
	if m.Link != "" {
		text += "\n" + m.Link
	}
	d := discordMessage{Content: text, Flags: suppressEmbeds}
	d.Mentions.Parse = []string{}
	return d
}

// teamsMessage is an Adaptive Card for an incoming webhook of Teams.
type teamsMessage struct {
	Type        string            `json:"type"`
	Attachments []teamsAttachment `json:"attachments"`
}

type teamsAttachment struct {
	ContentType string    `json:"contentType"`
	Content     teamsCard `json:"content"`
}

type teamsCard struct {
	Schema  string        `json:"$schema"`
	Type    string        `json:"type"`
	Version string        `json:"version"`
	Body    []teamsBlock  `json:"body"`
	Actions []teamsAction `json:"actions,omitempty"`
}

type teamsBlock struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Wrap   bool   `json:"wrap"`
	Weight string `json:"weight,omitempty"`
}

type teamsAction struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	URL   string `json:"url"`
}

func teamsBody(m Message) teamsMessage {
	card := teamsCard{
		Schema: "http://adaptivecards.io/schemas/adaptive-card.json", Type: "AdaptiveCard", Version: "1.4",
		Body: []teamsBlock{{Type: "TextBlock", Text: markdownEscape.Replace(m.Title), Wrap: true, Weight: "Bolder"}},
	}
	if m.Text != "" {
		text := markdownEscape.Replace(format.Truncate(m.Text, 10_000))
		card.Body = append(card.Body, teamsBlock{Type: "TextBlock", Text: strings.ReplaceAll(text, "\n", "\n\n"), Wrap: true})
	}
	if m.Link != "" {
		card.Actions = []teamsAction{{"Action.OpenUrl", "Open", m.Link}}
	}
	return teamsMessage{"message", []teamsAttachment{{"application/vnd.microsoft.card.adaptive", card}}}
}

type ntfyMessage struct {
	Topic    string   `json:"topic"`
	Title    string   `json:"title"`
	Message  string   `json:"message"`
	Priority int      `json:"priority"`
	Tags     []string `json:"tags,omitempty"`
	Click    string   `json:"click,omitempty"`
}

func ntfyBody(m Message, topic string) ntfyMessage {
	n := ntfyMessage{Topic: topic, Title: m.Title, Message: format.Truncate(m.Text, 3500), Priority: 3, Click: m.Link}
	if n.Message == "" {
		n.Message = m.Title
	}
	switch m.Kind {
	case agented.NotifyFailed, agented.NotifyNeedsPerson, agented.NotifyHeld, agented.NotifyDeadMan, agented.NotifyBackup, agented.NotifyPaused:
		n.Priority = 4
	case agented.NotifyRecovered:
		n.Tags = []string{"white_check_mark"}
	}
	return n
}

// splitTopic splits the URL of a topic of ntfy into the server and the topic.
func splitTopic(text string) (server, topic string, ok bool) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", false
	}
	path := strings.TrimSuffix(u.Path, "/")
	i := strings.LastIndexByte(path, '/')
	if i < 0 || path[i+1:] == "" {
		return "", "", false
	}
	topic = path[i+1:]
	u.Path, u.RawPath, u.RawQuery = path[:i+1], "", ""
	return u.String(), topic, true
}

// HasTopic reports whether a URL of ntfy ends with a topic.
func HasTopic(text string) bool {
	_, _, ok := splitTopic(text)
	return ok
}
