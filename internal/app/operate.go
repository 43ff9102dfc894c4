package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/store"
)

// reloadable lists the settings that a reload applies. All others need a restart.
var reloadable = append([]string{
	"AGENTED_TLS_CERT", "AGENTED_TLS_KEY", "AGENTED_REQUEST_TIMEOUT", "AGENTED_MAX_CONNECTIONS", "AGENTED_SHUTDOWN_TIMEOUT",
	"AGENTED_API_KEY", "LOG_LEVEL", "CORS_ALLOWED_ORIGINS", "AGENTED_ALLOWED_HOSTS", "AGENTED_TRUSTED_PROXIES", "GITHUB_WEBHOOK_SECRET", "AGENTED_GITHUB_LOGINS",
	"GITHUB_APP_ID", "GITHUB_APP_PRIVATE_KEY", "AGENTED_GITHUB_TOKEN", "AGENTED_GITHUB_API_URL", "AGENTED_GITHUB_PULL", "AGENTED_GITHUB_HOOKS",
	"AGENTED_MAX_CONCURRENT",
}, config.BackendSettings()...)

// Reload reloads the settings and applies those that can change while the server is running. On
// an error nothing changes.
func (a *App) Reload() (out *api.Reloaded, err error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	done := a.notify.reloading()
	defer func() {
		if err != nil {
			a.o.Log.Error("the settings were not reloaded; the old ones stay in effect", "err", err)
		}
		done(err)
	}()
	now := a.config.Load()
	next, err := now.Reload()
	if err != nil {
		return nil, err
	}
	if bad := Check(next); len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	var certs *tls.Certificate
	if a.certs != nil && next.TLSCert != "" {
		if certs, err = readCertificate(next.TLSCert, next.TLSKey); err != nil {
			return nil, err
		}
	}
	hub, err := a.newGitHub(next)
	if err != nil {
		return nil, err
	}
	if err := a.api.Reload(next); err != nil {
		return nil, err
	}
	a.github.Store(hub)
	if certs != nil {
		a.certs.current.Store(certs)
	}
	a.config.Store(next)
	a.sandboxes.forget() // bubblewrap may have been installed
	a.dispatch.SetLimit(next.MaxConcurrent)
	if a.o.Level != nil {
		a.o.Level.Set(next.LogLevel)
	}
	a.setMasker()
	out = &api.Reloaded{Changed: []string{}, Restart: []string{}, Warnings: []string{}, File: next.DotenvPath()}
	for _, w := range next.Warnings {
		a.o.Log.Warn(w.String())
		out.Warnings = append(out.Warnings, w.String())
	}
	// Compare with the settings of the start, so that a change that needs a restart is reported
	// until then.
	for _, name := range a.o.Config.Changed(next) {
		if a.needsRestart(name) {
			out.Restart = append(out.Restart, name)
		}
	}
	for _, name := range now.Changed(next) {
		if !a.needsRestart(name) {
			out.Changed = append(out.Changed, name)
		}
	}
	a.o.Log.Info("settings reloaded", "changed", strings.Join(out.Changed, " "), "need_restart", strings.Join(out.Restart, " "))
	return out, nil
}

// needsRestart reports whether a changed setting is not applied by a reload.
func (a *App) needsRestart(name string) bool {
	if strings.HasPrefix(name, "AGENTED_TLS_") && (a.certs == nil || a.config.Load().TLSCert == "") {
		return true // TLS was switched on or off
	}
	return !slices.Contains(reloadable, name)
}

// Drained returns nil unless drain mode is on.
func (a *App) Drained() *api.Drained { return a.drained.Load() }

// SetDrained switches drain mode on or off. Executions that are admitted meanwhile wait, with a
// reason.
func (a *App) SetDrained(ctx context.Context, on bool, by string) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if on == (a.drained.Load() != nil) {
		return nil
	}
	if !on {
		if err := a.db.SetSetting(ctx, store.SettingDrained, ""); err != nil {
			return err
		}
		a.drained.Store(nil)
		a.dispatch.Undrain()
		a.o.Log.Info("drain mode switched off", "by", by)
		return nil
	}
	d := &api.Drained{Since: a.now(), By: by}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := a.db.SetSetting(ctx, store.SettingDrained, string(b)); err != nil {
		return err
	}
	a.applyDrain(d)
	a.o.Log.Info("drain mode switched on", "by", by, "running", a.dispatch.Running())
	return nil
}

// restoreDrained restores the drain mode of an earlier server.
func (a *App) restoreDrained(ctx context.Context) error {
	text, err := a.db.Setting(ctx, store.SettingDrained)
	if agented.KindOf(err) == agented.NotFound || err == nil && text == "" {
		return nil
	}
	d := new(api.Drained)
	if err == nil {
		err = json.Unmarshal([]byte(text), d)
	}
	if err != nil {
		return fmt.Errorf("read drain mode: %w", err)
	}
	a.applyDrain(d)
	a.o.Log.Warn("drain mode is on: no executions are started until `agented drain --off`", "since", d.Since, "by", d.By)
	return nil
}

func (a *App) applyDrain(d *api.Drained) {
	a.drained.Store(d)
	a.dispatch.Drain("drain mode was switched on at " + d.Since.UTC().Format("2006-01-02 15:04 UTC") + " by " + d.By + ": executions start after `agented drain --off`")
}
