package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/discovery"
	"github.com/agented/agented/internal/doctor"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

func doctorCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "doctor", Short: "Diagnose problems of the installation and print how to fix them", Args: exactArgs(),
		GroupID: "server",
		Long: `Check the agent CLIs, the settings, the data folder, the database, the server and
the machine, and print every problem with its fix. Nothing is changed, and a running
server is not affected: its database is not opened.

Each finding has an explanation and a fix. With --json it also has an id that stays
the same across versions. The exit code is 1 if a check failed, otherwise 0. A
missing agent CLI is only a warning, because the backend "command" works without one.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := doctor.Check(cmd.Context(), examined(cmd))
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			var err error
			if wantJSON(cmd) {
				err = term.PrintJSON(os.Stdout, map[string]any{"ok": !doctor.Failed(findings), "findings": findings})
			} else {
				err = showFindings(os.Stdout, findings)
			}
			if err != nil {
				return err
			}
			if doctor.Failed(findings) {
				return exitError(exitFailed)
			}
			return nil
		},
	})
	return cmd
}

// examined collects the inputs of the doctor. Settings that a server would reject are a finding;
// the settings of client commands then locate the data folder.
func examined(cmd *cobra.Command) doctor.Options {
	var o doctor.Options
	o.Config, o.ConfigErr = serverConfig(cmd)
	if o.ConfigErr != nil {
		o.Config, _ = clientConfig(cmd) // if nil, the doctor checks the machine only
		return o
	}
	c := o.Config
	o.Server = func(ctx context.Context) (string, error) { return queryServer(ctx, c) }
	o.Listens = func() string { return listensAt(c) }
	o.States = func(ctx context.Context, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
		return queryStates(ctx, c, ids)
	}
	o.FailedRemovals = func(ctx context.Context) (map[string]string, error) { return queryFailedRemovals(ctx, c) }
	o.Accounts = func(ctx context.Context) ([]agented.Account, error) { return queryAccounts(ctx, c) }
	o.Models = func(ctx context.Context) ([]doctor.ModelUse, error) { return queryModels(ctx, c) }
	o.Sandbox = func(ctx context.Context) (doctor.SandboxState, error) { return querySandbox(ctx, c) }
	o.Pulls = func(ctx context.Context) ([]doctor.PullSource, error) { return queryPulls(ctx, c) }
	o.Hints = func(ctx context.Context) ([]doctor.TriggerHint, error) { return queryHints(ctx, c) }
	return o
}

// queryServer checks that the server is ready and accepts the API key of this machine.
func queryServer(ctx context.Context, c *config.Config) (address string, err error) {
	f, err := discovery.Find(c)
	address = discovery.Redacted(f.Address)
	if err != nil {
		return address, err
	}
	client, err := dial(c)
	if err != nil {
		return address, err
	}
	if err := client.Ready(ctx); err != nil {
		return address, err
	}
	return address, client.Me(ctx)
}

// listensAt returns the listen address that the server recorded for its clients; it is empty if
// commands use another server.
func listensAt(c *config.Config) string {
	f, err := discovery.Find(c)
	rt, rtErr := discovery.FindRuntime(c)
	if err != nil || rtErr != nil || f.Address != rt.Address && !discovery.SameServer(f.Address, rt.Address) {
		return ""
	}
	return rt.Listens
}

// queryStates fetches the statuses of executions from the server.
func queryStates(ctx context.Context, c *config.Config, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	out := map[agented.ExecutionID]agented.State{}
	for _, id := range ids {
		switch e, err := client.Execution(ctx, string(id)); {
		case errors.Is(err, agented.NotFound):
		case err != nil:
			return nil, err
		default:
			out[id] = agented.State(e.Value.Status)
		}
	}
	return out, nil
}

// queryFailedRemovals fetches the folders that retention could not remove.
func queryFailedRemovals(ctx context.Context, c *config.Config) (map[string]string, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	got, err := client.Retention(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, i := range got.Value.FailedRemovals.Items {
		out[i.ID] = i.Error
	}
	return out, nil
}

// queryPulls fetches the webhooks whose missed deliveries the server fetches.
func queryPulls(ctx context.Context, c *config.Config) ([]doctor.PullSource, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	list, err := client.PullSources(ctx)
	var out []doctor.PullSource
	for _, s := range list {
		p := doctor.PullSource{Name: s.Name, Problem: s.Problem}
		if s.LastSuccessAt != nil {
			p.Success = *s.LastSuccessAt
		}
		out = append(out, p)
	}
	return out, err
}

// queryAccounts fetches the accounts from the server.
func queryAccounts(ctx context.Context, c *config.Config) ([]agented.Account, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	var out []agented.Account
	for row, err := range client.Accounts(ctx, 0) {
		if err != nil {
			return nil, err
		}
		i := row.Value
		a := agented.Account{ID: agented.AccountID(i.ID), Backend: i.Backend, Name: i.Name, Enabled: i.Enabled, State: i.State, Evidence: i.Evidence, Hint: i.Hint, Fix: i.Fix, Default: i.Default}
		if i.Until != nil {
			a.Until = *i.Until
		}
		out = append(out, a)
	}
	return out, nil
}

// queryModels fetches the usage of models in the last 30 days from the server.
func queryModels(ctx context.Context, c *config.Config) ([]doctor.ModelUse, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	got, err := client.Usage(ctx, "model", time.Now().AddDate(0, 0, -30))
	if err != nil {
		return nil, err
	}
	var out []doctor.ModelUse
	for _, i := range got.Value.Items {
		out = append(out, doctor.ModelUse{Model: i.Key, Attempts: i.Attempts, Unknown: i.Unknown, Estimated: i.Estimated})
	}
	return out, nil
}

// querySandbox fetches the state of sandboxes from the server.
func querySandbox(ctx context.Context, c *config.Config) (doctor.SandboxState, error) {
	client, err := dial(c)
	if err != nil {
		return doctor.SandboxState{}, err
	}
	got, err := client.Sandbox(ctx)
	out := doctor.SandboxState{
		Setting: agented.Sandbox(got.Setting), Default: agented.Sandbox(got.Default),
		Missing: agented.Sandbox(got.Missing), Fix: got.Fix, Problem: got.Problem,
	}
	for _, level := range got.Available {
		out.Available = append(out.Available, agented.Sandbox(level))
	}
	return out, err
}

// queryHints asks the server for problems that keep its enabled triggers from firing.
func queryHints(ctx context.Context, c *config.Config) ([]doctor.TriggerHint, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	var out []doctor.TriggerHint
	for t, err := range client.Triggers(ctx, true, 1000) {
		if err != nil {
			return nil, err
		}
		for _, h := range t.Value.Hints {
			out = append(out, doctor.TriggerHint{Trigger: t.Value.Name, Text: h.Text, Fix: h.Fix})
		}
	}
	return out, nil
}

// showFindings prints findings with their fixes.
func showFindings(w io.Writer, list []doctor.Finding) error {
	width := 0
	for _, f := range list {
		width = max(width, len(f.Name))
	}
	marks := map[doctor.Status]string{
		doctor.OK: term.Paint(os.Stdout, term.Green, "✓"), doctor.Warn: term.Paint(os.Stdout, term.Yellow, "!"), doctor.Fail: term.Paint(os.Stdout, term.Red, "✗"),
	}
	counts := map[doctor.Status]int{}
	var b strings.Builder
	area := ""
	for _, f := range list {
		counts[f.Status]++
		if f.Area != area {
			if area != "" {
				b.WriteByte('\n')
			}
			area = f.Area
			b.WriteString(area + "\n")
		}
		fmt.Fprintf(&b, "  %s %-*s  %s\n", marks[f.Status], width, f.Name, term.Printable(f.Text))
		if f.Fix != "" && f.Status != doctor.OK {
			fmt.Fprintf(&b, "    %*s  %s\n", width, "", term.Paint(os.Stdout, term.Faint, "→ "+term.Printable(f.Fix)))
		}
	}
	b.WriteByte('\n')
	switch warnings, failures := counts[doctor.Warn], counts[doctor.Fail]; {
	case failures > 0:
		fmt.Fprintf(&b, "%s, %s.\n", format.Plural(failures, "check failed", "checks failed"), format.Plural(warnings, "warning", "warnings"))
	case warnings > 0:
		fmt.Fprintf(&b, "No check failed; %s.\n", format.Plural(warnings, "warning", "warnings"))
	default:
		b.WriteString("All checks passed.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
