package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// DotenvPath returns the path of the .env file that was read, or "" if none
// was.
func (c *Config) DotenvPath() string { return c.dotenvPath }

// Origin returns where the value of a setting came from; name is its
// environment variable.
func (c *Config) Origin(name string) Origin {
	if o, ok := c.origins[name]; ok {
		return o
	}
	return Origin{Kind: "default"}
}

// text returns a setting as it would be written, including secrets.
func (c *Config) text(s setting) string {
	switch v := c.value(s).(type) {
	case nil:
		return ""
	case Secret:
		return v.Reveal()
	case Address:
		return v.String()
	case time.Duration:
		return formatDuration(v)
	case slog.Level:
		return levelName(v)
	case *time.Location:
		if v == nil || v == time.Local {
			return ""
		}
		return v.String()
	case []string:
		return strings.Join(v, ",")
	default:
		return fmt.Sprint(v)
	}
}

// GitHubSet reports whether a credential for GitHub's API is set.
func (c *Config) GitHubSet() bool {
	return c.GitHubAppID != "" || c.GitHubAppKey.IsSet() || c.GitHubToken.IsSet()
}

// BackendSettings returns the names of the variables of default accounts.
func BackendSettings() []string {
	var names []string
	for _, s := range settings() {
		if len(s.backends) > 0 {
			names = append(names, s.name)
		}
	}
	return names
}

// BackendEnv returns the variables of the default account of a backend that are
// set.
func (c *Config) BackendEnv(backend string) map[string]string {
	env := make(map[string]string)
	for _, s := range settings() {
		if slices.Contains(s.backends, backend) {
			if v := c.text(s); v != "" {
				env[s.name] = v
			}
		}
	}
	return env
}

// Variable looks up a name in the environment at start, then in .env. Triggers
// use it to pass a variable of the server; it never returns the server's own
// secrets.
func (c *Config) Variable(name string) (string, bool) {
	if slices.ContainsFunc(settings(), func(s setting) bool {
		return (s.secret == "server" || s.name == "SECRET_KEY_FILE") && slices.Contains(s.names(), name)
	}) {
		return "", false
	}
	if v, ok := c.environ()[name]; ok {
		return v, true
	}
	v, ok := c.dotenv()[name]
	return v, ok
}

// SecretFiles returns the absolute paths from which secrets are read, by the
// name of the variable with the path, such as AGENTED_API_KEY_FILE.
func (c *Config) SecretFiles() map[string]string {
	out := map[string]string{}
	for _, s := range settings() {
		if s.fileName == "" {
			continue
		}
		path, ok := c.environ()[s.fileName]
		if !ok {
			path = c.dotenv()[s.fileName]
		}
		if filepath.IsAbs(path) {
			out[s.fileName] = path
		}
	}
	return out
}

// Hidden returns the files and folders outside of the data folder that contain secrets and data of
// the server, for sandboxes, and the user's folder for sockets, XDG_RUNTIME_DIR.
func (c *Config) Hidden() (paths []string, runtime string) {
	for _, path := range c.SecretFiles() {
		paths = append(paths, path)
	}
	for _, path := range []string{c.dotenvPath, c.SecretKeyFile, c.BackupDir, c.BackupPassphrase, c.TLSKey} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	// SQLite's other files are next to the database, and are created again while agents run.
	if dir := filepath.Dir(c.DBPath); c.DBPath != "" && dir != c.DataDir {
		paths = append(paths, dir)
	}
	if c.Home != "" {
		paths = append(paths, filepath.Join(c.Home, ".local", "state", "agented"))
	}
	slices.Sort(paths)
	return slices.Compact(paths), c.XDGRuntimeDir
}

// Forward returns the port in sandboxes of level strict that is connected with a socket. The port is
// 0 if there is none.
func (c *Config) Forward() (port int, socket string) {
	port, socket, _ = splitForward(c.SandboxForward)
	return port, socket
}

// splitForward splits PORT:/PATH.
func splitForward(text string) (port int, socket string, ok bool) {
	before, socket, _ := strings.Cut(text, ":")
	port, err := strconv.Atoi(before)
	if err != nil || port < 1 || port > 65535 || !filepath.IsAbs(socket) || filepath.Clean(socket) != socket {
		return 0, "", false
	}
	return port, socket, true
}

