package doctor

import (
	"context"
	"testing"
)

func TestServerAddress(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]Status{
		"http://127.0.0.1:20000": OK, "http://[::1]:20000": OK, "http://localhost:20000": OK, "unix:/run/agented.sock": OK, "https://[::]:20000": OK,
		"http://[::]:20000": Warn, "http://0.0.0.0:20000": Warn, "http://10.1.2.3:20000/agented": Warn, "http://example.com": Warn,
	} {
		// The settings found here contradict the address.
		bind := "0.0.0.0:0"
		if want == Warn {
			bind = "127.0.0.1:0"
		}
		o := newPlace(t, "AGENTED_BIND="+bind).options()
		o.Server = func(context.Context) (string, error) { return at, nil }
		expect(t, byID(Check(t.Context(), o))["server.address"], want)
		o.Server = func(context.Context) (string, error) { return "http://127.0.0.1:20000", nil }
		o.Listens = func() string { return at }
		expect(t, byID(Check(t.Context(), o))["server.address"], want)
	}
}
