// Package config reads the server's settings: from the environment, from a .env
// file, from defaults. Nothing else reads the environment.
package config

import (
	"log/slog"
	"time"
)

// Config is every setting, and the one list of them: `.env.example`, the reference
// page and `config show` are made from its tags.
//
//	env      the name
//	old      an older name, read when the new one is not set in the same source
//	default  the default as one would write it
//	shown    what to print as default where it is worked out at start
//	kind     what a string means: path, url, sink, zone, origins, hosts, logins
//	choice   the words that are allowed
//	min, max bounds of a number or duration
//	secret   "server": never leaves the server; "backend": goes to its CLI
//	backend  the agent CLIs that get the variable
//	client   read by client commands too
//	system   read from the real environment only, and not ours to document
//	section  a heading for this field and those after it
//	help     what it means, in sentences
//
// A field of type Secret with the name X can also be given as X_FILE, the path of
// a file that holds it.
type Config struct {
	Bind           Address       `env:"AGENTED_BIND" old:"GUNICORN_BIND" default:"0.0.0.0:20000" section:"Server" help:"Address to listen on: host:port, :port, [v6]:port, or unix:/path for a socket file. A socket inherited from systemd wins."`
	TLSCert        string        `env:"AGENTED_TLS_CERT" kind:"path" help:"Certificate chain in PEM. With AGENTED_TLS_KEY the server speaks TLS itself; read again on reload."`
	TLSKey         string        `env:"AGENTED_TLS_KEY" kind:"path" help:"Private key in PEM that belongs to AGENTED_TLS_CERT."`
	RequestTimeout time.Duration `env:"AGENTED_REQUEST_TIMEOUT" default:"300s" min:"1s" max:"24h" help:"Longest time for an ordinary request. Streams are exempt."`
	MaxConnections int           `env:"AGENTED_MAX_CONNECTIONS" default:"0" shown:"from the descriptor limit" min:"0" max:"1000000" help:"Connections at once; beyond them the answer is 503 with Retry-After. 0 works it out from the limit of open files: three quarters of what is left after 256, at least 64, at most 16384."`
	AccessLog      string        `env:"AGENTED_ACCESS_LOG" default:"stdout" kind:"sink" help:"Where the access log goes, one line a request: stdout, stderr, off, or the path of a file."`
	Shutdown       time.Duration `env:"AGENTED_SHUTDOWN_TIMEOUT" default:"30s" min:"0s" max:"1h" help:"How long open requests may take to end at a stop or restart. Running agents go on in any case."`

	DataDir     string `env:"AGENTED_DATA_DIR" kind:"path" shown:"$XDG_DATA_HOME/agented, else ~/.local/share/agented" client:"yes" section:"Storage" help:"Folder for database, run logs and keys, mode 0700."`
	DBPath      string `env:"AGENTED_DB_PATH" kind:"path" shown:"agented.db in the data folder" help:"SQLite database file. Must be on a local disk."`
	DatabaseURL Secret `env:"AGENTED_DATABASE_URL" secret:"server" help:"Reserved for PostgreSQL, which this version does not support: setting it stops the start."`

	SecretKey     Secret `env:"SECRET_KEY" secret:"server" shown:".secret_key in the data folder" section:"Secrets" help:"Key that signs sessions and seals stored credentials; use 16 characters or more. If nothing is set, a random one is made once and kept in the data folder. Changing it logs everybody out and makes sealed credentials unreadable."`
	SecretKeyFile string `env:"SECRET_KEY_FILE" kind:"path" help:"File to read SECRET_KEY from, for container secrets."`
	APIKey        Secret `env:"AGENTED_API_KEY" secret:"server" client:"yes" min:"16" help:"A fixed admin API key of 16 characters or more, for containers and scripts. Client commands use it to log in."`

	LogLevel  slog.Level `env:"LOG_LEVEL" default:"info" choice:"debug info warning error critical" section:"Logging" help:"Least severity that the server logs, in any case; warn is warning."`
	LogFormat string     `env:"LOG_FORMAT" default:"auto" choice:"auto text json" help:"Format of the server's log on standard error. auto is text on a terminal, else json."`

	SentryDSN    Secret `env:"SENTRY_DSN" secret:"server" section:"Observability" help:"Address of a service that takes errors in Sentry's format, https://KEY@HOST/PROJECT. What the log has at level error is sent there, masked and bounded in number. Unset: nothing is sent."`
	OTLPEndpoint string `env:"OTEL_EXPORTER_OTLP_ENDPOINT" kind:"url" help:"Collector of OpenTelemetry traces over HTTP, for example http://127.0.0.1:4318. Spans of requests, deliveries, executions and attempts are sent to its /v1/traces, masked. Unset: nothing is sent."`
	OTLPService  string `env:"OTEL_SERVICE_NAME" default:"agented" help:"Name of this server in traces."`
	OTLPHeaders  Secret `env:"OTEL_EXPORTER_OTLP_HEADERS" secret:"server" help:"Headers for the collector, name=value separated by commas, values URL-encoded; for its key."`

	CORSAllowedOrigins  []string `env:"CORS_ALLOWED_ORIGINS" kind:"origins" section:"Access" help:"Origins, separated by commas, whose pages may call the API from a browser, for example https://dash.example.org."`
	AllowedHosts        []string `env:"AGENTED_ALLOWED_HOSTS" kind:"hosts" help:"Names, separated by commas, under which the server may be addressed, for example agented.example.org. IP addresses, localhost and the host of AGENTED_BIND always pass."`
	GitHubWebhookSecret Secret   `env:"GITHUB_WEBHOOK_SECRET" secret:"server" help:"Secret that GitHub signs webhooks with. If unset, the GitHub endpoint answers 503 and says why."`
	GitHubLogins        []string `env:"AGENTED_GITHUB_LOGINS" kind:"logins" help:"Accounts, separated by commas, under which agents of this server act on GitHub. What they cause fires no trigger, so that no agent answers itself."`

	MaxConcurrent     int            `env:"AGENTED_MAX_CONCURRENT" default:"0" shown:"from CPU and memory" min:"0" max:"10000" section:"Executions" help:"Executions at once on this machine. 0 works it out: two per CPU, but no more than one per GiB of memory, at least 2."`
	SSEReplayLimit    int            `env:"SSE_REPLAY_LIMIT" default:"500" min:"0" max:"2000000000" help:"Lines replayed to a log stream that names no position. 0 replays from the start."`
	StaleExecution    time.Duration  `env:"STALE_EXECUTION_THRESHOLD_SECS" default:"900" min:"1s" max:"720h" help:"An execution that says running, but that no server and no process owns for this long, is settled."`
	StaleConversation time.Duration  `env:"STALE_CONVERSATION_THRESHOLD_SECS" default:"1800" min:"1s" max:"720h" help:"Time without any activity after which a conversation is closed. Writing to it opens it again, in the same session."`
	ChainDepth        int            `env:"AGENTED_CHAIN_DEPTH" default:"30" min:"0" max:"10000" help:"Causes in a row: a message that an execution sends, the execution that it fires, and so on. Beyond it sending is refused. 0 is no limit."`
	ChainFanout       int            `env:"AGENTED_CHAIN_FANOUT" default:"50" min:"0" max:"1000000" help:"Messages and executions that one message or execution may cause. 0 is no limit."`
	ChainTotal        int            `env:"AGENTED_CHAIN_TOTAL" default:"500" min:"0" max:"1000000" help:"Messages and executions that follow from one cause, taken together. 0 is no limit."`
	ChainCostUSD      int            `env:"AGENTED_CHAIN_COST_USD" default:"0" min:"0" max:"1000000" help:"Known cost, in US dollars, of all executions that follow from one cause. 0 is no limit."`
	Zone              *time.Location `env:"TZ" kind:"zone" shown:"the system's zone" help:"Time zone of schedules that name none, for example Europe/Berlin."`

	WorkspaceProtocols []string      `env:"AGENTED_WORKSPACE_PROTOCOLS" default:"https,ssh,file" kind:"protocols" section:"Workspaces and money" help:"Ways, separated by commas, in which git may fetch the repositories of workspaces: https, http, ssh, file."`
	WorkspaceTimeout   time.Duration `env:"AGENTED_WORKSPACE_TIMEOUT" default:"30m" min:"10s" max:"24h" help:"Longest time for one fetch of a repository."`
	WorkspaceKeepDays  int           `env:"AGENTED_WORKSPACE_KEEP_DAYS" default:"7" min:"0" max:"36500" help:"Days after its end for which the checkout of an execution is kept. 0 is as long as its folder."`
	WorkspaceKeepCount int           `env:"AGENTED_WORKSPACE_KEEP_COUNT" default:"200" min:"0" max:"1000000" help:"Checkouts of ended executions that are kept; the oldest beyond go. 0 is any number."`
	WorkspaceMinFreeMB int           `env:"AGENTED_WORKSPACE_MIN_FREE" default:"1024" min:"0" max:"100000000" help:"MiB of free disk below which the oldest checkouts of ended executions go, and fetches end. 0 is no limit."`
	PauseLimit         time.Duration `env:"AGENTED_PAUSE_LIMIT" default:"24h" min:"1m" max:"720h" help:"How long a paused execution stands still before it is ended, unless the pause says otherwise."`
	PricesFile         string        `env:"AGENTED_PRICES" kind:"path" help:"JSON file with prices of models, in US dollars for a million tokens, before those that come with Agented. Used for CLIs that print tokens and no cost."`

	MinFreeMB      int `env:"AGENTED_MIN_FREE" default:"256" min:"4" max:"100000000" section:"Retention" help:"MiB that stay free on the disk of the data folder: below it executions wait, and say so, until there is room. At a quarter of it, attempts that run are ended."`
	KeepLogsDays   int `env:"AGENTED_KEEP_LOGS_DAYS" default:"90" min:"0" max:"36500" help:"Days after its end for which an execution keeps its folder: log, working directory, records. Its row, prompt and result stay. 0 is for ever."`
	KeepLogsMB     int `env:"AGENTED_KEEP_LOGS_MB" default:"0" min:"0" max:"1000000000" help:"MiB that the folders of all ended executions may take; the oldest beyond go. 0 is no limit."`
	KeepRunsDays   int `env:"AGENTED_KEEP_EXECUTIONS_DAYS" default:"0" min:"0" max:"36500" help:"Days after its end for which an execution is kept at all. 0 is for ever: a row is small, and it is the record of what agents did."`
	KeepRuns       int `env:"AGENTED_KEEP_EXECUTIONS" default:"0" min:"0" max:"1000000000" help:"Ended executions that are kept at all; the oldest beyond go. 0 is no limit."`
	KeepBodiesDays int `env:"AGENTED_KEEP_BODIES_DAYS" default:"30" min:"1" max:"36500" help:"Days for which the bodies of calls from outside are kept, and refused calls and repetitions. At most 1 GiB of bodies in any case."`
	KeepCallsDays  int `env:"AGENTED_KEEP_DELIVERIES_DAYS" default:"0" min:"0" max:"36500" help:"Days for which calls from outside are known. 0 is for ever; a call that its sender repeats after that time fires again."`
	KeepTicksDays  int `env:"AGENTED_KEEP_TICKS_DAYS" default:"365" min:"0" max:"36500" help:"Days for which the ticks of schedules are kept; the latest one of each stays. 0 is for ever."`
	KeepAuditDays  int `env:"AGENTED_KEEP_AUDIT_DAYS" default:"730" min:"0" max:"36500" help:"Days for which it is known who did what. 0 is for ever."`
	KeepKeysDays   int `env:"AGENTED_KEEP_IDEMPOTENCY_DAYS" default:"0" min:"0" max:"36500" help:"Days for which idempotency keys are remembered; they go with their execution in any case. 0 is for as long as that."`

	BackupDir        string `env:"AGENTED_BACKUP_DIR" kind:"path" section:"Backup" help:"Folder for scheduled backups, best on another disk. If unset, there are none."`
	BackupSchedule   string `env:"AGENTED_BACKUP_SCHEDULE" default:"0 3 * * *" help:"When backups are taken, as cron in the zone of TZ. One that was missed is taken at the next start."`
	BackupKeep       int    `env:"AGENTED_BACKUP_KEEP" default:"7" min:"1" max:"10000" help:"Scheduled backups that are kept; older ones go once a newer one was written and checked."`
	BackupPassphrase string `env:"AGENTED_BACKUP_PASSPHRASE_FILE" kind:"path" help:"File with the passphrase under which SECRET_KEY is sealed in scheduled backups. If unset, the key is left out and has to be kept elsewhere."`

	AnthropicAPIKey      Secret `env:"ANTHROPIC_API_KEY" secret:"backend" backend:"claude opencode anthropic" section:"Agent CLIs" help:"Default account of claude and anthropic: API key."`
	AnthropicBaseURL     string `env:"ANTHROPIC_BASE_URL" old:"ANTHROPIC_API_BASE" kind:"url" backend:"claude anthropic" help:"Address of the Anthropic API or of a proxy for it."`
	ClaudeCodeOAuthToken Secret `env:"CLAUDE_CODE_OAUTH_TOKEN" secret:"backend" backend:"claude" help:"Default account of claude: token of a subscription, from claude setup-token."`
	ClaudeConfigDir      string `env:"CLAUDE_CONFIG_DIR" kind:"path" backend:"claude" help:"Folder with claude's settings and login."`
	ClaudePluginRoot     string `env:"CLAUDE_PLUGIN_ROOT" kind:"path" backend:"claude" help:"Folder of a plugin that brings commands: passed to claude and put on its PATH."`
	OpenAIAPIKey         Secret `env:"OPENAI_API_KEY" secret:"backend" backend:"codex opencode" help:"Default account of codex: API key."`
	OpenAIBaseURL        string `env:"OPENAI_BASE_URL" kind:"url" backend:"codex" help:"Address of the OpenAI API or of a proxy for it, with its /v1."`
	CodexHome            string `env:"CODEX_HOME" kind:"path" backend:"codex" help:"Folder with codex's settings and login."`
	GeminiAPIKey         Secret `env:"GEMINI_API_KEY" secret:"backend" backend:"gemini opencode" help:"Default account of gemini: API key."`
	GeminiCLIHome        string `env:"GEMINI_CLI_HOME" kind:"path" backend:"gemini" help:"Folder with gemini's settings and login."`
	OpencodeHome         string `env:"OPENCODE_HOME" kind:"path" backend:"opencode" help:"Folder with opencode's settings and login."`

	URL string `env:"AGENTED_URL" kind:"url" shown:"the server on this machine" client:"yes" section:"Client commands" help:"Server that client commands talk to, for example https://agented.example.org. Taken from a .env file only if the same file sets AGENTED_API_KEY."`

	Home          string `env:"HOME" client:"yes" system:"yes" section:"System" help:"Base of the default folders."`
	Path          string `env:"PATH" client:"yes" system:"yes" help:"Where agent CLIs are looked for."`
	XDGDataHome   string `env:"XDG_DATA_HOME" client:"yes" system:"yes" help:"Base of the default data folder."`
	XDGStateHome  string `env:"XDG_STATE_HOME" client:"yes" system:"yes" help:"Base of the folder for the file that tells client commands where the server is, if there is no runtime folder."`
	XDGRuntimeDir string `env:"XDG_RUNTIME_DIR" client:"yes" system:"yes" help:"Folder for the file that tells client commands where the server is."`
	NoColor       string `env:"NO_COLOR" client:"yes" system:"yes" help:"If set to anything, terminal output has no colour."`

	// Warnings are things that did not stop the load and that a person should
	// know: lines of .env that were skipped, names that look misspelt.
	Warnings []Problem

	dotenvPath string
	origins    map[string]Origin
	options    Options
	// Functions, because whatever prints a Config would print maps.
	environ func() map[string]string // the real environment as it was at the first load
	dotenv  func() map[string]string
}

// LevelCritical is LOG_LEVEL=critical: above everything but what ends the server.
const LevelCritical = slog.LevelError + 4

// setByUs are the names that the server itself sets for others, with what for.
// Someone who finds them in an environment has not misspelt anything: the server
// may have been started by an agent.
var setByUs = map[string]string{
	"AGENTED_EXECUTION_ID": "id of the execution that a process belongs to",
	"AGENTED_ATTEMPT":      "number of the attempt that a process belongs to",
	"AGENTED_TRIGGER_ID":   "id of the trigger that fired",
}

// setByUsPrefixes begin names that the server, its tests or its triggers choose.
var setByUsPrefixes = []string{"AGENTED_TEST_", "AGENTED_SECRET_"}

// readBySystemd are names of the service protocol, read by the library that
// speaks it.
var readBySystemd = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID"}
