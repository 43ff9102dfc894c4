package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/agented/agented"
)

// convert converts the text of a setting into the value of its field. The error
// completes a sentence that begins with the value: "is not a number; write …".
func (l *loader) convert(s setting, raw string, origin Origin) (any, error) {
	if s.kindOf == secretType {
		return convertSecret(s, raw)
	}
	raw = strings.TrimSpace(raw)
	switch s.kindOf {
	case reflect.TypeFor[Address]():
		return ParseAddress(raw, l.base(origin))
	case reflect.TypeFor[time.Duration]():
		return parseDuration(s, raw)
	case reflect.TypeFor[int]():
		return parseInt(s, raw)
	case reflect.TypeFor[slog.Level]():
		return parseLevel(raw)
	case reflect.TypeFor[*time.Location]():
		return parseZone(raw)
	case reflect.TypeFor[[]string]():
		return parseList(s, raw)
	case reflect.TypeFor[string]():
		return l.convertString(s, raw, origin)
	}
	panic("config: no conversion for " + s.name)
}

func (l *loader) convertString(s setting, raw string, origin Origin) (any, error) {
	switch s.kind {
	case "path":
		return l.path(raw, origin)
	case "url":
		return parseURL(raw)
	case "forward":
		if _, _, ok := splitForward(raw); !ok {
			return nil, errors.New("is not a port and an absolute path; write for example 8080:/run/model/proxy.sock")
		}
		return raw, nil
	case "basepath":
		return parseBasePath(raw)
	case "sink":
		switch word := strings.ToLower(raw); word {
		case "stdout", "stderr", "off":
			return word, nil
		}
		if !strings.Contains(raw, "/") {
			// Otherwise a mistyped word would silently become a file name.
			return nil, fmt.Errorf("is neither stdout, stderr nor off; write a file as a path, for example ./%s", raw)
		}
		return l.path(raw, origin)
	}
	if len(s.choice) > 0 {
		for _, c := range s.choice {
			if strings.EqualFold(c, raw) {
				return c, nil
			}
		}
		return nil, fmt.Errorf("is not one of %s", strings.Join(s.choice, ", "))
	}
	return raw, nil
}

// base returns the folder for relative paths of a source: for a .env file its
// own folder, so that a command uses the same data folder in every folder below
// it.
func (l *loader) base(origin Origin) string {
	if origin.Kind == "dotenv" {
		return filepath.Dir(origin.Path)
	}
	return l.dir
}

func (l *loader) path(raw string, origin Origin) (string, error) {
	if strings.ContainsFunc(raw, unicode.IsControl) {
		return "", errors.New("contains control characters; write a plain path")
	}
	if rest, ok := strings.CutPrefix(raw, "~"); ok && (rest == "" || rest[0] == '/') {
		home := l.environ["HOME"]
		if !filepath.IsAbs(home) {
			return "", errors.New("begins with ~, but HOME is not set; write an absolute path")
		}
		return filepath.Join(home, rest), nil
	}
	if !filepath.IsAbs(raw) {
		raw = filepath.Join(l.base(origin), raw)
	}
	return filepath.Clean(raw), nil
}

func convertSecret(s setting, raw string) (any, error) {
	if fault := agented.PlaceholderFault(raw); fault != "" {
		return nil, errors.New(fault + "; " + s.fixText())
	}
	if s.name == "SECRET_KEY" {
		return NewSecret(raw), nil // unchanged
	}
	if s.kind == "pem" {
		// Environments that hold no line breaks often contain \n instead.
		if raw = strings.TrimSpace(strings.ReplaceAll(raw, `\n`, "\n")); !strings.HasPrefix(raw, "-----BEGIN ") || !strings.HasSuffix(raw, "-----") {
			return nil, fmt.Errorf("is not in PEM format, which begins with -----BEGIN; set %s to the path of the file", s.fileName)
		}
		return NewSecret(raw + "\n"), nil
	}
	if strings.ContainsFunc(raw, unicode.IsControl) || strings.TrimSpace(raw) != raw {
		return nil, errors.New("contains a line break, a control character, or spaces at its ends; write it on one line without them")
	}
	if least, _ := strconv.Atoi(s.min); utf8.RuneCountInString(raw) < least {
		return nil, fmt.Errorf("is too short; use at least %d characters, for example the output of `openssl rand -hex 32`", least)
	}
	return NewSecret(raw), nil
}

