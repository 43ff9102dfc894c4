package service

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// message is a notification of the server: one datagram.
type message struct {
	from   int
	fields map[string]string
	fds    []int
}

// listen opens the notification socket.
func (p *Parent) listen() error {
	name, remove, err := notifyName()
	if err != nil {
		return err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		if err = requestCredentials(conn); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		remove()
		return err
	}
	p.conn, p.address, p.messages, p.heard = conn, name, make(chan message), make(chan struct{})
	go func() { // ends when conn is closed
		defer close(p.heard)
		defer remove()
		buf, oob := make([]byte, 64<<10), make([]byte, 4<<10)
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				p.messages <- parseMessage(string(buf[:n]), oob[:oobn])
			}
		}
	}()
	return nil
}

// closeNotify closes the notification socket; notifications sent meanwhile are lost.
func (p *Parent) closeNotify() {
	p.conn.Close()
	for {
		select {
		case m := <-p.messages:
			for _, fd := range m.fds {
				_ = unix.Close(fd)
			}
		case <-p.heard:
			return
		}
	}
}

// parseMessage parses a datagram of NAME=value lines and its descriptors.
func parseMessage(text string, oob []byte) message {
	m := message{fields: map[string]string{}}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			m.fields[name] = value
		}
	}
	controls, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return m
	}
	for i := range controls {
		if pid, ok := sender(&controls[i]); ok {
			m.from = pid
			continue
		}
		if fds, err := unix.ParseUnixRights(&controls[i]); err == nil {
			for _, fd := range fds {
				unix.CloseOnExec(fd)
			}
			m.fds = append(m.fds, fds...)
		}
	}
	return m
}

// handle processes a notification of the server.
func (p *Parent) handle(m message) {
	defer func() {
		for _, fd := range m.fds {
			_ = unix.Close(fd)
		}
	}()
	// Agents run as the same user, so only messages of the server itself are accepted.
	if c := p.child; c == nil || m.from != 0 && m.from != c.pid {
		return
	}
	c, now := p.child, time.Now()
	if m.fields["FDSTOREREMOVE"] == "1" {
		var kept []Kept
		for _, k := range p.Kept {
			if k.Name == m.fields["FDNAME"] {
				_ = unix.Close(k.FD)
				continue
			}
			kept = append(kept, k)
		}
		p.Kept = kept
	}
	if name := m.fields["FDNAME"]; m.fields["FDSTORE"] == "1" && len(p.Kept) < 16 && name != "" && !strings.ContainsAny(name, ":,= ") {
		for _, fd := range m.fds {
			p.Kept = append(p.Kept, Kept{Name: name, FD: fd})
		}
		m.fds = nil
	}
	if m.fields["READY"] == "1" && c.ready.IsZero() {
		c.ready = now
		p.signOfLife(now)
		p.failed, p.last = 0, ""
		p.note()
		if p.hangup {
			p.hangup = false
			_ = syscall.Kill(c.pid, syscall.SIGHUP)
		}
	}
	if m.fields["WATCHDOG"] == "1" {
		p.signOfLife(now)
	}
	if usec, err := strconv.ParseInt(m.fields["EXTEND_TIMEOUT_USEC"], 10, 64); err == nil && m.fields["STOPPING"] == "1" && !c.deadline.IsZero() {
		c.deadline = now.Add(time.Duration(usec) * time.Microsecond)
	}
}
