package config

import "reflect"

// Changed returns the settings whose values differ in next, in the order of the
// reference page. Secrets are compared, but not returned.
func (c *Config) Changed(next *Config) []string {
	var names []string
	for _, s := range settings() {
		if !reflect.DeepEqual(c.value(s), next.value(s)) {
			names = append(names, s.name)
		}
	}
	return names
}
