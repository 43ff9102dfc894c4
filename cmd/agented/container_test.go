//go:build linux

package main_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// instruction is one instruction of a container recipe.
type instruction struct{ name, rest string }

func recipe(t *testing.T, path string) (out []instruction) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "#") {
			lines = append(lines, s)
		}
	}
	for _, whole := range strings.Split(strings.ReplaceAll(strings.Join(lines, "\n"), "\\\n", ""), "\n") {
		name, rest, _ := strings.Cut(whole, " ")
		out = append(out, instruction{name, strings.TrimSpace(rest)})
	}
	return out
}

func TestContainer_recipe(t *testing.T) {
	const root = "../.."
	var last []instruction // of the final image
	stages := map[string]bool{}
	known := map[string]bool{}
	settings, err := os.ReadFile(filepath.Join(root, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=`).FindAllStringSubmatch(string(settings), -1) {
		known[m[1]] = true
	}
	secretive := regexp.MustCompile(`(?i)(key|token|secret|password)[A-Z_]*=`)
	for _, in := range recipe(t, filepath.Join(root, "deploy/Containerfile")) {
		last = append(last, in)
		switch in.name {
		case "FROM":
			last = nil
			if _, name, ok := strings.Cut(in.rest, " AS "); ok {
				stages[name] = true
			}
		case "COPY":
			args := strings.Fields(in.rest)
			if from, ok := strings.CutPrefix(args[0], "--from="); ok {
				if !stages[from] {
					t.Errorf("COPY from %s, which is no stage before it", from)
				}
				continue
			}
			for _, source := range args[:len(args)-1] {
				if _, err := os.Stat(filepath.Join(root, source)); err != nil {
					t.Errorf("COPY %s: %v", in.rest, err)
				}
			}
		case "RUN":
			for _, m := range regexp.MustCompile(`\./(cmd|scripts)/[\w./-]+`).FindAllString(in.rest, -1) {
				if _, err := os.Stat(filepath.Join(root, m)); err != nil {
					t.Errorf("RUN %s: %v", in.rest, err)
				}
			}
			if script, ok := strings.CutPrefix(in.rest, "npm run "); ok {
				var manifest struct{ Scripts map[string]string }
				b, _ := os.ReadFile(filepath.Join(root, "web/package.json"))
				if json.Unmarshal(b, &manifest); manifest.Scripts[script] == "" {
					t.Errorf("RUN %s: web/package.json has no such script", in.rest)
				}
			}
		case "ENV", "ARG":
			for _, pair := range strings.Fields(in.rest) {
				name, _, _ := strings.Cut(pair, "=")
				if in.name == "ENV" && !known[name] && name != "GOTOOLCHAIN" { // for the Go command in the build stage
					t.Errorf("ENV %s is no setting", name)
				}
			}
			if secretive.MatchString(in.rest) {
				t.Errorf("%s %s: that would be in the image", in.name, in.rest)
			}
		case "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD":
		default:
			t.Errorf("instruction %s", in.name)
		}
	}
	runs := map[string]string{}
	for _, in := range last {
		runs[in.name] = in.rest
	}
	if user := runs["USER"]; user == "" || strings.HasPrefix(user, "root") || strings.HasPrefix(user, "0") {
		t.Errorf("it runs as %q", user)
	}
	if runs["VOLUME"] == "" || runs["STOPSIGNAL"] != "SIGTERM" {
		t.Errorf("volume %q, stopped by %q", runs["VOLUME"], runs["STOPSIGNAL"])
	}

	// The program accepts the arguments of the recipe.
	var program, words, health []string
	for name, into := range map[string]*[]string{"ENTRYPOINT": &program, "CMD": &words} {
		if err := json.Unmarshal([]byte(runs[name]), into); err != nil {
			t.Fatalf("%s %s: %v", name, runs[name], err)
		}
	}
	if strings.Join(words, " ") != "serve --supervise" || program[0] != "/usr/local/bin/agented" {
		t.Errorf("it runs %v %v", program, words)
	}
	if out, err := exec.Command(binary, append(words, "--help")...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", words, err, out)
	}
	_, check, _ := strings.Cut(runs["HEALTHCHECK"], "CMD ")
	if err := json.Unmarshal([]byte(check), &health); err != nil {
		t.Fatalf("HEALTHCHECK %s: %v", runs["HEALTHCHECK"], err)
	}
	u, err := url.Parse(health[len(health)-1])
	if err != nil || u.Port() != runs["EXPOSE"] {
		t.Errorf("it asks %s, the port is %s", health, runs["EXPOSE"])
	}
	s := newServer(t)
	resp, err := http.Get("http://" + s.addr + u.Path)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET %s: %s", u.Path, resp.Status)
	}
}
