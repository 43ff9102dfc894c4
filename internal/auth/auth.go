// Package auth authenticates callers: users by password and session, programs
// by API key, and running executions by their token. It also creates the first
// user, limits guessing, ends the streams of revoked credentials, and seals the
// secrets that the database stores.
package auth

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/ratelimit"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// Options configures a Service. All fields are required.
type Options struct {
	DB        *store.DB
	Layout    agented.Layout
	Key       secret.Key
	Passwords *secret.Passwords
	Log       *slog.Logger
	Now       func() time.Time
	// Static returns the API key of the settings, AGENTED_API_KEY.
	Static func() config.Secret
	// BasePath is the path under which a proxy publishes the server, or empty.
	BasePath string
	// LoginEnded is called with the outcome of each login attempt.
	LoginEnded func(outcome string)
}

// Outcomes of a login attempt.
const (
	LoginSuccess = "success"
	LoginRefused = "refused"
	LoginLimited = "limited"
)

// Service authenticates callers and manages their credentials.
type Service struct {
	o        Options
	logins   *ratelimit.Limiter
	streams  streams
	hasUsers atomic.Bool // never reset: the last admin cannot be removed
	changing sync.Mutex  // held while a user is read, changed and written
}

// New returns a Service without open streams.
func New(o Options) *Service {
	a := &Service{o: o, logins: ratelimit.New()}
	a.streams = streams{a: a, by: map[Credential]map[*Stream]struct{}{}}
	return a
}

// Client is where a request comes from.
type Client struct {
	Address   string // for the audit log: an IP address, or unix
	Network   string // shares its limits: see ratelimit.Network
	Local     bool   // on this machine
	Encrypted bool
	UserAgent string
	Process   *Process // set on the local socket
}

// Process is a process on this machine that the local socket has identified.
type Process struct {
	User    string // name of its user
	Refused error  // why it may not act as an administrator; nil: it may
}

// Exposed reports whether a password would cross a network unencrypted.
func (c Client) Exposed() bool { return !c.Encrypted && !c.Local }

// Caller is an authenticated caller.
type Caller struct {
	agented.Principal
	Credential Credential
	Session    *store.Session // nil unless a session authenticated the caller
}

// note records a use. If the write fails, for example on a full disk, it logs
// the error and the caller stays logged in.
func (a *Service) note(ctx context.Context, what string, write func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := write(ctx); err != nil {
		a.o.Log.Debug("could not record the use of a "+what, "err", err)
	}
}

// audit adds an entry that the store does not write itself.
func (a *Service) audit(ctx context.Context, c Client, actor, action, subject, detail string) {
	a.note(ctx, "login", func(ctx context.Context) error {
		return a.o.DB.Audit(ctx, store.AuditEntry{
			At: a.o.Now(), Actor: actor, Action: action, Subject: subject, Detail: detail, Address: c.Address,
		})
	})
}

// digest decodes a hash for the store.
func digest(hexadecimal string) []byte {
	b, err := hex.DecodeString(hexadecimal)
	if err != nil {
		panic(err) // the server's own hashes are hexadecimal
	}
	return b
}
