package broker

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agented/agented"
)

// Addresses of the vendors' APIs.
const (
	anthropicURL = "https://api.anthropic.com"
	openAIURL    = "https://api.openai.com/v1"
	geminiURL    = "https://generativelanguage.googleapis.com"
)

// Request is what Setup adapts.
type Request struct {
	Backend string
	Env     map[string]string // environment of the CLI; Setup changes it
	Dir     string            // working directory
	Foreign bool              // the CLI ignores the settings in the working directory
	// Port is where the broker will listen in the network of the sandbox. 0 means that Setup opens a
	// loopback address of this machine.
	Port int
	// Credentials is whether the broker keeps credentials.
	Credentials bool
	// Allow are the hosts that the CLI reaches through a proxy, besides those of its model; nil means
	// that there is no proxy.
	Allow []string
	Git   *GitAccess // nil: git has its own credentials
}

// GitAccess is what git may do with a credential that the CLI does not receive.
type GitAccess struct {
	Repository string // address of the repository
	Token      string
	Push       bool // otherwise it may only fetch
}

// Handed is what the shim receives.
type Handed struct {
	Listener *os.File // the loopback address in the CLI's environment; nil if it is in a sandbox
	Config   Config

	base       string // address of the broker
	gitAddress string // of the repository, as the checkout names it
}

// Close closes the listener of this process.
func (h *Handed) Close() {
	if h != nil && h.Listener != nil {
		h.Listener.Close()
	}
}

// Placeholders returns what the environment contains instead of credentials.
func (h *Handed) Placeholders() (all []string) {
	if h == nil {
		return nil
	}
	for _, r := range h.Config.Routes {
		for _, k := range r.Keys {
			all = append(all, k.Placeholder)
		}
	}
	return all
}

// offer is a vendor that a CLI calls, and how its environment names the credentials.
type offer struct {
	vendor    string
	prefix    string
	keys      []string // variables with a credential
	address   string   // variable with the address of the API
	otherwise string   // the address without that variable
	provider  string   // name in the settings of OpenCode
}

// offers returns the vendors of a CLI; none for a backend without a broker.
func offers(backend string) []offer {
	switch backend {
	case agented.BackendClaude:
		return []offer{{vendor: Anthropic, keys: []string{"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"}, address: "ANTHROPIC_BASE_URL", otherwise: anthropicURL}}
	case agented.BackendCodex:
		return []offer{{vendor: OpenAI, prefix: "/v1", keys: []string{"OPENAI_API_KEY", "CODEX_API_KEY"}, address: "OPENAI_BASE_URL", otherwise: openAIURL}}
	case agented.BackendGemini:
		return []offer{{vendor: Gemini, keys: []string{"GEMINI_API_KEY"}, address: "GOOGLE_GEMINI_BASE_URL", otherwise: geminiURL}}
	case agented.BackendOpenCode:
		return []offer{
			{vendor: Anthropic, prefix: "/anthropic", keys: []string{"ANTHROPIC_API_KEY"}, address: "ANTHROPIC_BASE_URL", otherwise: anthropicURL, provider: "anthropic"},
			{vendor: OpenAI, prefix: "/openai/v1", keys: []string{"OPENAI_API_KEY"}, address: "OPENAI_BASE_URL", otherwise: openAIURL, provider: "openai"},
			{vendor: Gemini, prefix: "/google", keys: []string{"GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"}, address: "GOOGLE_GEMINI_BASE_URL", otherwise: geminiURL, provider: "google"},
		}
	}
	return nil
}

// Setup replaces the credentials in the environment of a CLI by placeholders, and the address of
// the API by that of a broker. It returns nil without changes if the environment has no credential
// that a broker can hold, or if why is not empty: then the CLI's own settings name another
// provider, which would receive a placeholder.
func Setup(r Request) (h *Handed, why string, err error) {
	var routes []Route
	var used []offer
	for _, o := range offers(r.Backend) {
		if route, ok := o.route(r.Env); ok && r.Credentials {
			routes, used = append(routes, route), append(used, o)
		}
	}
	if len(routes) > 0 {
		if why = otherProvider(r); why != "" {
			routes, used = nil, nil
		}
	}
	if r.Allow != nil && len(routes) == 0 {
		r.Allow = append(r.Allow, modelHosts(r.Backend, r.Env)...)
	}
	if len(routes) == 0 && len(r.Allow) == 0 && r.Git == nil {
		return nil, why, nil
	}
	h = &Handed{Config: Config{Routes: routes, ExtraCA: r.Env["NODE_EXTRA_CA_CERTS"], Allow: r.Allow, Env: processEnv(r.Env)}}
	address, err := h.open(r.Port)
	if err != nil {
		return nil, "", fmt.Errorf("open an address for the credential broker: %w", err)
	}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	base := "http://" + address
	h.base = base
	if r.Git != nil {
		h.gitAddress = r.Git.Repository
		if h.Config.Git, err = newGitRoute(r.Git); err != nil {
			return nil, "", err
		}
	}
	if len(routes) == 0 && len(r.Allow) > 0 {
		return h, why, useProxy(r.Env, base, r.Allow)
	}
	if len(routes) == 0 {
		bypassProxies(r.Env)
		return h, why, nil
	}
	if r.Backend == agented.BackendOpenCode {
		if err := pointOpenCode(r.Env, used, base); err != nil {
			return nil, "", err
		}
	} else {
		r.Env[used[0].address] = base + used[0].prefix
	}
	for i, o := range used {
		for _, name := range o.keys {
			for _, k := range routes[i].Keys {
				if r.Env[name] == k.Secret {
					r.Env[name] = k.Placeholder
				}
			}
		}
	}
	if r.Allow != nil {
		return h, "", useProxy(r.Env, base, r.Allow)
	}
	bypassProxies(r.Env)
	return h, "", nil
}

