package secret_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
)

func TestDerive_recorded_values(t *testing.T) {
	t.Parallel()
	// Recorded values: if one of them changes, everything sealed or signed by a
	// released version is lost.
	key := load(t, secret.Options{Value: strings.Repeat("k", 32)})
	for _, tc := range []struct{ purpose, want string }{
		{"sign session", "31999512598224d59b5094d1d56d5b1013c691105d7ad7982308dbf8b1a95bf6"},
		{"seal account", "c4bff04c0934299b983026fb32e973fbb1af52c0f37ee40291fbcf34477fe849"},
	} {
		if got := hex.EncodeToString(key.Derive(tc.purpose)); got != tc.want {
			t.Errorf("Derive(%q) = %s, want %s", tc.purpose, got, tc.want)
		}
	}
	if key.Fingerprint() != "d19dd0c49891" || key.ID() != "72b367e4" {
		t.Errorf("fingerprint %s, id %s", key.Fingerprint(), key.ID())
	}
}

func TestDerive_independent(t *testing.T) {
	t.Parallel()
	a, b := load(t, secret.Options{Value: "key number one, long"}), load(t, secret.Options{Value: "key number two, long"})
	seen := make(map[string]bool)
	for _, k := range []secret.Key{a, b} {
		for _, purpose := range []string{"x", "y", "seal x", "sign x"} {
			d := k.Derive(purpose)
			if len(d) != 32 || seen[string(d)] {
				t.Errorf("%q: %d bytes, seen before: %v", purpose, len(d), seen[string(d)])
			}
			seen[string(d)] = true
		}
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	key := load(t, secret.Options{Value: "key number one, long"})
	other := load(t, secret.Options{Value: "key number two, long"})
	plain, aad := []byte("sk-ant-secret"), []byte("acc-1")
	sealed := key.Seal("account", plain, aad)
	if bytes.Contains(sealed, plain) {
		t.Fatal("the value shows")
	}
	if again := key.Seal("account", plain, aad); bytes.Equal(sealed, again) {
		t.Error("two seals are equal")
	}
	got, err := key.Open("account", sealed, aad)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("opened %q, %v", got, err)
	}
	if id, ok := secret.SealedBy(sealed); !ok || id != key.ID() {
		t.Errorf("sealed by %q, %v; want %q", id, ok, key.ID())
	}
	if empty, err := key.Open("account", key.Seal("account", nil, nil), nil); err != nil || len(empty) != 0 {
		t.Errorf("empty value: %q, %v", empty, err)
	}

	if _, err := key.Open("webhook", sealed, aad); !errors.Is(err, agented.Invalid) {
		t.Errorf("another purpose: %v", err)
	}
	if _, err := key.Open("account", sealed, []byte("acc-2")); !errors.Is(err, agented.Invalid) {
		t.Errorf("another row: %v", err)
	}
	if _, err := other.Open("account", sealed, aad); !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), "another SECRET_KEY") {
		t.Errorf("another key: %v", err)
	}
	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1
		if _, err := key.Open("account", broken, aad); err == nil {
			t.Errorf("a change of byte %d was not noticed", i)
		}
		if _, err := key.Open("account", sealed[:i], aad); err == nil {
			t.Errorf("a cut to %d bytes was not noticed", i)
		}
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	key := load(t, secret.Options{Value: "key number one, long"})
	other := load(t, secret.Options{Value: "key number two, long"})
	sig := key.Sign("a", []byte("message"))
	if !key.Verify("a", []byte("message"), sig) {
		t.Error("a good signature was refused")
	}
	if key.Verify("b", []byte("message"), sig) || key.Verify("a", []byte("Message"), sig) ||
		other.Verify("a", []byte("message"), sig) || key.Verify("a", []byte("message"), sig[:31]) || key.Verify("a", []byte("message"), nil) {
		t.Error("a bad signature was taken")
	}
}

