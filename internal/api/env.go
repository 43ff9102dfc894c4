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
// null for the server's variable of that name, an object with value and secret, or
// {"secret": NAME} for a named secret.
type EnvValue struct {
	Value  *string
	Secret *bool  // nil: not given, which is secret for a new value
	Named  string // a named secret, instead of a value
}

// namedSecret is the form of an EnvValue that refers to a named secret.
type namedSecret struct {
	Secret string `json:"secret"`
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
	var ref namedSecret
	if json.Unmarshal(text, &ref) == nil && ref.Secret != "" {
		v.Named = ref.Secret
		return nil
	}
	var long envObject
	if err := json.Unmarshal(text, &long); err != nil {
		return err
	}
	v.Value, v.Secret = long.Value, long.Secret
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (v EnvValue) MarshalJSON() ([]byte, error) {
	if v.Named != "" {
		return json.Marshal(namedSecret{v.Named})
	}
	if v.Secret == nil {
		return json.Marshal(v.Value)
	}
	return json.Marshal(envObject{v.Value, v.Secret})
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
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Nullable: true}, long, secretSchema()}}
}

// secretSchema describes a reference to a named secret.
func secretSchema() *huma.Schema {
	ref := &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: false, Required: []string{"secret"},
		Properties: map[string]*huma.Schema{"secret": {Type: huma.TypeString, Description: "Name of a named secret, whose value is fetched at the start of each attempt"}},
	}
	ref.PrecomputeMessages()
	return ref
}

// refersToSecret reports whether a value that a user entered would be read as a reference
// to a named secret.
func refersToSecret(value string) bool {
	_, ok := agented.RefersTo(value)
	return ok
}

// credentialSchema describes agented.Credential.
type credentialSchema struct{}

// Schema implements [huma.SchemaProvider].
func (credentialSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		OneOf:       []*huma.Schema{{Type: huma.TypeString}, secretSchema()},
		Description: "Token for https: the name of a variable in env, or {secret: NAME} for a named secret, which the agent does not receive",
	}
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
		switch {
		case v.Named != "":
			ref := agented.SecretRef(v.Named)
			value = &ref
		case value == nil:
		case refersToSecret(*value):
			refuse("cannot begin with secret:v1: to use a named secret, write {\"secret\": NAME}")
			continue
		case *value == maskedValue:
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
	for variable, value := range spec.Env {
		if value == nil {
			out[variable] = EnvValue{}
			continue
		}
		if name, ref := agented.RefersTo(*value); ref {
			out[variable] = EnvValue{Named: name}
			continue
		}
		mask := maskedValue
		v := EnvValue{Value: &mask}
		if !spec.SecretEnv(variable) {
			if text, err := h.sealer.OpenEnv(variable, *value); err == nil {
				if !admin {
					text = h.mask(text)
				}
				v = EnvValue{Value: &text, Secret: new(bool)}
			}
		}
		out[variable] = v
	}
	return out
}
