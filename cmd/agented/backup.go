package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backup"
)

func backupCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "backup FILE", Short: "Write all that the server keeps into one file, while it runs", GroupID: "server",
		Args: exactArgs("the file to write"),
		Long: `Write the database, the run logs and, under a passphrase, SECRET_KEY to a new
file. The server may run or not; it is not disturbed, and nothing that it had
acknowledged is missing. It reads the data folder itself, so run it on the
server's machine, as its user and with its settings.

Working directories of agents, sessions and keys of client commands are not in
the file. It is as confidential as the database: prompts and results are in it.`,
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
					return agented.Errorf(agented.KindOf(err), "%s; or leave the key out with --without-key", agented.Message(err))
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
	cmd.Flags().String("passphrase-file", "", "file with the passphrase that seals SECRET_KEY; without it a terminal asks")
	cmd.Flags().Bool("without-key", false, "leave SECRET_KEY out: keep it elsewhere, sealed secrets are lost without it")
	return cmd
}

func restoreCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "restore FILE", Short: "Check a backup, or make a data folder of it", GroupID: "server",
		Args: exactArgs("the file of the backup"),
		Long: `Prove that a backup is whole (every checksum and count, the database's own check,
each log read to its end), and with --to make a data folder of it. The folder
must be new or empty; nothing is ever overwritten. No server is needed, and none
is touched.

A server that is started on the new folder goes on where the backup was taken:
what waited then runs now, what ran then is interrupted, and schedules handle
the time between as any absence.`,
		Example: `  agented restore agented.backup --check
  agented restore agented.backup --to /var/lib/agented/data.new --passphrase-file FILE`,
		RunE: func(cmd *cobra.Command, args []string) error {
			onlyCheck, _ := cmd.Flags().GetBool("check")
			to, _ := cmd.Flags().GetString("to")
			if onlyCheck == (to != "") {
				return usageError{fmt.Errorf("say either --check or --to DIR")}
			}
			o := backup.Options{}
			o.WithoutKey, _ = cmd.Flags().GetBool("without-key")
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
	cmd.Flags().Bool("check", false, "only prove that it is whole")
	cmd.Flags().String("to", "", "the new data folder")
	cmd.Flags().String("passphrase-file", "", "file with the passphrase that opens SECRET_KEY")
	cmd.Flags().Bool("without-key", false, "restore without SECRET_KEY although it is in")
	cmd.Flags().String("temp", "", "where --check unpacks the database; the system's folder for temporary files if left out")
	return cmd
}

// passphrase comes from the file that the flag names, else from whoever sits at
// the terminal; twice is to ask for it twice. Empty is nobody to ask.
func passphrase(cmd *cobra.Command, twice bool) ([]byte, error) {
	if file, _ := cmd.Flags().GetString("passphrase-file"); file != "" {
		return backup.ReadPassphrase(file)
	}
	if !terminal(os.Stdin) {
		if !twice {
			return nil, nil
		}
		return nil, agented.Errorf(agented.Invalid, "there is no terminal to ask for a passphrase: give --passphrase-file, or --without-key to leave SECRET_KEY out")
	}
	ask := func(what string) ([]byte, error) {
		fmt.Fprint(os.Stderr, what)
		defer fmt.Fprintln(os.Stderr)
		return term.ReadPassword(int(os.Stdin.Fd()))
	}
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

// progress tells a person at a terminal how far it is.
func progress(cmd *cobra.Command) (say backup.Progress, done func()) {
	if !terminal(os.Stderr) || wantJSON(cmd) {
		return nil, func() {}
	}
	var last time.Time
	return func(n int64, what string) {
			if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
				last = now
				fmt.Fprintf(os.Stderr, "\r\x1b[K%s  %s", bytesOf(n), printable(what))
			}
		}, func() {
			if !last.IsZero() {
				fmt.Fprint(os.Stderr, "\r\x1b[K")
			}
		}
}

// bytesOf writes a number of bytes for people.
func bytesOf(n int64) string {
	const units = "KMGTPE"
	f, i := float64(n), -1
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i < 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

func showBackup(cmd *cobra.Command, r backup.Report) error {
	if wantJSON(cmd) {
		return printJSON(os.Stdout, r)
	}
	m := r.Manifest
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("file", "%s (%s)", r.File, bytesOf(r.Size))
	line("taken", "%s", r.Head.CreatedAt.Format(time.RFC3339))
	line("holds", "%d executions, %d triggers, %d deliveries, %d users; %d logs", m.Counts.Executions, m.Counts.Triggers, m.Counts.Deliveries, m.Counts.Users, m.Logs)
	if r.Settled > 0 {
		line("running", "%d when it was taken: interrupted where it is restored", r.Settled)
	}
	line("key", "%s", r.Key)
	if cmd.Name() == "restore" {
		line("checked", "%d files, every checksum, the database, %d log lines: good", m.Files, r.Lines)
	}
	if r.Restored != "" {
		abs, err := filepath.Abs(r.Restored)
		if err != nil {
			abs = r.Restored
		}
		line("restored", "to %s: start a server with AGENTED_DATA_DIR set to it", abs)
	}
	for _, w := range r.Warnings {
		line("warning", "%s", printable(w))
	}
	_, err := os.Stdout.WriteString(b.String())
	return err
}
