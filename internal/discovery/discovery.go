// Package discovery finds the server and the API key that a command uses.
package discovery

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
)

// defaultServer is the address of a server that runs with default settings.
const defaultServer = "http://127.0.0.1:20000"

// maxKeyFile is the maximum size of a key file, in bytes.
const maxKeyFile = 4 << 10

// Server is a server address with the API key for it.
type Server struct {
	Address string // in the form that client.New accepts
	Key     string
	KeyFrom string // description of the key's source
	Socket  string // path of the local socket, used instead of a key; empty: none
}

// Client returns the client of the server, without sending a request.
func (s Server) Client() (*client.Client, error) {
	if s.Socket != "" {
		return client.NewLocal(s.Socket, s.Address), nil
	}
	return client.New(s.Address, s.Key)
}

// Find returns the address and the API key or the local socket to use. The local socket, and the
// key file of a server without one, are used for the server on this machine only: AGENTED_URL may
// name another server.
func Find(c *config.Config) (Server, error) {
	if insideExecution(c) {
		return serverForExecution(c)
	}
	rt, rtErr := FindRuntime(c)
	if rtErr != nil && agented.KindOf(rtErr) != agented.NotFound && c.URL == "" {
		return Server{}, rtErr
	}
	haveRuntime := rtErr == nil && rt.Address != ""
	named := c.Origin("AGENTED_DATA_DIR").Kind != "default"

	f := Server{Address: c.URL}
	own := haveRuntime && (c.URL == "" || SameServer(c.URL, rt.Address))
	switch {
	case own:
		f.Address = rt.Address
	case c.URL == "" && named && !keyWithoutServer(c):
		return Server{}, agented.Errorf(agented.Unavailable,
			"no server is running on %s, the AGENTED_DATA_DIR of the %s: start it with `agented serve`, or unset AGENTED_DATA_DIR to use the server of this user",
			c.DataDir, c.Origin("AGENTED_DATA_DIR"))
	case c.URL == "":
		f.Address = defaultServer
	}

	if c.APIKey.IsSet() {
		url, key := c.Origin("AGENTED_URL"), c.Origin("AGENTED_API_KEY")
		if c.URL != "" && url.Kind == "environment" && key.Kind == "dotenv" && !own && !local(c.URL) {
			return Server{}, agented.Errorf(agented.Unauthenticated,
				"AGENTED_URL is set in the environment, but AGENTED_API_KEY comes from %s and may belong to another server: set AGENTED_API_KEY in the environment too", key)
		}
		f.Key, f.KeyFrom = c.APIKey.Reveal(), "AGENTED_API_KEY ("+key.String()+")"
		return f, nil
	}

	file := ""
	switch {
	case own && rt.Socket != "":
		f.Socket = rt.Socket
		return f, nil
	case own:
		file = rt.KeyFile
	case !haveRuntime && SameServer(f.Address, defaultServer) && c.DataDir != "":
		layout := agented.Layout{Root: c.DataDir}
		if info, err := os.Lstat(layout.Socket()); err == nil && info.Mode().Type() == os.ModeSocket {
			f.Socket = layout.Socket()
			return f, nil
		}
		file = layout.CLIKey()
	default:
		return Server{}, agented.Errorf(agented.Unauthenticated,
			"there is no API key for %s: create one on that server with `agented key create NAME`, and set AGENTED_API_KEY to it", Redacted(f.Address))
	}
	key, err := readKeyFile(file)
	if err != nil {
		if !own && os.IsNotExist(err) {
			return Server{}, agented.Errorf(agented.Unavailable,
				"no server has been started by this user: run `agented serve`, or set AGENTED_URL and AGENTED_API_KEY")
		}
		return Server{}, agented.Errorf(agented.Unauthenticated,
			"the key of the server at %s cannot be read (%v): run the command as the user of the server, or set AGENTED_API_KEY", Redacted(f.Address), err)
	}
	f.Key, f.KeyFrom = key, file
	return f, nil
}

// keyWithoutServer reports whether the data folder contains a key for clients although no server
// has ever locked the folder, for example because the key was copied there.
func keyWithoutServer(c *config.Config) bool {
	l := agented.Layout{Root: c.DataDir}
	_, noKey := os.Lstat(l.CLIKey())
	_, noLock := os.Lstat(l.ServerLock())
	return noKey == nil && os.IsNotExist(noLock)
}

// readKeyFile reads a file that contains one key. Its errors do not contain the content of the
// file.
func readKeyFile(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return "", fmt.Errorf("%s is not a key file", path)
	case info.Mode().Perm()&0o002 != 0:
		return "", fmt.Errorf("%s is writable by every user (mode %04o): run chmod 600 on it", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	if key == "" || strings.ContainsAny(key, "\r\n\x00") {
		return "", fmt.Errorf("%s does not contain exactly one key: delete it and restart the server, which creates it again", path)
	}
	return key, nil
}

// SameServer reports whether two addresses name the same server. It ignores the case of the host
// and a default port, and treats localhost as a loopback address.
func SameServer(a, b string) bool { return canonical(a) == canonical(b) }

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

// Redacted returns an address without its password.
func Redacted(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil {
		return u.Redacted()
	}
	return address
}
