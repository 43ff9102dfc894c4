package hooks

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/secret"
)

const (
	first  = "the-first-secret-of-this-webhook"
	second = "the-second-secret-of-this-webhook"
)

// apply applies a request with webhooks to a trigger.
func apply(t *testing.T, h *Hooks, to *agented.Trigger, webhooks string) error {
	t.Helper()
	var in rest.Optional[[]WebhookFields]
	if err := json.Unmarshal([]byte(webhooks), &in); err != nil {
		t.Fatal(err)
	}
	return h.Apply(to, in)
}

func newHooks(t *testing.T) *Hooks {
	t.Helper()
	key, err := secret.Load(secret.Options{Path: filepath.Join(t.TempDir(), "key")})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Sealer: auth.NewSealer(key), Now: time.Now})
}

func TestApply_secrets(t *testing.T) {
	t.Parallel()
	h, to := newHooks(t), &agented.Trigger{ID: "trg-1"}
	step := func(webhook, secrets string) {
		t.Helper()
		if err := apply(t, h, to, `[`+webhook+`]`); err != nil {
			t.Fatalf("%s: %v", webhook, err)
		}
		if got := strings.ReplaceAll(h.secretOf(&to.Webhooks[0]), "\n", ","); got != secrets {
			t.Errorf("%s: the secrets are %q, want %q", webhook, got, secrets)
		}
	}
	hmac := func(more string) string { return `{"source":"webhook","auth":{"kind":"hmac"}` + more + `}` }
	step(hmac(`,"secret":"`+first+`"`), first)
	id, sealed := to.Webhooks[0].ID, to.Webhooks[0].Secret
	if strings.Contains(sealed, first) {
		t.Error("the secret is stored in plain text")
	}
	step(hmac(`,"secret":"***"`), first)
	step(hmac(``), first)
	step(hmac(`,"secret":"`+first+`"`), first)
	if to.Webhooks[0].ID != id || to.Webhooks[0].Secret != sealed {
		t.Error("an unchanged webhook was stored again")
	}
	step(hmac(`,"secret":"`+second+`","previous_secret":"***"`), second+","+first)
	views, path := h.View(to)
	if path != "/hooks/trg-1" || views[0].Secret != masked || views[0].Previous != masked {
		t.Errorf("shown as %+v at %s", views, path)
	}
	step(hmac(`,"previous_secret":""`), second)
}

func TestApply_errors(t *testing.T) {
	t.Parallel()
	for webhooks, field := range map[string]string{
		`[{"source":"gitlab"}]`:                                                            "webhooks.0.source",
		`[{"source":"webhook"}]`:                                                           "webhooks.0.auth",
		`[{"source":"webhook","auth":{"kind":"hmac"}}]`:                                    "webhooks.0.secret",
		`[{"source":"github","id":"whk-other"}]`:                                           "webhooks.0.id",
		`[{"source":"github","auth":{"kind":"hmac"}}]`:                                     "webhooks.0.auth.kind",
		`[{"source":"github","secret":"***"}]`:                                             "webhooks.0.secret",
		`[` + strings.Repeat(`{"source":"github"},`, maxWebhooks) + `{"source":"github"}]`: "webhooks",
	} {
		err := apply(t, newHooks(t), &agented.Trigger{ID: "trg-1"}, webhooks)
		if e, ok := err.(*agented.Error); !ok || e.Kind != agented.Invalid || e.Fields[0].Path != field {
			t.Errorf("%.80s: %v, want an error of %s", webhooks, err, field)
		}
	}
}
