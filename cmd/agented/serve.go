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

	"github.com/agented/agented/internal/app"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/shim"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run the server",
		GroupID: "server",
		Long: `Run the server. Settings come from the environment and a .env file; see
` + "`agented config show`" + ` and docs/reference/configuration.md.

SIGTERM or SIGINT drains: open requests end, running agents go on under their
supervisors, and the next server adopts them. SIGHUP reads the settings again.

With --supervise a small parent keeps the listening socket and starts the server
again when it dies, for where there is no systemd; see docs/operate/supervise.md.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if on, _ := cmd.Flags().GetBool("supervise"); on {
				return supervise(cmd)
			}
			sample, _ := cmd.Flags().GetBool("sample")
			// At a terminal somebody looks on; under systemd, which sets
			// INVOCATION_ID, nobody does.
			_, service := os.LookupEnv("INVOCATION_ID")
			if terminal(os.Stderr) && !service {
				sample = true
			}
			return serve(cmd, sample)
		},
	}
	cmd.Flags().Bool("sample", false, "at the very first start, create and fire a sample trigger")
	cmd.Flags().StringArray("log-file", nil, "open this anew at SIGHUP; twice: where standard output and standard error go, when something rotates them")
	superviseFlags(cmd)
	return cmd
}

// serve runs a server until it is told to stop.
func serve(cmd *cobra.Command, sample bool) error {
	named, _ := cmd.Flags().GetStringArray("log-file")
	logs, err := parseLogFiles(named)
	if err != nil {
		return err
	}
	// Whoever rotates logs finds us by our lock, and does not ask whether we are up.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	file, _ := cmd.Flags().GetString("env-file")
	c, err := config.Load(config.Options{EnvFile: file})
	if err != nil {
		return err
	}
	config.ClearEnvironment()
	raiseDescriptorLimit()
	shim.UseProgram(agshimProgram)
	masker := new(atomic.Pointer[redact.Masker])
	masker.Store(redact.New(c.Secrets()))
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	log, tracer, sendLast, err := observed(c, logHandler(c.LogFormat, level), masker)
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
	o.Supervisor = app.SupervisorFrom(os.Getenv, addressee)
	if terminal(os.Stderr) {
		o.Announce = announce
	}
	a, err := app.New(ctx, o)
	if err != nil {
		return err
	}
	defer a.Close()
	stop := onHangup(ctx, hup, a, func() {
		if err := logs.reopen(); err != nil {
			log.Error("the log files could not be opened anew", "err", err)
		}
	})
	defer stop()
	// A shim waits for the next attempt, once the server's own start is over.
	spare := time.AfterFunc(time.Second, func() { shim.KeepSpare(1) })
	defer func() {
		spare.Stop()
		shim.KeepSpare(0)
	}()
	if err := a.Run(ctx); err != nil {
		return err
	}
	return nil
}

// onHangup opens the logs anew and reloads the settings at each SIGHUP until the
// returned function is called. From then on, which is the server's end, none
// matters.
func onHangup(ctx context.Context, hup chan os.Signal, a *app.App, logs func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hup {
			logs()
			if ctx.Err() != nil {
				continue // draining
			}
			_, _ = a.Reload() // says in the log what came of it
		}
	}()
	return func() {
		signal.Stop(hup)
		signal.Ignore(syscall.SIGHUP)
		close(hup)
		<-done
	}
}

// logHandler writes the server's log to standard error.
func logHandler(format string, level *slog.LevelVar) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if l, ok := a.Value.Any().(slog.Level); ok && a.Key == slog.LevelKey && l >= config.LevelCritical {
			a.Value = slog.StringValue("CRITICAL")
		}
		return a
	}}
	if format == "text" || format == "auto" && terminal(os.Stderr) {
		return slog.NewTextHandler(os.Stderr, o)
	}
	return slog.NewJSONHandler(os.Stderr, o)
}

// announce tells the person at the terminal where to go.
func announce(url, setupLink string) {
	fmt.Fprintf(os.Stderr, "\n  Agented serves at %s\n", paint(os.Stderr, cyan, url))
	if setupLink != "" {
		fmt.Fprintf(os.Stderr, "  Create your login with this link, which works once:\n  %s\n", paint(os.Stderr, green, setupLink))
	}
	fmt.Fprintf(os.Stderr, "  In another terminal: agented run -- sh -c 'echo hi; sleep 1; echo bye'\n\n")
}

// raiseDescriptorLimit asks for as many open files as the system lets us have:
// each reader of a stream is one.
func raiseDescriptorLimit() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil && l.Cur < l.Max {
		l.Cur = l.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}
