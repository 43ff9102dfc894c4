package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

func messageCommand() *cobra.Command {
	return group("message", "Send messages to agents and people, and read inboxes",
		messageSend(), messageInbox(), messageFollow(), messageAck(), messageSubscribe(), messageUnsubscribe())
}

// inboxRow is what people see of a message in an inbox.
type inboxRow struct {
	Seq     int64  `json:"seq"`
	State   string `json:"state"`
	Message struct {
		ID        string     `json:"id"`
		Type      string     `json:"type"`
		Priority  string     `json:"priority"`
		From      string     `json:"from"`
		To        string     `json:"to"`
		Subject   string     `json:"subject"`
		Body      string     `json:"body"`
		CreatedAt *time.Time `json:"created_at"`
	} `json:"message"`
}

func (r *inboxRow) summary() string {
	text := r.Message.Subject
	if text == "" {
		text, _, _ = strings.Cut(r.Message.Body, "\n")
	}
	if cut := []rune(text); len(cut) > 80 {
		text = string(cut[:80]) + "…"
	}
	return text
}

func messageSend() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "send TO [TEXT…]", Short: "Send a message",
		Long: `Send a message to an agent, a user, a group or a topic: NAME or agent:NAME,
user:NAME, group:NAME, topic:NAME. The text is what follows, or standard input
when that is "-" or left out. In an execution that plays an agent, the agent is
the sender.`,
		Example: `  agented message send reviewer "please look at the branch fix-login"
  git diff | agented message send reviewer --type request --subject "a diff" -
  agented message send topic:builds --type status "green again"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("say to whom: agented message send TO [TEXT…]")}
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
				b, err := io.ReadAll(io.LimitReader(os.Stdin, agented.MaxBody+1))
				if err != nil {
					return fmt.Errorf("read standard input: %w", err)
				}
				text = strings.TrimRight(string(b), "\r\n")
			}
			body := map[string]any{"to": args[0], "body": text}
			for flag, field := range map[string]string{"type": "type", "priority": "priority", "subject": "subject", "reply-to": "reply_to", "key": "key"} {
				if v, _ := cmd.Flags().GetString(flag); v != "" {
					body[field] = v
				}
			}
			if ttl, _ := cmd.Flags().GetDuration("ttl"); ttl > 0 {
				body["ttl_seconds"] = max(1, int64(ttl/time.Second))
			}
			if body["key"] == nil {
				body["key"] = agented.NewID("cli", time.Now()) // so that it may be sent again
			}
			patience, _ := cmd.Flags().GetDuration("wait")
			if !cmd.Flags().Changed("wait") && os.Getenv(agented.EnvExecution) != "" {
				patience = time.Minute // the server may be restarting under the execution
			}
			raw, err := sendPatiently(cmd, c, body, patience)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var got struct {
				Message struct {
					ID string `json:"id"`
				} `json:"message"`
				Recipients []string `json:"recipients"`
				Executions []string `json:"execution_ids"`
				Repeated   bool     `json:"repeated"`
			}
			if err := json.Unmarshal(raw, &got); err != nil {
				return err
			}
			fmt.Println(got.Message.ID)
			switch {
			case got.Repeated:
				fmt.Fprintln(os.Stderr, "sent before; nothing was done again")
			case len(got.Recipients) == 0:
				fmt.Fprintln(os.Stderr, "stored, but nobody is on that list")
			default:
				note := "in " + count(len(got.Recipients), "inbox", "inboxes")
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
	f.String("subject", "", "one line")
	f.String("reply-to", "", "id of the message that this answers")
	f.String("key", "", "your own id of it: sent again, it is the same message")
	f.Duration("wait", 0, "how long to try again while the server cannot be reached (default 1m in an execution, else 0s)")
	f.Duration("ttl", 0, "time to live, for example 2h (default: for ever)")
	return cmd
}

// sendPatiently sends a message, again and again while the server is away.
func sendPatiently(cmd *cobra.Command, c *client.Client, body any, patience time.Duration) (raw json.RawMessage, err error) {
	end := time.Now().Add(patience)
	for {
		err = c.Do(cmd.Context(), http.MethodPost, "/api/v1/messages", nil, body, &raw)
		if agented.KindOf(err) != agented.Unavailable || err == nil || time.Now().After(end) {
			return raw, err
		}
		select {
		case <-cmd.Context().Done():
			return nil, cmd.Context().Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// inboxPath is the path of the inbox that --agent names: an agent's, or the
// asker's own.
func inboxPath(cmd *cobra.Command) string {
	if agent, _ := cmd.Flags().GetString("agent"); agent != "" {
		return "/api/v1/agents/" + url.PathEscape(agent) + "/inbox"
	}
	if os.Getenv(agented.EnvExecution) != "" && os.Getenv("AGENTED_API_KEY") != "" {
		return "/api/v1/agents/me/inbox" // the token of an execution
	}
	return "/api/v1/inbox"
}

func messageInbox() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "inbox", Short: "List the messages of an inbox", Args: exactArgs(),
		Example: `  agented message inbox --agent reviewer --unread
  agented message inbox          # in an execution: the agent's own`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if unread, _ := cmd.Flags().GetBool("unread"); unread {
				query.Set("state", "pending,delivered")
			}
			limit, _ := cmd.Flags().GetInt("limit")
			after, _ := cmd.Flags().GetInt64("after")
			all, rows := []json.RawMessage{}, []inboxRow{}
			for limit <= 0 || len(all) < limit {
				query.Set("after", strconv.FormatInt(after, 10))
				query.Set("limit", "200")
				if limit > 0 {
					query.Set("limit", strconv.Itoa(min(200, limit-len(all))))
				}
				var got struct {
					Items []json.RawMessage `json:"items"`
					Next  int64             `json:"next_after"`
				}
				if err := c.Do(cmd.Context(), http.MethodGet, inboxPath(cmd)+"?"+query.Encode(), nil, nil, &got); err != nil {
					return err
				}
				if len(got.Items) == 0 {
					break
				}
				for _, item := range got.Items {
					var row inboxRow
					if err := json.Unmarshal(item, &row); err != nil {
						return err
					}
					all, rows = append(all, item), append(rows, row)
				}
				after = got.Next
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]any{"items": all})
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
				cells[i] = []string{strconv.FormatInt(r.Seq, 10), ago(r.Message.CreatedAt), r.State, r.Message.Type, r.Message.From, r.summary()}
			}
			return table(os.Stdout, "NO SENT STATE TYPE FROM TEXT", cells)
		},
	})
	cmd.Flags().String("agent", "", "whose inbox (id or name); default: your own")
	cmd.Flags().Bool("unread", false, "only what nobody has acknowledged")
	cmd.Flags().Bool("bodies", false, "print the messages whole")
	cmd.Flags().Int64("after", 0, "only those behind this number")
	cmd.Flags().Int("limit", 0, "how many to show (0: all)")
	return cmd
}

