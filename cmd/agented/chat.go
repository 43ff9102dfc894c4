package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

func chatCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "chat AGENT [TEXT…]", Short: "Talk with an agent", GroupID: "client",
		Long: `Talk with an agent. With a text (or -, for standard input) it says that, prints
the answer as it comes, and ends with the turn: exit code 0 when it succeeded.
Without one it reads lines: each is a message, an empty line is not sent, and
Ctrl-D ends the talk. Ctrl-C interrupts the turn under way; the conversation
stays, and goes on in the same session with --conversation.`,
		Example: `  agented chat reviewer "what did you find?"
  git diff | agented chat reviewer -
  agented chat reviewer
  agented chat reviewer --conversation conv-01jdc4q7zv8m3k2n5p6r7s8t9w`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("say with whom: agented chat AGENT [TEXT…]")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			text := strings.Join(args[1:], " ")
			if text == "-" {
				b, err := io.ReadAll(io.LimitReader(os.Stdin, agented.MaxPrompt+1))
				if err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
				text = string(b)
			}
			t := &chat{cmd: cmd, c: c, json: wantJSON(cmd)}
			if err := t.open(args[0]); err != nil {
				return err
			}
			if text != "" {
				return t.once(text)
			}
			return t.lines()
		},
	})
	cmd.Flags().StringP("conversation", "c", "", "go on with this conversation")
	cmd.Flags().Bool("tools", false, "also show what tools were used")
	return cmd
}

// chat is a talk at a terminal.
type chat struct {
	cmd  *cobra.Command
	c    *client.Client
	json bool
	id   string
	last string // id of the last event that was shown

	pieces  bool // of an answer have been printed
	endLine bool // the last thing printed ended a line
}

func (t *chat) path(more string) string {
	return "/api/v1/conversations/" + url.PathEscape(t.id) + more
}

// open finds the conversation, or begins one.
func (t *chat) open(agent string) error {
	var got struct {
		ID        string `json:"id"`
		AgentName string `json:"agent_name"`
		LastEvent int64  `json:"last_event"`
	}
	ctx := t.cmd.Context()
	if t.id, _ = t.cmd.Flags().GetString("conversation"); t.id != "" {
		if err := t.c.Do(ctx, http.MethodGet, t.path(""), nil, nil, &got); err != nil {
			return err
		}
		if !strings.EqualFold(got.AgentName, agent) {
			return agented.Errorf(agented.Invalid, "%s is a conversation with %s, not with %s", t.id, got.AgentName, agent)
		}
	} else if err := t.c.Do(ctx, http.MethodPost, "/api/v1/conversations", nil, map[string]string{"agent": agent}, &got); err != nil {
		return err
	}
	t.id, t.last = got.ID, fmt.Sprint(got.LastEvent)
	if !t.json {
		fmt.Fprintf(os.Stderr, "conversation %s with %s\n", got.ID, got.AgentName)
	}
	return nil
}

// once says one thing and shows its turn.
func (t *chat) once(text string) error {
	number, err := t.say(t.cmd.Context(), text)
	if err != nil {
		return err
	}
	status, err := t.follow(t.cmd.Context(), number)
	if err != nil {
		return err
	}
	if status != "success" {
		return exitError(exitFailed)
	}
	return nil
}

func (t *chat) say(ctx context.Context, text string) (int64, error) {
	var got struct {
		Number int64 `json:"number"`
	}
	err := t.c.Do(ctx, http.MethodPost, t.path("/messages"), nil, map[string]string{"text": text}, &got)
	return got.Number, err
}

// lines reads messages from standard input, one a line, each with its turn.
func (t *chat) lines() error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 64<<10), agented.MaxPrompt)
	for {
		if !t.json && terminal(os.Stdin) {
			fmt.Fprint(os.Stderr, "> ")
		}
		if !in.Scan() {
			return in.Err()
		}
		text := strings.TrimSpace(in.Text())
		if text == "" {
			continue
		}
		number, err := t.say(t.cmd.Context(), text)
		if err != nil {
			return err
		}
		// Ctrl-C belongs to the turn while there is one.
		turn, stop := signal.NotifyContext(context.WithoutCancel(t.cmd.Context()), os.Interrupt)
		_, err = t.follow(turn, number)
		interrupted := turn.Err() != nil
		stop()
		if interrupted {
			var got struct{}
			if err := t.c.Do(context.WithoutCancel(t.cmd.Context()), http.MethodPost, t.path("/interrupt"), nil, map[string]string{}, &got); err != nil {
				return err
			}
			fmt.Fprintln(os.Stderr, "\ninterrupted")
			continue
		}
		if err != nil {
			return err
		}
	}
}

// chatEvent is what is shown of an event.
type chatEvent struct {
	Role      string          `json:"role"`
	Number    int64           `json:"number"`
	Text      string          `json:"text"`
	Thinking  bool            `json:"thinking"`
	End       bool            `json:"end"`
	Tool      string          `json:"tool"`
	State     string          `json:"state"`
	Status    string          `json:"status"`
	Reason    string          `json:"reason"`
	Message   string          `json:"message"`
	Execution string          `json:"execution_id"`
	Input     json.RawMessage `json:"input"`
}

// follow shows what happens until the turn of a message has ended, and returns
// how.
func (t *chat) follow(ctx context.Context, number int64) (status string, err error) {
	turn, tools := "", false
	if t.cmd.Flags().Lookup("tools") != nil {
		tools, _ = t.cmd.Flags().GetBool("tools")
	}
	t.pieces, t.endLine = false, true
	err = t.c.FollowFeed(ctx, t.path("/stream"), t.last, func(event, id string, data []byte) error {
		if id != "" {
			t.last = id
		}
		var e chatEvent
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("%s event: %w", event, err)
		}
		if t.json {
			fmt.Printf("{\"id\":%s,\"event\":%q,\"data\":%s}\n", id, event, data)
		}
		switch {
		case event == "status_change" && e.Number == number:
			turn = e.Execution
		case event == "error" && e.Number == number:
			status = "failed"
			t.note(e.Message)
			return io.EOF
		case turn == "" || e.Execution != turn || t.json && event != "finish":
		case event == "status_change" && (e.Status == "waiting" || e.Status == "interrupting"):
			t.note(strings.TrimSpace(e.Status + " " + e.Reason))
		case event == "content_delta" && !e.Thinking:
			t.print(e.Text, e.End)
		case event == "tool_call" && tools && e.State == "called":
			t.note("uses " + e.Tool + " " + brief(e.Input))
		case event == "message" && e.Role == "agent" && !t.pieces:
			t.print(e.Text, true)
		case event == "error":
			t.note(e.Message)
		case event == "finish":
			status = e.Status
			return io.EOF
		}
		return nil
	}, func(error) { t.note("reconnecting…") })
	if !t.endLine {
		fmt.Println()
		t.endLine = true
	}
	return status, err
}

// print writes a piece of an answer.
func (t *chat) print(text string, end bool) {
	if text != "" {
		t.pieces = true
		for i, line := range strings.Split(text, "\n") {
			if i > 0 {
				fmt.Println()
			}
			fmt.Print(printable(line))
		}
		t.endLine = strings.HasSuffix(text, "\n")
	}
	if end && !t.endLine {
		fmt.Println()
		t.endLine = true
	}
}

// note writes something about the turn.
func (t *chat) note(text string) {
	if !t.endLine {
		fmt.Println()
		t.endLine = true
	}
	if text != "" {
		fmt.Fprintln(os.Stderr, paint(os.Stderr, yellow, printable(text)))
	}
}
