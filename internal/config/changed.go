package config

import "reflect"

// Changed returns the settings whose values differ in next, in the order of the
// reference page. Secrets are compared, but not returned.
func (c *Config) Changed(next *Config) []string {
	var names []string
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(next).Elem()
	for _, s := range settings() {
		if !reflect.DeepEqual(a.Field(s.index).Interface(), b.Field(s.index).Interface()) {
			names = append(names, s.name)
		}
	}
	return names
}
