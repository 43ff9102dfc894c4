package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

func deliveryCommand() *cobra.Command {
	return group("delivery", "List, show and replay calls from outside", deliveryList(), deliveryShow(), deliveryReplay())
}

// deliveryRow is what people see of a delivery.
type deliveryRow struct {
	ID         string     `json:"id"`
	Endpoint   string     `json:"endpoint"`
	ReceivedAt *time.Time `json:"received_at"`
	Address    string     `json:"address"`
	Event      string     `json:"event"`
	Action     string     `json:"action"`
	Verdict    string     `json:"verdict"`
	Reason     string     `json:"reason"`
	ReplayOf   string     `json:"replay_of"`
	Executions []string   `json:"execution_ids"`
	Triggers   []struct {
		Name      string `json:"trigger_name"`
		Fired     bool   `json:"fired"`
		Reason    string `json:"reason"`
		Execution string `json:"execution_id"`
	} `json:"triggers"`
	Headers  map[string]string `json:"headers"`
	Body     *string           `json:"body"`
	Encoding string            `json:"body_encoding"`
	Cut      bool              `json:"body_cut"`
}

func (d *deliveryRow) what() string {
	if d.Action == "" {
		return d.Event
	}
	return d.Event + "." + d.Action
}

func deliveryList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List calls from outside and what became of them", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if err := ofTrigger(cmd, c, query); err != nil {
				return err
			}
			for _, name := range []string{"verdict", "event", "endpoint"} {
				if v, _ := cmd.Flags().GetString(name); v != "" {
					query.Set(name, v)
				}
			}
			limit, _ := cmd.Flags().GetInt("limit")
			if limit < 1 {
				return usageError{errors.New("--limit must be at least 1")}
			}
			return showList(cmd, c, listing{
				path: "/api/v1/deliveries", query: query, limit: limit,
				header: "ID RECEIVED EVENT VERDICT FIRED-OR-WHY-NOT", empty: "There are no deliveries.",
			}, func(d *deliveryRow) []string {
				what := d.Reason
				if len(d.Executions) > 0 {
					what = strings.Join(d.Executions, " ")
				}
				return []string{d.ID, ago(d.ReceivedAt), d.what(), d.Verdict, what}
			})
		},
	})
	cmd.Flags().String("trigger", "", "only those that could have fired this trigger (id or name)")
	cmd.Flags().String("verdict", "", "only accepted, ignored, duplicate or rejected")
	cmd.Flags().String("event", "", "only this event, for example push")
	cmd.Flags().String("endpoint", "", "only those at github, any, or a trigger's id")
	cmd.Flags().Int("limit", 50, "how many to show")
	return cmd
}

func deliveryShow() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "show DELIVERY", Short: "Show a call from outside, and why it fired or not", Args: exactArgs("the delivery's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodGet, "/api/v1/deliveries/"+url.PathEscape(args[0]), nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var d deliveryRow
			if err := json.Unmarshal(raw, &d); err != nil {
				return err
			}
			if only, _ := cmd.Flags().GetBool("body"); only {
				if d.Body == nil {
					return agented.Errorf(agented.NotFound, "the body of %s is not kept", d.ID)
				}
				if d.Encoding != "text" || d.Cut {
					return agented.Errorf(agented.Invalid, "the body is not text, or too long to be shown whole: use --json")
				}
				_, err := io.WriteString(os.Stdout, *d.Body)
				return err
			}
			printDelivery(os.Stdout, &d)
			return nil
		},
	})
	cmd.Flags().Bool("body", false, "print the body and nothing else")
	return cmd
}

func printDelivery(w io.Writer, d *deliveryRow) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name, printable(value))
		}
	}
	line("id", d.ID)
	line("endpoint", d.Endpoint)
	if d.ReceivedAt != nil {
		line("received", d.ReceivedAt.UTC().Format(time.RFC3339)+" from "+d.Address)
	}
	line("event", d.what())
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
		Use: "replay DELIVERY", Short: "Ask today's rules about a delivery, and fire what they say", Args: exactArgs("the delivery's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/deliveries/"+url.PathEscape(args[0])+"/replay", nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var got struct {
				ID         string   `json:"delivery_id"`
				Verdict    string   `json:"verdict"`
				Reason     string   `json:"reason"`
				Executions []string `json:"execution_ids"`
			}
			if err := json.Unmarshal(raw, &got); err != nil {
				return err
			}
			if len(got.Executions) == 0 {
				fmt.Fprintf(os.Stderr, "%s: %s (%s)\n", got.ID, got.Verdict, printable(got.Reason))
				return nil
			}
			fmt.Println(strings.Join(got.Executions, "\n"))
			return nil
		},
	})
}

