package service

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the files in deploy")

func TestDeploy_files_generated(t *testing.T) {
	t.Parallel()
	mac := System(Launchd)
	for name, want := range map[string]string{
		"agented.service":           System(Systemd).Unit(),
		"agented.socket":            System(Systemd).SocketUnit(),
		"com.agented.backend.plist": mac.Plist(),
		"newsyslog.conf":            mac.Newsyslog(),
		"Caddyfile.example":         System(Systemd).Caddyfile(),
		"nginx.conf.example":        System(Systemd).Nginx(),
	} {
		path := filepath.Join("../../deploy", name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s differs from its template: run go test ./internal/service -update", name)
		}
	}
}

// directives parses a unit file.
func directives(unit string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(unit) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			out[name] = value
		}
	}
	return out
}

func TestUnit_keeps_agents(t *testing.T) {
	t.Parallel()
	s := System(Systemd)
	s.Drain = 45 * time.Second
	user := User(Systemd, "/home/ann", "/home/ann/bin/agented")
	user.Drain = 45 * time.Second
	for _, unit := range []string{s.Unit(), user.Unit()} {
		d := directives(unit)
		for name, want := range map[string]string{
			"Type": "notify", "Restart": "always", "StartLimitIntervalSec": "0", "KillMode": "process",
			"Delegate": "yes", "DelegateSubgroup": "server", "OOMPolicy": "continue", "TimeoutStopSec": "55s",
			"RestartMaxDelaySec": "3s", "WatchdogSec": "30s",
		} {
			if d[name] != want {
				t.Errorf("%s = %q, want %q", name, d[name], want)
			}
		}
		for _, name := range []string{"EnvironmentFile", "PrivateTmp", "RemoveIPC", "MemoryDenyWriteExecute", "RestrictNamespaces", "ProtectControlGroups", "ProcSubset"} {
			if v, ok := d[name]; ok {
				t.Errorf("%s=%s is set", name, v)
			}
		}
	}
	if d := directives(user.Unit()); d["User"] != "" || d["ProtectSystem"] != "" || d["WantedBy"] != "default.target" ||
		d["ExecStart"] != "/home/ann/bin/agented serve --env-file /home/ann/.config/agented/agented.env" {
		t.Errorf("unit of a user = %v", d)
	}
	s.Socket = true
	if d := directives(s.Unit()); d["Requires"] != "agented.socket" {
		t.Errorf("with a socket unit: Requires = %q", d["Requires"])
	}
	for listen, want := range map[string]string{"0.0.0.0:80": "0.0.0.0:80", ":80": "80", "[::1]:80": "[::1]:80", "unix:/run/a.sock": "/run/a.sock"} {
		s.Listen = listen
		if d := directives(s.SocketUnit()); d["ListenStream"] != want {
			t.Errorf("ListenStream for %s = %q, want %q", listen, d["ListenStream"], want)
		}
	}
}

func TestUnits_verified(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed, so it cannot be asked")
	}
	for _, socket := range []bool{false, true} {
		s := System(Systemd)
		s.Socket = socket
		// systemd-analyze checks that the program exists.
		s.Program = "/bin/true"
		dir := t.TempDir()
		var paths []string
		for _, f := range s.files() {
			path := filepath.Join(dir, filepath.Base(f.path))
			if err := os.WriteFile(path, []byte(f.content), 0o644); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		out, err := exec.Command("systemd-analyze", append([]string{"verify"}, paths...)...).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			// Known to systemd 254, ignored by older ones.
			known := strings.Contains(line, "Unknown key 'RestartSteps'") || strings.Contains(line, "Unknown key 'RestartMaxDelaySec'") ||
				strings.Contains(line, "Unknown key 'DelegateSubgroup'") || !strings.Contains(line, dir)
			if !known {
				t.Error(line)
			}
		}
	}
}

// launchdKeys are the used keys of launchd.plist(5), with their types.
var launchdKeys = map[string]string{
	"Label": "string", "ProgramArguments": "array", "EnvironmentVariables": "dict", "UserName": "string",
	"WorkingDirectory": "string", "RunAtLoad": "bool", "KeepAlive": "bool", "ThrottleInterval": "integer",
	"ExitTimeOut": "integer", "AbandonProcessGroup": "bool", "ProcessType": "string", "Umask": "integer",
	"SoftResourceLimits": "dict", "HardResourceLimits": "dict", "StandardOutPath": "string", "StandardErrorPath": "string",
}

