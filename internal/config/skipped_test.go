package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/config"
)

// secretNames lists every setting of type Secret.
func secretNames() []string {
	var names []string
	for f := range reflect.TypeFor[config.Config]().Fields() {
		if f.Type == reflect.TypeFor[config.Secret]() {
			names = append(names, f.Tag.Get("env"))
		}
	}
	for _, cli := range registry.All() {
		for _, s := range cli.Rules().Settings {
			if s.Kind == "secret" {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

func TestLoad_public_secrets(t *testing.T) {
	t.Parallel()
	names := secretNames()
	if len(names) < 10 {
		t.Fatalf("only %d secret settings were found", len(names))
	}
	for _, name := range names {
		for _, line := range []string{
			"= # what it is, in 16 characters or more", "=$(openssl rand -hex 32)", "=`openssl rand -hex 32`", "=<your secret of 16 or more>", "=change-me-in-production",
			`="your_webhook_secret_here"`, "=xxxxxxxxxxxxxxxxxxxx",
		} {
			o := options(t, name+line+"\n")
			_, err := config.Load(o)
			if err == nil || !strings.Contains(err.Error(), name+": the value is a ") || !strings.Contains(err.Error(), ".env:1") {
				t.Errorf("%s%s in .env: %v", name, line, err)
			}
			value := strings.Trim(strings.TrimSpace(line[1:]), `"`)
			if err != nil && strings.Contains(err.Error(), strings.TrimLeft(value, "#$(` ")) && !strings.Contains(value, "openssl") {
				t.Errorf("%s: the error repeats the value: %v", name, err)
			}
			if _, err := config.Load(options(t, "", name+"="+value)); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%s in the environment: %v", name, value, err)
			}
			if name == "SECRET_KEY" {
				continue // internal/secret reads its file
			}
			file := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(file, []byte("\uFEFF"+value+"\r\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(options(t, "", name+"_FILE="+file)); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s in %s_FILE: %v", value, name, err)
			}
		}
	}
}

func TestLoad_byte_order_mark(t *testing.T) {
	t.Parallel()
	const secret = "hush9f1c7a33e0d64b2f"
	for text, fault := range map[string]string{"\uFEFF" + secret + "\r\n": "", "\xFF\xFEh\x00u\x00": "UTF-16", "\uFEFF": "is empty"} {
		file := filepath.Join(t.TempDir(), "hook")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(options(t, "", "GITHUB_WEBHOOK_SECRET_FILE="+file))
		switch {
		case fault != "":
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%q: %v", text, err)
			}
		case err != nil:
			t.Error(err)
		case c.GitHubWebhookSecret.Reveal() != secret:
			t.Errorf("%q: got %q", text, c.GitHubWebhookSecret.Reveal())
		}
	}
}

func TestLoad_skipped_settings(t *testing.T) {
	t.Parallel()
	utf := func(bom bool, swap bool) string {
		var b strings.Builder
		text := "AGENTED_BIND=127.0.0.1:1\r\nSSE_REPLAY_LIMIT=7\r\n"
		if bom {
			text = "\uFEFF" + text
		}
		for _, u := range utf16.Encode([]rune(text)) {
			if swap {
				u = u<<8 | u>>8
			}
			b.WriteByte(byte(u))
			b.WriteByte(byte(u >> 8))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"trailing comma":      `AGENTED_BIND="127.0.0.1:1",`,
		"trailing semicolon":  `AGENTED_BIND='127.0.0.1:1';`,
		"unclosed quote":      `AGENTED_BIND="127.0.0.1:1`,
		"unclosed before":     "X=\"abc\nAGENTED_BIND=127.0.0.1:1\nY=\"d\"\n",
		"swallowed":           "X=\"abc\nexport AGENTED_BIND=127.0.0.1:1\nY=\"\n",
		"colon":               "AGENTED_BIND: 127.0.0.1:1",
		"blank":               "AGENTED_BIND 127.0.0.1:1",
		"set":                 "set AGENTED_BIND=127.0.0.1:1",
		"PowerShell":          `$env:AGENTED_BIND = "127.0.0.1:1"`,
		"quoted name":         `"AGENTED_BIND"="127.0.0.1:1"`,
		"list":                "- AGENTED_BIND=127.0.0.1:1",
		"old name":            `GUNICORN_BIND="127.0.0.1:1",`,
		"file name":           `AGENTED_API_KEY_FILE="/x" y`,
		"Latin-1":             "AGENTED_DATA_DIR=/srv/caf\xe9",
		"NUL":                 "AGENTED_DATA_DIR=/srv/\x00",
		"UTF-16 LE":           utf(true, false),
		"UTF-16 BE":           utf(true, true),
		"UTF-16 without mark": utf(false, false),
	} {
		o := options(t, text+"\n")
		_, err := config.Load(o)
		if err == nil || !strings.Contains(err.Error(), "line") || !strings.Contains(err.Error(), ".env:") {
			t.Errorf("%s: %v", name, err)
		}
		o.Client = true
		if _, err := config.Load(o); err != nil {
			t.Errorf("%s: a client command is stopped: %v", name, err)
		}
	}
	for _, text := range []string{"'never closed\n", "FOO BAR\n", "NAME=\"x\",\n", "# AGENTED_BIND=\"x\",\n"} {
		if c, err := config.Load(options(t, text)); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if len(c.Warnings) == 0 && text[0] != '#' {
			t.Errorf("%q: no warning", text)
		}
	}
}

func TestLoad_short_webhook_secret(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{1: true, 15: true, 16: false} {
		c := load(t, options(t, "GITHUB_WEBHOOK_SECRET="+strings.Repeat("k", n)))
		got := strings.Contains(fmt.Sprint(c.Warnings), "GITHUB_WEBHOOK_SECRET: has")
		if got != want {
			t.Errorf("%d characters: warnings %v", n, c.Warnings)
		}
	}
}