func printMessage(w io.Writer, r *inboxRow) {
	m := &r.Message
	head := fmt.Sprintf("[%d] %s from %s", r.Seq, m.Type, m.From)
	if m.Priority != "" && m.Priority != "normal" {
		head += ", priority " + m.Priority
	}
	fmt.Fprintln(w, printable(head+", id "+m.ID))
	if m.Subject != "" {
		fmt.Fprintln(w, "Subject: "+printable(m.Subject))
	}
	for line := range strings.SplitSeq(m.Body, "\n") {
		fmt.Fprintln(w, printable(strings.TrimSuffix(line, "\r")))
	}
	fmt.Fprintln(w)
}

func messageFollow() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "follow", Short: "Print the messages of an inbox as they come", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			after := ""
			if n, _ := cmd.Flags().GetInt64("after"); n >= 0 {
				after = strconv.FormatInt(n, 10)
			}
			path := inboxPath(cmd)
			acknowledge, _ := cmd.Flags().GetBool("ack")
			return c.FollowFeed(cmd.Context(), path+"/stream", after, func(event, _ string, data []byte) error {
				if event != "message" {
					return nil
				}
				var row inboxRow
				if err := json.Unmarshal(data, &row); err != nil {
					return err
				}
				if wantJSON(cmd) {
					if _, err := fmt.Fprintf(os.Stdout, "%s\n", data); err != nil {
						return err
					}
				} else {
					printMessage(os.Stdout, &row)
				}
				if !acknowledge {
					return nil
				}
				return ackOne(cmd, c, path, row.Seq)
			}, func(err error) { fmt.Fprintf(os.Stderr, "reconnecting (%v)\n", err) })
		},
	})
	cmd.Flags().String("agent", "", "whose inbox (id or name); default: your own")
	cmd.Flags().Int64("after", -1, "begin behind this number (-1: with the first that is not read)")
	cmd.Flags().Bool("ack", false, "acknowledge each message once it is printed")
	return cmd
}

func ackOne(cmd *cobra.Command, c *client.Client, path string, seq int64) error {
	err := c.Do(cmd.Context(), http.MethodPost, path+"/"+strconv.FormatInt(seq, 10)+"/ack", nil, nil, nil)
	if agented.KindOf(err) == agented.Conflict {
		return nil // it expired meanwhile
	}
	return err
}

func messageAck() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "ack NO…", Short: "Acknowledge messages: they have been read",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("say which: the numbers that `agented message inbox` shows")}
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
					return usageError{fmt.Errorf("%q is not the number of a message", a)}
				}
				path := inboxPath(cmd) + "/" + strconv.FormatInt(n, 10) + "/ack"
				if err := c.Do(cmd.Context(), http.MethodPost, path, nil, nil, nil); err != nil {
					return err
				}
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]any{"acknowledged": args})
			}
			return nil
		},
	})
	cmd.Flags().String("agent", "", "whose inbox (id or name); default: your own")
	return cmd
}

func messageSubscribe() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "subscribe LIST MEMBER", Short: "Put an inbox on a topic or into a group",
		Example: `  agented message subscribe topic:builds reviewer
  agented message subscribe group:team user:ann`,
		Args: exactArgs("topic:NAME or group:NAME", "the agent or user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeMember(cmd, http.MethodPost, "/api/v1/members", map[string]string{"list": args[0], "member": args[1]}, "subscribed")
		},
	})
}

func messageUnsubscribe() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "unsubscribe LIST MEMBER", Short: "Take an inbox off a topic or out of a group",
		Args: exactArgs("topic:NAME or group:NAME", "the agent or user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/api/v1/members?" + url.Values{"list": {args[0]}, "member": {args[1]}}.Encode()
			return changeMember(cmd, http.MethodDelete, path, nil, "unsubscribed")
		},
	})
}

func changeMember(cmd *cobra.Command, method, path string, body any, done string) error {
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	if err := c.Do(cmd.Context(), method, path, nil, body, nil); err != nil {
		return err
	}
	if wantJSON(cmd) {
		return printJSON(os.Stdout, map[string]bool{done: true})
	}
	fmt.Fprintln(os.Stderr, done)
	return nil
}
