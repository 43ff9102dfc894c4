package agented

import (
	"strings"
	"time"
)

// Trigger defines when to run and what to run.
type Trigger struct {
	ID        TriggerID
	Name      string // unique, ignoring case
	Enabled   bool
	Spec      Spec
	Schedules []Schedule    // set where one trigger is shown or written
	Webhooks  []Webhook     // set like Schedules
	Messages  []MessageRule // set like Schedules
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Validate returns every invalid field of the trigger with its fix. Fields are
// named as in the API.
func (t *Trigger) Validate() []Field {
	var bad []Field
	name := strings.TrimSpace(t.Name)
	switch {
	case name == "":
		bad = append(bad, Field{"name", "is required: set a name for the trigger"})
	case len(t.Name) > MaxName:
		bad = append(bad, Field{"name", "is too long: use at most 200 bytes"})
	case name != t.Name:
		bad = append(bad, Field{"name", "starts or ends with white space: trim it"})
	case hasControl(t.Name):
		bad = append(bad, Field{"name", "has a control character: use printable characters"})
	}
	return append(bad, t.Spec.Validate()...)
}
