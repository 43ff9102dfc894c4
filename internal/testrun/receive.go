package testrun

import (
	"testing"
	"time"
)

// Receive returns the next value of a channel, or the zero value once it is closed. It ends the test
// with a message if neither happens within two minutes, because what should send may have failed.
func Receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(2 * time.Minute)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("gave up waiting for %s", what)
		panic("unreachable")
	}
}
