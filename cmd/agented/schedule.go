package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
)

func scheduleCommand() *cobra.Command {
	return group("schedule", "Preview and list schedules", schedulePreview(), scheduleList())
}

func tickCommand() *cobra.Command {
	return group("tick", "Show what was done about the due times of schedules", tickList())
}

// maxPreview bounds the runs that a preview lists.
const maxPreview = 50

func schedulePreview() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "preview SCHEDULE", Short: "Show when a schedule would be due, without a server", Args: exactArgs("the schedule"),
		Long: `Show when a schedule would be due. Days on which the clock of the zone changes
are marked, with what that means for the run. No server is asked.`,
		Example: `  agented schedule preview "30 2 * * *" --zone Europe/Berlin
  agented schedule preview "every 90m"
  agented schedule preview @weekly -n 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, _ := cmd.Flags().GetInt("count")
			if n < 1 || n > maxPreview {
				return usageError{fmt.Errorf("--count must be from 1 to %d", maxPreview)}
			}
			zone := time.Local
			if name, _ := cmd.Flags().GetString("zone"); name != "" {
				var err error
				if zone, err = cron.LoadZone(name); err != nil {
					return agented.Errorf(agented.Invalid, "--zone: %s", agented.Message(err))
				}
			}
			after := time.Now()
			if text, _ := cmd.Flags().GetString("after"); text != "" {
				var err error
				if after, err = time.Parse(time.RFC3339, text); err != nil {
					return usageError{errors.New("--after must be a time such as 2030-01-31T09:00:00Z")}
				}
			}
			s, err := cron.Parse(args[0])
			if err != nil {
				return err
			}
			s = s.Anchored(after.Truncate(time.Second))
			return printPreview(cmd, s, s.Preview(after, n, zone), zone)
		},
	})
	cmd.Flags().String("zone", "", "IANA name of the time zone (default: this machine's)")
	cmd.Flags().IntP("count", "n", 10, "how many runs to show, at most 50")
	cmd.Flags().String("after", "", "show runs after this time (default: now)")
	return cmd
}

func printPreview(cmd *cobra.Command, s cron.Schedule, runs []cron.Run, zone *time.Location) error {
	type change struct {
		At   time.Time `json:"at"`
		Text string    `json:"text"`
	}
	type run struct {
		DueAt  time.Time `json:"due_at"`
		Local  string    `json:"local"`
		Change *change   `json:"clock_change,omitempty"`
	}
	list := make([]run, len(runs))
	rows := make([][]string, len(runs))
	for i, r := range runs {
		list[i] = run{DueAt: r.At.UTC(), Local: r.At.Format(time.RFC3339)}
		rows[i] = []string{r.At.Format("Mon 2006-01-02 15:04:05 -07:00"), r.At.UTC().Format("2006-01-02 15:04:05"), ""}
		if r.Clock != nil {
			list[i].Change = &change{r.Clock.At.UTC(), r.Clock.Text}
			rows[i][2] = "! " + r.Clock.Text
		}
	}
	if wantJSON(cmd) {
		return printJSON(os.Stdout, map[string]any{"schedule": s.String(), "description": s.Describe(), "zone": zone.String(), "runs": list})
	}
	fmt.Printf("%s (%s)\n", s.Describe(), zone)
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, "It is never due again.")
		return nil
	}
	return table(os.Stdout, "LOCAL UTC NOTE", rows)
}

// scheduleRow is what lists show of a schedule.
type scheduleRow struct {
	ID             string     `json:"id"`
	Cron           string     `json:"cron"`
	Every          string     `json:"every"`
	At             *time.Time `json:"at"`
	Zone           string     `json:"zone"`
	Enabled        bool       `json:"enabled"`
	TriggerName    string     `json:"trigger_name"`
	TriggerEnabled bool       `json:"trigger_enabled"`
	NextRunAt      *time.Time `json:"next_run_at"`
}

func (s *scheduleRow) text() string {
	switch {
	case s.Every != "":
		return "every " + s.Every
	case s.At != nil:
		return "once " + s.At.UTC().Format(time.RFC3339)
	}
	return s.Cron
}

func (s *scheduleRow) next() string {
	switch {
	case !s.TriggerEnabled:
		return "trigger disabled"
	case !s.Enabled:
		return "disabled"
	case s.NextRunAt == nil:
		return "over"
	}
	return s.NextRunAt.UTC().Format("2006-01-02 15:04:05")
}

func scheduleList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List the schedules of all triggers", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if err := ofTrigger(cmd, c, query); err != nil {
				return err
			}
			return showList(cmd, c, listing{
				path: "/api/v1/schedules", query: query, header: "ID TRIGGER SCHEDULE ZONE NEXT-RUN-UTC",
				empty: "There are no schedules yet. Give a trigger some under `schedules:`.",
			}, func(s *scheduleRow) []string {
				zone := s.Zone
				if zone == "" {
					zone = "server"
				}
				return []string{s.ID, s.TriggerName, s.text(), zone, s.next()}
			})
		},
	})
	cmd.Flags().String("trigger", "", "only those of this trigger (id or name)")
	return cmd
}

// tickRow is what the list shows of a tick.
type tickRow struct {
	Schedule  string    `json:"schedule_id"`
	DueAt     time.Time `json:"due_at"`
	Outcome   string    `json:"outcome"`
	Execution *string   `json:"execution_id"`
	Reason    string    `json:"reason"`
}

func tickList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List ticks: what was done about each due time", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if err := ofTrigger(cmd, c, query); err != nil {
				return err
			}
			for flag, name := range map[string]string{"schedule": "schedule_id", "outcome": "outcome"} {
				if v, _ := cmd.Flags().GetString(flag); v != "" {
					query.Set(name, v)
				}
			}
			limit, _ := cmd.Flags().GetInt("limit")
			if limit < 1 {
				return usageError{errors.New("--limit must be at least 1")}
			}
			query.Set("limit", strconv.Itoa(min(limit, 200)))
			return showList(cmd, c, listing{
				path: "/api/v1/ticks", query: query, limit: limit,
				header: "DUE-UTC OUTCOME SCHEDULE EXECUTION REASON", empty: "There are no ticks yet.",
			}, func(k *tickRow) []string {
				execution := "-"
				if k.Execution != nil {
					execution = *k.Execution
				}
				return []string{k.DueAt.UTC().Format("2006-01-02 15:04:05"), k.Outcome, k.Schedule, execution, k.Reason}
			})
		},
	})
	cmd.Flags().String("trigger", "", "only those of this trigger (id or name)")
	cmd.Flags().String("schedule", "", "only those of this schedule")
	cmd.Flags().String("outcome", "", "only fired, late, coalesced, skipped or missed")
	cmd.Flags().Int("limit", 50, "how many to show")
	return cmd
}

// oldScheduleFields are those in which the Python product kept a schedule.
var oldScheduleFields = []string{"schedule_type", "schedule_time", "schedule_day", "schedule_timezone", "cron_expression"}

// modernSchedules rewrites the schedules of a trigger's file to what the server
// takes, and returns a sentence for each that was written in an old form.
func modernSchedules(body map[string]any) (notes []string, err error) {
	var list []any
	switch v := body["schedules"].(type) {
	case nil:
	case []any:
		list = v
	default:
		return nil, agented.Errorf(agented.Invalid, "schedules must be a list")
	}
	if hasOld(body) {
		if body["schedules"] != nil {
			return nil, agented.Errorf(agented.Invalid, "schedules and the old fields (%s) are both given: keep one of them", strings.Join(oldScheduleFields, ", "))
		}
		item := map[string]any{}
		for _, f := range oldScheduleFields {
			if v, ok := body[f]; ok {
				item[f] = v
				delete(body, f)
			}
		}
		list = []any{item}
		body["schedules"] = list
	}
	for i, item := range list {
		s, ok := item.(map[string]any)
		if !ok {
			continue // the server says what is wrong with it
		}
		for _, own := range []string{"description", "next_due_at", "next_run_at"} {
			delete(s, own) // so that what `trigger show` printed can be applied
		}
		if !hasOld(s) {
			continue
		}
		note, err := modernSchedule(s)
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "schedules.%d: %s", i, agented.Message(err))
		}
		if note != "" {
			notes = append(notes, note)
		}
	}
	return notes, nil
}

func hasOld(body map[string]any) bool {
	for _, f := range oldScheduleFields {
		if v, ok := body[f]; ok && v != nil {
			return true
		}
	}
	return false
}

// modernSchedule rewrites one schedule in place.
func modernSchedule(s map[string]any) (note string, err error) {
	text := func(name string) string { v, _ := s[name].(string); return v }
	old := cron.Old{Type: text("schedule_type"), Time: text("schedule_time"), Cron: text("cron_expression")}
	switch day := s["schedule_day"].(type) {
	case nil:
	case float64:
		if day != float64(int(day)) {
			return "", agented.Errorf(agented.Invalid, "schedule_day: must be a whole number")
		}
		old.Day = int(day)
	default:
		return "", agented.Errorf(agented.Invalid, "schedule_day: must be a number")
	}
	spec, note, err := old.Rewrite()
	if err != nil {
		return "", err
	}
	if zone := text("schedule_timezone"); zone != "" {
		s["zone"] = zone
	}
	for _, f := range oldScheduleFields {
		delete(s, f)
	}
	s["cron"] = spec
	return note, nil
}

// sameSchedules reports whether the server's list is what a file asks for:
// fields that the file leaves out have their defaults, and ids and anchors that
// it does not name may be any.
func sameSchedules(have, wanted any) bool {
	read := func(v any) ([]agented.Schedule, bool) {
		items, ok := v.([]any)
		if v != nil && !ok {
			return nil, false
		}
		out := make([]agented.Schedule, len(items))
		for i, item := range items {
			out[i] = agented.Schedule{Enabled: true, WindowSeconds: agented.DefaultWindowSeconds}
			enc, err := json.Marshal(item)
			if err != nil || json.Unmarshal(enc, &out[i]) != nil {
				return nil, false // a time on the zone's clock; the server compares
			}
			s := out[i].WithDefaults()
			s.Cron = strings.Join(strings.Fields(s.Cron), " ")
			out[i] = s
		}
		return out, true
	}
	a, okA := read(have)
	b, okB := read(wanted)
	if !okA || !okB || len(a) != len(b) {
		return false
	}
	for i := range a {
		if b[i].ID != "" && b[i].ID != a[i].ID || !a[i].Same(b[i]) {
			return false
		}
	}
	return true
}
