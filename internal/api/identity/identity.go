// Package identity has the handlers of logins, users, API keys and sessions.
package identity

import (
	"context"
	"slices"
	"time"

	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/store"
)

// Note adds an audit entry for an action of the caller.
type Note func(ctx context.Context, action, subject, detail string)

// Options are what the handlers work with. All fields are required.
type Options struct {
	DB   *store.DB
	Auth *auth.Service
	Now  func() time.Time
	Note Note
}

// Routes returns the routes of logins, users, API keys and sessions.
func Routes(o Options) []rest.Route {
	return slices.Concat(
		(&logins{auth: o.Auth}).routes(),
		(&users{db: o.DB, auth: o.Auth}).routes(),
		(&keys{db: o.DB, auth: o.Auth}).routes(),
		(&sessions{db: o.DB, auth: o.Auth, now: o.Now, note: o.Note}).routes(),
	)
}
