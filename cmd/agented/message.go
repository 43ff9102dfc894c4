package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

func messageCommand() *cobra.Command {
	return group("message", "Send messages to agents and people, and read inboxes",
		messageSend(), messageInbox(), messageFollow(), messageAck(), messageSubscribe(), messageUnsubscribe())
}

// messageSummary returns the subject, or the first line of the body.
func messageSummary(r *client.InboxItem) string {
	text := r.Message.Subject
	if text == "" {
		text, _, _ = strings.Cut(r.Message.Body, "\n")
	}
	return format.ClipCharacters(text, 80)
}

func messageSend() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "send TO [TEXT…]", Short: "Send a message",
		Long: `Send a message to an agent, a user, a group or a topic. TO is NAME or agent:NAME,
user:NAME, group:NAME or topic:NAME. The text is the remaining arguments, or standard
input if the text is "-" or missing. Inside an execution of an agent, the agent is
the sender.`,
		Example: `  agented message send reviewer "please look at the branch fix-login"
  git diff | agented message send reviewer --type request --subject "a diff" -
  agented message send topic:builds --type status "green again"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("the recipient is missing: agented message send TO [TEXT…]")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			text := strings.Join(args[1:], " ")
			if text == "" || text == "-" {
				b, err := term.ReadStdin(cmd.Context(), "the text", agented.MaxBody)
				if err != nil {
					return err
				}
				text = strings.TrimRight(term.ToUTF8("the text", b), "\r\n")
			}
			f := cmd.Flags()
			in := client.MessageCreate{To: args[0], Body: text}
			in.Type, _ = f.GetString("type")
			in.Priority, _ = f.GetString("priority")
			in.Subject, _ = f.GetString("subject")
			in.ReplyTo, _ = f.GetString("reply-to")
			in.Key, _ = f.GetString("key")
			if ttl, _ := f.GetDuration("ttl"); ttl > 0 {
				in.TTLSeconds = max(1, int64(ttl/time.Second))
			}
			if in.Key == "" {
				in.Key = agented.NewID("cli", time.Now()) // makes it safe to repeat the request
			}
			patience, _ := cmd.Flags().GetDuration("wait")
			if !cmd.Flags().Changed("wait") && config.ExecutionID() != "" {
				patience = time.Minute // the server may restart while the execution runs
			}
			sent, err := sendPatiently(cmd, c, in, patience)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, sent)
			}
			got := sent.Value
			fmt.Println(got.Message.ID)
			switch {
			case got.Repeated:
				fmt.Fprintln(os.Stderr, "already sent; nothing was changed")
			case len(got.Recipients) == 0:
				fmt.Fprintln(os.Stderr, "stored, but the recipient list is empty")
			default:
				note := "in " + format.Plural(len(got.Recipients), "inbox", "inboxes")
				if len(got.Executions) > 0 {
					note += "; fired " + strings.Join(got.Executions, " ")
				}
				fmt.Fprintln(os.Stderr, note)
			}
			return nil
		},
	})
	f := cmd.Flags()
	f.String("type", "", "message (default), request, response, status, alert or artifact")
	f.String("priority", "", "low, normal (default) or high")
	f.String("subject", "", "subject, one line")
	f.String("reply-to", "", "id of the message that this message answers")
	f.String("key", "", "idempotency key: the server stores a message with the same key only once")
	addDuration(f, "wait", 0, "how long to retry while the server is unreachable (default 1m inside an execution, otherwise 0s)")
	addDuration(f, "ttl", 0, "time to live, for example 2h (default: no limit)")
	return cmd
}

// sendPatiently sends a message and retries while the server is unreachable, for the duration
// patience.
func sendPatiently(cmd *cobra.Command, c *client.Client, m client.MessageCreate, patience time.Duration) (sent client.Response[client.SentMessage], err error) {
	end := time.Now().Add(patience)
	for {
		sent, err = c.SendMessage(cmd.Context(), m)
		if agented.KindOf(err) != agented.Unavailable || err == nil || time.Now().After(end) {
			return sent, err
		}
		select {
		case <-cmd.Context().Done():
			return sent, cmd.Context().Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// inboxOf returns the inbox that --agent names, or the caller's own inbox.
func inboxOf(cmd *cobra.Command) client.Inbox {
	if agent, _ := cmd.Flags().GetString("agent"); agent != "" {
		return client.Inbox(agent)
	}
	if config.HasExecutionToken() {
		return client.OwnInbox
	}
	return ""
}

func messageInbox() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "inbox", Short: "List the messages of an inbox", Args: exactArgs(),
		Example: `  agented message inbox --agent reviewer --unread
  agented message inbox          # inside an execution: the agent's own inbox`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			states := ""
			if unread, _ := cmd.Flags().GetBool("unread"); unread {
				states = "pending,delivered"
			}
			limit, _ := cmd.Flags().GetInt("limit")
			after, _ := cmd.Flags().GetInt64("after")
			all, rows := []json.RawMessage{}, []client.InboxItem{}
			for item, err := range c.InboxItems(cmd.Context(), inboxOf(cmd), states, after, limit) {
				if err != nil {
					return err
				}
				all, rows = append(all, item.Raw), append(rows, item.Value)
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]any{"items": all})
			}
			if whole, _ := cmd.Flags().GetBool("bodies"); whole {
				for i := range rows {
					printMessage(os.Stdout, &rows[i])
				}
				return nil
			}
			if len(rows) == 0 {
				fmt.Fprintln(os.Stderr, "There are no messages.")
				return nil
			}
			cells := make([][]string, len(rows))
			for i := range rows {
				r := &rows[i]
				cells[i] = []string{strconv.FormatInt(r.Seq, 10), term.Ago(r.Message.CreatedAt), r.State, r.Message.Type, r.Message.From, messageSummary(r)}
			}
			return term.Table(os.Stdout, "NO SENT STATE TYPE FROM TEXT", cells)
		},
	})
	cmd.Flags().String("agent", "", "inbox of this agent (id or name; default: your own inbox)")
	cmd.Flags().Bool("unread", false, "only messages that are not acknowledged")
	cmd.Flags().Bool("bodies", false, "print complete messages")
	cmd.Flags().Int64("after", 0, "only messages after this number")
	cmd.Flags().Int("limit", 0, "maximum number of messages; 0 shows all")
	return cmd
}

