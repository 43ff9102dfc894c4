package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

func chatCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "chat AGENT [TEXT…]", Short: "Chat with an agent", GroupID: "client",
		Long: `Send messages to an agent. With a text (or - for standard input) the command sends
one message, prints the answer while it is written, and exits when the turn ends:
with exit code 0 if it succeeded. Without a text it reads lines from standard input:
each line is a message, empty lines are skipped, and Ctrl-D exits. Ctrl-C interrupts
the current turn; if a text was given or no turn is running, it also exits with exit
code 130. The conversation is kept; resume it in the same session with
--conversation.`,
		Example: `  agented chat reviewer "what did you find?"
  git diff | agented chat reviewer -
  agented chat reviewer
  agented chat reviewer --conversation conv-01jdc4q7zv8m3k2n5p6r7s8t9w`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("the agent is missing: agented chat AGENT [TEXT…]")}
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
				b, err := term.ReadStdin(cmd.Context(), "the text", agented.MaxPrompt)
				if err != nil {
					return err
				}
				text = term.ToUTF8("the text", b)
			}
			t := &chat{cmd: cmd, c: c, json: wantJSON(cmd)}
			if err := t.open(args[0]); err != nil {
				return err
			}
			t.signals = make(chan os.Signal, 4)
			signal.Notify(t.signals, os.Interrupt, syscall.SIGTERM)
			defer signal.Stop(t.signals)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if text != "" {
				return t.once(text)
			}
			return t.lines()
		},
	})
	cmd.Flags().StringP("conversation", "c", "", "id of the conversation to resume")
	cmd.Flags().Bool("tools", false, "also show which tools the agent used")
	return cmd
}

// chat is a conversation on a terminal.
type chat struct {
	cmd  *cobra.Command
	c    *client.Client
	json bool
	id   string
	last string // id of the last event shown

	// signals receives the signals that interrupt a turn or end the command. It replaces the
	// context of the command, which the first signal cancels.
	signals chan os.Signal

	pieces  bool // pieces of an answer have been printed
	endLine bool // the last output ended with a newline
	clean   term.Sanitiser
}

// open loads the conversation or creates one.
func (t *chat) open(agent string) error {
	ctx := t.cmd.Context()
	var got client.Conversation
	if t.id, _ = t.cmd.Flags().GetString("conversation"); t.id != "" {
		found, err := t.c.Conversation(ctx, t.id)
		if err != nil {
			return err
		}
		if got = found.Value; !strings.EqualFold(got.AgentName, agent) {
			return agented.Errorf(agented.Invalid, "%s is a conversation with %s, not with %s", t.id, got.AgentName, agent)
		}
	} else {
		created, err := t.c.CreateConversation(ctx, agent)
		if err != nil {
			return err
		}
		got = created.Value
	}
	t.id, t.last = got.ID, fmt.Sprint(got.LastEvent)
	if !t.json {
		fmt.Fprintf(os.Stderr, "conversation %s with %s\n", got.ID, got.AgentName)
	}
	return nil
}

// follow shows events until the turn of message number has ended, and returns the status of the
// turn.
func (t *chat) follow(ctx context.Context, number int64) (status string, err error) {
	turn, tools := "", false
	if t.cmd.Flags().Lookup("tools") != nil {
		tools, _ = t.cmd.Flags().GetBool("tools")
	}
	t.pieces, t.endLine, t.clean = false, true, term.Sanitiser{}
	err = t.c.FollowConversation(ctx, t.id, t.last, func(event, id string, data []byte) error {
		if id != "" {
			t.last = id
		}
		var e client.ConversationEvent
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
			t.note("uses " + e.Tool + " " + term.Cell(term.Compact(e.Input)))
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
		if text = t.clean.Clean(text); text != "" {
			fmt.Print(text)
			t.endLine = strings.HasSuffix(text, "\n")
		}
	}
	if end && !t.endLine {
		fmt.Println()
		t.endLine = true
	}
}

// note prints a notice about the turn.
func (t *chat) note(text string) {
	if !t.endLine {
		fmt.Println()
		t.endLine = true
	}
	if text != "" {
		fmt.Fprintln(os.Stderr, term.Paint(os.Stderr, term.Yellow, term.Indented(text, 0)))
	}
}
