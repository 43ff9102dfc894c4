package client

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/filelock"
)

// Runtime describes a server for the clients of the same user: its address and its local socket.
// It contains no secret.
type Runtime struct {
	Address string `json:"address"`            // base URL, or unix:/path
	Listens string `json:"listens,omitempty"`  // the same with the listen address, such as http://[::]:20000
	Socket  string `json:"socket,omitempty"`   // path of the local socket, on which no key is needed
	KeyFile string `json:"key_file,omitempty"` // written by servers without a local socket: file with an admin key
	DataDir string `json:"data_dir"`
	PID     int    `json:"pid"`
}

// RuntimeFile returns the path of this user's runtime file: in runtimeDir (the value of
// XDG_RUNTIME_DIR) if it is not empty, otherwise below home.
func RuntimeFile(runtimeDir, home string) string {
	if runtimeDir != "" {
		return filepath.Join(runtimeDir, "agented.json")
	}
	return filepath.Join(home, ".local", "state", "agented", "server.json")
}

// ReadRuntime reads a runtime file. A missing one is a NotFound.
func ReadRuntime(path string) (Runtime, error) {
	var r Runtime
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, agented.Errorf(agented.NotFound, "no server has been started by this user: run `agented serve`, or set AGENTED_URL")
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, agented.Errorf(agented.Invalid, "%s cannot be read (%v): remove it and restart the server", path, err)
	}
	return r, nil
}

// WriteRuntime replaces a runtime file atomically, with mode 0600.
func WriteRuntime(path string, r Runtime) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return disk.ReplaceFile(path, append(b, '\n'), 0o600)
}

// Alive reports whether the server that r describes is running, that is, holds the lock of its
// data folder. It returns false for a runtime file without a data folder.
func (r Runtime) Alive() bool {
	if r.DataDir == "" {
		return false
	}
	held, err := filelock.Held(agented.Layout{Root: r.DataDir}.ServerLock())
	return err == nil && held
}

// Publish writes r to its data folder and to the runtime file of this user. If that file
// describes a running server on another data folder, it stays unchanged and is returned as other.
func Publish(r Runtime, runtimeDir, home string) (other *Runtime, err error) {
	err = WriteRuntime(agented.Layout{Root: r.DataDir}.Runtime(), r)
	for _, path := range userFiles(runtimeDir, home) {
		if found, readErr := ReadRuntime(path); readErr == nil && found.DataDir != r.DataDir && found.Alive() {
			return &found, err
		}
	}
	return nil, errors.Join(err, WriteRuntime(RuntimeFile(runtimeDir, home), r))
}

// Withdraw removes the files that Publish wrote for r, and no others.
func Withdraw(r Runtime, runtimeDir, home string) error {
	var errs []error
	for _, path := range append(userFiles(runtimeDir, home), agented.Layout{Root: r.DataDir}.Runtime()) {
		if found, err := ReadRuntime(path); err != nil || found.DataDir != r.DataDir || found.PID != r.PID {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// userFiles lists the possible runtime files of this user: a server without a login session, such
// as a service, writes it below home.
func userFiles(runtimeDir, home string) []string {
	var paths []string
	if runtimeDir != "" {
		paths = append(paths, RuntimeFile(runtimeDir, home))
	}
	if home != "" {
		paths = append(paths, RuntimeFile("", home))
	}
	return paths
}