func parseDuration(s setting, raw string) (any, error) {
	d, err := time.ParseDuration(raw)
	if n, nerr := strconv.ParseInt(raw, 10, 64); nerr == nil && n > -math.MaxInt32 && n < math.MaxInt32 {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil {
		return nil, errors.New("is not a duration; write 300, 300s, 5m or 1h")
	}
	least, _ := time.ParseDuration(s.min)
	most, _ := time.ParseDuration(s.max)
	if d < least || d > most {
		return nil, fmt.Errorf("is out of range; write a duration from %s to %s", formatDuration(least), formatDuration(most))
	}
	return d, nil
}

// formatDuration formats a duration without the zero parts that time.Duration adds.
func formatDuration(d time.Duration) string {
	switch {
	case d != 0 && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d != 0 && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

func parseInt(s setting, raw string) (any, error) {
	n, err := strconv.Atoi(raw)
	if err != nil {
		return nil, errors.New("is not a whole number")
	}
	least, _ := strconv.Atoi(s.min)
	most, _ := strconv.Atoi(s.max)
	if n < least || n > most {
		return nil, fmt.Errorf("is out of range; write a number from %d to %d", least, most)
	}
	return n, nil
}

func parseLevel(raw string) (any, error) {
	switch strings.ToLower(raw) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warning", "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "critical":
		return LevelCritical, nil
	}
	return nil, errors.New("is not one of debug, info, warning, error, critical")
}

func levelName(level slog.Level) string {
	switch {
	case level >= LevelCritical:
		return "critical"
	case level == slog.LevelWarn:
		return "warning"
	}
	return strings.ToLower(level.String())
}

// parseZone parses the forms of TZ that name a zone: a name, or the path of a
// zone file, with or without the leading colon of POSIX.
func parseZone(raw string) (any, error) {
	name := strings.TrimPrefix(raw, ":")
	if name == "" {
		return time.Local, nil
	}
	if filepath.IsAbs(name) {
		data, err := os.ReadFile(name)
		if err == nil {
			if zone, err := time.LoadLocationFromTZData(name, data); err == nil {
				return zone, nil
			}
		}
		return nil, errors.New("is not a zone file; write a name such as Europe/Berlin or UTC")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, errors.New("is not a time zone; write a name such as Europe/Berlin or UTC")
	}
	return zone, nil
}

func parseURL(raw string) (any, error) {
	if strings.HasPrefix(raw, "unix:/") {
		return raw, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "" {
		return nil, errors.New("is not a web address; write https://host or http://host:port")
	}
	return strings.TrimRight(raw, "/"), nil
}

func parseList(s setting, raw string) (any, error) {
	var list []string
	for item := range strings.SplitSeq(raw, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		var err error
		switch s.kind {
		case "origins":
			item, err = parseOrigin(item)
		case "protocols":
			item, err = parseProtocol(item)
		case "proxies":
			item, err = parseProxy(item)
		case "prefixes":
			item, err = parsePrefix(item)
		case "logins":
			item, err = parseLogin(item)
		case "hooks":
			item, err = parseHook(item)
		default:
			item, err = parseHost(item)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

func parseProtocol(item string) (string, error) {
	if item = strings.ToLower(item); !slices.Contains(agented.Protocols, item) {
		return "", fmt.Errorf("has an entry that is not a supported git protocol (%s); write some of %s", quote(item), strings.Join(agented.Protocols, ", "))
	}
	return item, nil
}

func parseOrigin(item string) (string, error) {
	if item == "*" {
		return "", errors.New("would allow every site to call the API; list the origins, for example https://dash.example.org")
	}
	u, err := url.Parse(strings.TrimSuffix(item, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("has an entry that is not an origin (%s); write scheme, host and port alone, for example https://dash.example.org", quote(item))
	}
	if !validHostname(u.Hostname()) && !validIP(u.Hostname()) {
		return "", fmt.Errorf("has an entry without a valid host (%s); write every host, without wildcards", quote(item))
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// parseLogin parses the name of a GitHub account, which may be an app's.
func parseLogin(item string) (string, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(item, "@"), "[bot]")
	for _, c := range []byte(name) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			name = ""
		}
	}
	if name == "" || len(name) > 100 {
		return "", fmt.Errorf("has an entry that is not the name of an account (%s); write names such as octocat or my-app[bot]", quote(item))
	}
	return strings.TrimPrefix(item, "@"), nil
}

// parseHook parses the place of a webhook of GitHub's.
func parseHook(item string) (string, error) {
	name, id, numbered := strings.Cut(item, "#")
	owner, repo, inRepo := strings.Cut(name, "/")
	n, err := strconv.ParseInt(id, 10, 64)
	if !gitHubName(owner) || inRepo && !gitHubName(repo) || numbered && (err != nil || n < 1 || name == "app") {
		return "", fmt.Errorf("has an entry that names no webhook (%s); write app, OWNER/NAME, OWNER/NAME#ID, or the name of an organization", quote(item))
	}
	return item, nil
}

// gitHubName reports whether a text can be the name of an owner or a repository.
func gitHubName(s string) bool {
	return s != "" && len(s) <= 100 && strings.Trim(s, ".") != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

func parseHost(item string) (string, error) {
	if !validHostname(item) && !validIP(strings.Trim(item, "[]")) {
		return "", fmt.Errorf("has an entry that is not a host name (%s); write names without scheme, port, path and wildcard", quote(item))
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(item, "[]"), ".")), nil
}

// quote formats a value for a message, unless it may contain a password.
func quote(value string) string {
	if strings.Contains(value, "@") {
		return "not shown, since it contains an @"
	}
	return fmt.Sprintf("%.80q", value)
}
