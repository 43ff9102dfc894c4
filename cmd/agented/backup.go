package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

func backupCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "backup FILE", Short: "Back up the server's data to one file, without downtime", GroupID: "server",
		Args: exactArgs("the file to write"),
		Long: `Write the database, the run logs and, encrypted with a passphrase, SECRET_KEY to a
new file. The server may be running and is not interrupted. The backup contains
everything that the server had acknowledged when the command started. The command
reads the data folder directly: run it on the server's machine, as the server's user
and with the server's settings.

The backup does not contain working directories of agents, login sessions, or the
key of client commands. It contains prompts and results, so it is as confidential
as the database.`,
		Example: `  agented backup --passphrase-file /etc/agented/passphrase agented.backup
  agented backup --without-key /mnt/backup/agented-$(date +%F).backup
  agented restore agented.backup --check`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := serverConfig(cmd)
			if err != nil {
				return err
			}
			warn(c.Warnings)
			src := backup.Source{Layout: agented.Layout{Root: c.DataDir}, DBPath: c.DBPath, Program: version, MinFree: int64(c.MinFreeMB) << 20 / 4}
			if without, _ := cmd.Flags().GetBool("without-key"); !without {
				key, err := readKey(c)
				if err != nil {
					return agented.Errorf(agented.KindOf(err), "%s; or use --without-key to leave the key out", agented.Message(err))
				}
				if _, err := os.Lstat(src.Layout.FormerSecretKey()); err == nil {
					return agented.Errorf(agented.Conflict, "SECRET_KEY was replaced, and stored values are still sealed with the former key: start the server once, then back up")
				}
				src.Key, src.KeyID = key.Reveal(), key.ID()
				if src.Passphrase, err = passphrase(cmd, true); err != nil {
					return err
				}
			}
			say, done := progress(cmd)
			r, err := backup.Create(cmd.Context(), src, args[0], say)
			done()
			if err != nil {
				return err
			}
			return showBackup(cmd, r)
		},
	})
	cmd.Flags().String("passphrase-file", "", "file with the passphrase that encrypts SECRET_KEY (default: prompt on the terminal)")
	cmd.Flags().Bool("without-key", false, "leave SECRET_KEY out; keep a copy elsewhere, because sealed secrets cannot be read without it")
	return cmd
}

func restoreCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "restore FILE", Short: "Verify a backup, or restore it to a new data folder", GroupID: "server",
		Args: exactArgs("the backup file"),
		Long: `Verify a backup: every checksum and count, the integrity of the database, and every
log from start to end. With --to, also restore it to a new or empty folder. Existing
files are never overwritten. No server is needed, and no running server is affected.

A server that starts on the restored folder continues from the time of the backup:
executions that were waiting run, executions that were running become interrupted,
and schedules treat the time since the backup as downtime. With --hold the restored
server starts in drain mode: it starts no execution until "agented drain --off", so
that you can inspect it first.`,
		Example: `  agented restore agented.backup --check
  agented restore agented.backup --to /var/lib/agented/data.new --passphrase-file FILE`,
		RunE: func(cmd *cobra.Command, args []string) error {
			onlyCheck, _ := cmd.Flags().GetBool("check")
			to, _ := cmd.Flags().GetString("to")
			if onlyCheck == (to != "") {
				return usageError{fmt.Errorf("choose one of --check and --to DIR")}
			}
			o := backup.Options{}
			o.WithoutKey, _ = cmd.Flags().GetBool("without-key")
			o.Hold, _ = cmd.Flags().GetBool("hold")
			if o.Hold && onlyCheck {
				return usageError{fmt.Errorf("--hold needs --to DIR")}
			}
			o.Temp, _ = cmd.Flags().GetString("temp")
			var err error
			if file, _ := cmd.Flags().GetString("passphrase-file"); file != "" || !onlyCheck && !o.WithoutKey {
				if o.Passphrase, err = passphrase(cmd, false); err != nil {
					return err
				}
			}
			var done func()
			o.Progress, done = progress(cmd)
			var r backup.Report
			if onlyCheck {
				r, err = backup.Check(cmd.Context(), args[0], o)
			} else {
				r, err = backup.Restore(cmd.Context(), args[0], to, o)
			}
			done()
			if err != nil {
				return err
			}
			return showBackup(cmd, r)
		},
	})
	cmd.Flags().Bool("check", false, "verify the backup only")
	cmd.Flags().String("to", "", "new data folder")
	cmd.Flags().Bool("hold", false, "start the restored server in drain mode, until `agented drain --off`")
	cmd.Flags().String("passphrase-file", "", "file with the passphrase that decrypts SECRET_KEY")
	cmd.Flags().Bool("without-key", false, "do not restore SECRET_KEY, although the backup contains it")
	cmd.Flags().String("temp", "", "folder where --check unpacks the database (default: the system's temporary folder)")
	return cmd
}

