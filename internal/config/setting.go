package config

import (
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// setting is one tagged field of Config, or a setting of an agent CLI.
type setting struct {
	index           int // of the field; -1 for a setting of an agent CLI
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
	fileName        string // NAME_FILE; empty if the setting cannot be read from a file
	sectionOfItsOwn bool   // the tag itself begins a section
}

var secretType = reflect.TypeFor[Secret]()

// settings returns the tagged fields in order. It is computed on first use,
// because every process of the program would pay for it at start.
var settings = sync.OnceValue(func() []setting {
	var (
		all     []setting
		section string
		names   = make(map[string]bool)
	)
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if tag.Get("clis") != "" {
			section = tag.Get("section")
			of := cliSettings(section, registry.All())
			all = append(all, of...)
			for _, s := range of {
				names[s.name] = true
			}
			continue
		}
		name := tag.Get("env")
		if name == "" {
			continue
		}
		s := setting{
			index: i, kindOf: t.Field(i).Type, name: name, old: tag.Get("old"),
			def: tag.Get("default"), shown: tag.Get("shown"), kind: tag.Get("kind"),
			choice: strings.Fields(tag.Get("choice")), min: tag.Get("min"), max: tag.Get("max"),
			secret: tag.Get("secret"),
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

// cliSettings returns the settings that agent CLIs declare. Each is passed to the CLIs that list its
// variable.
func cliSettings(section string, clis []agentcli.CLI) []setting {
	var all []setting
	for _, cli := range clis {
		for _, declared := range cli.Rules().Settings {
			s := setting{
				index: -1, kindOf: reflect.TypeFor[string](), name: declared.Name, old: declared.Old, kind: declared.Kind,
				section: section, help: declared.Help, sectionOfItsOwn: len(all) == 0,
			}
			if declared.Kind == "secret" {
				s.kindOf, s.kind, s.secret = secretType, "", "backend"
			}
			for _, other := range clis {
				if slices.Contains(other.Rules().Variables, s.name) {
					s.backends = append(s.backends, other.Name())
				}
			}
			all = append(all, s)
		}
	}
	return all
}

// value returns the value of a setting; nil: it is a setting of an agent CLI that is not set.
func (c *Config) value(s setting) any {
	if s.index < 0 {
		return c.clis[s.name]
	}
	return reflect.ValueOf(c).Elem().Field(s.index).Interface()
}

// set stores the value of a setting.
func (c *Config) set(s setting, value any) {
	if s.index < 0 {
		c.clis[s.name] = value
		return
	}
	reflect.ValueOf(c).Elem().Field(s.index).Set(reflect.ValueOf(value))
}

// names returns all names of the setting, in order of precedence.
func (s setting) names() []string {
	return slices.DeleteFunc([]string{s.name, s.old, s.fileName}, func(n string) bool { return n == "" })
}

// known reports whether a part of the server reads or sets the name.
func known(name string) bool {
	if _, ok := setByServer[name]; ok {
		return true
	}
	for _, prefix := range setByServerPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.ContainsFunc(settings(), func(s setting) bool { return slices.Contains(s.names(), name) })
}

// otherNames maps words that people use for a setting to its name.
var otherNames = map[string]string{
	"PORT": "AGENTED_BIND", "HOST": "AGENTED_BIND", "ADDR": "AGENTED_BIND", "ADDRESS": "AGENTED_BIND", "LISTEN": "AGENTED_BIND", "LISTEN_ADDR": "AGENTED_BIND",
	"HTTP_PORT": "AGENTED_BIND", "SERVER_PORT": "AGENTED_BIND", "IP": "AGENTED_BIND", "BIND_ADDRESS": "AGENTED_BIND",
	"DATA": "AGENTED_DATA_DIR", "HOME": "AGENTED_DATA_DIR", "DIR": "AGENTED_DATA_DIR", "STATE_DIR": "AGENTED_DATA_DIR",
	"DB": "AGENTED_DB_PATH", "DATABASE": "AGENTED_DB_PATH", "DATABASE_PATH": "AGENTED_DB_PATH", "SQLITE_PATH": "AGENTED_DB_PATH",
	"TOKEN": "AGENTED_API_KEY", "KEY": "AGENTED_API_KEY", "API_TOKEN": "AGENTED_API_KEY", "ADMIN_KEY": "AGENTED_API_KEY", "SECRET": "SECRET_KEY", "SECRET_KEY": "SECRET_KEY",
	"LOG_LEVEL": "LOG_LEVEL", "LOGLEVEL": "LOG_LEVEL", "DEBUG": "LOG_LEVEL", "LOG_FORMAT": "LOG_FORMAT", "TZ": "TZ", "TIMEZONE": "TZ",
	"CERT": "AGENTED_TLS_CERT", "TLS_CERTIFICATE": "AGENTED_TLS_CERT", "CORS": "CORS_ALLOWED_ORIGINS", "CORS_ORIGINS": "CORS_ALLOWED_ORIGINS",
	"BASE_URL": "AGENTED_BASE_PATH", "PREFIX": "AGENTED_BASE_PATH", "ROOT_PATH": "AGENTED_BASE_PATH", "WEBHOOK_SECRET": "GITHUB_WEBHOOK_SECRET", "CONCURRENCY": "AGENTED_MAX_CONCURRENT",
	"SERVER": "AGENTED_URL", "ENDPOINT": "AGENTED_URL",
}

// nearest returns the setting whose name is closest to a misspelt one, and the
// edit distance between them.
func nearest(name string) (best string, distance int) {
	if meant, ok := otherNames[strings.TrimPrefix(name, "AGENTED_")]; ok && strings.HasPrefix(name, "AGENTED_") {
		return meant, 1
	}
	distance = len(name) + 1
	for _, s := range settings() {
		if s.system {
			continue
		}
		for _, n := range s.names() {
			if d := agented.EditDistance(name, n); d < distance {
				best, distance = n, d
			}
		}
	}
	return best, distance
}
