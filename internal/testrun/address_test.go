package testrun

import (
	"net"
	"testing"
)

func TestFreeAddress(t *testing.T) {
	t.Parallel()
	first, second := FreeAddress(t), FreeAddress(t)
	if first == second {
		t.Errorf("%s was returned twice", first)
	}
	l, err := net.Listen("tcp", first)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if c, err := net.Dial("tcp", second); err == nil {
		c.Close()
		t.Errorf("somebody listens on %s", second)
	}
}
