package api

import (
	"reflect"

	"github.com/agented/agented"
)

// EnvPurpose is what the values of a trigger's variables are sealed for.
const EnvPurpose = "trigger env"

// sealEnv seals the values of a spec's variables, which are secret at rest. A
// value that is the same as before keeps its old seal, so that writing it again
// changes nothing.
func (s *Server) sealEnv(spec *agented.Spec, before map[string]*string) {
	if len(spec.Env) == 0 {
		return
	}
	sealed := make(map[string]*string, len(spec.Env))
	for name, value := range spec.Env {
		old := before[name]
		switch {
		case value == nil || value == old: // "***" kept the very value
			sealed[name] = value
			continue
		case old != nil:
			if was, err := s.o.Key.OpenText(EnvPurpose, name, *old); err == nil && was == *value {
				sealed[name] = old
				continue
			}
		}
		text := s.o.Key.SealText(EnvPurpose, name, *value)
		sealed[name] = &text
	}
	spec.Env = sealed
}

// sameTrigger reports whether a change left a trigger as it was.
func sameTrigger(a, b *agented.Trigger) bool {
	return a.Name == b.Name && a.Enabled == b.Enabled && reflect.DeepEqual(a.Spec, b.Spec) &&
		reflect.DeepEqual(a.Schedules, b.Schedules) && reflect.DeepEqual(a.Webhooks, b.Webhooks) && reflect.DeepEqual(a.Messages, b.Messages)
}
