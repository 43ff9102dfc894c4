package agented

import "slices"

// Role is a level of access. Each role includes the permissions of the roles
// before it.
type Role string

// The roles, in ascending order. Routes open to anyone require RoleNone.
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

// Allows reports whether r includes the permissions of the role needed.
func (r Role) Allows(needed Role) bool { return r.rank() >= needed.rank() }

// Principal is the authenticated caller: a user with a session, an API key, a
// running execution, or the server itself.
type Principal struct {
	Name string    // user name or "key NAME"; shown in the audit log and as the actor of a firing
	Role Role      // RoleNone: unauthenticated
	User UserID    // set for sessions
	Key  KeyID     // set for API keys stored in the database
	Sess SessionID // set for sessions
	// Owner is the user who owns the API key, or User for a session. It is
	// empty for a key without an owner.
	Owner UserID
	// Triggers limits an API key to these triggers. Empty: no limit.
	Triggers []TriggerID

	// Execution is set for the token of a running execution. It has no role; it
	// can only send messages and read its agent's inbox.
	Execution ExecutionID
	Agent     AgentID // agent of the execution; empty: none
	Trigger   TriggerID
}

// Limited reports whether the principal is limited to some triggers.
func (p Principal) Limited() bool { return len(p.Triggers) > 0 }

// Reaches reports whether the principal may see the trigger and its executions.
// An empty id is that of executions without a trigger.
func (p Principal) Reaches(id TriggerID) bool {
	return !p.Limited() || id != "" && slices.Contains(p.Triggers, id)
}

// May reports whether the principal has the role needed or a higher one.
func (p Principal) May(needed Role) bool { return p.Role.Allows(needed) }
