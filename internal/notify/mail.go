package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/wneessen/go-mail"
)

// The values of the field tls of a mail server.
const (
	TLSStart = "starttls" // required
	TLSFull  = "tls"
	TLSNone  = "none"
)

// mail makes one attempt to send a message by e-mail. The connection is closed when attempt ends.
func (s *sender) mail(attempt context.Context, to *endpoint, m Message) Answer {
	msg, err := mailMessage(to, m)
	if err != nil {
		return Answer{Text: clean(err.Error()), Refused: true}
	}
	settings := &tls.Config{ServerName: to.Host, MinVersion: tls.VersionTLS12, RootCAs: s.roots}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// The client sets a new time limit for each step, and does not end with its context.
		context.AfterFunc(attempt, func() { conn.Close() })
		if to.TLS != TLSFull {
			return conn, nil
		}
		encrypted := tls.Client(conn, settings)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return encrypted, nil
	}
	options := []mail.Option{
		mail.WithPort(to.Port), mail.WithTimeout(s.limit), mail.WithTLSConfig(settings), mail.WithDialContextFunc(dial), mail.WithTLSPolicy(mail.TLSMandatory),
	}
	switch to.TLS {
	case TLSFull:
		options = append(options, mail.WithSSL())
	case TLSNone:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	}
	if to.Username != "" {
		auth := mail.SMTPAuthAutoDiscover
		if to.TLS == TLSFull {
			auth = mail.SMTPAuthPlain
		}
		options = append(options, mail.WithSMTPAuth(auth), mail.WithUsername(to.Username), mail.WithPassword(to.Password))
	}
	client, err := mail.NewClient(to.Host, options...)
	if err != nil {
		return Answer{Text: clean(err.Error()), Refused: true}
	}
	err = client.DialAndSendWithContext(attempt, msg)
	if msg.IsDelivered() { // what follows is the end of the connection
		return Answer{OK: true, Text: mailAnswer(msg)}
	}
	return mailFailure(err)
}

// mailMessage returns a message as an e-mail. Its Message-ID is the id of the notification.
func mailMessage(to *endpoint, m Message) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(to.From); err != nil {
		return nil, errors.New("the sender is not an e-mail address")
	}
	if err := msg.To(to.To...); err != nil {
		return nil, errors.New("a recipient is not an e-mail address")
	}
	_, domain, _ := strings.Cut(strings.TrimSuffix(to.From, ">"), "@")
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetDateWithValue(m.At)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.Subject(m.Title)
	text := m.Text
	if m.Link != "" {
		text += "\n\n" + m.Link
	}
	msg.SetBodyString(mail.TypeTextPlain, strings.TrimSpace(text)+"\n")
	return msg, nil
}

func mailAnswer(msg *mail.Msg) string {
	if text := clean(msg.ServerResponse()); text != "" {
		return text
	}
	return "accepted"
}

// mailFailure classifies an error of a mail server. Only a rejected message is final.
func mailFailure(err error) Answer {
	a := Answer{Text: "the mail server did not accept the message"}
	if err == nil {
		return a
	}
	a.Text = clean(err.Error())
	if r, ok := errors.AsType[*refusal](err); ok {
		a.Text = r.Error()
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		a.Text = "the certificate of the mail server is not trusted by this machine"
	}
	if e, ok := errors.AsType[*mail.SendError](err); ok && !e.IsTemp() && e.ErrorCode() >= 550 && e.ErrorCode() != 553 {
		a.Refused = true
		a.Text = fmt.Sprintf("rejected: %s", a.Text)
	}
	return a
}
