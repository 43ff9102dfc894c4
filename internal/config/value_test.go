package config_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/config"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in, out, dial string
		loopback      bool
	}{
		{"0.0.0.0:20000", "0.0.0.0:20000", "127.0.0.1:20000", false},
		{":20000", ":20000", "127.0.0.1:20000", false},
		{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", true},
		{"127.8.9.1:1", "127.8.9.1:1", "127.8.9.1:1", true},
		{"localhost:80", "localhost:80", "localhost:80", true},
		{"[::1]:20000", "[::1]:20000", "[::1]:20000", true},
		{"[::]:20000", "[::]:20000", "[::1]:20000", false},
		{"[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", true},
		{"[fe80::1%eth0]:1", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1", false},
		{"host.example.org:65535", "host.example.org:65535", "host.example.org:65535", false},
		{"unix:/run/a.sock", "unix:/run/a.sock", "", true},
		{"unix:///run/a.sock", "unix:/run/a.sock", "", true},
		{"unix:a.sock", "unix:/base/a.sock", "", true},
	} {
		a, err := config.ParseAddress(tc.in, "/base")
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if a.String() != tc.out || a.Dial() != tc.dial || a.Loopback() != tc.loopback {
			t.Errorf("%s: %s, dial %q, loopback %v", tc.in, a, a.Dial(), a.Loopback())
		}
		if again, err := config.ParseAddress(a.String(), "/"); err != nil || again != a {
			t.Errorf("%s does not read back: %v %v", a, again, err)
		}
		if a.Network == "unix" && a.Listen() != a.Path || a.Network == "tcp" && a.Listen() != tc.out {
			t.Errorf("%s listens on %q", tc.in, a.Listen())
		}
	}
	for in, want := range map[string]string{
		"20000":     "only a port",
		"127.0.0.1": "write 127.0.0.1:20000",
		"::1":       "brackets", "::1:8080": "brackets",
		"[::1]":                             "write [::1]:20000",
		"::1:x:20000":                       "brackets",
		"localhost":                         "host:port",
		"http://localhost:20000":            "without http://",
		"localhost:http":                    "number from 1",
		"localhost:65536":                   "number from 1",
		"localhost:-1":                      "number from 1",
		"localhost:+1":                      "number from 1",
		"localhost:":                        "number from 1",
		"1.2.3:80":                          "valid host",
		"999.1.1.1:80":                      "valid host",
		"a b:80":                            "valid host",
		"*:80":                              "valid host",
		"127.0.0.1:1,127.0.0.1:2":           "more than one",
		"unix:":                             "has no file name",
		"unix:/" + strings.Repeat("x", 200): "at most 103",
		"":                                  "host:port",
	} {
		if a, err := config.ParseAddress(in, "/base"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v, want %q", in, a, err, want)
		}
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	with := func(name, value string) *config.Config { return load(t, options(t, "", name+"="+value)) }
	for in, want := range map[string]time.Duration{
		"300s": 5 * time.Minute, "5m": 5 * time.Minute, "300": 5 * time.Minute, " 1h30m ": 90 * time.Minute, "1.5s": 1500 * time.Millisecond,
	} {
		if c := with("AGENTED_REQUEST_TIMEOUT", in); c.RequestTimeout != want {
			t.Errorf("%q: %v", in, c.RequestTimeout)
		}
	}
	if c := with("AGENTED_SHUTDOWN_TIMEOUT", "0"); c.Shutdown != 0 {
		t.Error(c.Shutdown)
	}
	for in, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "INFO": slog.LevelInfo, "Warning": slog.LevelWarn, "warn": slog.LevelWarn, "ERROR": slog.LevelError, "critical": config.LevelCritical,
	} {
		if c := with("LOG_LEVEL", in); c.LogLevel != want {
			t.Errorf("%q: %v", in, c.LogLevel)
		}
	}
	if c := with("LOG_FORMAT", "JSON"); c.LogFormat != "json" {
		t.Error(c.LogFormat)
	}
	for in, want := range map[string]string{"stdout": "stdout", "STDERR": "stderr", "off": "off", "/var/log/a": "/var/log/a"} {
		if c := with("AGENTED_ACCESS_LOG", in); c.AccessLog != want {
			t.Errorf("%q: %v", in, c.AccessLog)
		}
	}
	if c := with("CORS_ALLOWED_ORIGINS", " https://A.example.org/ ,, http://localhost:3000,http://[::1]:8080"); strings.Join(c.CORSAllowedOrigins, " ") != "https://a.example.org http://localhost:3000 http://[::1]:8080" {
		t.Error(c.CORSAllowedOrigins)
	}
	if c := with("AGENTED_ALLOWED_HOSTS", "A.example.org, b.,10.0.0.1,[::1]"); strings.Join(c.AllowedHosts, " ") != "a.example.org b 10.0.0.1 ::1" {
		t.Error(c.AllowedHosts)
	}
	for in, want := range map[string]string{"Europe/Berlin": "Europe/Berlin", ":Asia/Seoul": "Asia/Seoul", "UTC": "UTC"} {
		if c := with("TZ", in); c.Zone.String() != want {
			t.Errorf("%q: %v", in, c.Zone)
		}
	}
	if c := with("SSE_REPLAY_LIMIT", "0"); c.SSEReplayLimit != 0 {
		t.Error(c.SSEReplayLimit)
	}
	if c := with("AGENTED_MAX_CONCURRENT", "3"); c.MaxConcurrent != 3 {
		t.Error(c.MaxConcurrent)
	}
	if c := with("AGENTED_API_KEY", "пароль-из-букв-16"); !c.APIKey.IsSet() {
		t.Error("characters are not bytes")
	}
}

func TestLoad_origins_and_hosts(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"CORS_ALLOWED_ORIGINS=*", "CORS_ALLOWED_ORIGINS=null", "CORS_ALLOWED_ORIGINS=example.org", "CORS_ALLOWED_ORIGINS=https://*.example.org",
		"CORS_ALLOWED_ORIGINS=https://a.example.org/path", "CORS_ALLOWED_ORIGINS=https://u@a.example.org", "CORS_ALLOWED_ORIGINS=ftp://a",
		"AGENTED_ALLOWED_HOSTS=*", "AGENTED_ALLOWED_HOSTS=*.example.org", "AGENTED_ALLOWED_HOSTS=a.example.org:80", "AGENTED_ALLOWED_HOSTS=a/b",
	} {
		if _, err := config.Load(options(t, "", bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestLoad_TLS_pair(t *testing.T) {
	t.Parallel()
	o := options(t, "", "AGENTED_TLS_CERT=c.pem", "AGENTED_TLS_KEY=k.pem")
	if _, err := config.Load(o); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	write(t, filepath.Join(o.Dir, "c.pem"), "not a certificate")
	write(t, filepath.Join(o.Dir, "k.pem"), "private-and-damaged")
	if _, err := config.Load(o); err == nil || !strings.Contains(err.Error(), "PEM") || strings.Contains(err.Error(), "private-and-damaged") {
		t.Error(err)
	}
	if _, err := config.Load(options(t, "", "AGENTED_TLS_KEY=k.pem")); err == nil || !strings.Contains(err.Error(), "AGENTED_TLS_CERT") {
		t.Error(err)
	}
}

func TestDefaultMaxConcurrent(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		cpus   int
		memory uint64
		want   int
	}{
		{1, 512 << 20, 2}, {2, 4 << 30, 4}, {2, 3 << 30, 3}, {4, 8<<30 - 1, 7}, {8, 64 << 30, 16}, {64, 16 << 30, 16}, {4, 0, 8}, {0, 0, 2}, {-1, 1 << 40, 2},
	} {
		if got := config.DefaultMaxConcurrent(tc.cpus, tc.memory); got != tc.want {
			t.Errorf("%d CPUs, %d bytes: %d, want %d", tc.cpus, tc.memory, got, tc.want)
		}
	}
}

func TestDefaultMaxConnections(t *testing.T) {
	t.Parallel()
	for limit, want := range map[uint64]int{0: 64, 100: 64, 256: 64, 300: 64, 1024: 576, 4096: 2880, 65536: 16384, 1 << 63: 16384, ^uint64(0): 16384} {
		if got := config.DefaultMaxConnections(limit); got != want {
			t.Errorf("%d: %d, want %d", limit, got, want)
		}
	}
}

func TestThisMachine(t *testing.T) {
	t.Parallel()
	m := config.ThisMachine()
	if m.CPUs < 1 || m.MemoryBytes < 64<<20 || m.Descriptors < 64 {
		t.Errorf("%+v", m)
	}
}
