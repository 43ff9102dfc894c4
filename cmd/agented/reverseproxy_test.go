package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// proxyName is the host name of the documentation.
const proxyName = "agented.example.org"

// proxyGuide is the page with the settings of the proxies.
const proxyGuide = "docs/guides/behind-a-proxy.md"

// guideBlocks returns the code blocks of the guide in one language.
func guideBlocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", proxyGuide))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)\n```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) < 2 {
		t.Fatalf("%s has %d blocks of %s, want 2 or more", proxyGuide, len(blocks), language)
	}
	return blocks
}

// proxyCertificate writes a certificate for proxyName and its key.
func proxyCertificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: proxyName}, DNSNames: []string{proxyName, "example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

// proxied is a server behind a proxy, and a browser in front of it.
type proxied struct {
	*server
	host, base string
	browser    *http.Client // without redirects; its address is 127.0.0.9
}

// startProxied starts the server with its base path, and the proxy with the
// configuration that config makes for the addresses of both.
func startProxied(t *testing.T, program, host, base string, config func(addr, server, cert, key, dir string) (file, text string), args ...string) *proxied {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s IS NOT INSTALLED, so the guide is NOT checked with it: scripts/install-packages.sh nginx=nginx-light caddy=caddy", strings.ToUpper(program))
	}
	dir, addr := t.TempDir(), testrun.FreeAddress(t)
	cert, key, pool := proxyCertificate(t, dir)
	s := newServer(t, "AGENTED_ALLOWED_HOSTS="+host, "AGENTED_TRUSTED_PROXIES=127.0.0.1", "AGENTED_BASE_PATH="+base, "GITHUB_WEBHOOK_SECRET="+stormSecret)
	name, text := config(addr, s.addr, cert, key, dir)
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(path, append(args, file)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			errors, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("%s with\n%s\nlogged\n%s%s", program, text, &log, errors)
		}
	})
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	p := &proxied{server: s, host: host, base: base}
	p.browser = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, addr)
			},
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(p.browser.CloseIdleConnections)
	s.waitFor(program, func() bool {
		resp, err := p.browser.Get("https://" + host + base + "/health/liveness")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// get requests a path through the proxy and returns the answer with its body.
func (p *proxied) get(method, path, body string, header ...string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, "https://"+p.host+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "203.0.113.6") // a claim that must not count
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.browser.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(text)
}

// check does through the proxy what people and webhooks do.
func (p *proxied) check() {
	p.t.Helper()
	p.pages()
	p.login()
	p.webhook()
	p.stream()
}

// pages checks that every reference of the pages leads somewhere.
func (p *proxied) pages() {
	p.t.Helper()
	for _, page := range []string{"/", "/executions", "/login", "/docs"} {
		resp, html := p.get("GET", p.base+page, "", "Accept", "text/html")
		if location := resp.Header.Get("Location"); location != "" {
			to, err := resp.Request.URL.Parse(location)
			if err != nil || to.Host != p.host || !strings.HasPrefix(to.Path, p.base+"/") {
				p.t.Errorf("%s redirects to %q", page, location)
				continue
			}
			resp, html = p.get("GET", to.RequestURI(), "", "Accept", "text/html")
		}
		if resp.StatusCode != http.StatusOK {
			p.t.Errorf("%s: status %d", page, resp.StatusCode)
		}
		for _, m := range regexp.MustCompile(`(?:href|src|action)="([^"#]+)"`).FindAllStringSubmatch(html, -1) {
			to, err := resp.Request.URL.Parse(m[1])
			if err != nil || to.Host != p.host {
				continue // another site
			}
			if resp, _ := p.get("GET", to.RequestURI(), ""); resp.StatusCode >= 400 && resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(to.Path, p.base+"/") {
				p.t.Errorf("%s refers to %s: status %d", page, m[1], resp.StatusCode)
			}
		}
	}
}

// login checks the session cookie and the address in the audit log.
func (p *proxied) login() {
	p.t.Helper()
	const password = "correct horse battery"
	if status := p.call("POST", "/api/v1/auth/users", map[string]any{"name": "ada", "password": password, "role": "admin"}, nil); status != http.StatusCreated {
		p.t.Fatalf("create a user: %d", status)
	}
	resp, body := p.get("POST", p.base+"/login", url.Values{"name": {"ada"}, "password": {password}, "next": {p.base + "/docs"}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded", "Origin", "https://"+p.host)
	if resp.StatusCode != http.StatusSeeOther {
		p.t.Fatalf("login: %d %s", resp.StatusCode, body)
	}
	if to, err := resp.Request.URL.Parse(resp.Header.Get("Location")); err != nil || to.Path != p.base+"/docs" {
		p.t.Errorf("the login leads to %q", resp.Header.Get("Location"))
	}
	cookies := resp.Cookies()
	want, path := "__Host-agented", "/"
	if p.base != "" {
		want, path = "__Secure-agented", p.base
	}
	if len(cookies) != 1 || cookies[0].Name != want || cookies[0].Path != path || !cookies[0].Secure {
		p.t.Fatalf("cookies %v, want %s for %s, Secure", cookies, want, path)
	}
	session := cookies[0].Name + "=" + cookies[0].Value
	if resp, body := p.get("POST", p.base+"/api/v1/auth/logout", "", "Cookie", session, "Origin", "https://evil.example"); resp.StatusCode != http.StatusForbidden {
		p.t.Errorf("a request from another site: %d %s", resp.StatusCode, body)
	}
	if resp, body := p.get("GET", p.base+"/api/v1/triggers", "", "Cookie", session); resp.StatusCode != http.StatusOK {
		p.t.Errorf("a request with the session: %d %s", resp.StatusCode, body)
	}
	var audit struct {
		Items []struct{ Actor, Action, Address string }
	}
	p.call("GET", "/api/v1/audit", nil, &audit)
	found := false
	for _, entry := range audit.Items {
		if entry.Actor == "ada" {
			found = true
			if entry.Address != "127.0.0.9" {
				p.t.Errorf("%s is noted from %s, want 127.0.0.9", entry.Action, entry.Address)
			}
		}
	}
	if !found {
		p.t.Errorf("the login is not in the audit log: %+v", audit.Items)
	}
}

// webhook checks that the proxy passes a large delivery on.
func (p *proxied) webhook() {
	p.t.Helper()
	p.trigger(sh("push", "true", map[string]any{"webhooks": []any{map[string]any{"source": "github"}}}))
	body := pushBody(1)
	body = append(bytes.TrimSuffix(body, []byte("}")), fmt.Sprintf(`,"filler":%q}`, strings.Repeat("x", 20<<20))...)
	resp, text := p.get("POST", p.base+"/hooks/github", string(body), "Content-Type", "application/json", "X-GitHub-Event", "push",
		"X-GitHub-Delivery", "large", "X-Hub-Signature-256", githubSignature(body))
	if resp.StatusCode != http.StatusAccepted {
		p.t.Errorf("a delivery of %d MiB: %d %.300s", len(body)>>20, resp.StatusCode, text)
	}
}

// stream checks that each line comes through as it is printed.
func (p *proxied) stream() {
	p.t.Helper()
	gate := filepath.Join(p.dir, "go")
	id := p.fire(p.trigger(sh("two lines", `echo first; while [ ! -f "$GATE" ]; do sleep 0.05; done; echo second`, map[string]any{"env": map[string]any{"GATE": gate}})))
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+p.host+p.base+"/api/v1/executions/"+id+"/stream?after=0", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("X-API-Key", testKey)
	resp, err := p.browser.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for _, want := range []string{`"first"`, `"second"`, "event: complete"} {
		for line := ""; !strings.Contains(line, want); {
			if line, err = in.ReadString('\n'); err != nil {
				p.t.Fatalf("before %s: %v", want, err)
			}
		}
		if want == `"first"` {
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// nginxConfig is a whole configuration around a location of the guide.
func nginxConfig(location string) func(addr, server, cert, key, dir string) (string, string) {
	return func(addr, server, cert, key, dir string) (string, string) {
		return "nginx.conf", fmt.Sprintf(`daemon off; master_process off; error_log %[1]s/error.log; pid %[1]s/pid;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server {
		listen %[2]s ssl;
		ssl_certificate %[3]s; ssl_certificate_key %[4]s;
		absolute_redirect off;
%[5]s
	}
}
`, dir, addr, cert, key, strings.ReplaceAll(location, "127.0.0.1:20000", server))
	}
}

// TestNginx runs nginx with the configurations of the guide.
func TestNginx(t *testing.T) {
	t.Parallel()
	blocks := guideBlocks(t, "nginx")
	_, others, _ := strings.Cut(blocks[0], ";\n")
	removed := strings.Replace(blocks[1], "\t# the other lines as above\n}", others, 1)
	if removed == blocks[1] {
		t.Fatalf("the guide's location under a path no longer refers to the other lines:\n%s", removed)
	}
	for name, c := range map[string]struct{ base, location string }{
		"root":         {"", blocks[0]},
		"path_removed": {"/agented", removed},
		"path_kept":    {"/agented", strings.Replace(removed, ":20000/;", ":20000;", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			startProxied(t, "nginx", proxyName, c.base, nginxConfig(c.location), "-e", "stderr", "-c").check()
		})
	}
}

// TestCaddy runs Caddy with the configurations of the guide.
func TestCaddy(t *testing.T) {
	t.Parallel()
	blocks := guideBlocks(t, "caddyfile")
	for name, c := range map[string]struct{ base, host, site string }{
		"root":      {"", proxyName, blocks[0]},
		"path_kept": {"/agented", "example.org", blocks[1]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := func(addr, server, cert, key, dir string) (string, string) {
				ip, port, _ := net.SplitHostPort(addr)
				site := strings.Replace(c.site, c.host+" {", fmt.Sprintf("https://%s:%s {\n\tbind %s\n\ttls %s %s", c.host, port, ip, cert, key), 1)
				return "Caddyfile", "{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + strings.ReplaceAll(site, "127.0.0.1:20000", server) + "\n"
			}
			startProxied(t, "caddy", c.host, c.base, config, "run", "--adapter", "caddyfile", "--config").check()
		})
	}
}
