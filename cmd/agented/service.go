package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/service"
	"github.com/agented/agented/internal/term"
)

func serviceCommand() *cobra.Command {
	c := group("service", "Run the server as a systemd or launchd service",
		serviceInstallCommand(), serviceUninstallCommand(), serviceStatusCommand())
	c.GroupID = "server"
	return c
}

func serviceInstallCommand() *cobra.Command {
	cmd := serviceFlags(&cobra.Command{
		Use: "install", Short: "Install and start the server as a service", Args: exactArgs(),
		Long: `Install the server as a service that starts with the machine, restarts after a crash
and refuses no connection during a restart: systemd on Linux, launchd on macOS. As root
it is a system service that runs as an account of its own; with --user it is a service
of your user. Running agents survive restarts, stops and crashes of the service.

You can repeat the command, for example after an upgrade. An existing settings file
is not changed. --env-file selects another settings file.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := installer(cmd)
			if err != nil {
				return err
			}
			return serviceDo(cmd, in, service.Installer.Install)
		},
	})
	cmd.Flags().Bool("socket", false, "let systemd listen with a socket unit, which allows ports below 1024")
	cmd.Flags().String("account", "", "account of the service (default agented; on macOS the account that runs sudo)")
	cmd.Flags().String("umask", "0077", "umask of the server and its agents, for example 0027 to let the group read files that agents write")
	cmd.Flags().Bool("dry-run", false, "print the changes without making them")
	return cmd
}

func serviceUninstallCommand() *cobra.Command {
	cmd := serviceFlags(&cobra.Command{
		Use: "uninstall", Short: "Stop and remove the service; data and settings are kept", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := installer(cmd)
			if err != nil {
				return err
			}
			return serviceDo(cmd, in, service.Installer.Uninstall)
		},
	})
	cmd.Flags().Bool("dry-run", false, "print the changes without making them")
	return cmd
}

func serviceStatusCommand() *cobra.Command {
	return serviceFlags(&cobra.Command{
		Use: "status", Short: "Show the state of the service and the location of its log", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := installer(cmd)
			if err != nil {
				return err
			}
			return serviceDo(cmd, in, service.Installer.Status)
		},
	})
}

func serviceFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("user", false, "manage the service of this user, without root")
	return jsonFlag(cmd)
}

// serviceDo runs an action on the service and prints its result. With --json it prints
// one object, also after an error: the object lists the completed steps.
func serviceDo(cmd *cobra.Command, in service.Installer, do func(service.Installer, context.Context) error) error {
	if !wantJSON(cmd) {
		return do(in, cmd.Context())
	}
	in.Out, in.Report = io.Discard, new(service.Report)
	err := do(in, cmd.Context())
	if printErr := term.PrintJSON(os.Stdout, in.Report); err == nil {
		err = printErr
	}
	return err
}

// installer derives the service from the flags and this machine.
func installer(cmd *cobra.Command) (service.Installer, error) {
	in := service.Installer{Out: os.Stdout}
	in.DryRun, _ = cmd.Flags().GetBool("dry-run")
	perUser, _ := cmd.Flags().GetBool("user")
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return in, err
	}
	in.Source = exe
	manager := service.Systemd
	switch runtime.GOOS {
	case "darwin":
		manager = service.Launchd
	case "linux":
	default:
		return in, agented.Errorf(agented.Invalid, "services are not supported on %s: use `agented serve --supervise`", runtime.GOOS)
	}
	in.Spec = service.System(manager)
	if perUser {
		home, err := os.UserHomeDir()
		if err != nil {
			return in, err
		}
		in.Spec = service.User(manager, home, exe)
	} else if err := account(cmd, &in.Spec); err != nil {
		return in, err
	}
	in.Spec.Socket, _ = cmd.Flags().GetBool("socket")
	if f := cmd.Flags().Lookup("umask"); f != nil {
		mask, err := strconv.ParseUint(f.Value.String(), 8, 16)
		if err != nil || mask > 0o777 {
			return in, agented.Errorf(agented.Invalid, "--umask must be an octal number from 0000 to 0777, for example 0027")
		}
		in.Spec.UMask = int(mask)
		findCLIs(&in.Spec)
	}
	if file, _ := cmd.Flags().GetString("env-file"); file != "" {
		if in.Spec.EnvFile, err = filepath.Abs(file); err != nil {
			return in, err
		}
	}
	if _, err := os.Stat(in.Spec.EnvFile); err != nil {
		return in, nil // not installed yet: use the defaults
	}
	// Read the settings as the service will, without the environment of this shell.
	c, err := config.Load(config.Options{EnvFile: in.Spec.EnvFile, Environ: func() []string {
		return []string{"HOME=" + in.Spec.Home}
	}})
	if err != nil {
		return in, err
	}
	in.Spec.Drain, in.Spec.DataDir, in.Spec.Listen = c.Shutdown, c.DataDir, c.Bind.String()
	return in, nil
}

// account sets the account that a system service runs as.
func account(cmd *cobra.Command, s *service.Spec) error {
	name := ""
	if f := cmd.Flags().Lookup("account"); f != nil {
		name = f.Value.String()
	}
	if s.Manager == service.Launchd {
		if name == "" {
			name = config.SudoUser()
		}
		if name == "" {
			return agented.Errorf(agented.Invalid, "the account of the service is unknown: run sudo from that account, or use --account NAME")
		}
		s.Account, s.Home = name, filepath.Join("/Users", name)
		s.DataDir = filepath.Join(s.Home, ".local/share/agented")
		return nil
	}
	if name != "" {
		s.Account = name
	}
	return nil
}

// findCLIs adds the folders of the agent CLIs that this shell finds to the PATH of the service,
// and warns about CLIs that the service cannot use.
func findCLIs(s *service.Spec) {
	for _, b := range registry.All() {
		path, err := exec.LookPath(b.Program())
		if b.Program() == "" || err != nil {
			continue
		}
		dir := filepath.Dir(path)
		switch {
		case !filepath.IsAbs(dir) || s.Finds(dir):
		case s.PerUser && !strings.ContainsAny(dir, " \t\"'\\%$;#:"):
			s.CLIDirs = append(s.CLIDirs, dir)
		default:
			fmt.Fprintf(os.Stderr, "agented: the service will not find %s, which is at %s: install it for all users, or set PATH in a drop-in file\n", b.Program(), path)
		}
	}
}
