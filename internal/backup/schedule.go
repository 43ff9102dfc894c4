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
	"github.com/agented/agented/internal/store"
)

// Plan is how a server takes backups by itself.
type Plan struct {
	Source         Source // but for the passphrase
	DB             *store.DB
	Dir            string
	Schedule       string // cron
	Zone           *time.Location
	Keep           int
	PassphraseFile string // empty: the key is left out
	Now            func() time.Time
	Log            *slog.Logger
}

// Status is how the scheduled backups stand.
type Status struct {
	Enabled     bool      `json:"enabled"`
	Schedule    string    `json:"schedule"`
	Dir         string    `json:"dir"`
	LastSuccess time.Time `json:"last_success_at,omitzero"`
	LastFile    string    `json:"last_file"`
	LastBytes   int64     `json:"last_bytes"`
	LastTookMS  int64     `json:"last_took_ms"`
	LastFailure time.Time `json:"last_failure_at,omitzero"`
	LastError   string    `json:"last_error"`
	Failures    int64     `json:"failures"` // since the server started
	Running     bool      `json:"running"`
	Next        time.Time `json:"next_at,omitzero"`
	Since       time.Time `json:"since,omitzero"` // when they were first due to be taken
	Trouble     string    `json:"trouble"`        // what is wrong; empty if nothing is
}

// Pauses of the keeper.
const (
	retryAfter  = 15 * time.Minute // after a failure
	overdue     = 2 * time.Hour    // behind the due time of a backup that is not there
	longestWait = time.Hour        // clocks are set, machines are suspended
	settingName = "backup"         // under which the database keeps the status
)

// Keeper takes backups when they are due. Make it with NewKeeper.
type Keeper struct {
	plan  Plan
	table cron.Schedule

	mu     sync.Mutex // guards status
	status Status
}

// CheckSchedule says what is wrong with the schedule of backups.
func CheckSchedule(text string) (cron.Schedule, error) {
	table, err := cron.Parse(text)
	if err != nil {
		return table, agented.Errorf(agented.Invalid, "AGENTED_BACKUP_SCHEDULE: %s", agented.Message(err)).Because(err)
	}
	return table, nil
}

// NewKeeper returns a keeper that knows how the last backups went.
func NewKeeper(ctx context.Context, p Plan) (*Keeper, error) {
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
	k := &Keeper{plan: p, table: table}
	text, err := p.DB.Setting(ctx, settingName)
	if err == nil {
		err = json.Unmarshal([]byte(text), &k.status)
	} else if errors.Is(err, agented.NotFound) {
		err = nil
	}
	if err != nil {
		p.Log.Warn("how the last backup went cannot be read", "err", err)
	}
	k.status.Enabled, k.status.Schedule, k.status.Dir, k.status.Failures, k.status.Running = true, p.Schedule, p.Dir, 0, false
	if k.status.Since.IsZero() {
		k.status.Since = p.Now().UTC()
	}
	return k, nil
}

// Status says how the backups stand. A nil Keeper has none.
func (k *Keeper) Status() Status {
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
		s.Trouble = "the last backup failed: " + s.LastError
	case !due.IsZero() && now.Sub(due) > overdue && !s.Running:
		s.Trouble = fmt.Sprintf("the backup due at %s was not taken", due.UTC().Format(time.RFC3339))
	}
	return s
}

// due is the first due time since the last backup.
func (k *Keeper) due(s Status) time.Time {
	from := s.LastSuccess
	if from.IsZero() {
		from = s.Since
	}
	at, _ := k.table.Next(from, k.plan.Zone)
	return at
}

// Run takes backups until ctx ends. It returns when the one that is being taken
// has ended.
func (k *Keeper) Run(ctx context.Context) error {
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
		if err := k.Take(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			k.plan.Log.Error("the scheduled backup failed", "err", err, "retry_in", retryAfter.String())
		}
	}
}

