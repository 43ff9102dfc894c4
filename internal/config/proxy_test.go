package config_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/agented/agented/internal/config"
)

func TestTrustsProxy(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]map[string]bool{
		"":                          {"127.0.0.1": true, "::1": true, "10.0.0.1": false, "": true},
		"10.0.0.0/8":                {"127.0.0.1": true, "10.1.2.3": true, "11.0.0.1": false},
		"127.0.0.2, ::ffff:1.2.3.4": {"127.0.0.1": false, "127.0.0.2": true, "1.2.3.4": true, "::1": false},
		"none":                      {"127.0.0.1": false, "": false},
		"fd00::/8,172.17.0.1":       {"fd00::1": true, "172.17.0.1": true, "172.17.0.2": false},
	} {
		c := load(t, options(t, "", "AGENTED_TRUSTED_PROXIES="+setting))
		for text, trusted := range want {
			ip, _ := netip.ParseAddr(text)
			if got := c.TrustsProxy(ip); got != trusted {
				t.Errorf("%q trusts %q: %t", setting, text, got)
			}
		}
	}
	for _, bad := range []string{"*", "0.0.0.0/0", "::/0", "proxy.example.org", "10.0.0.0/33", "10.0.0.1:80"} {
		if _, err := config.Load(options(t, "", "AGENTED_TRUSTED_PROXIES="+bad)); err == nil || !strings.Contains(err.Error(), "AGENTED_TRUSTED_PROXIES") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestLoad_base_path(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "/": "", "/agented": "/agented", "/a/b_c.d~e-f/": "/a/b_c.d~e-f"} {
		if c := load(t, options(t, "", "AGENTED_BASE_PATH="+text)); c.BasePath != want {
			t.Errorf("%q: %q", text, c.BasePath)
		}
	}
	for _, bad := range []string{"agented", "https://x.example/agented", "//x", "/a//b", "/a/../b", "/a b", "/a?b", "/api", "/hooks/x", "/ä", `/a"b`} {
		if _, err := config.Load(options(t, "", "AGENTED_BASE_PATH="+bad)); err == nil || !strings.Contains(err.Error(), "AGENTED_BASE_PATH") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
