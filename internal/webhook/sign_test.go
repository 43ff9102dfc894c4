package webhook

import (
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestSign_verify(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	const secret, standard = "a-long-and-random-secret", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
	for name, c := range map[string]struct {
		auth          Auth
		secret, other string
	}{
		"github":           {Auth{Kind: KindGitHub}, secret, "another"},
		"hmac":             {Auth{Kind: KindHMAC}, secret, "another"},
		"hmac elsewhere":   {Auth{Kind: KindHMAC, Header: "X-Sig", Prefix: "v0:", Encoding: EncodingBase64}, secret, "another"},
		"standard":         {Auth{Kind: KindStandard}, standard, "whsec_YW5vdGhlcg=="},
		"bearer":           {Auth{Kind: KindBearer}, secret, "another"},
		"bearer elsewhere": {Auth{Kind: KindBearer, Header: "X-Token", Prefix: "Token "}, secret, "another"},
	} {
		body := []byte(`{"a":1}`)
		h := http.Header{}
		c.auth.Sign(c.secret, "test-1", h, body, now)
		r := Request{Header: h, Body: body, Remote: netip.MustParseAddr("127.0.0.1")}
		if err := c.auth.Verify(c.secret, r, now); err != nil {
			t.Errorf("%s: %s", name, RefusalReason(err))
		}
		if c.auth.Verify(c.other, r, now) == nil {
			t.Errorf("%s: another secret verifies it", name)
		}
		if r.Body = []byte(`{"a":2}`); c.auth.Kind != KindBearer && c.auth.Verify(c.secret, r, now) == nil {
			t.Errorf("%s: another body is taken for it", name)
		}
		if id, err := DeliveryID(h); err != nil || id != "test-1" {
			t.Errorf("%s: id %q, %v", name, id, err)
		}
	}
	unsigned := Auth{Kind: KindUnsigned, Unsigned: true}
	h := http.Header{}
	unsigned.Sign("", "test-1", h, nil, now)
	if err := unsigned.Verify("", Request{Header: h, Remote: netip.MustParseAddr("127.0.0.1")}, now); err != nil {
		t.Error(RefusalReason(err))
	}
}
