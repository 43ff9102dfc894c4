// Package config reads the server's settings from the environment, from a .env
// file and from defaults. No other package reads the environment.
package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config contains all settings, and is the only list of them: `.env.example`,
// the reference page and `config show` are generated from its tags.
//
//	env      the name
//	old      an older name, used if the new one is not set in the same source
//	default  the default as it would be written
//	shown    text in place of a default that is computed at start
//	kind     type of a string: path, url, sink, zone, origins, hosts, logins, pem, prefixes, hooks
//	choice   the allowed words
//	min, max bounds of a number or duration
//	secret   "server": never leaves the server; "backend", of a CLI's setting: passed to its CLI
//	clis     the place of the settings that the agent CLIs declare
//	client   also read by client commands
//	system   read only from the real environment, and documented elsewhere
//	section  a heading for this field and the following ones
//	help     the meaning, in sentences
//
// A field of type Secret named X can also be set as X_FILE, the path of a file
// that contains it.
type Config struct {
	Bind           Address       `env:"AGENTED_BIND" old:"GUNICORN_BIND" default:"127.0.0.1:20000" section:"Server" help:"Address to listen on: host:port, :port, [v6]:port, or unix:/path for a socket file. The default is reachable from this machine only; 0.0.0.0:20000 listens on all addresses. A socket inherited from systemd takes precedence."`
	TLSCert        string        `env:"AGENTED_TLS_CERT" kind:"path" help:"Certificate chain in PEM. With AGENTED_TLS_KEY the server terminates TLS itself. Reread on reload."`
	TLSKey         string        `env:"AGENTED_TLS_KEY" kind:"path" help:"Private key in PEM that belongs to AGENTED_TLS_CERT."`
	RequestTimeout time.Duration `env:"AGENTED_REQUEST_TIMEOUT" default:"300s" min:"1s" max:"24h" help:"Longest time for an ordinary request. Streams are exempt."`
	MaxConnections int           `env:"AGENTED_MAX_CONNECTIONS" default:"0" shown:"from the descriptor limit" min:"0" max:"1000000" help:"Limit of concurrent connections; beyond it the server responds with 503 and Retry-After. 0 derives it from the limit of open files: three quarters of what is left after 256, at least 64, at most 16384."`
	AccessLog      string        `env:"AGENTED_ACCESS_LOG" default:"stdout" kind:"sink" help:"Destination of the access log, one line per request: stdout, stderr, off, or the path of a file."`
	Shutdown       time.Duration `env:"AGENTED_SHUTDOWN_TIMEOUT" default:"30s" min:"0s" max:"1h" help:"How long open requests may take to finish when the server stops or restarts. Running agents continue in any case."`

	DataDir     string `env:"AGENTED_DATA_DIR" kind:"path" shown:"$XDG_DATA_HOME/agented, else ~/.local/share/agented" client:"yes" section:"Storage" help:"Folder for database, run logs and keys, mode 0700."`
	DBPath      string `env:"AGENTED_DB_PATH" kind:"path" shown:"agented.db in the data folder" help:"SQLite database file. Must be on a local disk."`
	DatabaseURL Secret `env:"AGENTED_DATABASE_URL" secret:"server" help:"Reserved for PostgreSQL, which this version does not support: the server does not start if it is set."`

	SecretKey       Secret `env:"SECRET_KEY" secret:"server" shown:".secret_key in the data folder" section:"Secrets" help:"Key that signs sessions and encrypts stored credentials; use 16 characters or more. If it is not set, a random key is generated once and stored in the data folder. Changing it logs all users out, and makes stored credentials unreadable unless SECRET_KEY_PREVIOUS is the old one."`
	SecretKeyFile   string `env:"SECRET_KEY_FILE" kind:"path" help:"File to read SECRET_KEY from, for container secrets."`
	FormerSecretKey Secret `env:"SECRET_KEY_PREVIOUS" secret:"server" help:"The former SECRET_KEY, after SECRET_KEY was changed. At its next start the server encrypts all stored credentials with SECRET_KEY; afterwards, remove this setting. For the key in the data folder use agented key rotate instead."`
	APIKey          Secret `env:"AGENTED_API_KEY" secret:"server" client:"yes" min:"16" help:"A static admin API key of 16 characters or more, for containers and scripts. Client commands use it to authenticate."`

	LogLevel  slog.Level `env:"LOG_LEVEL" default:"info" choice:"debug info warning error critical" section:"Logging" help:"Lowest severity that the server logs, in any case; warn is the same as warning."`
	LogFormat string     `env:"LOG_FORMAT" default:"auto" choice:"auto text json" help:"Format of the server's log on standard error. auto is text on a terminal, otherwise json."`

	SentryDSN          Secret `env:"SENTRY_DSN" secret:"server" section:"Observability" help:"Address of a service that accepts errors in Sentry's format, https://KEY@HOST/PROJECT. Log records of level error are sent there, masked and limited in number. Unset: nothing is sent."`
	OTLPEndpoint       string `env:"OTEL_EXPORTER_OTLP_ENDPOINT" kind:"url" help:"Collector of OpenTelemetry traces over HTTP, for example http://127.0.0.1:4318. Spans of requests, deliveries, executions and attempts are sent to its /v1/traces, masked. Unset: nothing is sent."`
	OTLPTraces         string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" kind:"url" help:"Full address for traces, for example http://127.0.0.1:4318/v1/traces. It takes precedence over OTEL_EXPORTER_OTLP_ENDPOINT."`
	OTLPProtocol       string `env:"OTEL_EXPORTER_OTLP_PROTOCOL" help:"Protocol of the collector: http/json, which http/protobuf collectors accept on the same port. grpc is rejected."`
	OTLPTracesProtocol string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" help:"Protocol of the collector for traces. It takes precedence over OTEL_EXPORTER_OTLP_PROTOCOL."`
	OTLPAttributes     string `env:"OTEL_RESOURCE_ATTRIBUTES" help:"Attributes of this server in traces, name=value separated by commas, values URL-encoded, for example deployment.environment=production."`
	OTLPService        string `env:"OTEL_SERVICE_NAME" default:"agented" help:"Name of this server in traces."`
	OTLPHeaders        Secret `env:"OTEL_EXPORTER_OTLP_HEADERS" kind:"headers" secret:"server" help:"Headers for the collector, such as its API key: name=value separated by commas, values URL-encoded."`

	CORSAllowedOrigins  []string `env:"CORS_ALLOWED_ORIGINS" kind:"origins" section:"Access" help:"Origins, separated by commas, whose pages may call the API from a browser, for example https://dash.example.org."`
	AllowedHosts        []string `env:"AGENTED_ALLOWED_HOSTS" kind:"hosts" help:"Host names, separated by commas, that the server accepts in requests, for example agented.example.org. IP addresses, localhost and the host of AGENTED_BIND are always accepted."`
	TrustedProxies      []string `env:"AGENTED_TRUSTED_PROXIES" kind:"proxies" shown:"loopback addresses" help:"Addresses and prefixes, separated by commas, of reverse proxies whose X-Forwarded-For, X-Forwarded-Proto and Forwarded headers are trusted, for example 172.16.0.0/12. Loopback addresses are also trusted, unless the list contains loopback addresses. The word none trusts no proxy at all."`
	BasePath            string   `env:"AGENTED_BASE_PATH" kind:"basepath" help:"Path under which a reverse proxy publishes the server, for example /agented. The proxy may strip it or pass it through."`
	GitHubWebhookSecret Secret   `env:"GITHUB_WEBHOOK_SECRET" secret:"server" help:"Secret that GitHub signs webhooks with. If unset, the GitHub endpoint responds with 503 and the reason."`
	GitHubLogins        []string `env:"AGENTED_GITHUB_LOGINS" kind:"logins" help:"GitHub accounts, separated by commas, that agents of this server use. Events caused by them fire no trigger, so that agents do not reply to themselves."`

	GitHubAppID  string        `env:"GITHUB_APP_ID" section:"GitHub" help:"Id or client id of the GitHub App that the server calls GitHub's API as. It needs GITHUB_APP_PRIVATE_KEY_FILE."`
	GitHubAppKey Secret        `env:"GITHUB_APP_PRIVATE_KEY" kind:"pem" secret:"server" help:"Private key of the GitHub App in PEM, as GitHub's settings page of the App creates it."`
	GitHubToken  Secret        `env:"AGENTED_GITHUB_TOKEN" secret:"server" help:"Fine-grained personal access token that the server calls GitHub's API with where no GitHub App is set. GitHub accepts check runs from Apps only."`
	GitHubAPI    string        `env:"AGENTED_GITHUB_API_URL" default:"https://api.github.com" kind:"url" help:"Address of GitHub's API. That of GitHub Enterprise Server is https://HOST/api/v3."`
	GitHubPull   time.Duration `env:"AGENTED_GITHUB_PULL" default:"60s" min:"0s" max:"24h" help:"How often missed deliveries of webhooks are fetched from GitHub, and all of them where the server has no public address. It needs a GitHub App or a token. 0 fetches none."`
	GitHubHooks  []string      `env:"AGENTED_GITHUB_HOOKS" kind:"hooks" shown:"app with a GitHub App, otherwise the repositories that triggers name" help:"Webhooks whose missed deliveries are fetched, separated by commas: app for that of the GitHub App, OWNER/NAME for that of a repository, or the name of an organization. #ID after a name chooses one of several webhooks."`

	PublicURL         string        `env:"AGENTED_PUBLIC_URL" kind:"url" section:"Notifications" help:"Address under which people reach the server, for links in notifications, for example https://agented.example.org. Without it, messages have no links."`
	NotifyAllow       []string      `env:"AGENTED_NOTIFY_ALLOW" kind:"prefixes" help:"Addresses and prefixes, separated by commas, that channels may reach although they are not public, for example 10.1.2.3 or 192.168.0.0/16. All other private, loopback, link-local and metadata addresses are rejected, and this server itself in any case."`
	NotifyParkedAfter time.Duration `env:"AGENTED_NOTIFY_PARKED_AFTER" default:"30m" min:"0s" max:"720h" help:"How long an execution may be parked before a notification is sent. 0 sends none."`

	MaxConcurrent     int            `env:"AGENTED_MAX_CONCURRENT" default:"0" shown:"from CPU and memory" min:"0" max:"10000" section:"Executions" help:"Limit of concurrent executions on this machine. 0 computes it: two per CPU, at most one per GiB of memory, at least 2."`
	SSEReplayLimit    int            `env:"SSE_REPLAY_LIMIT" default:"500" min:"0" max:"2000000000" help:"Number of lines replayed to a log stream that requests no position. 0 replays from the start."`
	StaleExecution    time.Duration  `env:"STALE_EXECUTION_THRESHOLD_SECS" default:"900" min:"1s" max:"720h" help:"How long a running execution without a server and a process may stay in that state before it is settled."`
	StaleConversation time.Duration  `env:"STALE_CONVERSATION_THRESHOLD_SECS" default:"1800" min:"1s" max:"720h" help:"Idle time after which a conversation is closed. A new message reopens it in the same session."`
	ChainDepth        int            `env:"AGENTED_CHAIN_DEPTH" default:"30" min:"0" max:"10000" help:"Longest chain of causes: a message that an execution sends, the execution that it fires, and so on. Messages beyond it are rejected. 0 means no limit."`
	ChainFanout       int            `env:"AGENTED_CHAIN_FANOUT" default:"50" min:"0" max:"1000000" help:"Messages and executions that one message or execution may cause directly. 0 means no limit."`
	ChainTotal        int            `env:"AGENTED_CHAIN_TOTAL" default:"500" min:"0" max:"1000000" help:"Messages and executions in one chain of causes. 0 means no limit."`
	ChainCostUSD      int            `env:"AGENTED_CHAIN_COST_USD" default:"0" min:"0" max:"1000000" help:"Known cost, in US dollars, of all executions in one chain of causes. 0 means no limit."`
	Zone              *time.Location `env:"TZ" kind:"zone" shown:"the system's zone" help:"Time zone of schedules that name none, for example Europe/Berlin."`

	WorkspaceProtocols []string      `env:"AGENTED_WORKSPACE_PROTOCOLS" default:"https,ssh,file" kind:"protocols" section:"Workspaces and money" help:"Protocols, separated by commas, that git may use to fetch the repositories of workspaces: https, http, ssh, file."`
	MaxMemoryMB        int           `env:"AGENTED_MAX_MEMORY" default:"0" min:"0" max:"100000000" help:"MiB of memory for all processes of one execution together. Beyond it the kernel kills the largest of them. Requires cgroup v2 with the memory controller delegated to the server, as in the installed unit. 0 means no limit."`
	MaxSwapMB          int           `env:"AGENTED_MAX_SWAP" default:"0" min:"0" max:"100000000" help:"MiB of swap that an execution with a limit of memory may use in addition."`
	CPUWeight          int           `env:"AGENTED_CPU_WEIGHT" default:"0" shown:"100, that of the system" min:"0" max:"10000" help:"Share of the processors that one execution gets when they are busy, from 1 to 10000. Without the cpu controller of cgroup v2, weights below 100 lower the priority of its processes instead."`
	MaxProcesses       int           `env:"AGENTED_MAX_PROCESSES" default:"0" min:"0" max:"4000000" help:"Concurrent processes and threads of one execution. Beyond it none can be started. Requires cgroup v2 with the pids controller delegated to the server. 0 means no limit."`
	MaxDiskMB          int           `env:"AGENTED_MAX_DISK" default:"0" min:"0" max:"100000000" help:"MiB of files in the folders of one execution: its checkout or working directory, temporary files, artifacts, and its home folder at sandbox level strict. Beyond it the attempt is ended. 0 means no limit."`
	Broker             string        `env:"AGENTED_BROKER" default:"off" choice:"off on" help:"Whether agents receive placeholders instead of API keys and tokens, which a broker in the supervisor of each attempt adds to their calls of models. For claude, codex, gemini and opencode; logins in files are not affected."`
	Sandbox            string        `env:"AGENTED_SANDBOX" default:"auto" choice:"auto off guard strict" help:"Sandbox level of executions whose trigger or agent names none. guard isolates agents from the server, its data and other executions; strict also from the network and from all other files. Both require Linux and bubblewrap, and fail an execution if the machine cannot create the sandbox. auto is guard where the machine can create it, otherwise off with a warning."`
	SandboxForward     string        `env:"AGENTED_SANDBOX_FORWARD" kind:"forward" help:"Way out of sandboxes of level strict, which have no network: PORT:/PATH/SOCKET connects 127.0.0.1:PORT inside with the Unix socket of a proxy outside, for example 8080:/run/model/proxy.sock. Everything in the folder of the socket is visible inside. Agents without a credential broker need it to reach the API of their model."`
	WorkspaceTimeout   time.Duration `env:"AGENTED_WORKSPACE_TIMEOUT" default:"30m" min:"10s" max:"24h" help:"Longest time for one fetch of a repository."`
	WorkspaceKeepDays  int           `env:"AGENTED_WORKSPACE_KEEP_DAYS" default:"7" min:"0" max:"36500" help:"Days after its end for which the checkout of an execution is kept. 0 keeps it as long as the execution's folder."`
	WorkspaceKeepCount int           `env:"AGENTED_WORKSPACE_KEEP_COUNT" default:"200" min:"0" max:"1000000" help:"Number of checkouts of ended executions that are kept; the oldest ones are removed first. 0 means no limit."`
	WorkspaceMinFreeMB int           `env:"AGENTED_WORKSPACE_MIN_FREE" default:"1024" min:"0" max:"100000000" help:"MiB of free disk space below which the oldest checkouts of ended executions are removed and fetches are stopped. 0 means no limit."`
	PauseLimit         time.Duration `env:"AGENTED_PAUSE_LIMIT" default:"24h" min:"1m" max:"720h" help:"How long a pause lasts before the execution is ended, unless the pause sets another limit."`
	PricesFile         string        `env:"AGENTED_PRICES" kind:"path" help:"JSON file with model prices, in US dollars per million tokens, which take precedence over the built-in ones. Used for CLIs that report tokens but no cost."`

	MinFreeMB           int `env:"AGENTED_MIN_FREE" default:"256" min:"4" max:"100000000" section:"Retention" help:"MiB to keep free on the disk of the data folder: below it new executions wait until space is free. Below a quarter of it, running attempts are ended."`
	KeepLogsDays        int `env:"AGENTED_KEEP_LOGS_DAYS" default:"90" min:"0" max:"36500" help:"Days after its end for which an execution keeps its folder: log, working directory, records. Its row, prompt and result remain. 0 means without limit."`
	KeepLogsMB          int `env:"AGENTED_KEEP_LOGS_MB" default:"0" min:"0" max:"1000000000" help:"Limit in MiB of the folders of all ended executions; the oldest ones are removed first. 0 means no limit."`
	KeepExecutionsDays  int `env:"AGENTED_KEEP_EXECUTIONS_DAYS" default:"0" min:"0" max:"36500" help:"Days after its end for which an execution is kept. 0 means without limit: a row is small, and it records what agents did."`
	KeepExecutions      int `env:"AGENTED_KEEP_EXECUTIONS" default:"0" min:"0" max:"1000000000" help:"Number of ended executions that are kept; the oldest ones are removed first. 0 means no limit."`
	KeepBodiesDays      int `env:"AGENTED_KEEP_BODIES_DAYS" default:"30" min:"1" max:"36500" help:"Days for which the bodies of inbound calls are kept, and rejected and repeated calls. In any case at most 1 GiB of bodies."`
	KeepDeliveriesDays  int `env:"AGENTED_KEEP_DELIVERIES_DAYS" default:"0" min:"0" max:"36500" help:"Days for which inbound calls are kept. 0 means without limit; a call that its sender repeats after that time fires again."`
	KeepTicksDays       int `env:"AGENTED_KEEP_TICKS_DAYS" default:"365" min:"0" max:"36500" help:"Days for which the ticks of schedules are kept; the latest one of each schedule remains. 0 means without limit."`
	KeepAuditDays       int `env:"AGENTED_KEEP_AUDIT_DAYS" default:"730" min:"0" max:"36500" help:"Days for which the audit log is kept. 0 means without limit."`
	KeepIdempotencyDays int `env:"AGENTED_KEEP_IDEMPOTENCY_DAYS" default:"0" min:"0" max:"36500" help:"Days for which idempotency keys are kept, at most as long as their execution. 0 keeps them as long as their execution."`

	BackupDir        string `env:"AGENTED_BACKUP_DIR" kind:"path" section:"Backup" help:"Folder for scheduled backups, preferably on another disk. If unset, there are none."`
	BackupSchedule   string `env:"AGENTED_BACKUP_SCHEDULE" default:"0 3 * * *" help:"When backups are taken, as cron in the zone of TZ. A missed backup is taken at the next start."`
	BackupKeep       int    `env:"AGENTED_BACKUP_KEEP" default:"7" min:"1" max:"10000" help:"Number of scheduled backups that are kept; older ones are removed once a newer one was written and verified."`
	BackupPassphrase string `env:"AGENTED_BACKUP_PASSPHRASE_FILE" kind:"path" help:"File with the passphrase that encrypts SECRET_KEY in scheduled backups. If unset, backups do not contain the key, and it must be stored elsewhere."`

	// Values of the settings that the agent CLIs declare in their folders, by name.
	clis map[string]any `clis:"yes" section:"Agent CLIs"`

	URL string `env:"AGENTED_URL" kind:"url" shown:"the server on this machine" client:"yes" section:"Client commands" help:"Server that client commands connect to, for example https://agented.example.org. Read from a .env file only if the same file sets AGENTED_API_KEY."`

	Home          string `env:"HOME" client:"yes" system:"yes" section:"System" help:"Base of the default folders."`
	Path          string `env:"PATH" client:"yes" system:"yes" help:"Where agent CLIs are searched for."`
	XDGDataHome   string `env:"XDG_DATA_HOME" client:"yes" system:"yes" help:"Base of the default data folder."`
	XDGStateHome  string `env:"XDG_STATE_HOME" client:"yes" system:"yes" help:"Base of the folder for the file with the server's address for client commands, if there is no runtime folder."`
	XDGRuntimeDir string `env:"XDG_RUNTIME_DIR" client:"yes" system:"yes" help:"Folder for the file with the server's address for client commands."`
	NoColor       string `env:"NO_COLOR" client:"yes" system:"yes" help:"If set and not empty, terminal output has no colour."`

	// Warnings are problems that did not stop the load: skipped lines of .env,
	// names that look misspelt.
	Warnings []Problem

	dotenvPath string
	proxies    []netip.Prefix // of TrustedProxies
	origins    map[string]Origin
	options    Options
	// A function, because printing a Config would print a map.
	environ func() map[string]string // the real environment at the first load
	dotenv  func() map[string]string
}

// LevelCritical is the level of LOG_LEVEL=critical, above slog.LevelError.
const LevelCritical = slog.LevelError + 4

// setByServer are the variables that the server sets for other processes, with
// their meaning. In the server's own environment they are not reported as
// misspelt: an agent may have started the server.
var setByServer = map[string]string{
	"AGENTED_EXECUTION_ID": "id of the execution that a process belongs to",
	"AGENTED_ATTEMPT":      "number of the attempt that a process belongs to",
	"AGENTED_OUT":          "folder that the attempt may fill; files in its folder `artifacts` are kept",
	"AGENTED_TRIGGER_ID":   "id of the trigger that fired",
}

// setByServerPrefixes are the prefixes of names chosen by the server, its tests or
// triggers.
var setByServerPrefixes = []string{"AGENTED_TEST_", "AGENTED_SECRET_"}

// readBySystemd are the variables of the service protocol, read by its library.
var readBySystemd = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID"}