func TestNewAPIKey(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	count := make(map[rune]int)
	for range 2000 {
		plain, prefix, hash := secret.NewAPIKey()
		if len(plain) != 47 || !strings.HasPrefix(plain, "agk_") || seen[plain] {
			t.Fatalf("key of %d characters, seen: %v", len(plain), seen[plain])
		}
		seen[plain] = true
		if len(prefix) != 10 || !strings.HasPrefix(plain, prefix) || secret.APIKeyPrefix(plain) != prefix {
			t.Fatalf("prefix %q", prefix)
		}
		if hash != secret.HashToken(plain) || len(hash) != 64 || strings.Contains(hash, plain[4:12]) {
			t.Fatalf("hash %q", hash)
		}
		for _, r := range plain[4:] {
			count[r]++
		}
	}
	if len(count) != 62 {
		t.Errorf("%d different characters, want 62", len(count))
	}
	for r, n := range count { // 1387 expected; this is more than eight standard deviations away
		if n < 1050 || n > 1750 {
			t.Errorf("%q comes %d times", r, n)
		}
	}
	if secret.APIKeyPrefix("some-password-of-mine") != "" {
		t.Error("a foreign key shows its beginning")
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	if !secret.Equal("a", "a") || !secret.Equal("", "") || secret.Equal("a", "b") || secret.Equal("a", "ab") || secret.Equal("", "a") {
		t.Error("wrong")
	}
}

func TestNewSession(t *testing.T) {
	t.Parallel()
	key := load(t, secret.Options{Value: "key number one, long"})
	other := load(t, secret.Options{Value: "key number two, long"})
	cookie, hash := key.NewSession()
	got, ok := key.Session(cookie)
	if !ok || got != hash || strings.Contains(cookie, hash) {
		t.Fatalf("hash %q, %v; want %q", got, ok, hash)
	}
	if strings.ContainsAny(cookie, " ;,\"\\=") || len(cookie) != 87 {
		t.Errorf("cookie of %d characters", len(cookie))
	}
	if _, ok := other.Session(cookie); ok {
		t.Error("another key takes the cookie")
	}
	for i := range cookie {
		// The last character of 43 contains bits that base64 ignores; any other
		// text must still be rejected.
		c := byte('A')
		if cookie[i] == c {
			c = 'B'
		}
		if _, ok := key.Session(cookie[:i] + string(c) + cookie[i+1:]); ok {
			t.Errorf("a change at %d was taken", i)
		}
		if _, ok := key.Session(cookie[:i]); ok {
			t.Errorf("a cut at %d was taken", i)
		}
	}
	for _, bad := range []string{"", ".", "a.b", cookie + "A", cookie + "." + cookie, "." + cookie} {
		if _, ok := key.Session(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestNewToken(t *testing.T) {
	t.Parallel()
	a, hash := secret.NewToken()
	b, _ := secret.NewToken()
	if a == b || len(a) != 43 || hash != secret.HashToken(a) || strings.ContainsAny(a, "+/=") {
		t.Errorf("%q %q", a, b)
	}
}

// cheap makes the tests fast; the tested behaviour does not depend on the cost.
var cheap = secret.Cost{MemoryKiB: 64, Passes: 1, Threads: 1}

func TestPasswords_cost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := secret.NewPasswords(cheap, 2)
	hash, err := p.Hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("hash %q", hash)
	}
	if again, _ := p.Hash(ctx, "correct horse"); again == hash {
		t.Error("two hashes of one password are equal")
	}
	if ok, rehash, err := p.Verify(ctx, hash, "correct horse"); !ok || rehash || err != nil {
		t.Errorf("%v %v %v", ok, rehash, err)
	}
	if ok, rehash, err := p.Verify(ctx, hash, "correct horsE"); ok || rehash || err != nil {
		t.Errorf("wrong password: %v %v %v", ok, rehash, err)
	}
	dearer := secret.NewPasswords(secret.Cost{MemoryKiB: 128, Passes: 1, Threads: 1}, 1)
	if ok, rehash, err := dearer.Verify(ctx, hash, "correct horse"); !ok || !rehash || err != nil {
		t.Errorf("at another cost: %v %v %v", ok, rehash, err)
	}
	if ok, rehash, err := p.Verify(ctx, "", "correct horse"); ok || rehash || err != nil {
		t.Errorf("nobody: %v %v %v", ok, rehash, err)
	}
	if ok, _, err := p.Verify(ctx, hash, strings.Repeat("x", secret.MaxPassword+1)); ok || err != nil {
		t.Errorf("huge password: %v %v", ok, err)
	}
}

func TestPasswords_reference_hash(t *testing.T) {
	t.Parallel()
	// echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32 -e
	const vector = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	p := secret.NewPasswords(secret.DefaultCost, 1)
	if ok, rehash, err := p.Verify(t.Context(), vector, "password"); !ok || !rehash || err != nil {
		t.Errorf("%v %v %v", ok, rehash, err)
	}
}

func TestPasswords_excessive_cost(t *testing.T) {
	t.Parallel()
	p := secret.NewPasswords(cheap, 1)
	for _, hash := range []string{
		"x", "$argon2id$", "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=4294967295,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=0$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=300$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=64,t=1,p=1$$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
	} {
		if ok, _, err := p.Verify(t.Context(), hash, "password"); ok || err == nil {
			t.Errorf("%q: %v %v", hash, ok, err)
		}
	}
}

// Not parallel: it measures the memory of the process.
func TestPasswords_memory(t *testing.T) {
	// 8 MiB each, two at a time: 300 at once would need 2.4 GiB.
	p := secret.NewPasswords(secret.Cost{MemoryKiB: 8 << 10, Passes: 1, Threads: 1}, 2)
	var (
		wg             sync.WaitGroup
		mu             sync.Mutex
		done, turnedAt int
	)
	begin := make(chan struct{})
	for range 300 {
		wg.Go(func() {
			<-begin
			_, err := p.Hash(t.Context(), "correct horse")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done++
			case errors.Is(err, agented.RateLimited):
				turnedAt++
			default:
				t.Error(err)
			}
		})
	}
	close(begin)
	wg.Wait()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if done == 0 || done+turnedAt != 300 {
		t.Errorf("%d done, %d turned away", done, turnedAt)
	}
	if m.HeapSys > 512<<20 {
		t.Errorf("the heap grew to %d MiB", m.HeapSys>>20)
	}
	t.Logf("%d done, %d turned away, heap %d MiB", done, turnedAt, m.HeapSys>>20)
}

func TestPasswords_cancelled_request(t *testing.T) {
	t.Parallel()
	p := secret.NewPasswords(secret.Cost{MemoryKiB: 8 << 10, Passes: 2, Threads: 1}, 1)
	var wg sync.WaitGroup
	for range 3 { // one is computed, two wait before the one that gives up
		wg.Go(func() { _, _ = p.Hash(t.Context(), "correct horse") })
	}
	gone := errors.New("the visitor has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	for range 100 {
		if _, err := p.Hash(ctx, "correct horse"); errors.Is(err, gone) {
			wg.Wait()
			return
		}
	}
	t.Error("a caller whose request was over was served a hundred times")
	wg.Wait()
}

func TestCheckPassword_errors(t *testing.T) {
	t.Parallel()
	for password, want := range map[string]string{
		"":                        "at least 10",
		"ninechars":               "at least 10",
		"\xff\xfeabcdefghij":      "not valid UTF-8 text",
		strings.Repeat("x", 1025): "at most 1024",
		"ten chars!":              "",
		"пароль!!!!":              "",
	} {
		err := secret.CheckPassword(password)
		if want == "" && err != nil || want != "" && (!errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d bytes: %v, want %q", len(password), err, want)
		}
	}
}

func BenchmarkPassword(b *testing.B) {
	p := secret.NewPasswords(secret.DefaultCost, 1)
	for b.Loop() {
		if _, err := p.Hash(b.Context(), "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
