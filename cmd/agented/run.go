package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run [flags] -- COMMAND [ARG…]  |  run --backend BACKEND [flags] PROMPT",
		Short:   "Start a command or an agent in this directory and follow its log",
		GroupID: "client",
		Long: `Start a command or an agent on the server, in the current directory, and follow its
log. The exit code is 0 if the execution succeeded, otherwise 1; with --exit-code it
is the exit code of the process. The output of an agent is formatted for people; --raw
prints the CLI's lines unchanged.

Ctrl-C stops following and prints the command to follow again; the execution continues.
A second Ctrl-C within five seconds cancels the execution.`,
		Example: `  agented run -- sh -c 'echo hi; sleep 1; echo bye'
  agented run --backend claude "Say hello"
  git diff | agented run --backend codex -       # read the prompt from standard input`,
		Args: cobra.ArbitraryArgs,
		RunE: runAdHoc,
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.String("backend", "", agentNames()+" (default: run the arguments as a command)")
	f.String("model", "", "model of the agent")
	f.String("permission", "", "permission of the agent: read, edit (default) or full")
	f.String("sandbox", "", "isolation of the processes from the server: off, guard or strict (default: AGENTED_SANDBOX of the server)")
	f.StringToString("limit", nil, "limits of all its processes together: memory=MIB, swap=MIB, pids=N, cpu_weight=1..10000, disk=MIB (default: the server's settings)")
	f.StringArrayP("env", "e", nil, "environment variable of the process as NAME=VALUE, masked in its output; may be repeated")
	f.StringArray("secret-env", nil, "environment variable with the value of a named secret, as NAME=SECRET; may be repeated")
	f.StringArray("plain-env", nil, "like --env, for a value that is not secret and not masked")
	addDuration(f, "timeout", 0, "timeout, for example 90s, 5m or 2h (default 1h)")
	f.Bool("no-timeout", false, "run without a timeout")
	f.Bool("tty", false, "run the command on a pseudo-terminal")
	f.String("name", "", "name of the execution")
	f.BoolP("detach", "d", false, "do not follow the log; print the execution's id")
	f.Bool("exit-code", false, "exit with the exit code of the process")
	f.Bool("json", false, "print one JSON object per line, or with --detach one for the execution")
	rawFlag(cmd)
	return cmd
}

func runAdHoc(cmd *cobra.Command, args []string) error {
	in, err := adHoc(cmd, args)
	if err != nil {
		return err
	}
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	accepted, err := c.CreateExecution(cmd.Context(), *in)
	if err != nil {
		return err
	}
	id := accepted.Value.ExecutionID
	asJSON := wantJSON(cmd)
	if detach, _ := cmd.Flags().GetBool("detach"); detach {
		if asJSON {
			return term.PrintJSON(os.Stdout, map[string]string{"execution_id": id})
		}
		fmt.Println(id)
		return nil
	}
	exitCode, _ := cmd.Flags().GetBool("exit-code")
	raw, _ := cmd.Flags().GetBool("raw")
	return followToEnd(cmd, c, id, followOptions{json: asJSON, raw: raw, exitCode: exitCode})
}