// Reaches reports whether the broker is a way to the API of a model.
func (h *Handed) Reaches() bool {
	return h != nil && (len(h.Config.Routes) > 0 || len(h.Config.Allow) > 0)
}

// Holds reports whether the broker keeps credentials.
func (h *Handed) Holds() bool { return h != nil && len(h.Config.Routes) > 0 }

// modelHosts returns the hosts of a CLI's model and of its login, for a CLI that has its own
// credentials.
func modelHosts(backend string, env map[string]string) (hosts []string) {
	switch backend {
	case agented.BackendClaude:
		hosts = []string{"api.anthropic.com", "platform.claude.com", "console.anthropic.com"}
	case agented.BackendCodex:
		hosts = []string{"api.openai.com", "chatgpt.com", "auth.openai.com"}
	case agented.BackendGemini:
		hosts = []string{"generativelanguage.googleapis.com", "cloudcode-pa.googleapis.com", "oauth2.googleapis.com"}
	case agented.BackendOpenCode:
		hosts = []string{"api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com", "models.dev"}
	case agented.BackendAnthropic:
		hosts = []string{"api.anthropic.com"}
	}
	for _, name := range []string{"ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"} {
		if host := HostOf(env[name]); host != "" && len(hosts) > 0 {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// HostOf returns the host and port of a URL as an entry of [agented.Network], or "".
func HostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "http":
		port = "80"
	default:
		return ""
	}
	host := net.JoinHostPort(u.Hostname(), port)
	if _, err := agented.NewAllowList([]string{host}); err != nil {
		return ""
	}
	return host
}

// proxyVariables name the proxies of a process.
var proxyVariables = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"}

// processEnv returns the variables with which the broker reaches the provider as the CLI would.
func processEnv(env map[string]string) map[string]string {
	out := map[string]string{}
	for _, name := range append([]string{"NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}, proxyVariables...) {
		if value, ok := env[name]; ok {
			out[name] = value
		}
	}
	return out
}

// useProxy makes the programs of the attempt use the proxy, except for servers in the sandbox.
func useProxy(env map[string]string, base string, allow []string) error {
	list, err := agented.NewAllowList(allow)
	if err != nil {
		return err
	}
	for _, name := range proxyVariables {
		env[name] = base
	}
	for _, name := range []string{"ALL_PROXY", "all_proxy"} {
		delete(env, name)
	}
	inside := "localhost,127.0.0.1,::1"
	if list.Loopback() { // the machine's, which programs must reach through the proxy
		inside = ""
	}
	env["NO_PROXY"], env["no_proxy"] = inside, inside
	return nil
}

// open opens the loopback address, unless the broker listens on a port in a sandbox. It returns the
// address.
func (h *Handed) open(port int) (string, error) {
	if port != 0 {
		return fmt.Sprintf("127.0.0.1:%d", port), nil
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	defer l.Close()
	h.Listener, err = l.File()
	return l.Addr().String(), err
}

// route returns the route of a vendor, if the environment has a credential for it.
func (o offer) route(env map[string]string) (Route, bool) {
	r := Route{Vendor: o.vendor, Prefix: o.prefix, Upstream: o.otherwise}
	for _, name := range o.keys {
		secret := env[name]
		if secret != "" && !slices.ContainsFunc(r.Keys, func(k Key) bool { return k.Secret == secret }) {
			r.Keys = append(r.Keys, Key{Placeholder: placeholderFor(secret), Secret: secret})
		}
	}
	if address := env[o.address]; address != "" {
		if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return r, false // the CLI reports it
		}
		r.Upstream = strings.TrimRight(address, "/")
		if o.provider != "" && o.vendor != OpenAI {
			r.Upstream = strings.TrimSuffix(strings.TrimSuffix(r.Upstream, "/v1"), "/v1beta")
		}
	}
	return r, len(r.Keys) > 0
}

// placeholderFor returns a random value in the form of a credential, because a CLI may check it.
func placeholderFor(secret string) string {
	kind := ""
	for _, form := range []string{"sk-ant-oat01-", "sk-ant-api03-", "sk-ant-", "sk-proj-", "sk-", "AIza"} {
		if strings.HasPrefix(secret, form) {
			kind = form
			break
		}
	}
	return kind + "placeholder-of-agented-" + rand.Text()
}

// pointOpenCode adds the addresses to the settings in OPENCODE_CONFIG_CONTENT, which take
// precedence over those in files.
func pointOpenCode(env map[string]string, used []offer, base string) error {
	settings := map[string]any{}
	if text := env["OPENCODE_CONFIG_CONTENT"]; text != "" {
		if err := json.Unmarshal([]byte(text), &settings); err != nil {
			return errors.New("OPENCODE_CONFIG_CONTENT is not a JSON object")
		}
	}
	for _, o := range used {
		address := base + o.prefix
		switch o.vendor {
		case Anthropic:
			address += "/v1"
		case Gemini:
			address += "/v1beta"
		}
		at := settings
		for _, name := range []string{"provider", o.provider, "options"} {
			next, ok := at[name].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[name] = next
			}
			at = next
		}
		at["baseURL"] = address
		delete(env, o.address)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	env["OPENCODE_CONFIG_CONTENT"] = string(text)
	return nil
}

// bypassProxies makes the CLI reach the broker directly. The broker uses the proxies.
func bypassProxies(env map[string]string) {
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		proxied := false
		for _, proxy := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
			proxied = proxied || env[proxy] != ""
		}
		list := env[name]
		if !proxied || list == "*" {
			continue
		}
		if list != "" {
			list += ","
		}
		env[name] = list + "127.0.0.1"
	}
}

