package config

import (
	"reflect"
	"slices"
	"strings"
	"sync"
)

// setting is one tagged field of Config.
type setting struct {
	index           int
	kindOf          reflect.Type
	name, old       string
	def, shown      string
	kind            string
	choice          []string
	min, max        string
	secret          string
	backends        []string
	client, system  bool
	section, help   string
	fileName        string // NAME_FILE, empty if the setting cannot be given so
	sectionOfItsOwn bool   // whether the tag itself begins a section
}

var secretType = reflect.TypeFor[Secret]()

// settings lists the tagged fields in order. It is made at first use, because
// every process of the program would pay for it at start.
var settings = sync.OnceValue(func() []setting {
	var (
		all     []setting
		section string
		names   = make(map[string]bool)
	)
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		name := tag.Get("env")
		if name == "" {
			continue
		}
		s := setting{
			index: i, kindOf: t.Field(i).Type, name: name, old: tag.Get("old"),
			def: tag.Get("default"), shown: tag.Get("shown"), kind: tag.Get("kind"),
			choice: strings.Fields(tag.Get("choice")), min: tag.Get("min"), max: tag.Get("max"),
			secret: tag.Get("secret"), backends: strings.Fields(tag.Get("backend")),
			client: tag.Get("client") != "", system: tag.Get("system") != "",
			section: tag.Get("section"), help: tag.Get("help"),
		}
		s.sectionOfItsOwn = s.section != ""
		if s.sectionOfItsOwn {
			section = s.section
		}
		s.section = section
		names[name] = true
		all = append(all, s)
	}
	for i, s := range all {
		if file := s.name + "_FILE"; s.kindOf == secretType && !names[file] {
			all[i].fileName = file
		}
	}
	return all
})

// names returns every name under which the setting can be given, the one that
// counts most first.
func (s setting) names() []string {
	return slices.DeleteFunc([]string{s.name, s.old, s.fileName}, func(n string) bool { return n == "" })
}

// known reports whether some part of the server reads or sets the name.
func known(name string) bool {
	if _, ok := setByUs[name]; ok {
		return true
	}
	for _, prefix := range setByUsPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.ContainsFunc(settings(), func(s setting) bool { return slices.Contains(s.names(), name) })
}

// nearest returns the setting whose name is closest to a misspelt one, with the
// number of changes between them.
func nearest(name string) (best string, distance int) {
	distance = len(name) + 1
	for _, s := range settings() {
		if s.system {
			continue
		}
		for _, n := range s.names() {
			if d := editDistance(name, n); d < distance {
				best, distance = n, d
			}
		}
	}
	return best, distance
}

// editDistance counts the letters to insert, drop or replace to get from a to b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
