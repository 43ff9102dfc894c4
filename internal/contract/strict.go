package contract

import (
	"encoding/json"
	"slices"
)

// strictKeywords are the keywords that the strict mode of OpenAI's structured outputs accepts.
var strictKeywords = []string{
	"$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "description", "enum", "items", "maximum", "minimum",
	"maxItems", "minItems", "pattern", "properties", "required", "title", "type",
}

// Strict reports whether a schema is one for the strict mode of OpenAI's structured outputs, which
// rejects others: an object without further properties at every level, all of which are required.
func Strict(schema []byte) bool {
	var s map[string]any
	if json.Unmarshal(schema, &s) != nil || s["type"] != "object" || s["anyOf"] != nil {
		return false
	}
	return strict(s, 0)
}

func strict(v any, depth int) bool {
	s, ok := v.(map[string]any)
	if !ok || depth > 10 {
		return false
	}
	for name := range s {
		if !slices.Contains(strictKeywords, name) {
			return false
		}
	}
	properties, _ := s["properties"].(map[string]any)
	if s["type"] == "object" || properties != nil {
		if s["additionalProperties"] != false {
			return false
		}
		required, _ := s["required"].([]any)
		for name := range properties {
			if !slices.Contains(required, any(name)) {
				return false
			}
		}
	}
	nested := []any{}
	if items, there := s["items"]; there {
		nested = append(nested, items)
	}
	defs, _ := s["$defs"].(map[string]any)
	for _, group := range []map[string]any{properties, defs} {
		for _, x := range group {
			nested = append(nested, x)
		}
	}
	if choices, there := s["anyOf"].([]any); there {
		nested = append(nested, choices...)
	}
	return !slices.ContainsFunc(nested, func(x any) bool { return !strict(x, depth+1) })
}
