package discovery

import (
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
)

// FindRuntime locates a server of this user. If AGENTED_DATA_DIR is set, it is the server on that
// data folder. Otherwise it is the server on the default data folder, or the one that the user's
// runtime file describes.
func FindRuntime(c *config.Config) (client.Runtime, error) {
	origin := c.Origin("AGENTED_DATA_DIR")
	named := origin.Kind != "default"
	var all []client.Runtime
	var firstErr error
	note := func(err error) {
		if firstErr == nil || agented.KindOf(firstErr) == agented.NotFound && agented.KindOf(err) != agented.NotFound {
			firstErr = err
		}
	}
	if c.DataDir != "" {
		layout := agented.Layout{Root: c.DataDir}
		rt, err := client.ReadRuntime(layout.Runtime())
		// A key is used only for the server on the key's own data folder.
		rt.DataDir, rt.KeyFile = c.DataDir, layout.CLIKey()
		switch {
		case err != nil && named:
			note(err)
		case err != nil || !named && !rt.Alive():
		default:
			if origin.Kind == "dotenv" {
				if err := private(layout); err != nil {
					return client.Runtime{}, agented.Errorf(agented.Invalid, "AGENTED_DATA_DIR (%s) is ignored: %v; set it in the environment to use it", origin, err)
				}
			}
			all = append(all, rt)
		}
	}
	for _, dir := range slices.Compact([]string{c.XDGRuntimeDir, ""}) {
		if dir == "" && c.Home == "" {
			continue
		}
		rt, err := client.ReadRuntime(client.RuntimeFile(dir, c.Home))
		if err != nil {
			note(err)
			continue
		}
		if !named || rt.DataDir == "" || rt.DataDir == c.DataDir {
			all = append(all, rt)
		}
	}
	if c.URL != "" {
		if i := slices.IndexFunc(all, func(rt client.Runtime) bool { return SameServer(c.URL, rt.Address) }); i >= 0 {
			return all[i], nil
		}
	}
	if len(all) > 0 {
		return all[0], nil
	}
	if firstErr == nil {
		firstErr = agented.Errorf(agented.NotFound, "no server has been started by this user: run `agented serve`, or set AGENTED_URL")
	}
	return client.Runtime{}, firstErr
}

// private checks that a server created the data folder that a .env file names. A .env file in a
// checkout could otherwise name a folder of the checkout, and with it the address that a key is
// sent to.
func private(l agented.Layout) error {
	info, err := os.Lstat(l.Root)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || ok && os.Geteuid() != 0 && int(stat.Uid) != os.Geteuid() {
		return agented.Errorf(agented.Invalid, "%s is not a folder of this user with mode 0700: change its owner and mode, or set AGENTED_DATA_DIR to another folder", l.Root)
	}
	if info, err := os.Lstat(l.CLIKey()); err == nil && !info.Mode().IsRegular() {
		return agented.Errorf(agented.Invalid, "%s is not a regular file: remove it, and restart the server, which writes it again", l.CLIKey())
	}
	return nil
}

// executionMarks are the variables that only the environment of an execution contains.
var executionMarks = []string{agented.EnvExecution, agented.EnvAttempt, agented.EnvTrigger}

// insideExecution reports whether this process belongs to an execution: its environment contains
// the variables or the token of one.
func insideExecution(c *config.Config) bool {
	for _, name := range executionMarks {
		if v, _ := c.Variable(name); v != "" {
			return true
		}
	}
	return strings.HasPrefix(c.APIKey.Reveal(), agented.TokenPrefix)
}

// serverForExecution is Find inside an execution. An agent runs as the server's user and
// could read the files that contain an admin's key, so only an address and a key from the
// environment are used.
func serverForExecution(c *config.Config) (Server, error) {
	url, key := c.Origin("AGENTED_URL"), c.Origin("AGENTED_API_KEY")
	if c.URL == "" || url.Kind != "environment" || !c.APIKey.IsSet() || key.Kind != "environment" || key.As != "" {
		return Server{}, agented.Errorf(agented.Unauthenticated,
			"this command runs inside an execution, where the runtime file and the key files of the server's user are not used: set AGENTED_URL and AGENTED_API_KEY in the environment of the command (an agent on the message bus has both)")
	}
	return Server{Address: c.URL, Key: c.APIKey.Reveal(), KeyFrom: "AGENTED_API_KEY (" + key.String() + ")"}, nil
}
