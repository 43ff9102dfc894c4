package agentcli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// versionLimit is the timeout for printing the version. The slowest CLI needs two seconds on an
// idle machine.
const versionLimit = 10 * time.Second

// Version runs `path --version` of a CLI with the environment and returns the printed version. It takes at
// most ten seconds.
func Version(ctx context.Context, cli CLI, path string, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, path, "--version")
	// Env must not be nil, which would pass on the server's environment with its secrets.
	cmd.Env = append(append([]string{}, env...), cli.Rules().VersionEnv...)
	cmd.Stdout = &out
	// Killing a wrapper alone would leave the real program running.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A child that keeps the pipe open must not block the call.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("%s --version did not answer within %s: %w", path, versionLimit, context.Cause(ctx))
	}
	version := parseVersion(out.b)
	if version == "" {
		if err == nil {
			err = errors.New("it printed no version")
		}
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	return version, nil
}

// limited keeps the first bytes written to it.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	if room := 4096 - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// parseVersion finds the version in a CLI's output: the first word that starts with a digit and
// contains a dot ("codex-cli 0.169.0", "2.1.330 (Claude Code)", "v1.2.3").
func parseVersion(out []byte) string {
	for line := range bytes.Lines(out) {
		for word := range strings.FieldsSeq(OneLine(string(line))) {
			word = strings.TrimRight(strings.TrimPrefix(word, "v"), ",;:)")
			if word != "" && word[0] >= '0' && word[0] <= '9' && strings.Contains(word, ".") {
				return Clip(word, 64)
			}
		}
	}
	return ""
}

// Versions caches the versions of programs as long as their files are unchanged, because a CLI
// may update itself at any time.
type Versions struct {
	mu   sync.Mutex // guards seen
	seen map[string]seenVersion
}

type seenVersion struct {
	modified time.Time
	size     int64
	version  string
}

// NewVersions returns an empty cache.
func NewVersions() *Versions { return &Versions{seen: map[string]seenVersion{}} }

// Cached returns the cached version of the program at path, or "".
func (v *Versions) Cached(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.seen[path]
	if !s.modified.Equal(info.ModTime()) || s.size != info.Size() {
		return ""
	}
	return s.version
}

// Version returns the cached version, or calls the function Version.
func (v *Versions) Version(ctx context.Context, cli CLI, path string, env []string) (string, error) {
	if known := v.Cached(path); known != "" {
		return known, nil
	}
	before, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("version: %w", err)
	}
	version, err := Version(ctx, cli, path, env)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen[path] = seenVersion{before.ModTime(), before.Size(), version}
	return version, nil
}