// Take takes a backup now, reads it back, and removes those beyond the limit.
func (k *Keeper) Take(ctx context.Context) error {
	k.mu.Lock()
	k.status.Running = true
	k.mu.Unlock()
	began := k.plan.Now().UTC()
	r, err := k.take(ctx, began)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	k.mu.Lock()
	s := &k.status
	s.Running = false
	if err == nil {
		s.LastSuccess, s.LastFile, s.LastBytes, s.LastTookMS, s.LastError = began, r.File, r.Size, r.TookMS, ""
	} else {
		s.LastFailure, s.LastError = k.plan.Now().UTC(), agented.Message(err)
		s.Failures++
	}
	text, _ := json.Marshal(s) // strings and times always marshal
	k.mu.Unlock()
	if err := k.plan.DB.SetSetting(ctx, settingName, string(text)); err != nil {
		k.plan.Log.Warn("how the backup went cannot be kept", "err", err)
	}
	if err == nil {
		k.plan.Log.Info("backup taken", "file", r.File, "bytes", r.Size, "executions", r.Manifest.Counts.Executions, "logs", r.Manifest.Logs, "took_ms", r.TookMS, "key", r.Head.Key)
		for _, w := range r.Warnings {
			k.plan.Log.Warn("backup: " + w)
		}
		k.prune()
	}
	return err
}

func (k *Keeper) take(ctx context.Context, at time.Time) (Report, error) {
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
		// It stays: whoever looks for the cause needs it, and it is no success.
		return r, errors.Join(agented.Errorf(agented.KindOf(err), "the backup %s was written and is not good: %s", file, agented.Message(err)), os.Rename(file, file+".bad"))
	}
	if checked.Manifest != r.Manifest {
		return r, agented.Errorf(agented.Internal, "the backup %s reads back as another", file)
	}
	r.TookMS += checked.TookMS
	return r, nil
}

// NameAt is the name of a scheduled backup; names sort by time.
func NameAt(at time.Time) string { return "agented-" + at.UTC().Format("20060102T150405Z") + ".backup" }

var scheduledName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^agented-\d{8}T\d{6}Z\.backup$`) })

// Scheduled lists the scheduled backups of a folder, the oldest first.
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

// TakenAt is when a scheduled backup of that name was taken.
func TakenAt(file string) (time.Time, bool) {
	at, err := time.Parse("agented-20060102T150405Z.backup", filepath.Base(file))
	return at, err == nil
}

// prune removes the oldest backups beyond the limit.
func (k *Keeper) prune() {
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

// sweep removes what backups that were cut short have left behind.
func (k *Keeper) sweep() {
	for _, pattern := range []string{tempPrefix + "*", "agented-check-*"} {
		left, _ := filepath.Glob(filepath.Join(k.plan.Dir, pattern))
		for _, dir := range left {
			if info, err := os.Lstat(dir); err == nil && info.IsDir() && k.plan.Now().Sub(info.ModTime()) > 24*time.Hour {
				os.RemoveAll(dir)
			}
		}
	}
}

// ReadPassphrase reads a passphrase from the first line of a file.
func ReadPassphrase(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil || !info.Mode().IsRegular() || info.Size() > maxSmall:
		return nil, agented.Errorf(agented.Invalid, "the passphrase file %s cannot be read: name a file with one line", file).Because(err)
	case info.Mode().Perm()&0o002 != 0:
		return nil, agented.Errorf(agented.Invalid, "the passphrase file %s can be changed by every user: run `chmod 600 %s`", file, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "the passphrase file %s cannot be read: check its permissions", file).Because(err)
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	b = bytes.TrimRight(b, "\r")
	return b, CheckPassphrase(b)
}

// CheckPassphrase says what is wrong with a passphrase.
func CheckPassphrase(b []byte) error {
	if n := len([]rune(string(b))); n < MinPassphrase {
		return agented.Errorf(agented.Invalid, "the passphrase has %d characters and needs at least %d", n, MinPassphrase)
	}
	return nil
}
