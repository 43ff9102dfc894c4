package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// versionLimit is how long a CLI may take to say its version. The slowest of
// them needs two seconds on an idle machine.
const versionLimit = 10 * time.Second

// Version runs `path --version` with the environment and returns the version
// that it prints. It takes at most ten seconds.
func Version(ctx context.Context, path string, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, path, "--version")
	// Never nil, which would be the server's environment, secrets and all. Even
	// for this question one of them starts itself anew and others update
	// themselves, unless told not to.
	cmd.Env = append(slices.Clip(env), "GEMINI_CLI_NO_RELAUNCH=true", "DISABLE_AUTOUPDATER=1", "OPENCODE_DISABLE_AUTOUPDATE=1")
	cmd.Stdout = &out
	// Wrappers leave the real program behind when they alone are killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A child of it that keeps the pipe open must not hold the question up.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("%s --version gave no answer in %s: %w", path, versionLimit, context.Cause(ctx))
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

// limited keeps the first bytes that are written to it.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	if room := 4096 - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// parseVersion finds the version in what a CLI prints: the first word that
// starts with a digit and has a dot ("codex-cli 0.169.0", "2.1.330 (Claude
// Code)", "v1.2.3").
func parseVersion(out []byte) string {
	for line := range bytes.Lines(out) {
		for word := range strings.FieldsSeq(oneLine(string(line))) {
			word = strings.TrimRight(strings.TrimPrefix(word, "v"), ",;:)")
			if word != "" && word[0] >= '0' && word[0] <= '9' && strings.Contains(word, ".") {
				return clip(word, 64)
			}
		}
	}
	return ""
}

// Versions remembers what programs said their version is, for as long as the
// file is the same one: a CLI updates itself at any time.
type Versions struct {
	mu   sync.Mutex // guards seen
	seen map[string]seenVersion
}

type seenVersion struct {
	modified time.Time
	size     int64
	version  string
}

// NewVersions returns an empty memory of versions.
func NewVersions() *Versions { return &Versions{seen: map[string]seenVersion{}} }

// Cached returns the version of the program at path if it is known, else "".
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

// Version is the function Version with a memory.
func (v *Versions) Version(ctx context.Context, path string, env []string) (string, error) {
	if known := v.Cached(path); known != "" {
		return known, nil
	}
	before, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("version: %w", err)
	}
	version, err := Version(ctx, path, env)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen[path] = seenVersion{before.ModTime(), before.Size(), version}
	return version, nil
}
