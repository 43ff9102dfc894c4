package api

import (
	"context"
	"fmt"

	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/retention"
	"github.com/agented/agented/internal/store"
)

// Maintenance provides the state of disk space, retention and backups. Functions may
// be nil.
type Maintenance struct {
	Disk      func() dispatch.Disk
	Retention func() retention.Settings
	Expirable func(context.Context) (store.Expired, error)
	Prune     func(context.Context) (store.Expired, error)
	// FailedRemovalCount returns how many folders retention could not remove;
	// FailedRemovals returns the first of them.
	FailedRemovalCount func() int64
	FailedRemovals     func(context.Context, int) (store.FailedRemovals, error)
	Backup             func() backup.Status
}

func (k Maintenance) failedRemovals() int64 {
	if k.FailedRemovalCount == nil {
		return 0
	}
	return k.FailedRemovalCount()
}

func (k Maintenance) disk() dispatch.Disk {
	if k.Disk == nil {
		return dispatch.Disk{Files: -1}
	}
	return k.Disk()
}

func (k Maintenance) backup() backup.Status {
	if k.Backup == nil {
		return backup.Status{}
	}
	return k.Backup()
}

// notices returns conditions that need attention although the server works:
// disk, backup, retention.
func (k Maintenance) notices() []string {
	var out []string
	if k.disk().Low {
		out = append(out, "disk")
	}
	if k.backup().Problem != "" {
		out = append(out, "backup")
	}
	if k.failedRemovals() > 0 {
		out = append(out, "retention")
	}
	return out
}

// texts returns the notices as sentences.
func (k Maintenance) texts() []string {
	out := []string{}
	if d := k.disk(); d.Low {
		out = append(out, "The disk of the data folder is nearly full: new executions wait until space is free.")
	}
	if t := k.backup().Problem; t != "" {
		out = append(out, "Backup: "+t)
	}
	if n := k.failedRemovals(); n > 0 {
		out = append(out, fmt.Sprintf("Retention could not remove %d folder(s): `agented prune --dry-run` lists them with the reason.", n))
	}
	return out
}