// otherProvider returns why the settings of a CLI exclude a broker, or "".
func otherProvider(r Request) string {
	for _, name := range clouds(r.Backend) {
		if value := r.Env[name]; value != "" && value != "0" && value != "false" {
			return name + " is set"
		}
	}
	if r.Backend == agented.BackendGemini {
		return geminiLogin(r)
	}
	files, words := settingsOf(r)
	names := func(text string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	if r.Backend == agented.BackendOpenCode && names(r.Env["OPENCODE_CONFIG_CONTENT"]) {
		return "OPENCODE_CONFIG_CONTENT names an address or a key"
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && names(string(text)) {
			return file + " names a provider, an address or a key"
		}
	}
	return ""
}

// geminiLogin returns why Gemini CLI would not call another address, or "". It does so only if its
// settings name the login by key; the variables are not enough.
func geminiLogin(r Request) string {
	home := r.Env[agented.ConfigVariable(r.Backend)]
	if home == "" {
		home = r.Env["HOME"]
	}
	file := filepath.Join(home, ".gemini/settings.json")
	if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), `"gemini-api-key"`) {
		return ""
	}
	return file + ` does not contain {"security":{"auth":{"selectedType":"gemini-api-key"}}}, without which Gemini CLI calls no other address`
}

// clouds lists the variables with which a CLI calls a cloud instead of the vendor.
func clouds(backend string) []string {
	switch backend {
	case agented.BackendClaude:
		return []string{"CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"}
	case agented.BackendGemini:
		return []string{"GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA"}
	}
	return nil
}

// settingsOf returns the files in which a CLI may name another provider, and the words that do.
func settingsOf(r Request) (files, words []string) {
	home := r.Env["HOME"]
	dir := r.Env[agented.ConfigVariable(r.Backend)]
	own := func(inHome string) string {
		if dir != "" {
			return dir
		}
		return filepath.Join(home, inHome)
	}
	switch r.Backend {
	case agented.BackendClaude:
		files = []string{filepath.Join(own(".claude"), "settings.json")}
		if !r.Foreign {
			files = append(files, filepath.Join(r.Dir, ".claude/settings.json"), filepath.Join(r.Dir, ".claude/settings.local.json"))
		}
		return files, []string{`"ANTHROPIC_BASE_URL"`, `"ANTHROPIC_API_KEY"`, `"ANTHROPIC_AUTH_TOKEN"`, `"apiKeyHelper"`, `"CLAUDE_CODE_USE_`}
	case agented.BackendCodex:
		return []string{filepath.Join(own(".codex"), "config.toml")}, []string{"model_provider", "openai_base_url"}
	case agented.BackendOpenCode:
		dirs := []string{filepath.Join(home, ".config/opencode")}
		if config := r.Env["XDG_CONFIG_HOME"]; config != "" {
			dirs = append(dirs, filepath.Join(config, "opencode"))
		}
		if dir != "" {
			dirs = append(dirs, dir, filepath.Join(dir, ".config/opencode"))
		}
		if config := r.Env["OPENCODE_CONFIG_DIR"]; config != "" {
			dirs = append(dirs, config)
		}
		if !r.Foreign {
			dirs = append(dirs, r.Dir, filepath.Join(r.Dir, ".opencode"))
		}
		for _, d := range dirs {
			for _, name := range []string{"opencode.json", "opencode.jsonc", "config.json"} {
				files = append(files, filepath.Join(d, name))
			}
		}
		if file := r.Env["OPENCODE_CONFIG"]; file != "" {
			files = append(files, file)
		}
		return files, []string{`"baseURL"`, `"apiKey"`}
	}
	return nil, nil
}