// plist parses the used subset of property lists: a dict as a map, an array as a slice.
func plist(t *testing.T, text string) map[string]any {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	next := func() xml.Token {
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				t.Fatal(err)
			}
			switch x := tok.(type) {
			case xml.StartElement, xml.EndElement:
				return tok
			case xml.CharData:
				if s := strings.TrimSpace(string(x)); s != "" {
					t.Fatalf("text %q outside an element", s)
				}
			}
		}
	}
	var value func(xml.StartElement) any
	value = func(e xml.StartElement) any {
		switch e.Name.Local {
		case "string", "integer", "key":
			var s string
			if err := d.DecodeElement(&s, &e); err != nil {
				t.Fatal(err)
			}
			if e.Name.Local != "integer" {
				return s
			}
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatalf("integer %q", s)
			}
			return n
		case "true", "false":
			if err := d.Skip(); err != nil {
				t.Fatal(err)
			}
			return e.Name.Local == "true"
		case "array":
			var out []any
			for {
				in, ok := next().(xml.StartElement)
				if !ok {
					return out
				}
				out = append(out, value(in))
			}
		case "dict":
			out := map[string]any{}
			for {
				in, ok := next().(xml.StartElement)
				if !ok {
					return out
				}
				key, isKey := value(in).(string)
				if !isKey || in.Name.Local != "key" {
					t.Fatalf("<%s> where a key belongs", in.Name.Local)
				}
				if _, twice := out[key]; twice {
					t.Errorf("key %s is there twice", key)
				}
				in, ok = next().(xml.StartElement)
				if !ok || in.Name.Local == "key" {
					t.Fatalf("key %s has no value", key)
				}
				out[key] = value(in)
			}
		}
		t.Fatalf("element <%s>", e.Name.Local)
		return nil
	}
	root, ok := next().(xml.StartElement)
	if !ok || root.Name.Local != "plist" {
		t.Fatal("no plist")
	}
	dict, ok := next().(xml.StartElement)
	if !ok || dict.Name.Local != "dict" {
		t.Fatal("no dict")
	}
	return value(dict).(map[string]any)
}

func TestPlist_keys(t *testing.T) {
	t.Parallel()
	system := System(Launchd)
	system.Drain = 20500 * time.Millisecond
	user := User(Launchd, "/Users/ann & bob", "/opt/homebrew/bin/agented")
	for _, s := range []Spec{system, user} {
		p := plist(t, s.Plist())
		for key, v := range p {
			kind := map[bool]string{true: "bool"}[v == true || v == false]
			switch v.(type) {
			case string:
				kind = "string"
			case int:
				kind = "integer"
			case []any:
				kind = "array"
			case map[string]any:
				kind = "dict"
			}
			if want, known := launchdKeys[key]; !known || kind != want {
				t.Errorf("%s: %s is %s, want %q", s, key, kind, want)
			}
		}
		if p["KeepAlive"] != true || p["AbandonProcessGroup"] != true || p["ThrottleInterval"] != 1 || p["ProcessType"] != "Interactive" || p["Umask"] != 0o77 {
			t.Errorf("%s: %v", s, p)
		}
		if want := []any{s.Program, "serve", "--env-file", s.EnvFile, "--log-file", s.LogDir + "/backend.log", "--log-file", s.LogDir + "/backend-error.log"}; !slices.Equal(p["ProgramArguments"].([]any), want) {
			t.Errorf("ProgramArguments = %v, want %v", p["ProgramArguments"], want)
		}
		if _, there := p["UserName"]; there == s.PerUser {
			t.Errorf("%s: UserName there: %v", s, there)
		}
	}
	if p := plist(t, system.Plist()); p["ExitTimeOut"] != 31 || p["StandardErrorPath"] != "/var/log/agented/backend-error.log" {
		t.Errorf("system: %v", p)
	}
}

func TestPlist_document_type(t *testing.T) {
	t.Parallel()
	dtd := filepath.Join(t.TempDir(), "plist.dtd")
	// The allowed content of a property list, from its public document type.
	if err := os.WriteFile(dtd, []byte(`<!ENTITY % value "(array | data | date | dict | real | integer | string | true | false)">
<!ELEMENT plist %value;>
<!ATTLIST plist version CDATA "1.0">
<!ELEMENT array (%value;)*>
<!ELEMENT dict (key, %value;)*>
<!ELEMENT key (#PCDATA)>
<!ELEMENT string (#PCDATA)>
<!ELEMENT data (#PCDATA)>
<!ELEMENT date (#PCDATA)>
<!ELEMENT true EMPTY>
<!ELEMENT false EMPTY>
<!ELEMENT real (#PCDATA)>
<!ELEMENT integer (#PCDATA)>
`), 0o600); err != nil {
		t.Fatal(err)
	}
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is not installed, so it cannot be asked; TestPlist_keys reads the same structure")
	}
	lint := func(text string) ([]byte, error) {
		cmd := exec.Command(xmllint, "--noout", "--nonet", "--dtdvalid", dtd, "-")
		cmd.Stdin = strings.NewReader(text)
		return cmd.CombinedOutput()
	}
	for _, s := range []Spec{System(Launchd), User(Launchd, "/Users/ann & bob", "/opt/homebrew/bin/agented")} {
		if out, err := lint(s.Plist()); err != nil {
			t.Errorf("%s: %v\n%s", s, err, out)
		}
		if _, err := lint(strings.Replace(s.Plist(), "<true/>", "<yes/>", 1)); err == nil {
			t.Error("a wrong element is not found")
		}
	}
}

