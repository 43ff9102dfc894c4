package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/store"
)

// Plan configures the scheduled backups of a server.
type Plan struct {
	Source         Source // without the passphrase
	DB             *store.DB
	Dir            string
	Schedule       string // cron expression
	Zone           *time.Location
	Keep           int
	PassphraseFile string // if empty, the key is left out
	Now            func() time.Time
	Log            *slog.Logger
}

// Status is the state of the scheduled backups.
type Status struct {
	Enabled        bool      `json:"enabled"`
	Schedule       string    `json:"schedule"`
	Dir            string    `json:"dir"`
	LastSuccess    time.Time `json:"last_success_at,omitzero"`
	LastFile       string    `json:"last_file"`
	LastBytes      int64     `json:"last_bytes"`
	LastDurationMS int64     `json:"last_duration_ms"`
	LastFailure    time.Time `json:"last_failure_at,omitzero"`
	LastError      string    `json:"last_error"`
	Failures       int64     `json:"failures"` // since the start of the server
	Running        bool      `json:"running"`
	Next           time.Time `json:"next_at,omitzero"`
	Since          time.Time `json:"since,omitzero"` // first due time
	Problem        string    `json:"problem"`        // current problem, or empty
}

// Delays and limits of the scheduler.
const (
	retryAfter  = 15 * time.Minute // after a failure
	overdue     = 2 * time.Hour    // after the due time of a missing backup
	longestWait = time.Hour        // the clock may be set, or the machine suspended
	settingName = "backup"         // key of the status in the database
)

// Scheduler takes backups when they are due. Create it with NewScheduler.
type Scheduler struct {
	plan  Plan
	table cron.Schedule

	mu     sync.Mutex // guards status
	status Status
}

// CheckSchedule parses the schedule of backups.
func CheckSchedule(text string) (cron.Schedule, error) {
	table, err := cron.Parse(text)
	if err != nil {
		return table, agented.Errorf(agented.Invalid, "AGENTED_BACKUP_SCHEDULE: %s", agented.Message(err)).Because(err)
	}
	return table, nil
}

// NewScheduler returns a Scheduler with the stored status of earlier backups.
func NewScheduler(ctx context.Context, p Plan) (*Scheduler, error) {
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Zone == nil {
		p.Zone = time.Local
	}
	table, err := CheckSchedule(p.Schedule)
	if err != nil {
		return nil, err
	}
	k := &Scheduler{plan: p, table: table}
	text, err := p.DB.Setting(ctx, settingName)
	if err == nil {
		err = json.Unmarshal([]byte(text), &k.status)
	} else if errors.Is(err, agented.NotFound) {
		err = nil
	}
	if err != nil {
		p.Log.Warn("the status of the last backup cannot be read", "err", err)
	}
	k.status.Enabled, k.status.Schedule, k.status.Dir, k.status.Failures, k.status.Running = true, p.Schedule, p.Dir, 0, false
	if k.status.Since.IsZero() {
		k.status.Since = p.Now().UTC()
	}
	return k, nil
}

