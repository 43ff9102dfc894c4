package service

import (
	"os"
	"os/signal"
	"syscall"
)

// parentSignals receives the signals that a Parent handles. Each kind has a channel of its own
// with room for one: the runtime discards a signal whose channel is full, and a series of
// hangups must not displace a signal to stop.
type parentSignals struct{ stop, hangup, replace chan os.Signal }

// listenSignals starts to receive the signals.
func listenSignals() parentSignals {
	s := parentSignals{make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)}
	s.listen()
	return s
}

// listen receives the signals again after close.
func (s parentSignals) listen() {
	signal.Notify(s.stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(s.hangup, syscall.SIGHUP)
	signal.Notify(s.replace, syscall.SIGUSR2)
}

// close restores the previous treatment of the signals. Those that have been received remain
// in the channels.
func (s parentSignals) close() {
	signal.Stop(s.stop)
	signal.Stop(s.hangup)
	signal.Stop(s.replace)
}

// received returns the signals that wait in the channels, those to stop first.
func (s parentSignals) received() (out []os.Signal) {
	for _, c := range []chan os.Signal{s.stop, s.hangup, s.replace} {
		if len(c) > 0 {
			out = append(out, <-c)
		}
	}
	return out
}
