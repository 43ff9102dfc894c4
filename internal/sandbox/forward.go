package sandbox

import (
	"io"
	"net"
	"sync"
)

// Forward connects every connection to the listener with a Unix socket, until the listener is
// closed. It is the way out of a sandbox without a network.
func Forward(l net.Listener, socket string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("unix", socket)
			if err != nil {
				return // the client sees a closed connection
			}
			defer out.Close()
			join(in, out)
		}()
	}
}

// join copies both directions until both have ended. The end of one is passed on, so that a client
// that has sent everything still receives the answer.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { one(a, b) })
	one(b, a)
	both.Wait()
}
