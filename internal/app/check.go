package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// Check returns the problems that would keep a server with these settings from starting, one
// field per setting. It changes nothing and can be called while a server is running. config.Load
// has already validated the values themselves.
func Check(c *config.Config) []agented.Field {
	var bad []agented.Field
	no := func(name string, err error) {
		if err != nil {
			bad = append(bad, agented.Field{Path: name, Text: strings.TrimPrefix(agented.Message(err), name+": ")})
		}
	}
	_, err := agentcli.ReadPrices(c.PricesFile)
	no("AGENTED_PRICES", err)
	_, err = backup.CheckSchedule(c.BackupSchedule)
	no("AGENTED_BACKUP_SCHEDULE", err)
	if c.BackupDir != "" && c.BackupPassphrase != "" {
		_, err = backup.ReadPassphrase(c.BackupPassphrase)
		no("AGENTED_BACKUP_PASSPHRASE_FILE", err)
	}
	if c.TLSCert != "" {
		_, err = readCertificate(c.TLSCert, c.TLSKey)
		no("AGENTED_TLS_CERT", err)
	}
	_, err = secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: agented.Layout{Root: c.DataDir}.SecretKey(), ReadOnly: true,
	})
	if !errors.Is(err, agented.NotFound) { // the first start creates it
		no("SECRET_KEY", err)
	}
	if _, err := github.New(githubOptions(c)); c.GitHubSet() {
		no("GITHUB_APP_ID", err)
	}
	no("AGENTED_DATA_DIR", writable(c.DataDir, "AGENTED_DATA_DIR"))
	if err := store.CheckUpgradable(c.DBPath); err != nil {
		no("AGENTED_DB_PATH", err)
	} else {
		no("AGENTED_DB_PATH", usable(c.DBPath))
	}
	switch c.AccessLog {
	case "stdout", "stderr", "off", "":
	default:
		no("AGENTED_ACCESS_LOG", writable(filepath.Dir(c.AccessLog), "AGENTED_ACCESS_LOG"))
		if info, err := os.Stat(c.AccessLog); err == nil && info.IsDir() {
			no("AGENTED_ACCESS_LOG", agented.Errorf(agented.Invalid, "%s is a folder: set it to a file in that folder, or to off", c.AccessLog))
		}
	}
	return bad
}

// writable returns an error unless the folder or its nearest existing ancestor is writable.
func writable(dir, name string) error {
	for {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist) && dir != filepath.Dir(dir):
			dir = filepath.Dir(dir)
			continue
		case err != nil:
			return agented.Errorf(agented.Invalid, "the folder %s cannot be accessed: check its permissions, or set %s to another path", dir, name).Because(err)
		case !info.IsDir():
			return agented.Errorf(agented.Invalid, "%s is not a folder: set %s to another path", dir, name)
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return agented.Errorf(agented.Invalid, "the folder %s is not writable: give the server's user write access, or set %s to another path", dir, name).Because(err)
		}
		return nil
	}
}

// usable returns an error unless this user can open the database.
func usable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return writable(filepath.Dir(path), "AGENTED_DB_PATH")
	case err != nil:
		return agented.Errorf(agented.Invalid, "the database %s cannot be accessed: check the permissions of its folder", path).Because(err)
	case !info.Mode().IsRegular():
		return agented.Errorf(agented.Invalid, "the database %s is not a file: set AGENTED_DB_PATH to another path", path)
	case unix.Access(path, unix.R_OK|unix.W_OK) != nil:
		return agented.Errorf(agented.Invalid, "the database %s is not writable: make the server's user its owner", path)
	}
	return nil
}
