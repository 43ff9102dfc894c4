package term

import (
	"context"
	"errors"
	"testing"
)

func TestLatin1Input(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"+ caf\xe9\n": "+ café\n", "日本 \xff": "日本 ÿ", "plain": "plain", "\xc3": "Ã"} {
		if got, n := fromLatin1([]byte(in)); got != want || (n > 0) != (in != want) {
			t.Errorf("%q: %q, %d bytes converted", in, got, n)
		}
	}
}

func TestAwait_context(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	never := make(chan int)
	cancel()
	if _, err := Await(ctx, func() (int, error) { return <-never, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
