package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/service"
)

func serviceCommand() *cobra.Command {
	c := group("service", "Let systemd or launchd run the server",
		serviceInstallCommand(), serviceUninstallCommand(), serviceStatusCommand())
	c.GroupID = "server"
	return c
}

func serviceInstallCommand() *cobra.Command {
	cmd := serviceFlags(&cobra.Command{
		Use: "install", Short: "Install and start the server as a service", Args: exactArgs(),
		Long: `Install the server as a service that starts with the machine, comes back after a
crash and refuses no connection while it restarts: systemd on Linux, launchd on
macOS. As root it is a service of the machine, under an account of its own; with
--user it is one of yours. Running agents live on through restart, stop and crash.

It may be run again, for example after an upgrade. A settings file that is there
stays as it is. --env-file names another than the usual one.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := installer(cmd)
			if err != nil {
				return err
			}
			return in.Install(cmd.Context())
		},
	})
	cmd.Flags().Bool("socket", false, "systemd listens itself, in a unit of its own: for ports below 1024")
	cmd.Flags().String("account", "", "run as this account (default agented; on macOS the one that calls sudo)")
	cmd.Flags().Bool("dry-run", false, "print what would be done, and change nothing")
	return cmd
}

func serviceUninstallCommand() *cobra.Command {
	cmd := serviceFlags(&cobra.Command{
		Use: "uninstall", Short: "Stop the service and remove it; data and settings stay", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := installer(cmd)
			if err != nil {
				return err
			}
			return in.Uninstall(cmd.Context())
		},
	})
	cmd.Flags().Bool("dry-run", false, "print what would be done, and change nothing")
	return cmd
}

func serviceStatusCommand() *cobra.Command {
	return serviceFlags(&cobra.Command{
		Use: "status", Short: "Say how the service does, and where its log is", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := installer(cmd)
			if err != nil {
				return err
			}
			return in.Status(cmd.Context())
		},
	})
}

func serviceFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("user", false, "the service of this user, without root")
	return cmd
}

// installer works out the service that the flags and this machine ask for.
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
		return in, agented.Errorf(agented.Invalid, "no service manager is known for %s", runtime.GOOS)
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
	if file, _ := cmd.Flags().GetString("env-file"); file != "" {
		if in.Spec.EnvFile, err = filepath.Abs(file); err != nil {
			return in, err
		}
	}
	if _, err := os.Stat(in.Spec.EnvFile); err != nil {
		return in, nil // not there yet: the defaults count
	}
	// As the service will read it: without the environment of this shell.
	c, err := config.Load(config.Options{EnvFile: in.Spec.EnvFile, Environ: func() []string {
		return []string{"HOME=" + in.Spec.Home}
	}})
	if err != nil {
		return in, err
	}
	in.Spec.Drain, in.Spec.DataDir, in.Spec.Listen = c.Shutdown, c.DataDir, c.Bind.String()
	return in, nil
}

// account sets whom a service of the machine runs as.
func account(cmd *cobra.Command, s *service.Spec) error {
	name := ""
	if f := cmd.Flags().Lookup("account"); f != nil {
		name = f.Value.String()
	}
	if s.Manager == service.Launchd {
		if name == "" {
			name = os.Getenv("SUDO_USER")
		}
		if name == "" {
			return agented.Errorf(agented.Invalid, "whom shall the server run as? Use sudo from that account, or --account NAME")
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