// passphrase reads the passphrase from the file that the flag names, or prompts for it on the
// terminal; twice asks for a confirmation. The result is empty if there is neither a file nor a
// terminal.
func passphrase(cmd *cobra.Command, twice bool) ([]byte, error) {
	if file, _ := cmd.Flags().GetString("passphrase-file"); file != "" {
		return term.Await(cmd.Context(), func() ([]byte, error) { return backup.ReadPassphrase(file) })
	}
	if !term.IsTerminal(os.Stdin) {
		if !twice {
			return nil, nil
		}
		return nil, agented.Errorf(agented.Invalid, "there is no terminal to prompt for a passphrase: use --passphrase-file, or --without-key to leave SECRET_KEY out")
	}
	ask := func(what string) ([]byte, error) { return term.AskSecret(cmd.Context(), what) }
	first, err := ask("Passphrase of the key in the backup: ")
	if err != nil || !twice {
		return first, err
	}
	if err := backup.CheckPassphrase(first); err != nil {
		return nil, err
	}
	second, err := ask("Again: ")
	if err == nil && string(first) != string(second) {
		err = agented.Errorf(agented.Invalid, "the two passphrases differ")
	}
	return first, err
}

// progress returns a function that shows the progress on a terminal.
func progress(cmd *cobra.Command) (say backup.Progress, done func()) {
	if !term.IsTerminal(os.Stderr) || wantJSON(cmd) {
		return nil, func() {}
	}
	var last time.Time
	return func(n int64, what string) {
			if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
				last = now
				fmt.Fprintf(os.Stderr, "\r\x1b[K%s  %s", format.Bytes(n), term.Cell(what))
			}
		}, func() {
			if !last.IsZero() {
				fmt.Fprint(os.Stderr, "\r\x1b[K")
			}
		}
}

func showBackup(cmd *cobra.Command, r backup.Report) error {
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, r)
	}
	m := r.Manifest
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("file", "%s (%s)", r.File, format.Bytes(r.Size))
	line("taken", "%s", r.Head.CreatedAt.Format(time.RFC3339))
	line("holds", "%d executions, %d triggers, %d deliveries, %d users; %d logs, %d conversation files",
		m.Counts.Executions, m.Counts.Triggers, m.Counts.Deliveries, m.Counts.Users, m.Logs, m.Conversations)
	if r.Settled > 0 {
		line("running", "%d at the time of the backup; the restored server marks them interrupted", r.Settled)
	}
	line("key", "%s", r.Key)
	if cmd.Name() == "restore" {
		line("checked", "%d files, all checksums, the database and %d log lines: OK", m.Files, r.Lines)
	}
	if r.Restored != "" {
		abs, err := filepath.Abs(r.Restored)
		if err != nil {
			abs = r.Restored
		}
		line("restored", "to %s: start a server with AGENTED_DATA_DIR set to it", abs)
		if r.Held {
			line("held", "in drain mode; `agented drain --off` starts executions again")
		}
	}
	for _, w := range r.Warnings {
		line("warning", "%s", term.Indented(w, 12))
	}
	_, err := os.Stdout.WriteString(b.String())
	return err
}
