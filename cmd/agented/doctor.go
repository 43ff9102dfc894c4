package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/doctor"
)

func doctorCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "doctor", Short: "Look for what is wrong here, and say how to mend it", Args: exactArgs(),
		GroupID: "server",
		Long: `Look at the agent CLIs, the settings, the data folder, the database, the server
and the machine, and say what is wrong and how to mend it. Nothing is changed,
and a running server is not disturbed: its database is left alone.

Each finding says what it means and what mends it. With --json each has an id that
stays the same over versions. The exit code is 1 when something fails, else 0. An
agent CLI that is not installed is only a warning: the backend command works
without.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := doctor.Check(cmd.Context(), examined(cmd))
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			var err error
			if wantJSON(cmd) {
				err = printJSON(os.Stdout, map[string]any{"ok": !doctor.Failed(findings), "findings": findings})
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

// examined is what the doctor looks at. Settings that a server would refuse
// are a finding too, and then those of client commands say where to look.
func examined(cmd *cobra.Command) doctor.Options {
	var o doctor.Options
	o.Config, o.ConfigErr = serverConfig(cmd)
	if o.ConfigErr != nil {
		o.Config, _ = clientConfig(cmd) // nil: the doctor looks at the machine only
		return o
	}
	c := o.Config
	o.Server = func(ctx context.Context) (string, error) { return askServer(ctx, c) }
	o.States = func(ctx context.Context, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
		return askStates(ctx, c, ids)
	}
	o.Accounts = func(ctx context.Context) ([]agented.Account, error) { return askAccounts(ctx, c) }
	return o
}

// askServer asks the server whether it is ready and takes our key.
func askServer(ctx context.Context, c *config.Config) (address string, err error) {
	f, err := findServer(c)
	address = shown(f.address)
	if err != nil {
		return address, err
	}
	client, err := dial(c)
	if err != nil {
		return address, err
	}
	if err := client.Do(ctx, http.MethodGet, "/health/readiness", nil, nil, nil); err != nil {
		return address, err
	}
	return address, client.Do(ctx, http.MethodGet, "/api/v1/auth/me", nil, nil, nil)
}

// askStates asks the server where executions stand.
func askStates(ctx context.Context, c *config.Config, ids []agented.ExecutionID) (map[agented.ExecutionID]agented.State, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	out := map[agented.ExecutionID]agented.State{}
	for _, id := range ids {
		var e struct {
			Status agented.State `json:"status"`
		}
		switch err := client.Do(ctx, http.MethodGet, "/api/v1/executions/"+string(id), nil, nil, &e); {
		case errors.Is(err, agented.NotFound):
		case err != nil:
			return nil, err
		default:
			out[id] = e.Status
		}
	}
	return out, nil
}

// askAccounts asks the server how its accounts stand.
func askAccounts(ctx context.Context, c *config.Config) ([]agented.Account, error) {
	client, err := dial(c)
	if err != nil {
		return nil, err
	}
	var got struct {
		Items []struct {
			ID       agented.AccountID    `json:"id"`
			Backend  string               `json:"backend"`
			Name     string               `json:"name"`
			Enabled  bool                 `json:"enabled"`
			State    agented.AccountState `json:"state"`
			Until    *time.Time           `json:"until"`
			Evidence string               `json:"evidence"`
		} `json:"items"`
	}
	if err := client.Do(ctx, http.MethodGet, "/api/v1/accounts", nil, nil, &got); err != nil {
		return nil, err
	}
	var out []agented.Account
	for _, i := range got.Items {
		a := agented.Account{ID: i.ID, Backend: i.Backend, Name: i.Name, Enabled: i.Enabled, State: i.State, Evidence: i.Evidence}
		if i.Until != nil {
			a.Until = *i.Until
		}
		out = append(out, a)
	}
	return out, nil
}

// showFindings writes findings for people, with their mends.
func showFindings(w io.Writer, list []doctor.Finding) error {
	width := 0
	for _, f := range list {
		width = max(width, len(f.Name))
	}
	marks := map[doctor.Status]string{
		doctor.OK: paint(os.Stdout, green, "✓"), doctor.Warn: paint(os.Stdout, yellow, "!"), doctor.Fail: paint(os.Stdout, red, "✗"),
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
		fmt.Fprintf(&b, "  %s %-*s  %s\n", marks[f.Status], width, f.Name, oneLine(f.Text))
		if f.Mend != "" && f.Status != doctor.OK {
			fmt.Fprintf(&b, "    %*s  %s\n", width, "", paint(os.Stdout, faint, "→ "+oneLine(f.Mend)))
		}
	}
	b.WriteByte('\n')
	switch warnings, failures := counts[doctor.Warn], counts[doctor.Fail]; {
	case failures > 0:
		fmt.Fprintf(&b, "%s, %s.\n", plural(failures, "thing fails", "things fail"), plural(warnings, "warning", "warnings"))
	case warnings > 0:
		fmt.Fprintf(&b, "Nothing fails; %s.\n", plural(warnings, "warning", "warnings"))
	default:
		b.WriteString("All is well.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
