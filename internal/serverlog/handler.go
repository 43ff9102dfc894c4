package serverlog

import (
	"log/slog"
	"os"

	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/term"
)

// NewHandler returns the handler that writes the server's log to standard error.
func NewHandler(format string, level *slog.LevelVar) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if l, ok := a.Value.Any().(slog.Level); ok && a.Key == slog.LevelKey && l >= config.LevelCritical {
			a.Value = slog.StringValue("CRITICAL")
		}
		return a
	}}
	if format == "text" || format == "auto" && term.IsTerminal(os.Stderr) {
		return slog.NewTextHandler(os.Stderr, o)
	}
	return slog.NewJSONHandler(os.Stderr, o)
}
