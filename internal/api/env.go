package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/format"
)

// EnvValue is the value of a variable in requests and answers. In JSON it is a text,
// null for the server's variable of that name, or an object with value and secret.
type EnvValue struct {
	Value  *string
	Secret *bool // nil: not given, which is secret for a new value
}

// envObject is the long form of an EnvValue.
type envObject struct {
	Value  *string `json:"value"`
	Secret *bool   `json:"secret,omitempty"`
}

// UnmarshalJSON implements [json.Unmarshaler].
func (v *EnvValue) UnmarshalJSON(text []byte) error {
	*v = EnvValue{}
	if text = bytes.TrimSpace(text); len(text) == 0 || text[0] != '{' {
		return json.Unmarshal(text, &v.Value)
	}
	var long envObject
	if err := json.Unmarshal(text, &long); err != nil {
		return err
	}
	*v = EnvValue(long)
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (v EnvValue) MarshalJSON() ([]byte, error) {
	if v.Secret == nil {
		return json.Marshal(v.Value)
	}
	return json.Marshal(envObject(v))
}

// Schema implements [huma.SchemaProvider].
func (EnvValue) Schema(huma.Registry) *huma.Schema {
	long := &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: false, Required: []string{"value"},
		Properties: map[string]*huma.Schema{
			"value":  {Type: huma.TypeString},
			"secret": {Type: huma.TypeBoolean, Description: "Default true. With false the value is shown in answers and is not masked in logs"},
		},
	}
	long.PrecomputeMessages()
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Nullable: true}, long}}
}

// envInto replaces the variables of a spec with those of a request. *** keeps the
// value of a variable.
func envInto(s *agented.Spec, env rest.Optional[map[string]EnvValue]) error {
	if !env.Set {
		return nil
	}
	old := *s
	s.Env, s.PlainEnv = nil, nil
	var bad []agented.Field
	for _, name := range slices.Sorted(maps.Keys(env.Value)) {
		v := env.Value[name]
		value, plain := v.Value, v.Secret != nil && !*v.Secret
		refuse := func(text string) {
			bad = append(bad, agented.Field{Path: "env." + format.Clip(name, 60), Text: text})
		}
		if value != nil && *value == maskedValue {
			was := old.Env[name]
			switch {
			case was == nil:
				refuse("*** keeps a stored value, but this variable has none: send the value")
				continue
			case plain && old.SecretEnv(name):
				refuse("secret: false would show a value that is stored as a secret: send the value together with it")
				continue
			case v.Secret == nil:
				plain = !old.SecretEnv(name)
			}
			value = was
		}
		if s.Env == nil {
			s.Env = map[string]*string{}
		}
		if s.Env[name] = value; plain && value != nil {
			s.PlainEnv = append(s.PlainEnv, name)
		}
	}
	return agented.InvalidFields(bad)
}

// envViews shows variables.
type envViews struct {
	sealer auth.Sealer
	mask   func(string) string
}

// show returns the variables of a spec for an answer: *** for a secret value,
// and the value of one that is not secret.
func (h envViews) show(spec *agented.Spec, admin bool) map[string]EnvValue {
	out := make(map[string]EnvValue, len(spec.Env))
	for name, value := range spec.Env {
		if value == nil {
			out[name] = EnvValue{}
			continue
		}
		mask := maskedValue
		v := EnvValue{Value: &mask}
		if !spec.SecretEnv(name) {
			if text, err := h.sealer.OpenEnv(name, *value); err == nil {
				if !admin {
					text = h.mask(text)
				}
				v = EnvValue{Value: &text, Secret: new(bool)}
			}
		}
		out[name] = v
	}
	return out
}