// Status returns the state of the backups. It is empty for a nil Scheduler.
func (k *Scheduler) Status() Status {
	if k == nil {
		return Status{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.status
	now := k.plan.Now()
	s.Next, _ = k.table.Next(now, k.plan.Zone)
	switch due := k.due(s); {
	case s.LastFailure.After(s.LastSuccess):
		s.Problem = "the last backup failed: " + s.LastError
	case !due.IsZero() && now.Sub(due) > overdue && !s.Running:
		s.Problem = fmt.Sprintf("the backup due at %s was not taken", due.UTC().Format(time.RFC3339))
	}
	return s
}

// due returns the first due time after the last backup.
func (k *Scheduler) due(s Status) time.Time {
	from := s.LastSuccess
	if from.IsZero() {
		from = s.Since
	}
	at, _ := k.table.Next(from, k.plan.Zone)
	return at
}

// Run takes backups until ctx ends. It returns when a backup in progress has ended.
func (k *Scheduler) Run(ctx context.Context) error {
	for {
		k.mu.Lock()
		at := k.due(k.status)
		if again := k.status.LastFailure.Add(retryAfter); k.status.LastFailure.After(k.status.LastSuccess) && at.Before(again) {
			at = again
		}
		k.mu.Unlock()
		wait := longestWait
		if !at.IsZero() {
			wait = min(wait, at.Sub(k.plan.Now()))
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
			continue
		}
		if err := k.RunNow(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			k.plan.Log.Error("the scheduled backup failed", "err", err, "retry_in", retryAfter.String())
		}
	}
}

// RunNow takes a backup now, verifies it, and removes the oldest ones beyond the limit.
func (k *Scheduler) RunNow(ctx context.Context) error {
	k.mu.Lock()
	k.status.Running = true
	k.mu.Unlock()
	began := k.plan.Now().UTC()
	r, err := k.run(ctx, began)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	k.mu.Lock()
	s := &k.status
	s.Running = false
	failing := s.LastFailure.After(s.LastSuccess)
	if err == nil {
		s.LastSuccess, s.LastFile, s.LastBytes, s.LastDurationMS, s.LastError = began, r.File, r.Size, r.DurationMS, ""
	} else {
		s.LastFailure, s.LastError = k.plan.Now().UTC(), agented.Message(err)
		s.Failures++
	}
	text, _ := json.Marshal(s) // marshalling strings and times cannot fail
	k.mu.Unlock()
	if err := k.store(ctx, string(text), failing, err); err != nil {
		k.plan.Log.Warn("the status of the backup cannot be stored", "err", err)
	}
	if err == nil {
		k.plan.Log.Info("backup taken", "file", r.File, "bytes", r.Size, "executions", r.Manifest.Counts.Executions, "logs", r.Manifest.Logs, "took_ms", r.DurationMS, "key", r.Head.Key)
		for _, w := range r.Warnings {
			k.plan.Log.Warn("backup: " + w)
		}
		k.prune()
	}
	return err
}

// store stores the status after a backup, and notifies about the first failure and about the
// first success after one. failing reports that the backup before had failed.
func (k *Scheduler) store(ctx context.Context, status string, failing bool, failure error) error {
	return k.plan.DB.Together(ctx, "backup", true, func(ctx context.Context) error {
		if err := k.plan.DB.SetSetting(ctx, settingName, status); err != nil || failing == (failure != nil) {
			return err
		}
		if failure == nil {
			return k.plan.DB.Notify(ctx, agented.Notice{Kind: agented.NotifyRecovered, Subject: "backup", Text: "the scheduled backup was taken again"})
		}
		return k.plan.DB.Notify(ctx, agented.Notice{
			Kind: agented.NotifyBackup, Subject: "backup",
			Text: fmt.Sprintf("the scheduled backup failed: %s. It is tried again every %s", agented.Message(failure), retryAfter),
		})
	})
}

func (k *Scheduler) run(ctx context.Context, at time.Time) (Report, error) {
	src := k.plan.Source
	if k.plan.PassphraseFile != "" {
		var err error
		if src.Passphrase, err = ReadPassphrase(k.plan.PassphraseFile); err != nil {
			return Report{}, err
		}
	}
	if err := os.MkdirAll(k.plan.Dir, 0o700); err != nil {
		return Report{}, explain("the backup was not written", err)
	}
	k.sweep()
	file := filepath.Join(k.plan.Dir, NameAt(at))
	r, err := Create(ctx, src, file, nil)
	if err != nil {
		return r, err
	}
	checked, err := Check(ctx, file, Options{Passphrase: src.Passphrase, Temp: k.plan.Dir})
	if err != nil {
		// The file is kept for analysis, although it does not count as a backup.
		return r, errors.Join(agented.Errorf(agented.KindOf(err), "the backup %s was written but failed verification: %s", file, agented.Message(err)), os.Rename(file, file+".bad"))
	}
	if checked.Manifest != r.Manifest {
		return r, agented.Errorf(agented.Internal, "the content of the backup %s differs from what was written", file)
	}
	r.DurationMS += checked.DurationMS
	return r, nil
}

// NameAt returns the name of a scheduled backup; names sort by time.
func NameAt(at time.Time) string { return "agented-" + at.UTC().Format("20060102T150405Z") + ".backup" }

var scheduledName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^agented-\d{8}T\d{6}Z\.backup$`) })

// Scheduled lists the scheduled backups in a folder, oldest first.
func Scheduled(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() && scheduledName().MatchString(e.Name()) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}

// TakenAt returns the time of the scheduled backup with that name.
func TakenAt(file string) (time.Time, bool) {
	at, err := time.Parse("agented-20060102T150405Z.backup", filepath.Base(file))
	return at, err == nil
}

// prune removes the oldest backups beyond the limit.
func (k *Scheduler) prune() {
	list, err := Scheduled(k.plan.Dir)
	for i := 0; err == nil && i < len(list)-k.plan.Keep; i++ {
		if err = os.Remove(list[i]); err == nil {
			k.plan.Log.Info("old backup removed", "file", list[i])
		}
	}
	if err != nil {
		k.plan.Log.Warn("old backups cannot be removed", "err", err)
	}
}

// sweep removes temporary files of interrupted backups.
func (k *Scheduler) sweep() {
	for _, prefix := range []string{tempPrefix, checkPrefix} {
		for _, dir := range abandoned(k.plan.Dir, prefix) {
			_ = remove.All(dir)
		}
	}
}

// ReadPassphrase reads a passphrase from the first line of a file.
func ReadPassphrase(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil || !info.Mode().IsRegular() || info.Size() > maxSmall:
		return nil, agented.Errorf(agented.Invalid, "the passphrase file %s cannot be read: give a file with one line", file).Because(err)
	case info.Mode().Perm()&0o002 != 0:
		return nil, agented.Errorf(agented.Invalid, "the passphrase file %s is writable by every user: run `chmod 600 %s`", file, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "the passphrase file %s cannot be read: check its permissions", file).Because(err)
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	b = bytes.TrimPrefix(bytes.TrimRight(b, "\r"), []byte("\uFEFF"))
	if fault := agented.PlaceholderFault(string(b)); fault != "" {
		return nil, agented.Errorf(agented.Invalid, "the passphrase in %s %s; write a passphrase of %d characters or more", file, fault, MinPassphrase)
	}
	return b, CheckPassphrase(b)
}

// CheckPassphrase returns an error if a passphrase is not acceptable.
func CheckPassphrase(b []byte) error {
	if n := len([]rune(string(b))); n < MinPassphrase {
		return agented.Errorf(agented.Invalid, "the passphrase has %d characters and needs at least %d", n, MinPassphrase)
	}
	return nil
}
