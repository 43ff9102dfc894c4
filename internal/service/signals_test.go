package service

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

// A parent may be busy, for example with a write to a slow disk, while it receives signals. Not
// parallel, because it sends signals to the process of the tests.
func TestSignals_hangups_and_stop(t *testing.T) {
	s := listenSignals()
	defer s.close()
	seen := make(chan os.Signal, 1)
	signal.Notify(seen, syscall.SIGHUP, syscall.SIGTERM)
	defer signal.Stop(seen)
	send := func(sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		testrun.Receive(t, seen, "the signal to be delivered")
	}
	for range 100 {
		send(syscall.SIGHUP)
	}
	send(syscall.SIGTERM)
	s.close() // waits until the signals have been delivered to all channels
	if got := s.received(); !slices.Equal(got, []os.Signal{syscall.SIGTERM, syscall.SIGHUP}) {
		t.Errorf("received %v", got)
	}
	if got := s.received(); len(got) > 0 {
		t.Errorf("received again: %v", got)
	}
}