// Secrets returns every secret that was read, for masking: secret settings and
// passwords inside URLs, without duplicates and in no particular order. It does
// not include a key that the server stores in a file.
func (c *Config) Secrets() []string {
	seen := make(map[string]bool)
	for _, s := range settings() {
		v := c.text(s)
		if s.secret == "" && s.kind == "url" {
			u, err := url.Parse(v)
			if err != nil {
				continue
			}
			v, _ = u.User.Password()
		} else if s.secret == "" {
			continue
		}
		if v != "" {
			seen[v] = true
		}
	}
	var list []string
	for v := range seen {
		list = append(list, v)
	}
	return list
}

// ClearEnvironment removes all secrets from the environment of this process, so
// that child processes cannot inherit one. Call it once the settings are
// loaded; Reload remembers the removed values.
func ClearEnvironment() {
	for _, s := range settings() {
		if s.secret == "" {
			continue
		}
		for _, name := range s.names() {
			os.Unsetenv(name)
		}
	}
}

// Row is one setting in the output of `config show`.
type Row struct {
	Name    string `json:"name"`
	Value   string `json:"value"` // masked if secret
	Source  string `json:"source"`
	Default string `json:"default"`
	Secret  bool   `json:"secret"`
	Section string `json:"section"`
	Help    string `json:"help"`
}

// Show returns all settings in the order of the reference page. For SECRET_KEY
// it returns the given source and fingerprint of the key in use; both may be
// empty if there is no key yet.
func (c *Config) Show(keySource, keyFingerprint string) []Row {
	var rows []Row
	for _, s := range settings() {
		row := Row{
			Name: s.name, Value: c.text(s), Source: c.Origin(s.name).String(),
			Default: s.defaultText(), Secret: s.secret != "", Section: s.section, Help: s.help,
		}
		switch {
		case s.name == "SECRET_KEY" && keyFingerprint != "":
			row.Value, row.Source = "fingerprint "+keyFingerprint, keySource
		case s.secret != "" && row.Value != "":
			row.Value = mask
		case s.kind == "url" && strings.Contains(row.Value, "@"):
			if u, err := url.Parse(row.Value); err == nil {
				row.Value = u.Redacted()
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// Format keeps passwords in URLs from being printed by accident; use Show.
func (c Config) Format(f fmt.State, _ rune) { io.WriteString(f, "config.Config") }

// LogValue prevents slog from printing secret values.
func (c Config) LogValue() slog.Value { return slog.StringValue("config.Config") }

// MarshalJSON returns the rows of Show.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.Show("", "")) }

// PrepareDataDir creates the data folder with mode 0700 if it does not exist,
// closes it to other users, and verifies that it is writable. The warnings are
// sentences for the log.
func PrepareDataDir(path string) (warnings []string, err error) {
	refuse := func(err error) error {
		return agented.Errorf(agented.Invalid,
			"the data folder %s cannot be written (%v); make it writable for the user that runs the server, or set AGENTED_DATA_DIR to another folder",
			path, cause(err))
	}
	if !filepath.IsAbs(path) {
		return nil, refuse(errors.New("not an absolute path"))
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, refuse(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, refuse(err)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		if err := os.Chmod(path, 0o700); err == nil {
			if mode&0o077 != 0 {
				warnings = append(warnings, fmt.Sprintf("the data folder %s was open to other users (mode %04o); its mode is now 0700", path, mode))
			}
		} else if mode&0o077 != 0 {
			warnings = append(warnings, fmt.Sprintf("the data folder %s is open to other users (mode %04o) and its mode cannot be changed; make the user that runs the server its owner", path, mode))
		}
	}
	// Only a test write detects read-only mounts, full disks and access control
	// lists.
	file, err := os.CreateTemp(path, ".write-test-*")
	if err != nil {
		return warnings, refuse(err)
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString("agented")
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return warnings, refuse(err)
	}
	return warnings, nil
}

// Chains returns the limits of chains of causes.
func (c *Config) Chains() agented.ChainLimits {
	return agented.ChainLimits{Depth: c.ChainDepth, Fanout: c.ChainFanout, Total: c.ChainTotal, CostUSD: float64(c.ChainCostUSD)}
}
