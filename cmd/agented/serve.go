package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/app"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/serverlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/term"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run the server",
		GroupID: "server",
		Long: `Run the server. Settings come from the environment and a .env file; see
` + "`agented config show`" + ` and docs/reference/configuration.md.

SIGTERM or SIGINT starts a graceful shutdown: open requests are completed, running
agents continue under their shims, and the next server adopts them. SIGHUP reloads the
settings.

With --supervise a small parent process holds the listening socket and restarts the
server when it crashes. Use it where there is no systemd; see
docs/operations/without-systemd.md.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if on, _ := cmd.Flags().GetBool("supervise"); on {
				return supervise(cmd)
			}
			for _, name := range []string{"detach", "replace"} {
				if on, _ := cmd.Flags().GetBool(name); on {
					return usageError{fmt.Errorf("--%s needs --supervise: add --supervise, or remove --%s", name, name)}
				}
			}
			sample, _ := cmd.Flags().GetBool("sample")
			return serve(cmd, sample)
		},
	}
	cmd.Flags().Bool("sample", false, "at the very first start, create and fire a sample trigger")
	cmd.Flags().StringArray("log-file", nil, "log file to reopen at SIGHUP; give it twice, for standard output and standard error, if another program rotates the files")
	superviseFlags(cmd)
	return cmd
}

// serve runs a server until it receives a signal to stop.
func serve(cmd *cobra.Command, sample bool) error {
	named, _ := cmd.Flags().GetStringArray("log-file")
	logs, err := serverlog.ParseFiles(named)
	if err != nil {
		return err
	}
	// A log rotation may find this process by its lock and send SIGHUP before the server is
	// ready.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	file, _ := cmd.Flags().GetString("env-file")
	c, err := config.Load(config.Options{EnvFile: file})
	if err != nil {
		return err
	}
	if bad := checkStart(c); len(bad) > 0 {
		return agented.InvalidFields(bad)
	}
	config.ClearEnvironment()
	raiseDescriptorLimit()
	shim.UseProgram(agshimProgram)
	masker := new(atomic.Pointer[redact.Masker])
	masker.Store(redact.New(c.Secrets()))
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	log, tracer, sendLast, err := serverlog.New(c, version, serverlog.NewHandler(c.LogFormat, level), masker)
	if err != nil {
		return err
	}
	defer sendLast()
	for _, w := range c.Warnings {
		log.Warn(w.String())
	}
	o := app.Options{Config: c, Version: version, Log: log, Level: level, Masker: masker, Trace: tracer, Sample: sample}
	ctx, addressee := cmd.Context(), os.Getpid()
	if fd, _ := cmd.Flags().GetInt("parent-fd"); fd > 0 {
		ctx, addressee = childOf(cmd, fd)
	}
	o.Supervisor = app.SupervisorFrom(config.ServiceManager, addressee)
	if term.IsTerminal(os.Stderr) {
		o.Announce = announce
	}
	a, err := app.New(ctx, o)
	if err != nil {
		return err
	}
	defer a.Close()
	stop := onHangup(ctx, hup, a, func() {
		if err := logs.Reopen(); err != nil {
			log.Error("the log files could not be reopened", "err", err)
		}
	})
	defer stop()
	// Prepare a warm shim for the next attempt after the start of the server.
	warm := time.AfterFunc(time.Second, func() { shim.KeepWarm(1) })
	defer func() {
		warm.Stop()
		shim.KeepWarm(0)
	}()
	if err := a.Run(ctx); err != nil {
		return err
	}
	return nil
}

// onHangup reopens the logs and reloads the settings at each SIGHUP, until the returned function
// is called at the end of the server. SIGHUP is ignored from then on.
func onHangup(ctx context.Context, hup chan os.Signal, a *app.App, logs func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hup {
			logs()
			if ctx.Err() != nil {
				continue // the server is shutting down
			}
			_, _ = a.Reload() // logs the result
		}
	}()
	return func() {
		// signal.Stop would first restore the default action, so that a SIGHUP in between would
		// end the process. After Ignore nothing is sent to the channel.
		signal.Ignore(syscall.SIGHUP)
		close(hup)
		<-done
	}
}

// announce prints the address of the server on a terminal.
func announce(url, setupLink string) {
	fmt.Fprintf(os.Stderr, "\n  Agented is listening at %s\n", term.Paint(os.Stderr, term.Cyan, url))
	if setupLink != "" {
		fmt.Fprintf(os.Stderr, "  Create your login with this one-time link:\n  %s\n", term.Paint(os.Stderr, term.Green, setupLink))
	}
	fmt.Fprintf(os.Stderr, "  In another terminal: agented run -- sh -c 'echo hi; sleep 1; echo bye'\n\n")
}

// raiseDescriptorLimit raises the limit of open files to the hard limit, because each client of a
// stream needs a descriptor.
func raiseDescriptorLimit() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil && l.Cur < l.Max {
		l.Cur = l.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}