func TestLaunchd_restart_and_drain(t *testing.T) {
	t.Parallel()
	s := System(Launchd)
	p := plist(t, s.Plist())
	for _, key := range []string{
		"Label", "ProgramArguments", "EnvironmentVariables", "UserName", "WorkingDirectory", "RunAtLoad", "KeepAlive", "ThrottleInterval",
		"ExitTimeOut", "AbandonProcessGroup", "ProcessType", "Umask", "StandardOutPath", "StandardErrorPath",
	} {
		if _, ok := p[key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	if n := p["ThrottleInterval"].(int); n < 1 || n > 5 {
		t.Errorf("ThrottleInterval = %d", n)
	}
	if want := int(s.Drain.Seconds()) + 10; p["ExitTimeOut"] != want {
		t.Errorf("ExitTimeOut = %v, want %d", p["ExitTimeOut"], want)
	}
	if p["StandardOutPath"] != "/var/log/agented/backend.log" || p["StandardErrorPath"] != "/var/log/agented/backend-error.log" {
		t.Errorf("logs: %v %v", p["StandardOutPath"], p["StandardErrorPath"])
	}
}

func TestNewsyslog_rotates_logs(t *testing.T) {
	t.Parallel()
	s := System(Launchd)
	s.Account, s.DataDir = "ann", "/Users/ann/.local/share/agented"
	logs := map[string]bool{"/var/log/agented/backend.log": false, "/var/log/agented/backend-error.log": false}
	for line := range strings.Lines(s.Newsyslog()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 8 {
			t.Errorf("%d fields: %q", len(f), line)
			continue
		}
		if done, known := logs[f[0]]; !known || done {
			t.Errorf("the log %s", f[0])
		}
		logs[f[0]] = true
		if f[1] != "ann:" || f[2] != "640" || f[5] != "*" || f[7] != "/Users/ann/.local/share/agented/server.lock" {
			t.Errorf("%q", line)
		}
		for _, number := range f[3:5] {
			if _, err := strconv.Atoi(number); err != nil {
				t.Error(err)
			}
		}
	}
	for log, done := range logs {
		if !done {
			t.Errorf("%s is not rotated", log)
		}
	}
	names := func(s Spec) (out []string) {
		for _, f := range s.files() {
			out = append(out, f.path)
		}
		return out
	}
	if got := names(s); !slices.Contains(got, "/etc/newsyslog.d/com.agented.backend.conf") {
		t.Errorf("the installer writes %v", got)
	}
	s.DataDir = "/Users/ann/my data"
	if got := names(s); len(got) != 1 {
		t.Errorf("with a blank in the data folder the installer writes %v", got)
	}
	if got := names(User(Launchd, "/Users/ann", "/opt/agented")); len(got) != 1 {
		t.Errorf("for a user the installer writes %v", got)
	}
}

func TestNginx_example(t *testing.T) {
	t.Parallel()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed, so it cannot be asked")
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed, so there is no certificate for nginx to read")
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if out, err := exec.Command(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
		"-subj", "/CN=agented.example.org", "-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	example := System(Systemd).Nginx()
	ask := func(site string) (string, error) {
		site = strings.NewReplacer("/etc/ssl/agented.example.org.pem", cert, "/etc/ssl/agented.example.org.key", key).Replace(site)
		conf := filepath.Join(dir, "nginx.conf")
		whole := "pid " + dir + "/pid;\nerror_log stderr;\nevents {}\nhttp {\n\taccess_log off;\n" + site + "}\n"
		if err := os.WriteFile(conf, []byte(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(nginx, "-t", "-q", "-p", dir, "-c", conf).CombinedOutput()
		return string(out), err
	}
	if out, err := ask(example); err != nil || strings.Contains(out, "[warn]") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := ask(strings.Replace(example, "proxy_buffering off", "proxy_bufering off", 1)); err == nil {
		t.Error("a wrong directive is not found")
	}
}

func TestSpec_invalid_paths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"agented", "/opt/my programs/agented", "/opt/100%/agented", "/opt/$x/agented"} {
		s := System(Systemd)
		s.Program = path
		if err := s.Check(); err == nil {
			t.Errorf("%q is taken", path)
		}
	}
	if err := System(Systemd).Check(); err != nil {
		t.Error(err)
	}
}

func TestUnit_cli_folders(t *testing.T) {
	t.Parallel()
	s := User(Systemd, "/home/ann", "/opt/agented")
	s.CLIDirs, s.UMask = []string{"/home/ann/.nvm/versions/node/v22/bin"}, 0o027
	for _, want := range []string{":/bin:/home/ann/.nvm/versions/node/v22/bin\n", "UMask=0027\n"} {
		if !strings.Contains(s.Unit(), want) {
			t.Errorf("%q is not in\n%s", want, s.Unit())
		}
	}
	if !s.Finds("/home/ann/.nvm/versions/node/v22/bin") || !s.Finds("/usr/bin") || !s.Finds("/home/ann/.local/bin") || s.Finds("/home/ann/.volta/bin") {
		t.Error("the folders of the PATH are not those that are found")
	}
}
