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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dotenv"
)

// maxFile is the largest .env file or secret file, in bytes.
const maxFile = 1 << 20

// Options are the sources of settings.
type Options struct {
	// Environ returns the real environment as NAME=value. nil means os.Environ.
	Environ func() []string
	// Dir is the directory for relative paths. Empty means the process's
	// working directory.
	Dir string
	// EnvFile is the .env file to read; it must exist. Empty means the first
	// .env in Dir or a folder above it, if there is one.
	EnvFile string
	// Client reads only the settings of client commands. They run in folders of
	// other projects, whose .env must not stop them.
	Client bool
	// Machine is the basis of computed defaults. The zero value means this
	// machine.
	Machine Machine
}

// Origin is where a value came from.
type Origin struct {
	Kind string // "environment", "dotenv" or "default"
	Path string // dotenv: the file
	Line int    // dotenv: its line
	As   string // the name it was found under, if different from the setting's name
}

// String returns "environment", "/srv/.env:3", "environment as GUNICORN_BIND"
// or "default".
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

// Problem is an error or a warning about one setting. Text says what is wrong
// and how to fix it, and never contains a secret.
type Problem struct {
	Name   string // name of the setting, or empty for a line of .env
	Source string
	Text   string
}

// String returns "NAME: text (source)".
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

// Load reads and validates all settings. The real environment takes precedence
// over .env, which takes precedence over the default; an older name is only
// compared within one source. A variable that is empty in the environment has
// its default and hides the one in .env.
//
// The error is of Kind Invalid and contains one field for every invalid
// setting.
func Load(o Options) (*Config, error) {
	l, err := newLoader(o)
	if err != nil {
		return nil, err
	}
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
		l.config.set(s, value)
	}
	l.finish()
	l.unknownNames()
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	return l.config, nil
}

// Reload rereads the settings from the same sources: the current .env file and
// the environment at the first load, because the environment of a process does
// not change and its secrets have been removed.
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
			return nil, agented.Errorf(agented.Invalid, "the working directory does not exist any more; change to another").Because(err)
		}
		o.Dir = dir
	}
	c := &Config{origins: make(map[string]Origin), clis: make(map[string]any), options: o}
	l := &loader{config: c, dir: o.Dir, environ: make(map[string]string), dotenv: make(map[string]dotenv.Var)}
	values := make(map[string]string)
	c.environ, c.dotenv = func() map[string]string { return l.environ }, func() map[string]string { return values }
	for _, entry := range o.Environ() {
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			if _, twice := l.environ[name]; !twice { // getenv also returns the first
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

// readDotenv finds and parses the .env file. A file given by name must exist;
// otherwise it is optional.
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
		return agented.Errorf(agented.Invalid, "the env file %s cannot be read (%v); fix it or set another with --env-file", path, err)
	}
	vars, problems := dotenv.Parse(data, func(name string) (string, bool) {
		v, ok := l.environ[name]
		return v, ok
	})
	for _, p := range problems {
		if l.config.options.Client {
			break // probably the file of another project
		}
		l.skipped(fmt.Sprintf("%s:%d", path, p.Line), p)
	}
	l.config.dotenvPath = path
	for _, v := range vars {
		if v.Set {
			l.dotenv[v.Name] = v
		}
		l.checkSwallowed(path, v)
	}
	return nil
}

// findDotenv searches for .env in the working directory and the folders above
// it. It ignores a file above that another user owns: otherwise any user who
// can write to /tmp could configure every server started below it.
func (l *loader) findDotenv() string {
	for dir := filepath.Clean(l.dir); ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".env")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			if dir == filepath.Clean(l.dir) || trusted(info) {
				return path
			}
			l.warn("", path, "ignored, because another user owns it; to use it, name it with --env-file")
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

// find returns the text of a setting and its origin, or nothing and the origin
// of the default. It also reads secret files.
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
					l.warn(s.name, origin.String(), fmt.Sprintf("%s is also set and is not used; remove one of them", name))
				}
				continue
			}
			value, as, origin = v, name, src.origin(name)
		}
		if as == "" {
			if present {
				break // empty, which means the default
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
	// Some editors write a byte order mark at the start, which is not part of
	// the secret.
	text := strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), "\uFEFF")
	switch {
	case err != nil:
	case text == "":
		err = errors.New("is empty")
	case strings.HasPrefix(text, "\xFF\xFE"), strings.HasPrefix(text, "\xFE\xFF"), strings.Contains(text, "\x00"):
		err = errors.New("is UTF-16; save it as UTF-8")
	}
	if err != nil {
		l.problem(s.fileName, origin.String(), fmt.Sprintf("%s cannot be used (%v); make it contain the secret, and readable for the user that runs the server", path, err))
	}
	return text
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	// A shell passes a pipe for <(sops -d settings.env).
	if mode := info.Mode(); !mode.IsRegular() && mode.Type() != fs.ModeNamedPipe {
		return nil, errors.New("neither a regular file nor a pipe")
	}
	data, err := readWithin(path, pipeTime)
	if err == nil && len(data) > maxFile {
		err = errors.New("larger than 1 MiB")
	}
	return data, cause(err)
}

