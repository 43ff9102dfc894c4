package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
)

// defaultServer is where a server is that was started without settings.
const defaultServer = "http://127.0.0.1:20000"

// maxKeyFile bounds what is read from a file that should hold a key.
const maxKeyFile = 4 << 10

// connect returns a client of the server that the settings name, else of the
// one on this machine.
func connect(cmd *cobra.Command) (*client.Client, error) {
	c, err := clientConfig(cmd)
	if err != nil {
		return nil, err
	}
	warn(c.Warnings)
	return dial(c)
}

// clientConfig reads the settings of client commands.
func clientConfig(cmd *cobra.Command) (*config.Config, error) {
	file, _ := cmd.Flags().GetString("env-file")
	return config.Load(config.Options{Client: true, EnvFile: file})
}

// dial returns the client for the settings. Nothing is sent yet.
func dial(c *config.Config) (*client.Client, error) {
	s, err := findServer(c)
	if err != nil {
		return nil, err
	}
	return client.New(s.address, s.key)
}

// found is the server that a command talks to, and with which key.
type found struct {
	address string // as client.New takes it
	key     string
	keyFrom string // for people
}

// findServer decides where requests go and which key goes with them. A key that
// a server left on this machine goes to that server only: with AGENTED_URL
// somebody may have named another one, and it would be an admin's key that this
// other one learns.
func findServer(c *config.Config) (found, error) {
	rt, rtErr := findRuntime(c)
	if rtErr != nil && agented.KindOf(rtErr) != agented.NotFound && c.URL == "" {
		return found{}, rtErr
	}
	haveRuntime := rtErr == nil && rt.Address != ""

	f := found{address: c.URL}
	own := haveRuntime && (c.URL == "" || sameServer(c.URL, rt.Address))
	if own {
		f.address = rt.Address
	} else if c.URL == "" {
		f.address = defaultServer
	}

	if c.APIKey.IsSet() {
		url, key := c.Origin("AGENTED_URL"), c.Origin("AGENTED_API_KEY")
		if c.URL != "" && url.Kind == "environment" && key.Kind == "dotenv" && !own && !local(c.URL) {
			return found{}, agented.Errorf(agented.Unauthenticated,
				"AGENTED_URL is set in the environment, but AGENTED_API_KEY comes from %s and may belong to another server: set AGENTED_API_KEY in the environment too", key)
		}
		f.key, f.keyFrom = c.APIKey.Reveal(), "AGENTED_API_KEY ("+key.String()+")"
		return f, nil
	}

	file := ""
	switch {
	case own:
		file = rt.KeyFile
	case !haveRuntime && sameServer(f.address, defaultServer) && c.DataDir != "":
		file = agented.Layout{Root: c.DataDir}.CLIKey()
	default:
		return found{}, agented.Errorf(agented.Unauthenticated,
			"there is no API key for %s: set AGENTED_API_KEY to one (`agented key create NAME` on that server makes it)", shown(f.address))
	}
	key, err := readKeyFile(file)
	if err != nil {
		if !own && os.IsNotExist(err) {
			return found{}, agented.Errorf(agented.Unavailable,
				"no server has been started by this user: run `agented serve`, or set AGENTED_URL and AGENTED_API_KEY")
		}
		return found{}, agented.Errorf(agented.Unauthenticated,
			"the key of the server at %s cannot be read (%v): run this as the user of the server, or set AGENTED_API_KEY", shown(f.address), err)
	}
	f.key, f.keyFrom = key, file
	return f, nil
}

// findRuntime reads what the server of this user has left for its clients. A
// server without a login session, as a service has none, leaves it below HOME.
func findRuntime(c *config.Config) (client.Runtime, error) {
	rt, err := client.ReadRuntime(client.RuntimeFile(c.XDGRuntimeDir, c.Home))
	if c.XDGRuntimeDir != "" && c.Home != "" && agented.KindOf(err) == agented.NotFound {
		return client.ReadRuntime(client.RuntimeFile("", c.Home))
	}
	return rt, err
}

// readKeyFile reads a file that holds one key. Its errors do not repeat what
// the file holds.
func readKeyFile(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return "", fmt.Errorf("%s is not a file with a key", path)
	case info.Mode().Perm()&0o002 != 0:
		return "", fmt.Errorf("%s can be changed by every user (mode %04o)", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	if key == "" || strings.ContainsAny(key, "\r\n\x00") {
		return "", fmt.Errorf("%s does not hold one key; it is made again when the server starts without it", path)
	}
	return key, nil
}

// sameServer reports whether two addresses are written differently at most:
// the case of the host, a port that the scheme implies, localhost.
func sameServer(a, b string) bool { return canonical(a) == canonical(b) }

func canonical(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix:" + strings.TrimPrefix(path, "//")
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	host, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port) + strings.TrimSuffix(u.Path, "/")
}

// local reports whether requests to the address stay on this machine.
func local(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback() || strings.EqualFold(u.Hostname(), "localhost")
}

// shown is an address without the password that it may hold.
func shown(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil {
		return u.Redacted()
	}
	return address
}
