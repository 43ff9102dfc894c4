package testrun

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
)

// FreeAddress returns a TCP address of this machine on which no process listens.
//
// On Linux, where the whole of 127.0.0.0/8 is local, it has a random IP, so that
// no other test uses it, and a port that the kernel does not assign. It is not
// found by listening: a child that is being started may hold a copy of the
// closed listener for a moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	if runtime.GOOS == "linux" {
		return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250), 10_000+rand.IntN(20_000))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
