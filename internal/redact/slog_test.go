package redact_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented/internal/redact"
)

type config struct {
	Name   string
	Secret *string
	Inner  struct{ Raw []byte }
}

type valuer struct{ s string }

func (v valuer) LogValue() slog.Value { return slog.GroupValue(slog.String("v", v.s)) }

type panics struct{}

// twoFaced prints itself only as text, and jsonError only as JSON.
type (
	twoFaced  struct{ s *string }
	jsonError struct{ s string }
)

func (v twoFaced) MarshalText() ([]byte, error)  { return []byte(*v.s), nil }
func (twoFaced) MarshalJSON() ([]byte, error)    { return []byte(`"-"`), nil }
func (v twoFaced) String() string                { return "-" }
func (e jsonError) MarshalJSON() ([]byte, error) { return json.Marshal(e.s) }
func (jsonError) Error() string                  { return "-" }

func (panics) MarshalJSON() ([]byte, error) { panic("no") }

func TestHandler(t *testing.T) {
	t.Parallel()
	const secret = `hunter2"hunter2`
	var m atomic.Pointer[redact.Masker]
	m.Store(redact.New([]string{secret, "1234567890123"}))
	s := secret
	cfg := config{Name: "n", Secret: &s}
	cfg.Inner.Raw = []byte(secret)
	u := &url.URL{Scheme: "https", User: url.UserPassword("u", secret), Host: "h"}
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler {
			return slog.NewTextHandler(b, &slog.HandlerOptions{AddSource: true})
		},
		"json": func(b *bytes.Buffer) slog.Handler {
			return slog.NewJSONHandler(b, &slog.HandlerOptions{AddSource: true})
		},
	} {
		var b bytes.Buffer
		log := slog.New(redact.Handler(handler(&b), &m))
		log.Info("msg "+secret, "plain", secret, secret, 1, "err", fmt.Errorf("wrap: %w", errors.New(secret)),
			"any", cfg, "ptr", &cfg, "list", []string{"a", secret}, "map", map[string]any{"k": secret}, "bytes", []byte(secret), "url", u,
			"int", int64(1234567890123), "dur", time.Second, "nil", nil, "panics", panics{}, "valuer", valuer{secret}, "two", twoFaced{&s}, "jerr", jsonError{s},
			slog.Group("g", "in", secret, slog.Group("h", "in", "x"+secret+"y")), "token", "ghp_"+rep(36), "bool", true)
		log.With("with", secret).WithGroup("grp").With("w2", secret).Warn("m", "k", secret)
		for _, gone := range []string{"hunter2", "1234567890123", "ghp_q", "aHVudGVy"} {
			if strings.Contains(b.String(), gone) {
				t.Errorf("%s: %q is left in\n%s", name, gone, &b)
			}
		}
		for _, kept := range []string{"dur", "bool", "grp", "slog_test.go", "w2"} {
			if !strings.Contains(b.String(), kept) {
				t.Errorf("%s: %q is missing in\n%s", name, kept, &b)
			}
		}
	}
}

func TestHandler_later_secrets(t *testing.T) {
	t.Parallel()
	var m atomic.Pointer[redact.Masker]
	var b bytes.Buffer
	log := slog.New(redact.Handler(slog.NewTextHandler(&b, nil), &m)).With("a", "correct horse").WithGroup("").With()
	log.Info("one correct horse", "t", "npm_"+rep(36))
	if got := b.String(); strings.Count(got, "correct horse") != 2 || strings.Contains(got, "npm_q") {
		t.Errorf("before anything is known: %s", got)
	}
	m.Store(redact.New([]string{"correct horse"}))
	b.Reset()
	log.Info("one correct horse")
	if strings.Contains(b.String(), "horse") {
		t.Errorf("after: %s", &b)
	}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("debug is on")
	}
}
