package main

import (
	"github.com/agented/agented"
	"github.com/agented/agented/internal/app"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/serverlog"
)

// checkStart returns every problem that would keep a server with these settings from starting.
// `config check` prints them; `serve` refuses to start.
func checkStart(c *config.Config) []agented.Field {
	return append(app.Check(c), serverlog.Check(c)...)
}
