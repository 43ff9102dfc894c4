package notify

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
)

// mailServer is a small SMTP server with a certificate for example.com.
type mailServer struct {
	t        *testing.T
	listener net.Listener
	config   *tls.Config
	roots    *x509.CertPool
	implicit bool          // TLS from the beginning
	starttls bool          // STARTTLS is offered
	reject   string        // answer to RCPT; empty: accepted
	hangs    chan struct{} // is closed at RCPT, which gets no answer; nil: it gets one
	mu       sync.Mutex
	mails    []string
	logins   []string
}

func newMailServer(t *testing.T, m *mailServer) *mailServer {
	t.Helper()
	certs := httptest.NewTLSServer(nil)
	certs.Close()
	m.t, m.config, m.roots = t, &tls.Config{Certificates: certs.TLS.Certificates}, x509.NewCertPool()
	m.roots.AddCert(certs.Certificate())
	var err error
	if m.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() { m.listener.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			c, err := m.listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { m.serve(c) })
		}
	})
	return m
}

func (m *mailServer) serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	secure := m.implicit
	if secure {
		c = tls.Server(c, m.config)
	}
	r := bufio.NewReader(c)
	say := func(text string) { io.WriteString(c, text+"\r\n") }
	say("220 mail.example.com ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "EHLO":
			io.WriteString(c, "250-mail.example.com\r\n")
			if m.starttls && !secure {
				io.WriteString(c, "250-STARTTLS\r\n")
			}
			say("250 AUTH PLAIN")
		case "STARTTLS":
			say("220 go ahead")
			c, secure = tls.Server(c, m.config), true
			r = bufio.NewReader(c)
		case "AUTH":
			login, _ := base64.StdEncoding.DecodeString(line[strings.LastIndexByte(line, ' ')+1:])
			m.mu.Lock()
			m.logins = append(m.logins, fmt.Sprintf("%s secure=%v", strings.ReplaceAll(string(login), "\x00", "|"), secure))
			m.mu.Unlock()
			say("235 ok")
		case "RCPT":
			if m.hangs != nil {
				close(m.hangs)
				_, _ = io.Copy(io.Discard, c) // until the client ends the connection
				return
			}
			if m.reject != "" {
				say(m.reject)
			} else {
				say("250 ok")
			}
		case "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				b.WriteString(l)
			}
			m.mu.Lock()
			m.mails = append(m.mails, b.String())
			m.mu.Unlock()
			say("250 2.0.0 queued as 42")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// mailTo sends one notification by a mail server, and returns it.
func mailTo(t *testing.T, m *mailServer, mode string) notices.Notification {
	t.Helper()
	s := newScene(t)
	s.n.sender.roots = m.roots
	_, port, _ := net.SplitHostPort(m.listener.Addr().String())
	set := notices.Settings{Host: "127.0.0.1", TLS: mode, Username: "agented", Password: "the-password", From: "Agented <agented@example.org>", To: []string{"ann@example.org", "bob@example.org"}}
	fmt.Sscan(port, &set.Port)
	if mode == TLSNone {
		set.Username, set.Password = "", ""
	}
	s.channel(notices.Channel{Name: "m", Kind: notices.Email, Events: agented.NotificationKinds, Settings: set})
	s.notify(agented.NotifyBackup, "the disk is full – Größe\n.\nBcc: eve@example.org")
	s.pass()
	return s.list("chan-m")[0]
}

func TestMail(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{TLSStart, TLSFull, TLSNone} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			m := newMailServer(t, &mailServer{implicit: mode == TLSFull, starttls: mode == TLSStart})
			n := mailTo(t, m, mode)
			m.mu.Lock()
			defer m.mu.Unlock()
			if n.Status != notices.Sent || !strings.Contains(n.Answer, "queued as 42") || len(m.mails) != 1 {
				t.Fatalf("%s: %q, %d messages", n.Status, n.Answer, len(m.mails))
			}
			header, body, _ := strings.Cut(m.mails[0], "\r\n\r\n")
			plain, _ := io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
			for _, want := range []string{"Message-ID: <" + n.ID + "@example.org>", "Subject: Agented: backup failed", "Auto-Submitted: auto-generated", "To: <ann@example.org>, <bob@example.org>"} {
				if !strings.Contains(strings.ReplaceAll(header, "\r\n ", " "), want) {
					t.Errorf("no %q in\n%s", want, header)
				}
			}
			if strings.Contains(header, "Bcc") || !strings.Contains(string(plain), "Größe") {
				t.Errorf("%s\n%s", header, plain)
			}
			if mode != TLSNone && (len(m.logins) != 1 || m.logins[0] != "|agented|the-password secure=true") {
				t.Errorf("logins %q", m.logins)
			}
		})
	}
}

// TestMail_requires_tls sends no password to a server that offers no encryption.
func TestMail_requires_tls(t *testing.T) {
	t.Parallel()
	m := newMailServer(t, &mailServer{})
	if n := mailTo(t, m, TLSStart); n.Status != notices.Pending || len(m.logins)+len(m.mails) != 0 {
		t.Errorf("%s: %q, logins %q", n.Status, n.Answer, m.logins)
	}
}

// TestMail_stops ends an attempt at once when the server stops, although the mail server is silent.
func TestMail_stops(t *testing.T) {
	t.Parallel()
	m := newMailServer(t, &mailServer{hangs: make(chan struct{})})
	s := newScene(t)
	port := m.listener.Addr().(*net.TCPAddr).Port
	s.channel(notices.Channel{Name: "m", Kind: notices.Email, Events: agented.NotificationKinds, Settings: notices.Settings{
		Host: "127.0.0.1", Port: port, TLS: TLSNone, From: "a@example.org", To: []string{"b@example.org"},
	}})
	s.notify(agented.NotifyBackup, "x")
	s.n.sender.limit = 10 * time.Minute
	ctx, stop := context.WithCancel(t.Context())
	s.n.start(ctx, s.now())
	<-m.hangs
	stop()
	ended := make(chan struct{})
	go func() { s.n.workers.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(45 * time.Second): // the mail server itself waits longer
		t.Fatal("the attempt does not end")
	}
	if n := s.list("chan-m")[0]; n.Status != notices.Pending {
		t.Errorf("%s: %q", n.Status, n.Answer)
	}
}

func TestMail_failures(t *testing.T) {
	t.Parallel()
	untrusted := newMailServer(t, &mailServer{starttls: true})
	untrusted.roots = x509.NewCertPool()
	if n := mailTo(t, untrusted, TLSStart); n.Status != notices.Pending || !strings.Contains(n.Answer, "certificate") {
		t.Errorf("%s: %q", n.Status, n.Answer)
	}
	later := newMailServer(t, &mailServer{starttls: true, reject: "451 4.7.1 try again later"})
	if n := mailTo(t, later, TLSStart); n.Status != notices.Pending || !strings.Contains(n.Answer, "451") {
		t.Errorf("%s: %q", n.Status, n.Answer)
	}
	if a := mailFailure(nil); a.OK || a.Text == "" {
		t.Errorf("%+v", a)
	}
}
