package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
	"github.com/agented/agented/internal/webhook"
)

func deliveryCommand() *cobra.Command {
	return group("delivery", "List, show and replay webhook deliveries", deliveryList(), deliveryShow(), deliveryReplay())
}

// deliveryEvent returns the event of a delivery, with its action.
func deliveryEvent(d *client.Delivery) string {
	if d.Action == "" {
		return d.Event
	}
	return d.Event + "." + d.Action
}

func deliveryList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List webhook deliveries and their results", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var q client.DeliveryQuery
			if q.TriggerID, err = triggerFlag(cmd, c); err != nil {
				return err
			}
			q.Verdict, _ = cmd.Flags().GetString("verdict")
			q.Event, _ = cmd.Flags().GetString("event")
			q.Endpoint, _ = cmd.Flags().GetString("endpoint")
			limit, _ := cmd.Flags().GetInt("limit")
			if limit < 1 {
				return usageError{errors.New("--limit must be at least 1")}
			}
			return showList(cmd, c.Deliveries(cmd.Context(), q, limit), listing{
				header: "ID RECEIVED EVENT VERDICT FIRED-OR-WHY-NOT", empty: "There are no deliveries.",
			}, func(d *client.Delivery) []string {
				what := d.Reason
				if len(d.Executions) > 0 {
					what = strings.Join(d.Executions, " ")
				}
				return []string{d.ID, term.Ago(d.ReceivedAt), deliveryEvent(d), d.Verdict, what}
			})
		},
	})
	cmd.Flags().String("trigger", "", "only deliveries that this trigger's webhooks checked (id or name)")
	cmd.Flags().String("verdict", "", "only accepted, ignored, duplicate or rejected deliveries")
	cmd.Flags().String("event", "", "only deliveries of this event, for example push")
	cmd.Flags().String("endpoint", "", "only deliveries to this endpoint: github, any, or a trigger's id")
	cmd.Flags().Int("limit", 50, "maximum number of deliveries")
	return cmd
}

func deliveryShow() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "show DELIVERY", Short: "Show a webhook delivery, and why it fired or did not fire", Args: exactArgs("the delivery's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			got, err := c.Delivery(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			d := &got.Value
			if only, _ := cmd.Flags().GetBool("body"); only {
				if d.Body == nil {
					return agented.Errorf(agented.NotFound, "the body of %s was not stored", d.ID)
				}
				if d.Encoding != "text" || d.Truncated {
					return agented.Errorf(agented.Invalid, "the body is not text or is too long to be printed: use --json")
				}
				_, err := io.WriteString(os.Stdout, *d.Body)
				return err
			}
			printDelivery(os.Stdout, d)
			return nil
		},
	})
	cmd.Flags().Bool("body", false, "print only the body")
	return cmd
}

func printDelivery(w io.Writer, d *client.Delivery) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name, term.Indented(value, 11))
		}
	}
	line("id", d.ID)
	line("endpoint", d.Endpoint)
	if d.ReceivedAt != nil {
		line("received", d.ReceivedAt.UTC().Format(time.RFC3339)+" from "+d.Address)
	}
	line("event", deliveryEvent(d))
	line("verdict", d.Verdict)
	line("reason", d.Reason)
	line("replay of", d.ReplayOf)
	for _, t := range d.Triggers {
		text := t.Reason
		if t.Fired {
			text = strings.TrimSpace("fired " + t.Execution + " " + t.Reason)
		}
		line("trigger", t.Name+": "+text)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		line("header", name+": "+d.Headers[name])
	}
	if d.Body != nil {
		fmt.Fprintln(w, "body       see --body")
	}
}

func deliveryReplay() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "replay DELIVERY", Short: "Evaluate a stored delivery against the current webhooks, and fire the triggers that match", Args: exactArgs("the delivery's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			answer, err := c.ReplayDelivery(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, answer)
			}
			got := answer.Value
			if len(got.Executions) == 0 {
				fmt.Fprintf(os.Stderr, "%s: %s (%s)\n", got.ID, got.Verdict, term.Indented(got.Reason, 0))
				return nil
			}
			fmt.Println(strings.Join(got.Executions, "\n"))
			return nil
		},
	})
}

func triggerMatch() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "match", Short: "Show which triggers a webhook body would fire, and why; fires nothing", Args: exactArgs(),
		Long: `Evaluate an event, whose body is read from standard input, against the webhooks of
all triggers. Nothing is verified, stored or fired. With --event the body is one of
GitHub or Bitbucket; without it, of any other sender. GitLab events are recognised
by their body. The exit code is 1 if no trigger would fire.`,
		Example: `  agented trigger match --event pull_request < body.json
  agented trigger match --header 'X-Gitea-Event: pull_request' < body.json
  agented delivery show DELIVERY --body | agented trigger match --event push --trigger review`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := term.ReadStdin(cmd.Context(), "the body", webhook.MaxBody)
			if err != nil {
				return err
			}
			if !json.Valid(body) {
				// A form or plain text: the server parses it according to its Content-Type.
				if given, _ := cmd.Flags().GetStringArray("header"); !utf8.Valid(body) || !slices.ContainsFunc(given, isContentType) {
					return agented.Errorf(agented.Invalid, "standard input is not JSON: give the JSON body of a delivery, or name the format with --header 'Content-Type: …'")
				}
				body, _ = json.Marshal(string(body))
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			in := client.MatchRequest{Body: body}
			in.Event, _ = cmd.Flags().GetString("event")
			headers := map[string]string{}
			given, _ := cmd.Flags().GetStringArray("header")
			for _, line := range given {
				name, value, ok := strings.Cut(line, ":")
				if !ok {
					return usageError{fmt.Errorf("--header %q must have the form NAME: VALUE", line)}
				}
				headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
			in.Headers = headers
			if in.TriggerID, err = triggerFlag(cmd, c); err != nil {
				return err
			}
			got, err := c.MatchWebhook(cmd.Context(), in)
			if err != nil {
				return err
			}
			fires, rows := false, [][]string{}
			for _, m := range got.Value.Items {
				fires = fires || m.Fires
				rows = append(rows, []string{m.Name, map[bool]string{true: "yes", false: "no"}[m.Fires], m.Rule, m.Reason})
			}
			switch {
			case wantJSON(cmd):
				err = term.PrintJSON(os.Stdout, got)
			case len(rows) == 0:
				fmt.Fprintln(os.Stderr, "No trigger has a webhook for such deliveries.")
			default:
				err = term.Table(os.Stdout, "TRIGGER FIRES RULE REASON", rows)
			}
			if err == nil && !fires {
				err = exitError(exitFailed)
			}
			return err
		},
	})
	cmd.Flags().String("event", "", "event name of GitHub, for example pull_request, or of Bitbucket, for example repo:push")
	cmd.Flags().StringArray("header", nil, "header of the delivery as NAME: VALUE; may be repeated")
	cmd.Flags().String("trigger", "", "only this trigger (id or name)")
	return cmd
}

func isContentType(line string) bool {
	name, _, _ := strings.Cut(line, ":")
	return strings.EqualFold(strings.TrimSpace(name), "Content-Type")
}
