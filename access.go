package agented

// Role says what a principal may do. Each role may do all that the one before
// it may.
type Role string

// The roles, from least to most. RoleNone is what a route open to anyone asks
// for.
const (
	RoleNone     Role = ""
	RoleViewer   Role = "viewer"   // reads everything but secrets
	RoleOperator Role = "operator" // also fires, cancels and retries
	RoleAdmin    Role = "admin"    // also changes triggers, users, keys and settings
)

func (r Role) rank() int {
	switch r {
	case RoleViewer:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// Valid reports whether r is one of viewer, operator and admin.
func (r Role) Valid() bool { return r.rank() > 0 }

// Allows reports whether a principal of role r may do what needs the role
// needed.
func (r Role) Allows(needed Role) bool { return r.rank() >= needed.rank() }

// Principal is who asks: a person with a session, an API key, or the server
// itself.
type Principal struct {
	Name string    // shown in audit and as the source's actor: a user's name or "key NAME"
	Role Role      // RoleNone: nobody
	User UserID    // set for sessions
	Key  KeyID     // set for API keys stored in the database
	Sess SessionID // set for sessions

	// Set for the token of an execution that runs, which has no role: it sends
	// messages and reads its agent's inbox.
	Execution ExecutionID
	Agent     AgentID // empty when it plays none
	Trigger   TriggerID
}

// May reports whether the principal may do what needs the role needed.
func (p Principal) May(needed Role) bool { return p.Role.Allows(needed) }
