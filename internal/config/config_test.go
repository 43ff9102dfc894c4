package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/google/go-cmp/cmp"
)

var machine = config.Machine{CPUs: 4, MemoryBytes: 16 << 30, Descriptors: 1024}

// options returns options for a start in an empty folder with the given
// environment and, unless empty, a .env file.
func options(t testing.TB, dotenv string, environ ...string) config.Options {
	t.Helper()
	dir := t.TempDir()
	if dotenv != "" {
		write(t, filepath.Join(dir, ".env"), dotenv)
	}
	environ = append([]string{"HOME=/home/u", "PATH=/bin"}, environ...)
	return config.Options{Environ: func() []string { return environ }, Dir: dir, Machine: machine}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, o config.Options) *config.Config {
	t.Helper()
	c, err := config.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoad_defaults(t *testing.T) {
	t.Parallel()
	c := load(t, options(t, ""))
	if len(c.Warnings) != 0 {
		t.Errorf("warnings %v", c.Warnings)
	}
	got := map[string]string{}
	for _, row := range c.Show("", "") {
		got[row.Name] = row.Value
		if row.Source != "default" && row.Section != "System" {
			t.Errorf("%s comes from %q", row.Name, row.Source)
		}
	}
	want := map[string]string{
		"AGENTED_BIND": "127.0.0.1:20000", "AGENTED_BROKER": "off", "AGENTED_TLS_CERT": "", "AGENTED_TLS_KEY": "", "AGENTED_REQUEST_TIMEOUT": "5m",
		"AGENTED_MAX_CONNECTIONS": "576", "AGENTED_ACCESS_LOG": "stdout", "AGENTED_SHUTDOWN_TIMEOUT": "30s",
		"AGENTED_DATA_DIR": "/home/u/.local/share/agented", "AGENTED_DB_PATH": "/home/u/.local/share/agented/agented.db",
		"AGENTED_DATABASE_URL": "", "SECRET_KEY": "", "SECRET_KEY_FILE": "", "AGENTED_API_KEY": "",
		"LOG_LEVEL": "info", "LOG_FORMAT": "auto", "CORS_ALLOWED_ORIGINS": "", "AGENTED_ALLOWED_HOSTS": "", "AGENTED_TRUSTED_PROXIES": "", "AGENTED_BASE_PATH": "",
		"GITHUB_WEBHOOK_SECRET": "", "AGENTED_MAX_CONCURRENT": "8", "SSE_REPLAY_LIMIT": "500",
		"AGENTED_CHAIN_DEPTH": "30", "AGENTED_CHAIN_FANOUT": "50", "AGENTED_CHAIN_TOTAL": "500", "AGENTED_CHAIN_COST_USD": "0",
		"AGENTED_WORKSPACE_PROTOCOLS": "https,ssh,file", "AGENTED_WORKSPACE_TIMEOUT": "30m", "AGENTED_WORKSPACE_KEEP_DAYS": "7",
		"AGENTED_WORKSPACE_KEEP_COUNT": "200", "AGENTED_WORKSPACE_MIN_FREE": "1024", "AGENTED_MAX_MEMORY": "0", "AGENTED_MAX_PROCESSES": "0", "AGENTED_MAX_SWAP": "0", "AGENTED_MAX_DISK": "0", "AGENTED_CPU_WEIGHT": "0", "AGENTED_SANDBOX": "auto", "AGENTED_SANDBOX_FORWARD": "", "AGENTED_PAUSE_LIMIT": "24h", "AGENTED_PRICES": "",
		"AGENTED_MIN_FREE": "256", "AGENTED_PUBLIC_URL": "", "AGENTED_NOTIFY_ALLOW": "", "AGENTED_NOTIFY_PARKED_AFTER": "30m", "AGENTED_KEEP_LOGS_DAYS": "90", "AGENTED_KEEP_LOGS_MB": "0", "AGENTED_KEEP_EXECUTIONS_DAYS": "0",
		"AGENTED_KEEP_EXECUTIONS": "0", "AGENTED_KEEP_BODIES_DAYS": "30", "AGENTED_KEEP_DELIVERIES_DAYS": "0", "AGENTED_KEEP_TICKS_DAYS": "365",
		"AGENTED_KEEP_AUDIT_DAYS": "730", "AGENTED_KEEP_IDEMPOTENCY_DAYS": "0",
		"AGENTED_BACKUP_DIR": "", "AGENTED_BACKUP_SCHEDULE": "0 3 * * *", "AGENTED_BACKUP_KEEP": "7", "AGENTED_BACKUP_PASSPHRASE_FILE": "",
		"STALE_EXECUTION_THRESHOLD_SECS": "15m", "STALE_CONVERSATION_THRESHOLD_SECS": "30m", "TZ": "",
		"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "", "CLAUDE_CODE_OAUTH_TOKEN": "", "CLAUDE_CONFIG_DIR": "",
		"CLAUDE_PLUGIN_ROOT": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "", "CODEX_HOME": "", "GEMINI_API_KEY": "", "GOOGLE_GEMINI_BASE_URL": "", "GEMINI_CLI_HOME": "",
		"OPENCODE_HOME": "", "SENTRY_DSN": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "", "OTEL_EXPORTER_OTLP_PROTOCOL": "", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "", "OTEL_RESOURCE_ATTRIBUTES": "", "OTEL_EXPORTER_OTLP_HEADERS": "", "OTEL_SERVICE_NAME": "agented",
		"AGENTED_URL": "", "SECRET_KEY_PREVIOUS": "", "AGENTED_GITHUB_LOGINS": "", "AGENTED_GITHUB_TOKEN": "", "AGENTED_GITHUB_PULL": "1m", "AGENTED_GITHUB_HOOKS": "", "AGENTED_GITHUB_API_URL": "https://api.github.com", "GITHUB_APP_ID": "", "GITHUB_APP_PRIVATE_KEY": "", "HOME": "/home/u", "PATH": "/bin", "XDG_DATA_HOME": "",
		"XDG_STATE_HOME": "", "XDG_RUNTIME_DIR": "", "NO_COLOR": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c.Zone != time.Local || c.RequestTimeout != 300*time.Second || c.StaleExecution != 900*time.Second {
		t.Errorf("zone %v, request timeout %v, stale %v", c.Zone, c.RequestTimeout, c.StaleExecution)
	}
}

func TestLoad_data_folder(t *testing.T) {
	t.Parallel()
	if c := load(t, options(t, "", "XDG_DATA_HOME=/xdg")); c.DataDir != "/xdg/agented" {
		t.Error(c.DataDir)
	}
	if c := load(t, options(t, "", "XDG_DATA_HOME=relative")); c.DataDir != "/home/u/.local/share/agented" {
		t.Error(c.DataDir)
	}
	if c := load(t, options(t, "", "AGENTED_DATA_DIR=/d", "XDG_DATA_HOME=/xdg")); c.DataDir != "/d" || c.DBPath != "/d/agented.db" {
		t.Error(c.DataDir, c.DBPath)
	}
	o := options(t, "")
	o.Environ = func() []string { return nil }
	if _, err := config.Load(o); err == nil || !strings.Contains(err.Error(), "AGENTED_DATA_DIR") {
		t.Errorf("without a home: %v", err)
	}
}

func TestLoad_precedence(t *testing.T) {
	t.Parallel()
	o := options(t, "LOG_LEVEL=debug\nSSE_REPLAY_LIMIT=7\nAGENTED_BIND=:1\n", "LOG_LEVEL=error", "AGENTED_BIND=")
	c := load(t, o)
	if c.LogLevel != slog.LevelError || c.SSEReplayLimit != 7 || c.Bind.String() != "127.0.0.1:20000" {
		t.Errorf("level %v, limit %d, bind %v", c.LogLevel, c.SSEReplayLimit, c.Bind)
	}
	env := filepath.Join(o.Dir, ".env")
	for name, want := range map[string]string{
		"LOG_LEVEL": "environment", "SSE_REPLAY_LIMIT": env + ":2", "AGENTED_BIND": "default", "LOG_FORMAT": "default",
	} {
		if got := c.Origin(name).String(); got != want {
			t.Errorf("%s comes from %q, want %q", name, got, want)
		}
	}
	if c.DotenvPath() != env {
		t.Errorf("path %q", c.DotenvPath())
	}
}

func TestLoad_old_names(t *testing.T) {
	t.Parallel()
	c := load(t, options(t, "AGENTED_BIND=:1\nANTHROPIC_API_BASE=http://dot\nANTHROPIC_BASE_URL=http://new", "GUNICORN_BIND=127.0.0.1:2"))
	if c.Bind.String() != "127.0.0.1:2" || c.Origin("AGENTED_BIND").String() != "environment as GUNICORN_BIND" {
		t.Errorf("bind %v from %v", c.Bind, c.Origin("AGENTED_BIND"))
	}
	if c.BackendEnv("claude")["ANTHROPIC_BASE_URL"] != "http://new" {
		t.Errorf("base url %q", c.BackendEnv("claude")["ANTHROPIC_BASE_URL"])
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "ANTHROPIC_API_BASE") {
		t.Errorf("warnings %v, want one of the old name beside the new one", c.Warnings)
	}
	if c := load(t, options(t, "ANTHROPIC_API_BASE=http://old/")); c.BackendEnv("claude")["ANTHROPIC_BASE_URL"] != "http://old" {
		t.Errorf("base url %q", c.BackendEnv("claude")["ANTHROPIC_BASE_URL"])
	}
}

func TestLoad_secret_files(t *testing.T) {
	t.Parallel()
	o := options(t, "ANTHROPIC_API_KEY_FILE=key\nGITHUB_WEBHOOK_SECRET=from-dotenv", "GITHUB_WEBHOOK_SECRET_FILE=hook")
	write(t, filepath.Join(o.Dir, "key"), "sk-from-file\n")
	write(t, filepath.Join(o.Dir, "hook"), "from-file\r\n")
	c := load(t, o)
	if c.BackendEnv("claude")["ANTHROPIC_API_KEY"] != "sk-from-file" || c.GitHubWebhookSecret.Reveal() != "from-file" {
		t.Errorf("%q %q", c.BackendEnv("claude")["ANTHROPIC_API_KEY"], c.GitHubWebhookSecret.Reveal())
	}
	if got := c.Origin("GITHUB_WEBHOOK_SECRET").String(); got != "environment as GITHUB_WEBHOOK_SECRET_FILE" {
		t.Error(got)
	}
	_, err := config.Load(options(t, "", "AGENTED_API_KEY_FILE=/nowhere", "OPENAI_API_KEY_FILE=/dev/null", "GEMINI_API_KEY_FILE=/"))
	for _, want := range []string{"AGENTED_API_KEY_FILE: /nowhere", "OPENAI_API_KEY_FILE: /dev/null", "GEMINI_API_KEY_FILE: /"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestLoad_secret_key(t *testing.T) {
	t.Parallel()
	c := load(t, options(t, "SECRET_KEY=\" spaces \"\n"))
	if c.SecretKey.Reveal() != " spaces " || c.SecretKeyFile != "" {
		t.Errorf("%q %q", c.SecretKey.Reveal(), c.SecretKeyFile)
	}
	o := options(t, "SECRET_KEY=in-dotenv", "SECRET_KEY_FILE=/run/secrets/key")
	if c := load(t, o); c.SecretKey.IsSet() || c.SecretKeyFile != "/run/secrets/key" || c.Origin("SECRET_KEY").Kind != "default" {
		t.Errorf("the environment's file does not beat the .env's value: %v %q", c.SecretKey, c.SecretKeyFile)
	}
	o = options(t, "SECRET_KEY_FILE=/x", "SECRET_KEY=in-environment")
	if c := load(t, o); c.SecretKey.Reveal() != "in-environment" || c.SecretKeyFile != "" || len(c.Warnings) != 0 {
		t.Errorf("%q %q %v", c.SecretKey.Reveal(), c.SecretKeyFile, c.Warnings)
	}
	o = options(t, "", "SECRET_KEY=x", "SECRET_KEY_FILE=/x")
	if c := load(t, o); c.SecretKey.Reveal() != "x" || c.SecretKeyFile != "" || len(c.Warnings) != 1 {
		t.Errorf("%q %q %v", c.SecretKey.Reveal(), c.SecretKeyFile, c.Warnings)
	}
}

func TestDotenv_in_folders_above(t *testing.T) {
	t.Parallel()
	o := options(t, "AGENTED_DATA_DIR=./data\nCODEX_HOME=~/codex\nSSE_REPLAY_LIMIT=1")
	top := o.Dir
	o.Dir = filepath.Join(top, "a", "b")
	if err := os.MkdirAll(filepath.Join(o.Dir, ".env"), 0o700); err != nil { // a directory of that name is ignored
		t.Fatal(err)
	}
	c := load(t, o)
	if c.DotenvPath() != filepath.Join(top, ".env") || c.DataDir != filepath.Join(top, "data") || c.BackendEnv("codex")["CODEX_HOME"] != "/home/u/codex" {
		t.Errorf("%q %q %q", c.DotenvPath(), c.DataDir, c.BackendEnv("codex")["CODEX_HOME"])
	}
	write(t, filepath.Join(top, "a", ".env"), "SSE_REPLAY_LIMIT=2")
	if c := load(t, o); c.SSEReplayLimit != 2 {
		t.Errorf("the nearest file does not win: %d", c.SSEReplayLimit)
	}
	o.EnvFile = "../../.env"
	if c := load(t, o); c.SSEReplayLimit != 1 {
		t.Errorf("the named file does not win: %d", c.SSEReplayLimit)
	}
	o.EnvFile = "missing"
	if _, err := config.Load(o); !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), filepath.Join(o.Dir, "missing")) {
		t.Errorf("a named file that is missing: %v", err)
	}
	o = options(t, "", "AGENTED_DATA_DIR=data")
	if c := load(t, o); c.DataDir != filepath.Join(o.Dir, "data") {
		t.Errorf("relative to the working directory: %q", c.DataDir)
	}
}

func TestDotenv_of_another_user(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	o := options(t, "SSE_REPLAY_LIMIT=1")
	top := o.Dir
	if err := os.Chown(filepath.Join(top, ".env"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if c := load(t, o); c.SSEReplayLimit != 1 {
		t.Error("in the working directory itself it counts")
	}
	o.Dir = filepath.Join(top, "below")
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := load(t, o)
	if c.SSEReplayLimit != 500 || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "another user") {
		t.Errorf("limit %d, warnings %v", c.SSEReplayLimit, c.Warnings)
	}
}

func TestDotenv_invalid_lines(t *testing.T) {
	t.Parallel()
	o := options(t, "A=1\nnot a line hunter2\nLOG_LEVEL=debug\n")
	c := load(t, o)
	if c.LogLevel != slog.LevelDebug || len(c.Warnings) != 1 {
		t.Fatalf("level %v, warnings %v", c.LogLevel, c.Warnings)
	}
	if text := c.Warnings[0].String(); !strings.Contains(text, ".env:2") || strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}

func TestLoad_reports_all_problems(t *testing.T) {
	t.Parallel()
	const secret = "tiny-secret"
	environ := []string{
		"AGENTED_BIND=20000", "AGENTED_REQUEST_TIMEOUT=soon", "AGENTED_MAX_CONNECTIONS=-1", "AGENTED_ACCESS_LOG=none",
		"AGENTED_SHUTDOWN_TIMEOUT=48h", "AGENTED_DATABASE_URL=postgres://u:" + secret + "@h/db", "AGENTED_API_KEY=" + secret,
		"LOG_LEVEL=loud", "LOG_FORMAT=xml", "CORS_ALLOWED_ORIGINS=https://u:" + secret + "@h", "AGENTED_ALLOWED_HOSTS=https://x", "TZ=Mars/Olympus",
		"AGENTED_MAX_CONCURRENT=many", "SSE_REPLAY_LIMIT=-5", "STALE_EXECUTION_THRESHOLD_SECS=0", "ANTHROPIC_BASE_URL=u:" + secret + "@h",
		"OPENAI_API_KEY=" + secret + "\nx", "AGENTED_TLS_CERT=/x", "STALE_CONVERSATION_THRESHOLD_SECS=99999999999999999999",
	}
	_, err := config.Load(options(t, "", environ...))
	e, ok := errors.AsType[*agented.Error](err)
	if !ok || !errors.Is(err, agented.Invalid) {
		t.Fatalf("error %v", err)
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("a secret shows:\n%v", err)
	}
	got := make(map[string]string)
	for _, f := range e.Fields {
		got[f.Path] = f.Text
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if name == "AGENTED_TLS_CERT" {
			name = "AGENTED_TLS_KEY"
		}
		if got[name] == "" || !strings.Contains(err.Error(), name+": "+got[name]) {
			t.Errorf("%s is not reported", name)
		}
	}
	if len(e.Fields) != len(environ) {
		t.Errorf("%d problems, want %d", len(e.Fields), len(environ))
	}
	if want := `"20000" is only a port; write :20000 for all addresses or 127.0.0.1:20000 for this machine only (environment)`; got["AGENTED_BIND"] != want {
		t.Errorf("text %q\nwant %q", got["AGENTED_BIND"], want)
	}
	t.Log(err)
}

func TestLoad_PostgreSQL(t *testing.T) {
	t.Parallel()
	_, err := config.Load(options(t, "", "AGENTED_DATABASE_URL=postgres://h/db"))
	if err == nil || !strings.Contains(err.Error(), "this version does not support PostgreSQL") {
		t.Error(err)
	}
}

func TestLoad_unknown_names(t *testing.T) {
	t.Parallel()
	c := load(t, options(t, "AGENTED_DATADIR=/x\nGITHUB_WEBHOOK_SECRT=x\nMY_OWN=1\nEDITOR=vi\n",
		"AGENTED_BNID=:1", "AGENTED_VAULT_KEYS=x", "AGENTED_EXECUTION_ID=exec-1", "AGENTED_ATTEMPT=1", "AGENTED_TRIGGER_ID=t",
		"AGENTED_URL=http://h", "AGENTED_API_KEY_FILE=", "AGENTED_TEST_X=1", "AGENTED_SECRET_Y=1", "OPENAI_API_KEYS=x", "UNRELATED=1"))
	var got []string
	for _, w := range c.Warnings {
		got = append(got, w.Name+" → "+w.Text)
	}
	want := []string{
		"AGENTED_BNID → this is not a setting; the nearest one is AGENTED_BIND",
		"AGENTED_VAULT_KEYS → this is not a setting; `agented config show` lists all",
		"AGENTED_DATADIR → this is not a setting; the nearest one is AGENTED_DATA_DIR",
		"GITHUB_WEBHOOK_SECRT → this is not a setting, but similar to GITHUB_WEBHOOK_SECRET",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBackendEnv(t *testing.T) {
	t.Parallel()
	var environ []string
	for _, name := range []string{
		"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "OPENAI_API_KEY", "GEMINI_API_KEY", "GITHUB_WEBHOOK_SECRET", "SECRET_KEY",
	} {
		environ = append(environ, name+"=value-of-"+name)
	}
	for _, name := range []string{"CLAUDE_CONFIG_DIR", "CLAUDE_PLUGIN_ROOT", "CODEX_HOME", "GEMINI_CLI_HOME", "OPENCODE_HOME"} {
		environ = append(environ, name+"=/"+name)
	}
	c := load(t, options(t, "", append(environ, "ANTHROPIC_API_BASE=http://h:1", "OPENAI_BASE_URL=http://h:1", "GOOGLE_GEMINI_BASE_URL=http://h:1")...))
	for backend, want := range map[string]string{
		"claude":    "ANTHROPIC_API_KEY ANTHROPIC_BASE_URL CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CONFIG_DIR CLAUDE_PLUGIN_ROOT",
		"codex":     "CODEX_HOME OPENAI_API_KEY OPENAI_BASE_URL",
		"gemini":    "GEMINI_API_KEY GEMINI_CLI_HOME GOOGLE_GEMINI_BASE_URL",
		"opencode":  "ANTHROPIC_API_KEY GEMINI_API_KEY OPENAI_API_KEY OPENCODE_HOME",
		"command":   "",
		"anthropic": "ANTHROPIC_API_KEY ANTHROPIC_BASE_URL",
	} {
		env := c.BackendEnv(backend)
		var names []string
		for name, value := range env {
			names = append(names, name)
			if value != "value-of-"+name && value != "/"+name && value != "http://h:1" {
				t.Errorf("%s: %s=%s", backend, name, value)
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s gets %q, want %q", backend, got, want)
		}
	}
	if env := load(t, options(t, "")).BackendEnv("claude"); len(env) != 0 {
		t.Errorf("unset variables are passed: %v", env)
	}
}

func TestSecret_is_never_printed(t *testing.T) {
	t.Parallel()
	const secret = "do-not-show-me-0123456789"
	var environ []string
	for _, name := range []string{
		"SECRET_KEY", "AGENTED_API_KEY", "GITHUB_WEBHOOK_SECRET", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "OPENAI_API_KEY", "GEMINI_API_KEY",
	} {
		environ = append(environ, name+"="+name+secret)
	}
	c := load(t, options(t, "", append(environ, "ANTHROPIC_BASE_URL=http://u:pw-"+secret+"@h")...))
	if got := c.Secrets(); len(got) != 8 || !slices.Contains(got, "pw-"+secret) || !slices.Contains(got, "SECRET_KEY"+secret) {
		t.Errorf("%d secrets", len(got))
	}
	rows := c.Show("environment", "abcdef012345")
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(rows); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%v %+v %#v", rows, rows, rows)
	secrets := struct {
		A, b config.Secret
		P    *config.Secret
		C    *config.Config
		D    config.Config
	}{c.SecretKey, c.APIKey, &c.GitHubWebhookSecret, c, *c}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		fmt.Fprintf(&b, verb+verb, secrets, &secrets)
		fmt.Fprintf(&b, verb, c.SecretKey)
	}
	if err := json.NewEncoder(&b).Encode(secrets); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "s", c.APIKey, "all", secrets)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "s", c.APIKey, "all", secrets)
	for _, leak := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret)} {
		if i := strings.Index(b.String(), leak); i >= 0 {
			t.Errorf("a secret shows: …%s", b.String()[max(0, i-80):i+20])
		}
	}
	for _, row := range rows {
		if row.Name == "SECRET_KEY" && (row.Value != "fingerprint abcdef012345" || row.Source != "environment") {
			t.Errorf("%+v", row)
		}
		if row.Name == "ANTHROPIC_API_KEY" && (row.Value != "********" || !row.Secret) {
			t.Errorf("%+v", row)
		}
	}
}

func TestLoad_client_ignores_other_settings(t *testing.T) {
	t.Parallel()
	o := options(t, "LOG_LEVEL=trace\nTZ=nowhere\nnot a line\nPORT=x\nOPENAI_API_KEYS=x\nAGENTED_DATABASE_URL=x\n", "AGENTED_API_KEY=0123456789abcdef")
	o.Client = true
	c := load(t, o)
	if len(c.Warnings) != 0 || c.APIKey.Reveal() != "0123456789abcdef" || c.DataDir != "/home/u/.local/share/agented" || c.Zone == nil {
		t.Errorf("warnings %v, data %q", c.Warnings, c.DataDir)
	}
}

func TestDotenv_URL_requires_key(t *testing.T) {
	t.Parallel()
	o := options(t, "AGENTED_URL=https://evil.example\n", "AGENTED_API_KEY=0123456789abcdef")
	o.Client = true
	if c := load(t, o); c.URL != "" || len(c.Warnings) != 1 {
		t.Errorf("url %q, warnings %v", c.URL, c.Warnings)
	}
	o = options(t, "AGENTED_URL=https://mine.example/\nAGENTED_API_KEY=0123456789abcdef\n")
	o.Client = true
	if c := load(t, o); c.URL != "https://mine.example" || len(c.Warnings) != 0 {
		t.Errorf("url %q, warnings %v", c.URL, c.Warnings)
	}
}

func TestVariable(t *testing.T) {
	t.Parallel()
	c := load(t, options(t, "A=dot\nB=dot\nSECRET_KEY=x\n", "A=env", "AGENTED_API_KEY=0123456789abcdef", "OPENAI_API_KEY=k", "GITHUB_WEBHOOK_SECRET=s"))
	for name, want := range map[string]string{"A": "env", "B": "dot", "OPENAI_API_KEY": "k", "PATH": "/bin"} {
		if got, ok := c.Variable(name); got != want || !ok {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
	for _, name := range []string{"SECRET_KEY", "SECRET_KEY_FILE", "AGENTED_API_KEY", "AGENTED_API_KEY_FILE", "GITHUB_WEBHOOK_SECRET", "AGENTED_DATABASE_URL", "NOPE"} {
		if got, ok := c.Variable(name); got != "" || ok {
			t.Errorf("%s was passed on", name)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	o := options(t, "SSE_REPLAY_LIMIT=1\n")
	environ := []string{"HOME=/home/u", "OPENAI_API_KEY=first"}
	o.Environ = func() []string { return environ }
	c := load(t, o)
	environ = []string{"HOME=/home/u"} // as after ClearEnvironment
	write(t, filepath.Join(o.Dir, ".env"), "SSE_REPLAY_LIMIT=2\n")
	again, err := c.Reload()
	if err != nil {
		t.Fatal(err)
	}
	if again.SSEReplayLimit != 2 || again.BackendEnv("codex")["OPENAI_API_KEY"] != "first" {
		t.Errorf("limit %d, key %q", again.SSEReplayLimit, again.BackendEnv("codex")["OPENAI_API_KEY"])
	}
	write(t, filepath.Join(o.Dir, ".env"), "SSE_REPLAY_LIMIT=x\n")
	if _, err := again.Reload(); !errors.Is(err, agented.Invalid) {
		t.Errorf("a bad file: %v", err)
	}
}

func TestClearEnvironment(t *testing.T) { // sets the process environment
	for _, name := range []string{"SECRET_KEY", "AGENTED_API_KEY", "OPENAI_API_KEY", "AGENTED_DATABASE_URL", "GITHUB_WEBHOOK_SECRET", "CODEX_HOME", "LOG_LEVEL"} {
		t.Setenv(name, "x")
	}
	config.ClearEnvironment()
	var left []string
	for _, name := range []string{"SECRET_KEY", "AGENTED_API_KEY", "OPENAI_API_KEY", "AGENTED_DATABASE_URL", "GITHUB_WEBHOOK_SECRET", "CODEX_HOME", "LOG_LEVEL"} {
		if _, ok := os.LookupEnv(name); ok {
			left = append(left, name)
		}
	}
	if got := strings.Join(left, " "); got != "CODEX_HOME LOG_LEVEL" {
		t.Errorf("left: %s", got)
	}
}

func TestPrepareDataDir(t *testing.T) {
	t.Parallel()
	mode := func(path string) fs.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if warnings, err := config.PrepareDataDir(dir); err != nil || len(warnings) != 0 || mode(dir) != 0o700 {
			t.Fatalf("%v %v %v", warnings, err, mode(dir))
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if warnings, err := config.PrepareDataDir(dir); err != nil || len(warnings) != 1 || mode(dir) != 0o700 {
		t.Errorf("open folder: %v %v %v", warnings, err, mode(dir))
	}
	file := filepath.Join(dir, "file")
	write(t, file, "")
	for _, bad := range []string{file, filepath.Join(file, "x"), "relative", "/proc/agented"} {
		if _, err := config.PrepareDataDir(bad); !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), "AGENTED_DATA_DIR") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestSettings_documented(t *testing.T) {
	t.Parallel()
	example, reference := config.EnvExample(), config.Reference()
	typ := reflect.TypeFor[config.Config]()
	count := 0
	for i := range typ.NumField() {
		field := typ.Field(i)
		name := field.Tag.Get("env")
		if name == "" {
			continue
		}
		count++
		if help := field.Tag.Get("help"); !strings.HasSuffix(help, ".") {
			t.Errorf("%s: help %q is not a sentence", name, help)
		}
		if !strings.Contains(reference, "| `"+name+"`") {
			t.Errorf("%s is not in the reference", name)
		}
		if field.Tag.Get("system") == "" && !strings.Contains(example, "\n#"+name+"=") {
			t.Errorf("%s is not in the example", name)
		}
		if (field.Type == reflect.TypeFor[config.Secret]()) != (field.Tag.Get("secret") != "") {
			t.Errorf("%s: the type Secret and the tag secret do not agree", name)
		}
	}
	if count < 35 {
		t.Errorf("%d settings", count)
	}
}

func TestLoad_private_key(t *testing.T) {
	t.Parallel()
	const pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\n"
	file := filepath.Join(t.TempDir(), "app.pem")
	if err := os.WriteFile(file, []byte("\n"+pem+"\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]string{
		"file":    "GITHUB_APP_PRIVATE_KEY_FILE=" + file,
		"value":   "GITHUB_APP_PRIVATE_KEY=" + pem,
		"escaped": "GITHUB_APP_PRIVATE_KEY=" + strings.ReplaceAll(pem, "\n", `\n`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := load(t, options(t, "", env))
			if got := c.GitHubAppKey.Reveal(); got != pem || !c.GitHubSet() {
				t.Errorf("the key is %q", got)
			}
			if _, found := c.Variable("GITHUB_APP_PRIVATE_KEY"); found {
				t.Error("triggers can pass the key on")
			}
			if hidden, _ := c.Hidden(); name == "file" && !slices.Contains(hidden, file) {
				t.Error("sandboxes do not hide the file")
			}
		})
	}
	_, err := config.Load(options(t, "", "GITHUB_APP_PRIVATE_KEY=secret-that-is-no-key"))
	if err == nil || !strings.Contains(err.Error(), "PEM") || strings.Contains(err.Error(), "secret-that-is-no-key") {
		t.Errorf("a key that is not in PEM: %v", err)
	}
}
