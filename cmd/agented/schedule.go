package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/term"
)

func scheduleCommand() *cobra.Command {
	return group("schedule", "Preview and list schedules", schedulePreview(), scheduleList())
}

func tickCommand() *cobra.Command {
	return group("tick", "Show the recorded due times of schedules", tickList())
}

// maxPreview is the maximum number of times in a preview.
const maxPreview = 50

func schedulePreview() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "preview SCHEDULE", Short: "Show when a schedule is due, without a server", Args: exactArgs("the schedule"),
		Long: `Show when a schedule is due. The output marks days on which daylight saving time
starts or ends, and how that affects the run. No server is needed.`,
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
	cmd.Flags().IntP("count", "n", 10, "number of runs to show, at most 50")
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
		return term.PrintJSON(os.Stdout, map[string]any{"schedule": s.String(), "description": s.Describe(), "zone": zone.String(), "runs": list})
	}
	fmt.Printf("%s (%s)\n", s.Describe(), zone)
	if len(rows) == 0 {
		fmt.Fprintln(os.Stderr, "The schedule is never due again.")
		return nil
	}
	return term.Table(os.Stdout, "LOCAL UTC NOTE", rows)
}

// scheduleText formats when a schedule is due.
func scheduleText(s *client.Schedule) string {
	switch {
	case s.Every != "":
		return "every " + s.Every
	case s.At != nil:
		return "once " + s.At.UTC().Format(time.RFC3339)
	}
	return s.Cron
}

// scheduleNext formats when a schedule is due next.
func scheduleNext(s *client.Schedule) string {
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
			trigger, err := triggerFlag(cmd, c)
			if err != nil {
				return err
			}
			return showList(cmd, c.Schedules(cmd.Context(), trigger, 0), listing{
				header: "ID TRIGGER SCHEDULE ZONE NEXT-RUN-UTC",
				empty:  "There are no schedules yet. Add `schedules:` to a trigger.",
			}, func(s *client.Schedule) []string {
				zone := s.Zone
				if zone == "" {
					zone = "server"
				}
				return []string{s.ID, s.TriggerName, scheduleText(s), zone, scheduleNext(s)}
			})
		},
	})
	cmd.Flags().String("trigger", "", "only schedules of this trigger (id or name)")
	return cmd
}

func tickList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List ticks: the recorded result of each due time", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var q client.TickQuery
			if q.TriggerID, err = triggerFlag(cmd, c); err != nil {
				return err
			}
			q.ScheduleID, _ = cmd.Flags().GetString("schedule")
			q.Outcome, _ = cmd.Flags().GetString("outcome")
			limit, _ := cmd.Flags().GetInt("limit")
			if limit < 1 {
				return usageError{errors.New("--limit must be at least 1")}
			}
			return showList(cmd, c.Ticks(cmd.Context(), q, limit), listing{
				header: "DUE-UTC OUTCOME SCHEDULE EXECUTION REASON", empty: "There are no ticks yet.",
			}, func(k *client.Tick) []string {
				execution := "-"
				if k.Execution != nil {
					execution = *k.Execution
				}
				return []string{k.DueAt.UTC().Format("2006-01-02 15:04:05"), k.Outcome, k.Schedule, execution, k.Reason}
			})
		},
	})
	cmd.Flags().String("trigger", "", "only ticks of this trigger (id or name)")
	cmd.Flags().String("schedule", "", "only ticks of this schedule (id)")
	cmd.Flags().String("outcome", "", "only fired, late, coalesced, skipped or missed ticks")
	cmd.Flags().Int("limit", 50, "maximum number of ticks")
	return cmd
}
