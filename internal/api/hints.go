package api

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// HintView is a problem that keeps a valid trigger from firing.
type HintView struct {
	Field string `json:"field" doc:"Field that it is about, such as webhooks.0"`
	Text  string `json:"text" doc:"The problem"`
	Fix   string `json:"fix" doc:"The fix, with the command"`
}

// triggerHints lists the problems that keep a valid trigger from firing.
func triggerHints(c *config.Config, t *agented.Trigger) []HintView {
	if c.GitHubWebhookSecret.Reveal() != "" {
		return nil
	}
	var out []HintView
	for i, w := range t.Webhooks {
		if w.Source == agented.SourceGitHub && w.Enabled && w.Secret == "" {
			out = append(out, HintView{
				Field: fmt.Sprintf("webhooks.%d", i),
				Text:  "calls from GitHub are refused, because the server has no secret for them",
				Fix:   makeGitHubSecret(c.DotenvPath()) + ", then enter the same secret in the webhook's settings at GitHub",
			})
		}
	}
	return out
}

// makeGitHubSecret is the command that creates the secret of GitHub's webhooks in the
// server's .env file, which need not exist yet.
func makeGitHubSecret(dotenv string) string {
	if dotenv == "" {
		dotenv = ".env"
		if dir, err := os.Getwd(); err == nil {
			dotenv = filepath.Join(dir, dotenv)
		}
	}
	if strings.ContainsAny(dotenv, " \t'\"\\$`*?;&|<>()#~!") {
		dotenv = "'" + strings.ReplaceAll(dotenv, "'", `'\''`) + "'"
	}
	return `run echo "GITHUB_WEBHOOK_SECRET=$(openssl rand -hex 32)" >> ` + dotenv + " && agented reload"
}
