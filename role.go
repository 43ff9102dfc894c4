package agented

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
