package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/serverlog"
	"github.com/agented/agented/internal/service"
	"github.com/agented/agented/internal/term"
)

// superviseFlags adds the flags of serve for supervision. The hidden ones are for the program's
// own use.
func superviseFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Bool("supervise", false, "keep a small parent process that holds the socket and restarts the server")
	f.Bool("detach", false, "with --supervise: continue in the background once the server is ready")
	f.Bool("replace", false, "with --supervise: replace the server that uses the data folder")
	f.StringSlice("kept", nil, "")
	f.Int("parent-fd", 0, "")
	_ = f.MarkHidden("kept")
	_ = f.MarkHidden("parent-fd")
}

// supervise runs the server under a parent process, in the foreground or in the background.
func supervise(cmd *cobra.Command) error {
	file, _ := cmd.Flags().GetString("env-file")
	sample, _ := cmd.Flags().GetBool("sample")
	detach, _ := cmd.Flags().GetBool("detach")
	replace, _ := cmd.Flags().GetBool("replace")
	values, _ := cmd.Flags().GetStringSlice("kept")
	kept, err := service.ParseKept(values)
	if err != nil {
		return err
	}
	// Invalid settings are reported once, instead of once per restart.
	c, err := config.Load(config.Options{EnvFile: file})
	if err != nil {
		return err
	}
	program, err := service.OwnPath()
	if err != nil {
		return err
	}
	args := []string{"serve"}
	if file != "" {
		if file, err = filepath.Abs(file); err != nil {
			return err
		}
		args = append(args, "--env-file", file)
	}
	if sample {
		args = append(args, "--sample")
	}
	if _, err := config.PrepareDataDir(c.DataDir); err != nil {
		return err
	}
	settings := c.Digest(args)
	control := controlOf(c)
	if replace {
		replaced, err := control.MakeRoom(cmd.Context(), settings)
		if err != nil {
			return err
		}
		if replaced != nil {
			printRestarted(replaced)
			return nil
		}
	}
	if detach {
		s, path, err := control.Detach(cmd.Context(), program, args)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "serving at %s as process %d, supervised by process %d\nlog: %s\nstop it with: %s\n", c.Bind, s.Server, s.PID, path, stopLine(c, program, args))
		return nil
	}
	// The environment of this process contains the secrets of later servers.
	undumpable := secret.Undumpable()
	masker := new(atomic.Pointer[redact.Masker])
	masker.Store(redact.New(c.Secrets()))
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	log := slog.New(redact.Handler(serverlog.NewHandler(c.LogFormat, level), masker))
	if undumpable != nil {
		log.Warn("this process can be inspected by other processes of the same user", "err", undumpable)
	}
	p := service.Parent{
		Program: program, Args: args, State: service.StateFile{Dir: c.DataDir}, Settings: settings, Address: c.Bind.String(),
		Environ: config.ServerEnvironment, Kept: kept, Stop: c.Shutdown + 10*time.Second, Log: log,
	}
	ended, err := p.Run()
	if err == nil && ended.Code != 0 {
		return exitError(ended.Code)
	}
	return err
}

func controlOf(c *config.Config) service.Control {
	return service.Control{DataDir: c.DataDir, Bind: c.Bind, Shutdown: c.Shutdown}
}

// printRestarted prints the result of a restart.
func printRestarted(r *service.Restarted) {
	fmt.Fprintf(os.Stdout, "process %d now serves version %s; it replaced process %d\n", r.PID, r.Version, r.Replaced)
}

// stopLine returns the command that stops the server, for use in any folder.
func stopLine(c *config.Config, program string, args []string) string {
	line := program + " stop"
	if i := slices.Index(args, "--env-file"); i >= 0 && i+1 < len(args) {
		return line + " --env-file " + shellWord(args[i+1])
	}
	if c.Origin("AGENTED_DATA_DIR").Kind != "default" {
		return "AGENTED_DATA_DIR=" + shellWord(c.DataDir) + " " + line
	}
	return line
}

// shellWord quotes a word for a shell if necessary.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\\''`) + "'"
}

// stopCommand stops the server on the data folder.
func stopCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "stop", Short: "Stop the server on the data folder; running agents continue", Args: exactArgs(), GroupID: "server",
		Long: `Stop the server on the data folder of the settings, with its parent if it has one, and
wait until it has ended. Open requests are completed first. Running agents continue,
and the next server adopts them. Stop a service with its service manager (systemctl,
launchctl), which would otherwise start it again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := serverConfig(cmd)
			if err != nil {
				return err
			}
			pid, err := controlOf(c).Stop(cmd.Context())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]any{"pid": pid, "data_dir": c.DataDir, "stopped": pid != 0})
			}
			if pid == 0 {
				fmt.Fprintf(os.Stdout, "no server is running on %s\n", c.DataDir)
				return nil
			}
			fmt.Fprintf(os.Stdout, "stopped process %d\n", pid)
			return nil
		},
	})
}

// restartCommand replaces a supervised server.
func restartCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "restart", Short: "Replace a supervised server, for example after an upgrade", Args: exactArgs(), GroupID: "server",
		Long: `Make the parent process of a server (` + "`agented serve --supervise`" + `) replace the server and
itself with the program that is now at the program's path. No connection is refused,
no request is lost, and running agents continue. If the program cannot be started, or
rejects the settings of the server (its ` + "`config check`" + `), nothing changes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := serverConfig(cmd)
			if err != nil {
				return err
			}
			got, err := controlOf(c).Restart(cmd.Context())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			printRestarted(got)
			return nil
		},
	})
}

// childOf connects a server to its parent process: the returned context ends when the parent
// ends.
func childOf(cmd *cobra.Command, fd int) (ctx context.Context, ppid int) {
	ctx, cancel := context.WithCancel(cmd.Context())
	service.Outlive(fd, cancel)
	return ctx, os.Getppid()
}
