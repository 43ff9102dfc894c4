package service

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// probing is the timeout of checks that run a program before it takes over.
const probing = 10 * time.Second

// Probe returns the version that a program reports, to verify that it can be started.
func Probe(program string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probing)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	version, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "agented ")
	switch {
	case err != nil:
		return "", err
	case !ok || strings.ContainsAny(version, "\n"):
		return "", fmt.Errorf("%s is not an agented program", program)
	}
	return version, nil
}

// checkSettings runs `config check` of a program with the environment and the settings file of
// the server. It returns the problems, or "" if there are none.
func checkSettings(program string, args, environ []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), probing)
	defer cancel()
	check := []string{"config", "check"}
	if i := slices.Index(args, "--env-file"); i >= 0 && i+1 < len(args) {
		check = append(check, args[i:i+2]...)
	}
	cmd := exec.CommandContext(ctx, program, check...)
	cmd.Env, cmd.WaitDelay = environ, time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	said := strings.TrimSpace(string(out[:min(len(out), 4<<10)]))
	if said == "" {
		said = fmt.Sprintf("`%s %s`: %v", program, strings.Join(check, " "), err)
	}
	return said
}
