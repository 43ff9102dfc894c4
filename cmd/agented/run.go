package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run [flags] -- COMMAND [ARG…]  |  run --backend BACKEND [flags] PROMPT",
		Short:   "Start a command or an agent in this directory and follow its log",
		GroupID: "client",
		Long: `Start a command or an agent on the server, in the current directory, and follow
its log. The exit code is 0 when it succeeded, else 1; with --exit-code it is
the process's own.

Ctrl-C stops following and says how to follow again: the execution goes on.
A second Ctrl-C within five seconds cancels it.`,
		Example: `  agented run -- sh -c 'echo hi; sleep 1; echo bye'
  agented run --backend claude "Say hello"
  git diff | agented run --backend codex -       # the prompt from standard input`,
		Args: cobra.ArbitraryArgs,
		RunE: runAdHoc,
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.String("backend", "", "claude, codex, gemini, opencode or anthropic; without it the arguments are a command")
	f.String("model", "", "the agent's model")
	f.String("permission", "", "what the agent may do: read, edit (default) or full")
	f.StringArrayP("env", "e", nil, "NAME=VALUE for the process; may be repeated")
	f.Duration("timeout", 0, "end it after this time (default 1h; 0s with --no-timeout)")
	f.Bool("no-timeout", false, "let it run for ever")
	f.Bool("tty", false, "run the command on a pseudo-terminal")
	f.String("name", "", "name of the execution, for people")
	f.BoolP("detach", "d", false, "do not follow; print the execution's id")
	f.Bool("exit-code", false, "exit with the process's own code")
	f.Bool("json", false, "print one JSON object for each line, or with --detach one for the execution")
	return cmd
}

func runAdHoc(cmd *cobra.Command, args []string) error {
	body, err := adHocBody(cmd, args)
	if err != nil {
		return err
	}
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	var got struct {
		ID string `json:"execution_id"`
	}
	if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/executions", nil, body, &got); err != nil {
		return err
	}
	asJSON := wantJSON(cmd)
	if detach, _ := cmd.Flags().GetBool("detach"); detach {
		if asJSON {
			return printJSON(os.Stdout, map[string]string{"execution_id": got.ID})
		}
		fmt.Println(got.ID)
		return nil
	}
	exitCode, _ := cmd.Flags().GetBool("exit-code")
	return followToEnd(cmd, c, got.ID, followOptions{json: asJSON, exitCode: exitCode})
}

// adHocBody is the bare trigger that the command line describes.
func adHocBody(cmd *cobra.Command, args []string) (map[string]any, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the current directory: %w", err)
	}
	f := cmd.Flags()
	body := map[string]any{"working_dir": dir}
	backend, _ := f.GetString("backend")
	if len(args) == 0 {
		if backend == "" {
			return nil, usageError{errors.New("the command is missing: agented run -- COMMAND [ARG…]")}
		}
		return nil, usageError{errors.New("the prompt is missing; use - to read it from standard input")}
	}
	if backend == "" || backend == agented.BackendCommand {
		body["backend"], body["command"] = agented.BackendCommand, args
		body["name"] = strings.Join(args, " ")
		if tty, _ := f.GetBool("tty"); tty {
			body["tty"] = true
		}
	} else {
		prompt := strings.Join(args, " ")
		if prompt == "-" {
			b, err := io.ReadAll(io.LimitReader(os.Stdin, agented.MaxPrompt+1))
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			prompt = string(b)
		}
		// A prompt typed here is text, whatever braces it has.
		body["backend"], body["prompt"], body["name"] = backend, agented.EscapeTemplate(prompt), backend+": "+prompt
		for _, name := range []string{"model", "permission"} {
			if v, _ := f.GetString(name); v != "" {
				body[name] = v
			}
		}
	}
	if name, _ := f.GetString("name"); name != "" {
		body["name"] = name
	}
	body["name"] = adHocName(body["name"].(string))
	if d, _ := f.GetDuration("timeout"); f.Changed("timeout") {
		if d < time.Second {
			return nil, usageError{errors.New("--timeout must be at least 1s; use --no-timeout for none")}
		}
		body["timeout_seconds"] = int(d.Seconds())
	}
	if none, _ := f.GetBool("no-timeout"); none {
		body["timeout_seconds"] = 0
	}
	vars, _ := f.GetStringArray("env")
	env := map[string]any{}
	for _, kv := range vars {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("--env %s has no value: use NAME=VALUE", name)}
		}
		env[name] = value
	}
	if len(env) > 0 {
		body["env"] = env
	}
	return body, nil
}

// adHocName makes a command line short and plain enough for a name.
func adHocName(s string) string {
	s = strings.Join(strings.Fields(printable(s)), " ")
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	if s == "" {
		return "ad hoc"
	}
	return s
}

// detached says how to come back to an execution that goes on, and cancels it
// if it is interrupted once more at once.
func detached(c *client.Client, id string, o followOptions) error {
	fmt.Fprintf(os.Stderr, "\nagented: %s goes on. Follow it again with:\n  agented execution logs -f %s\n", id, id)
	if o.watchOnly || !terminal(os.Stderr) && !terminal(os.Stdin) {
		return exitError(130)
	}
	fmt.Fprintln(os.Stderr, "Press Ctrl-C again within five seconds to cancel it.")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	select {
	case <-time.After(5 * time.Second):
		return exitError(130)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Do(ctx, http.MethodPost, "/api/v1/executions/"+id+"/cancel", nil, nil, nil); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "agented: cancelled "+id)
	return exitError(130)
}