func triggerMatch() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "match", Short: "Show which triggers a webhook's body would fire, and why not; fires nothing", Args: exactArgs(),
		Long: `Ask the webhooks of all triggers about an event whose body is on standard
input. Nothing is verified, stored or fired. With --event the body is GitHub's;
without, that of any other call. Exits 1 when no trigger would fire.`,
		Example: `  agented trigger match --event pull_request < body.json
  agented delivery show DELIVERY --body | agented trigger match --event push --trigger review`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := io.ReadAll(io.LimitReader(os.Stdin, webhook.MaxBody+1))
			if err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
			if !json.Valid(body) {
				return agented.Errorf(agented.Invalid, "standard input is not JSON: give the body of a call")
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			in := map[string]any{"body": json.RawMessage(body)}
			if event, _ := cmd.Flags().GetString("event"); event != "" {
				in["event"] = event
			}
			if ref, _ := cmd.Flags().GetString("trigger"); ref != "" {
				_, t, err := findTrigger(cmd.Context(), c, ref)
				if err != nil {
					return err
				}
				in["trigger_id"] = t.ID
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/webhooks/match", nil, in, &raw); err != nil {
				return err
			}
			var got struct {
				Items []struct {
					Name   string `json:"trigger_name"`
					Fires  bool   `json:"fires"`
					Rule   string `json:"rule"`
					Reason string `json:"reason"`
				} `json:"items"`
			}
			if err := json.Unmarshal(raw, &got); err != nil {
				return err
			}
			fires, rows := false, [][]string{}
			for _, m := range got.Items {
				fires = fires || m.Fires
				rows = append(rows, []string{m.Name, map[bool]string{true: "yes", false: "no"}[m.Fires], m.Rule, m.Reason})
			}
			switch {
			case wantJSON(cmd):
				err = printJSON(os.Stdout, raw)
			case len(rows) == 0:
				fmt.Fprintln(os.Stderr, "No trigger takes such calls.")
			default:
				err = table(os.Stdout, "TRIGGER FIRES RULE REASON", rows)
			}
			if err == nil && !fires {
				err = exitError(exitFailed)
			}
			return err
		},
	})
	cmd.Flags().String("event", "", "GitHub's name of the event, for example pull_request")
	cmd.Flags().String("trigger", "", "only this trigger (id or name)")
	return cmd
}

// oldWebhookFields are those by which a trigger of the Python product said
// which calls fire it.
var oldWebhookFields = []string{"match_field_path", "match_field_value", "text_field_path", "detection_keyword", "webhook_secret"}

// modernWebhooks rewrites what a trigger's file says in the old form about
// webhooks, and returns a sentence for each thing that was rewritten.
func modernWebhooks(body map[string]any) (notes []string, err error) {
	source, _ := body["trigger_source"].(string)
	old := source == "webhook" || source == "github"
	text := map[string]string{}
	for _, f := range oldWebhookFields {
		v, is := body[f]
		if !is {
			continue
		}
		old = true
		s, ok := v.(string)
		if v != nil && !ok {
			s = strings.TrimSuffix(fmt.Sprintf("%v", v), ".0")
		}
		text[f] = s
		delete(body, f)
	}
	if !old {
		if source == "manual" || source == "scheduled" {
			delete(body, "trigger_source")
		}
		return nil, nil
	}
	delete(body, "trigger_source")
	if body["webhooks"] != nil {
		return nil, agented.Errorf(agented.Invalid, "webhooks and the old fields (trigger_source, %s) are both given: keep one of them", strings.Join(oldWebhookFields, ", "))
	}
	if source == "" {
		source = "webhook"
	}
	match, notes, err := webhook.FromOldRules(webhook.OldRules{
		Source: source, MatchFieldPath: text["match_field_path"], MatchFieldValue: text["match_field_value"],
		TextFieldPath: text["text_field_path"], DetectionKeyword: text["detection_keyword"],
	})
	if err != nil {
		return nil, err
	}
	item := map[string]any{"source": source, "match": match}
	if source == "webhook" {
		item["auth"] = map[string]any{"kind": "hmac"}
		notes = append(notes, "calls need a signature in X-Webhook-Signature-256 now; they go to the trigger's own address, and to / as before")
	}
	if s := text["webhook_secret"]; s != "" {
		item["secret"] = s
	}
	// Through JSON, so that it compares with the server's answer.
	enc, err := json.Marshal([]any{item})
	if err != nil {
		return nil, err
	}
	var list any
	if err := json.Unmarshal(enc, &list); err != nil {
		return nil, err
	}
	body["webhooks"] = list
	return notes, nil
}

// sameWebhooks reports whether a file asks for the webhooks that are there.
// Secrets are hidden by the server: one that a file gives may be another.
func sameWebhooks(have, wanted any) bool {
	read := func(v any) (out []map[string]any, ok bool) {
		items, ok := v.([]any)
		if v != nil && !ok {
			return nil, false
		}
		for _, item := range items {
			m, ok := item.(map[string]any)
			if !ok {
				return nil, false
			}
			full := map[string]any{"enabled": true, "supersede": false, "match": map[string]any{}, "auth": map[string]any{"kind": "github"}}
			maps.Copy(full, m)
			if s, is := full["secret"]; !is || s == "" {
				full["secret"] = "***"
			}
			delete(full, "id")
			out = append(out, full)
		}
		return out, true
	}
	a, okA := read(have)
	b, okB := read(wanted)
	return okA && okB && reflect.DeepEqual(a, b)
}

// shownWebhooks is a list of webhooks as a diff may print it.
func shownWebhooks(v any) string {
	items, _ := v.([]any)
	return strconv.Itoa(len(items)) + " (secrets are hidden)"
}
