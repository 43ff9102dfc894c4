package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dotenv"
)

// maxFile bounds a .env file and a file that holds one secret.
const maxFile = 1 << 20

// Options say where settings come from.
type Options struct {
	// Environ gives the real environment as NAME=value. nil means os.Environ.
	Environ func() []string
	// Dir is the working directory, to which relative paths belong. Empty means
	// the process's.
	Dir string
	// EnvFile is the .env file to read; it has to be there. Empty means the first
	// .env in Dir or a folder above it, if there is one.
	EnvFile string
	// Client reads only what client commands use. They run in folders of other
	// projects, whose .env must not stop them.
	Client bool
	// Machine is what defaults are worked out from. The zero value means this
	// machine.
	Machine Machine
}

// Origin says where a value came from.
type Origin struct {
	Kind string // "environment", "dotenv" or "default"
	Path string // dotenv: the file
	Line int    // dotenv: its line
	As   string // the name it was found under, if not the setting's own
}

// String gives "environment", "/srv/.env:3", "environment as GUNICORN_BIND" or
// "default".
func (o Origin) String() string {
	s := o.Kind
	if o.Kind == "dotenv" {
		s = fmt.Sprintf("%s:%d", o.Path, o.Line)
	}
	if o.As != "" {
		s += " as " + o.As
	}
	return s
}

// Problem is something about one setting that a person should know. Text says
// what is wrong and the mend, and never repeats a secret.
type Problem struct {
	Name   string // the setting, or empty for a line of .env
	Source string
	Text   string
}

// String gives "NAME: text (source)".
func (p Problem) String() string {
	s := p.Text
	if p.Name != "" {
		s = p.Name + ": " + s
	}
	if p.Source != "" {
		s += " (" + p.Source + ")"
	}
	return s
}

// Load reads all settings and checks them. The real environment beats .env, which
// beats the default; an older name counts only in the source where it stands. A
// variable that is set to nothing in the environment gives the default and hides
// the one in .env.
//
// The error is of Kind Invalid and lists every problem, not just the first, one
// field for each.
func Load(o Options) (*Config, error) {
	l, err := newLoader(o)
	if err != nil {
		return nil, err
	}
	v := reflect.ValueOf(l.config).Elem()
	for _, s := range settings() {
		if o.Client && !s.client && !s.system {
			continue
		}
		raw, origin := l.find(s)
		l.config.origins[s.name] = origin
		if raw == "" {
			raw = s.def
		}
		if raw == "" && s.kind != "zone" {
			continue
		}
		value, err := l.convert(s, raw, origin)
		if err != nil {
			l.refuse(s, origin, raw, err)
			continue
		}
		v.Field(s.index).Set(reflect.ValueOf(value))
	}
	l.finish()
	l.unknownNames()
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	return l.config, nil
}

// Reload reads the settings again from where they came from: the .env file as it
// is now and the environment as it was at the first load, since that of a process
// does not change and its secrets have been taken out.
func (c *Config) Reload() (*Config, error) {
	o := c.options
	o.Environ = func() []string {
		var list []string
		for name, value := range c.environ() {
			list = append(list, name+"="+value)
		}
		return list
	}
	return Load(o)
}

type loader struct {
	config   *Config
	dir      string
	environ  map[string]string
	dotenv   map[string]dotenv.Var
	problems []Problem
}

func newLoader(o Options) (*loader, error) {
	if o.Environ == nil {
		o.Environ = os.Environ
	}
	if o.Machine == (Machine{}) {
		o.Machine = ThisMachine()
	}
	if o.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "the working directory is gone; change to another").Because(err)
		}
		o.Dir = dir
	}
	c := &Config{origins: make(map[string]Origin), options: o}
	l := &loader{config: c, dir: o.Dir, environ: make(map[string]string), dotenv: make(map[string]dotenv.Var)}
	values := make(map[string]string)
	c.environ, c.dotenv = func() map[string]string { return l.environ }, func() map[string]string { return values }
	for _, entry := range o.Environ() {
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			if _, twice := l.environ[name]; !twice { // getenv, too, takes the first
				l.environ[name] = value
			}
		}
	}
	if err := l.readDotenv(o.EnvFile); err != nil {
		return nil, err
	}
	for name, v := range l.dotenv {
		values[name] = v.Value
	}
	return l, nil
}

