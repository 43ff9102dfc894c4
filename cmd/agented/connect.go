package main

import (
	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/discovery"
)

// connect returns a client of the server that the settings name, or of the server on this
// machine.
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

// dial returns the client for the settings, without sending a request.
func dial(c *config.Config) (*client.Client, error) {
	s, err := discovery.Find(c)
	if err != nil {
		return nil, err
	}
	return s.Client()
}