// adHoc builds the request for the command line.
func adHoc(cmd *cobra.Command, args []string) (*client.ExecutionCreate, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the current directory: %w", err)
	}
	f := cmd.Flags()
	in := &client.ExecutionCreate{WorkingDir: dir}
	backend, _ := f.GetString("backend")
	if len(args) == 0 {
		if backend == "" {
			return nil, usageError{errors.New("the command is missing: agented run -- COMMAND [ARG…]")}
		}
		return nil, usageError{errors.New("the prompt is missing: give it as an argument, or use - to read it from standard input")}
	}
	if backend == "" || backend == agented.BackendCommand {
		in.Backend, in.Command, in.Name = agented.BackendCommand, args, strings.Join(args, " ")
		in.TTY, _ = f.GetBool("tty")
	} else {
		prompt := strings.Join(args, " ")
		if prompt == "-" {
			b, err := term.ReadStdin(cmd.Context(), "the prompt", agented.MaxPrompt)
			if err != nil {
				return nil, err
			}
			prompt = term.ToUTF8("the prompt", b)
		} else {
			prompt = term.ToUTF8("the prompt", []byte(prompt))
		}
		// A prompt from the command line is literal text, also if it contains braces.
		in.Backend, in.Prompt, in.Name = backend, new(agented.EscapeTemplate(prompt)), backend+": "+prompt
		in.FailWithoutLogin = true // a person waits for the result
		in.Model, _ = f.GetString("model")
		in.Permission, _ = f.GetString("permission")
	}
	in.Sandbox, _ = f.GetString("sandbox")
	if in.Limits, err = flagLimits(f); err != nil {
		return nil, err
	}
	if name, _ := f.GetString("name"); name != "" {
		in.Name = name
	}
	in.Name = adHocName(in.Name)
	if d, _ := f.GetDuration("timeout"); f.Changed("timeout") {
		if d < time.Second {
			return nil, usageError{errors.New("--timeout must be at least 1s: use --no-timeout for no timeout")}
		}
		in.TimeoutSeconds = new(int(d.Seconds()))
	}
	if none, _ := f.GetBool("no-timeout"); none {
		in.TimeoutSeconds = new(0)
	}
	in.Env, err = flagEnv(f)
	return in, err
}

// flagEnv returns the environment variables of --env, --secret-env and --plain-env.
func flagEnv(f *pflag.FlagSet) (map[string]client.EnvValue, error) {
	env := map[string]client.EnvValue{}
	for _, flag := range []string{"env", "secret-env", "plain-env"} {
		vars, _ := f.GetStringArray(flag)
		for _, kv := range vars {
			name, value, ok := strings.Cut(kv, "=")
			if !ok {
				return nil, usageError{fmt.Errorf("--%s %s has no value: use NAME=VALUE", flag, name)}
			}
			env[name] = client.EnvValue{Value: value, Plain: flag == "plain-env"}
			if flag == "secret-env" {
				env[name] = client.EnvValue{Secret: value}
			}
		}
	}
	return env, nil
}

// adHocName derives a short, plain name from a command line.
func adHocName(s string) string {
	s = format.Clip(strings.Join(strings.Fields(term.Printable(s)), " "), 80)
	if s == "" {
		return "ad hoc"
	}
	return s
}

// detached prints how to follow a running execution again, and cancels the execution if a second
// interrupt arrives within five seconds.
func detached(c *client.Client, id string, o followOptions) error {
	fmt.Fprintf(os.Stderr, "\nagented: %s continues. Follow it again with:\n  agented execution logs -f %s\n", id, id)
	if o.watchOnly || !term.IsTerminal(os.Stderr) && !term.IsTerminal(os.Stdin) {
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
	if _, err := c.CancelExecution(ctx, id); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "agented: cancelled "+id)
	return exitError(130)
}

// agentNames lists the backends that are agents, as a sentence does.
func agentNames() string {
	names := agented.Backends[1:]
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// flagLimits returns the limits of --limit, or nil.
func flagLimits(f *pflag.FlagSet) (*client.ResourceLimits, error) {
	given, _ := f.GetStringToString("limit")
	if len(given) == 0 {
		return nil, nil
	}
	var out client.ResourceLimits
	for name, value := range given {
		field := map[string]*int{"memory": &out.Memory, "swap": &out.Swap, "pids": &out.PIDs, "cpu_weight": &out.CPUWeight, "disk": &out.Disk}[name]
		if field == nil {
			return nil, usageError{fmt.Errorf("--limit %s is unknown: use memory, swap, pids, cpu_weight or disk", name)}
		}
		number, err := strconv.Atoi(value)
		if err != nil {
			return nil, usageError{fmt.Errorf("--limit %s=%s: use a whole number, of MiB for memory and swap", name, value)}
		}
		*field = number
	}
	return &out, nil
}