// pipeTime is how long reading a pipe may take.
const pipeTime = 10 * time.Second

// readWithin reads a file, or a pipe until its writer closes it.
func readWithin(path string, limit time.Duration) ([]byte, error) {
	// Without O_NONBLOCK, opening a pipe without a writer blocks.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(limit)) // not supported and not needed for regular files
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if info, serr := file.Stat(); serr == nil && info.Mode().Type() == fs.ModeNamedPipe {
		// EOF on a pipe without a writer is not its end.
		for wait := time.Now().Add(limit); err == nil && len(data) == 0; {
			if time.Now().After(wait) {
				err = os.ErrDeadlineExceeded
				break
			}
			time.Sleep(10 * time.Millisecond)
			data, err = io.ReadAll(io.LimitReader(file, maxFile+1))
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("a pipe that was not written and closed within %s", limit)
	}
	return data, err
}

// cause removes the path from an error if the message already contains it.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// finish validates settings that depend on each other.
func (l *loader) finish() {
	c := l.config
	if c.DataDir == "" {
		switch {
		case filepath.IsAbs(c.XDGDataHome): // the XDG rules ignore relative paths
			c.DataDir = filepath.Join(c.XDGDataHome, "agented")
		case filepath.IsAbs(c.Home):
			c.DataDir = filepath.Join(c.Home, ".local", "share", "agented")
		case !c.options.Client && !l.refused("AGENTED_DATA_DIR"):
			l.problem("AGENTED_DATA_DIR", "", "there is no home folder for the data; set it to an absolute path")
		}
	}
	if url, key := c.origins["AGENTED_URL"], c.origins["AGENTED_API_KEY"]; c.URL != "" && url.Kind == "dotenv" && key.Kind != "dotenv" {
		// Otherwise a .env file in a checked-out project could redirect client
		// commands and collect the user's key.
		l.warn("AGENTED_URL", url.String(), "not used, because the same file does not set AGENTED_API_KEY; to use it, set it in the environment")
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
			"this version does not support PostgreSQL; remove the setting to use SQLite")
	}
	key, file := c.origins["SECRET_KEY"], c.origins["SECRET_KEY_FILE"]
	switch {
	case !c.SecretKey.IsSet() || c.SecretKeyFile == "":
	case key.Kind == "dotenv" && file.Kind == "environment":
		c.SecretKey, c.origins["SECRET_KEY"] = Secret{}, Origin{Kind: "default"}
	default:
		c.SecretKeyFile = ""
		if key.Kind == file.Kind {
			l.warn("SECRET_KEY", key.String(), "SECRET_KEY_FILE is also set and is not used; remove one of them")
		}
		c.origins["SECRET_KEY_FILE"] = Origin{Kind: "default"}
	}
	c.proxies = prefixes(c.TrustedProxies)
	l.checkStrength()
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
		l.problem("AGENTED_TLS_KEY", "", missing(c.TLSCert, "AGENTED_TLS_CERT", "AGENTED_TLS_KEY"))
	case c.TLSCert == "":
		l.problem("AGENTED_TLS_CERT", "", missing(c.TLSKey, "AGENTED_TLS_KEY", "AGENTED_TLS_CERT"))
	default:
		if _, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey); err != nil {
			l.problem("AGENTED_TLS_CERT", c.origins["AGENTED_TLS_CERT"].String(),
				fmt.Sprintf("certificate and key cannot be used together (%v); set a certificate chain and its private key, both in PEM", err))
		}
	}
}

// missing reports that one file of a TLS pair needs the other, and whether the
// one that is set can be read.
func missing(path, set, unset string) string {
	text := fmt.Sprintf("%s is set, so %s must be set too", set, unset)
	if _, err := readFile(path); err != nil {
		text += fmt.Sprintf("; and %s in %s cannot be read (%v)", path, set, err)
	}
	return text
}

// unknownNames warns about variables that look like misspelt settings.
func (l *loader) unknownNames() {
	check := func(name, source string, ours bool) {
		if known(name) {
			return
		}
		near, distance := nearest(name)
		switch {
		case ours && distance <= max(3, len(name)/4):
			l.warn(name, source, fmt.Sprintf("this is not a setting; the nearest one is %s", near))
		case ours:
			l.warn(name, source, "this is not a setting; `agented config show` lists all")
		case distance <= 2 && len(near) >= 8:
			l.warn(name, source, fmt.Sprintf("this is not a setting, but similar to %s", near))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.environ)) {
		if strings.HasPrefix(name, "AGENTED_") {
			check(name, "environment", true)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.dotenv)) {
		// Other names in the environment may belong to other programs, but the
		// server's .env was most likely written for it.
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

// refuse records an invalid value, and the value itself unless it could be
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
