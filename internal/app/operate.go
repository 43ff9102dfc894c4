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
)

// reloadable are the settings that a reload takes over. What is not here needs a
// restart.
var reloadable = []string{
	"AGENTED_TLS_CERT", "AGENTED_TLS_KEY", "AGENTED_REQUEST_TIMEOUT", "AGENTED_MAX_CONNECTIONS", "AGENTED_SHUTDOWN_TIMEOUT",
	"AGENTED_API_KEY", "LOG_LEVEL", "CORS_ALLOWED_ORIGINS", "AGENTED_ALLOWED_HOSTS", "GITHUB_WEBHOOK_SECRET", "AGENTED_GITHUB_LOGINS",
	"AGENTED_MAX_CONCURRENT", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "CLAUDE_PLUGIN_ROOT",
	"OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_HOME", "GEMINI_API_KEY", "GEMINI_CLI_HOME", "OPENCODE_HOME",
}

// Reload reads the settings again and takes over those that can change while
// the server runs. On an error nothing has changed.
func (a *App) Reload() (out *api.Reloaded, err error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	done := a.notify.reloading()
	defer func() {
		if err != nil {
			a.o.Log.Error("the settings were not reloaded; the old ones stay", "err", err)
		}
		done(err)
	}()
	now := a.config.Load()
	next, err := now.Reload()
	if err != nil {
		return nil, err
	}
	var certs *tls.Certificate
	if a.certs != nil && next.TLSCert != "" {
		if certs, err = readCertificate(next.TLSCert, next.TLSKey); err != nil {
			return nil, err
		}
	}
	if err := a.api.Reload(next); err != nil {
		return nil, err
	}
	if certs != nil {
		a.certs.current.Store(certs)
	}
	a.config.Store(next)
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
	// Against the settings of the start: what has waited for a restart since an
	// earlier reload waits still.
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

// needsRestart reports whether a setting that has changed is not taken over.
func (a *App) needsRestart(name string) bool {
	if strings.HasPrefix(name, "AGENTED_TLS_") && (a.certs == nil || a.config.Load().TLSCert == "") {
		return true // TLS is turned on or off
	}
	return !slices.Contains(reloadable, name)
}

// drainedSetting is where the database has whether this server is drained: a
// restart does not change it.
const drainedSetting = "drained"

// Drained is nil while executions are started.
func (a *App) Drained() *api.Drained { return a.drained.Load() }

// SetDrained has executions started no more, or again. What is admitted
// meanwhile waits and says why.
func (a *App) SetDrained(ctx context.Context, on bool, by string) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if on == (a.drained.Load() != nil) {
		return nil
	}
	if !on {
		if err := a.db.SetSetting(ctx, drainedSetting, ""); err != nil {
			return err
		}
		a.drained.Store(nil)
		a.dispatch.Undrain()
		a.o.Log.Info("executions are started again", "by", by)
		return nil
	}
	d := &api.Drained{Since: a.now(), By: by}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := a.db.SetSetting(ctx, drainedSetting, string(b)); err != nil {
		return err
	}
	a.beDrained(d)
	a.o.Log.Info("no more executions are started", "by", by, "running", a.dispatch.Running())
	return nil
}

// restoreDrained takes over what an earlier server was asked for.
func (a *App) restoreDrained(ctx context.Context) error {
	text, err := a.db.Setting(ctx, drainedSetting)
	if agented.KindOf(err) == agented.NotFound || err == nil && text == "" {
		return nil
	}
	d := new(api.Drained)
	if err == nil {
		err = json.Unmarshal([]byte(text), d)
	}
	if err != nil {
		return fmt.Errorf("read whether the server is drained: %w", err)
	}
	a.beDrained(d)
	a.o.Log.Warn("this server is drained: no executions are started until `agented drain --off`", "since", d.Since, "by", d.By)
	return nil
}

func (a *App) beDrained(d *api.Drained) {
	a.drained.Store(d)
	a.dispatch.Drain("the server is drained since " + d.Since.UTC().Format("2006-01-02 15:04 UTC") + " by " + d.By + ": it starts when `agented drain --off` is said")
}