// readDotenv finds and parses the .env file. A file asked for by name has to be
// there; otherwise none is fine.
func (l *loader) readDotenv(path string) error {
	if path == "" {
		if path = l.findDotenv(); path == "" {
			return nil
		}
	} else if !filepath.IsAbs(path) {
		path = filepath.Join(l.dir, path)
	}
	data, err := readFile(path)
	if err != nil {
		return agented.Errorf(agented.Invalid, "the env file %s cannot be read (%v); mend it or name another with --env-file", path, err)
	}
	vars, problems := dotenv.Parse(data, func(name string) (string, bool) {
		v, ok := l.environ[name]
		return v, ok
	})
	for _, p := range problems {
		if l.config.options.Client {
			break // the file of another project, as likely as not
		}
		l.warn("", fmt.Sprintf("%s:%d", path, p.Line), "line skipped: "+p.Text)
	}
	l.config.dotenvPath = path
	for _, v := range vars {
		if v.Set {
			l.dotenv[v.Name] = v
		}
	}
	return nil
}

// findDotenv looks for .env in the working directory and the folders above it.
// One above it that somebody else owns is passed over: whoever can write to /tmp
// could otherwise configure every server started below it.
func (l *loader) findDotenv() string {
	for dir := filepath.Clean(l.dir); ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".env")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			if dir == filepath.Clean(l.dir) || trusted(info) {
				return path
			}
			l.warn("", path, "passed over, because another user owns it; name it with --env-file if it is meant")
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func trusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid()
}

// find returns the text of a setting and where it stood, or nothing and the
// default's origin. Secret files are read here.
func (l *loader) find(s setting) (string, Origin) {
	type source struct {
		lookup func(name string) (string, bool)
		origin func(name string) Origin
	}
	sources := []source{{
		func(name string) (string, bool) { v, ok := l.environ[name]; return v, ok },
		func(string) Origin { return Origin{Kind: "environment"} },
	}}
	if !s.system {
		sources = append(sources, source{
			func(name string) (string, bool) { v, ok := l.dotenv[name]; return v.Value, ok },
			func(name string) Origin {
				return Origin{Kind: "dotenv", Path: l.config.dotenvPath, Line: l.dotenv[name].Line}
			},
		})
	}
	for _, src := range sources {
		var (
			value, as string
			present   bool
			origin    Origin
		)
		for _, name := range s.names() {
			v, ok := src.lookup(name)
			if present = present || ok; v == "" {
				continue
			}
			if as != "" {
				if v != value {
					l.warn(s.name, origin.String(), fmt.Sprintf("%s is set too and not used; remove one of them", name))
				}
				continue
			}
			value, as, origin = v, name, src.origin(name)
		}
		if as == "" {
			if present {
				break // set to nothing, which means the default
			}
			continue
		}
		if as != s.name {
			origin.As = as
		}
		if as == s.fileName {
			value = l.readSecret(s, value, origin)
		}
		return value, origin
	}
	return "", Origin{Kind: "default"}
}

func (l *loader) readSecret(s setting, path string, origin Origin) string {
	path, err := l.path(path, origin)
	var data []byte
	if err == nil {
		data, err = readFile(path)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if err == nil && text == "" {
		err = errors.New("is empty")
	}
	if err != nil {
		l.problem(s.fileName, origin.String(), fmt.Sprintf("%s cannot be used (%v); make it hold the secret, readable for the user that runs the server", path, err))
	}
	return text
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("larger than 1 MiB")
	}
	return data, cause(err)
}