func printMessage(w io.Writer, r *client.InboxItem) {
	m := &r.Message
	head := fmt.Sprintf("[%d] %s from %s", r.Seq, m.Type, m.From)
	if m.Priority != "" && m.Priority != "normal" {
		head += ", priority " + m.Priority
	}
	fmt.Fprintln(w, term.Indented(head+", id "+m.ID, 0))
	if m.Subject != "" {
		fmt.Fprintln(w, "Subject: "+term.Indented(m.Subject, 9))
	}
	fmt.Fprintf(w, "%s\n\n", term.Safe(m.Body))
}

func messageFollow() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "follow", Short: "Print the messages of an inbox as they arrive", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			after := ""
			if n, _ := cmd.Flags().GetInt64("after"); n >= 0 {
				after = strconv.FormatInt(n, 10)
			}
			inbox := inboxOf(cmd)
			acknowledge, _ := cmd.Flags().GetBool("ack")
			return c.FollowInbox(cmd.Context(), inbox, after, func(item client.Response[client.InboxItem]) error {
				if wantJSON(cmd) {
					if _, err := fmt.Fprintf(os.Stdout, "%s\n", item.Raw); err != nil {
						return err
					}
				} else {
					printMessage(os.Stdout, &item.Value)
				}
				if !acknowledge {
					return nil
				}
				err := c.Acknowledge(cmd.Context(), inbox, item.Value.Seq)
				if agented.KindOf(err) == agented.Conflict {
					return nil // it has expired meanwhile
				}
				return err
			}, func(err error) { fmt.Fprintf(os.Stderr, "reconnecting (%v)\n", err) })
		},
	})
	cmd.Flags().String("agent", "", "inbox of this agent (id or name; default: your own inbox)")
	cmd.Flags().Int64("after", -1, "start after this number; -1 starts with the first unread message")
	cmd.Flags().Bool("ack", false, "acknowledge each message after it is printed")
	return cmd
}

func messageAck() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "ack NO…", Short: "Acknowledge messages as read",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("the message number is missing: `agented message inbox` shows the numbers")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			for _, a := range args {
				n, err := strconv.ParseInt(a, 10, 64)
				if err != nil || n < 1 {
					return usageError{fmt.Errorf("%q is not a message number: `agented message inbox` shows the numbers", a)}
				}
				if err := c.Acknowledge(cmd.Context(), inboxOf(cmd), n); err != nil {
					return err
				}
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]any{"acknowledged": args})
			}
			return nil
		},
	})
	cmd.Flags().String("agent", "", "inbox of this agent (id or name; default: your own inbox)")
	return cmd
}

func messageSubscribe() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "subscribe LIST MEMBER", Short: "Subscribe an inbox to a topic, or add it to a group",
		Example: `  agented message subscribe topic:builds reviewer
  agented message subscribe group:team user:ann`,
		Args: exactArgs("topic:NAME or group:NAME", "the agent or user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMember(cmd, (*client.Client).AddMember, args, "subscribed")
		},
	})
}

func messageUnsubscribe() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "unsubscribe LIST MEMBER", Short: "Unsubscribe an inbox from a topic, or remove it from a group",
		Args: exactArgs("topic:NAME or group:NAME", "the agent or user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMember(cmd, (*client.Client).RemoveMember, args, "unsubscribed")
		},
	})
}

func changeMember(cmd *cobra.Command, change func(*client.Client, context.Context, client.Member) error, args []string, done string) error {
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	if err := change(c, cmd.Context(), client.Member{List: args[0], Member: args[1]}); err != nil {
		return err
	}
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, map[string]bool{done: true})
	}
	fmt.Fprintln(os.Stderr, done)
	return nil
}
