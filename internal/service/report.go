package service

import (
	"strconv"
	"strings"
)

// Report describes for scripts what an Installer did or found.
type Report struct {
	Service  string   `json:"service"` // which one, in words
	DryRun   bool     `json:"dry_run"`
	Steps    []string `json:"steps"`             // what was done, or would be
	State    string   `json:"state,omitempty"`   // as the service manager names it, such as active
	AtBoot   string   `json:"at_boot,omitempty"` // enabled, disabled and so on; of systemd only
	PID      int      `json:"pid,omitempty"`
	Restarts int      `json:"restarts,omitempty"` // by systemd
	Settings string   `json:"settings"`           // the settings file
	Log      string   `json:"log"`                // the command that shows the log
}

// begin sets the fields that are known before the first step.
func (r *Report) begin(in *Installer) {
	if r != nil {
		r.Service, r.DryRun, r.Settings, r.Log = in.Spec.String(), in.DryRun, in.Spec.EnvFile, in.logs()
		if r.Steps == nil {
			r.Steps = []string{}
		}
	}
}

func (r *Report) did(step string) {
	if r != nil {
		r.Steps = append(r.Steps, step)
	}
}

// systemd notes the properties of a unit.
func (r *Report) systemd(p map[string]string) {
	if r != nil {
		r.State, r.AtBoot = p["ActiveState"], p["UnitFileState"]
		r.PID, _ = strconv.Atoi(p["MainPID"])
		r.Restarts, _ = strconv.Atoi(p["NRestarts"])
	}
}

// launchd notes a line of a job's description, such as "pid = 123".
func (r *Report) launchd(line string) {
	name, value, _ := strings.Cut(line, " = ")
	switch {
	case r == nil:
	case name == "state":
		r.State = value
	case name == "pid":
		r.PID, _ = strconv.Atoi(value)
	}
}