// cause takes the path out of an error whose sentence names it already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// finish settles what depends on more than one variable.
func (l *loader) finish() {
	c := l.config
	if c.DataDir == "" {
		switch {
		case filepath.IsAbs(c.XDGDataHome): // the XDG rules ignore any other
			c.DataDir = filepath.Join(c.XDGDataHome, "agented")
		case filepath.IsAbs(c.Home):
			c.DataDir = filepath.Join(c.Home, ".local", "share", "agented")
		case !c.options.Client && !l.refused("AGENTED_DATA_DIR"):
			l.problem("AGENTED_DATA_DIR", "", "there is no home folder to put the data into; set it to an absolute path")
		}
	}
	if url, key := c.origins["AGENTED_URL"], c.origins["AGENTED_API_KEY"]; c.URL != "" && url.Kind == "dotenv" && key.Kind != "dotenv" {
		// A .env in a checked-out project could otherwise collect the key of
		// whoever runs a client command there.
		l.warn("AGENTED_URL", url.String(), "not used, because the same file does not set AGENTED_API_KEY; set it in the environment if it is meant")
		c.URL, c.origins["AGENTED_URL"] = "", Origin{Kind: "default"}
	}
	if c.options.Client {
		c.Zone = time.Local
		return
	}
	if c.DBPath == "" && c.DataDir != "" {
		c.DBPath = filepath.Join(c.DataDir, "agented.db")
	}
	if c.DatabaseURL.IsSet() {
		l.problem("AGENTED_DATABASE_URL", c.origins["AGENTED_DATABASE_URL"].String(),
			"PostgreSQL support is not in this version; remove the setting to use SQLite, which needs none")
	}
	key, file := c.origins["SECRET_KEY"], c.origins["SECRET_KEY_FILE"]
	switch {
	case !c.SecretKey.IsSet() || c.SecretKeyFile == "":
	case key.Kind == "dotenv" && file.Kind == "environment":
		c.SecretKey, c.origins["SECRET_KEY"] = Secret{}, Origin{Kind: "default"}
	default:
		c.SecretKeyFile = ""
		if key.Kind == file.Kind {
			l.warn("SECRET_KEY", key.String(), "SECRET_KEY_FILE is set too and not used; remove one of them")
		}
		c.origins["SECRET_KEY_FILE"] = Origin{Kind: "default"}
	}
	l.checkTLS()
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = DefaultMaxConcurrent(c.options.Machine.CPUs, c.options.Machine.MemoryBytes)
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections(c.options.Machine.Descriptors)
	}
}

func (l *loader) checkTLS() {
	c := l.config
	if l.refused("AGENTED_TLS_CERT") || l.refused("AGENTED_TLS_KEY") {
		return
	}
	switch {
	case c.TLSCert == "" && c.TLSKey == "":
	case c.TLSKey == "":
		l.problem("AGENTED_TLS_KEY", "", "AGENTED_TLS_CERT is set, so this has to be set as well")
	case c.TLSCert == "":
		l.problem("AGENTED_TLS_CERT", "", "AGENTED_TLS_KEY is set, so this has to be set as well")
	default:
		if _, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey); err != nil {
			l.problem("AGENTED_TLS_CERT", c.origins["AGENTED_TLS_CERT"].String(),
				fmt.Sprintf("certificate and key cannot be used together (%v); give a certificate chain and its private key, both in PEM", err))
		}
	}
}

// unknownNames warns of names that look like settings and are none.
func (l *loader) unknownNames() {
	check := func(name, source string, ours bool) {
		if known(name) {
			return
		}
		near, distance := nearest(name)
		switch {
		case ours && distance <= max(3, len(name)/4):
			l.warn(name, source, fmt.Sprintf("there is no such setting; %s is the nearest one", near))
		case ours:
			l.warn(name, source, "there is no such setting; `agented config show` lists all")
		case distance <= 2 && len(near) >= 8:
			l.warn(name, source, fmt.Sprintf("this is not a setting, but close to %s", near))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.environ)) {
		if strings.HasPrefix(name, "AGENTED_") {
			check(name, "environment", true)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.dotenv)) {
		// Other names in the environment belong to others, but the server's .env
		// was most likely written for it.
		if l.config.options.Client && !strings.HasPrefix(name, "AGENTED_") {
			continue
		}
		check(name, fmt.Sprintf("%s:%d", l.config.dotenvPath, l.dotenv[name].Line), strings.HasPrefix(name, "AGENTED_"))
	}
}

func (l *loader) warn(name, source, text string) {
	l.config.Warnings = append(l.config.Warnings, Problem{name, source, text})
}

func (l *loader) problem(name, source, text string) {
	l.problems = append(l.problems, Problem{name, source, text})
}

func (l *loader) refused(name string) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return p.Name == name })
}

// refuse notes a value that cannot be used, with the value unless it could be
// secret.
func (l *loader) refuse(s setting, origin Origin, raw string, err error) {
	value := "the value"
	if s.secret == "" && !strings.Contains(raw, "@") {
		value = quote(raw)
	}
	l.problem(s.name, origin.String(), value+" "+err.Error())
}

func (l *loader) err() error {
	e := &agented.Error{Kind: agented.Invalid}
	var b strings.Builder
	if b.WriteString("the configuration has a problem:"); len(l.problems) > 1 {
		b.Reset()
		fmt.Fprintf(&b, "the configuration has %d problems:", len(l.problems))
	}
	for _, p := range l.problems {
		b.WriteString("\n  " + p.String())
		text := p.Text
		if p.Source != "" {
			text += " (" + p.Source + ")"
		}
		e.Fields = append(e.Fields, agented.Field{Path: p.Name, Text: text})
	}
	e.Text = b.String()
	return e
}
