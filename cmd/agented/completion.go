package main

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

// completionTime bounds how long a shell waits for names from the server.
const completionTime = time.Second

// completionItems is the maximum number of names offered to a shell.
const completionItems = 200

// roles are the values of --role.
var roles = []string{string(agented.RoleViewer), string(agented.RoleOperator), string(agented.RoleAdmin)}

// completions adds completions for arguments and flags to the commands below root.
type completions struct{ root *cobra.Command }

func (a completions) command(path ...string) *cobra.Command {
	c, _, err := a.root.Find(path)
	if err != nil || c.Name() != path[len(path)-1] {
		panic("no command " + strings.Join(path, " ")) // the path in this file is misspelt
	}
	return c
}

func (a completions) flag(c *cobra.Command, name string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(name, f); err != nil {
		panic(err) // the flag in this file is misspelt
	}
}

// addCompletions registers completions for arguments and flags of the commands below root.
func addCompletions(root *cobra.Command) {
	a := completions{root}
	a.forExecutions()
	a.forFirings()
	a.forAccounts()
	a.forAgents()
	a.forRun()
}

// forExecutions completes triggers and executions.
func (a completions) forExecutions() {
	for _, verb := range []string{"show", "run", "delete"} {
		a.command("trigger", verb).ValidArgsFunction = firstOnly(completeTriggers)
	}
	for _, verb := range []string{"show", "logs", "retry"} {
		a.command("execution", verb).ValidArgsFunction = firstOnly(completeExecutions(""))
	}
	a.command("execution", "cancel").ValidArgsFunction = firstOnly(completeExecutions("pending,running"))
	for _, verb := range []string{"pause"} {
		a.command("execution", verb).ValidArgsFunction = firstOnly(completeExecutions("running"))
	}
	for _, verb := range []string{"continue", "pin", "unpin"} {
		a.command("execution", verb).ValidArgsFunction = firstOnly(completeExecutions(""))
	}
}

// forFirings completes the lists of executions, ticks and deliveries.
func (a completions) forFirings() {
	list := a.command("execution", "list")
	a.flag(list, "trigger", completeTriggers)
	a.flag(list, "status", completeStatuses)
	a.flag(list, "limit", cobra.NoFileCompletions)
	ticks := a.command("tick", "list")
	a.flag(ticks, "trigger", completeTriggers)
	a.flag(a.command("schedule", "list"), "trigger", completeTriggers)
	var outcomes []string
	for _, o := range agented.TickOutcomes {
		outcomes = append(outcomes, string(o))
	}
	a.flag(ticks, "outcome", words(outcomes...))
	for _, name := range []string{"schedule", "limit"} {
		a.flag(ticks, name, cobra.NoFileCompletions)
	}
	deliveries := a.command("delivery", "list")
	a.flag(deliveries, "trigger", completeTriggers)
	a.flag(deliveries, "verdict", words("accepted", "ignored", "duplicate", "rejected"))
	for _, name := range []string{"event", "endpoint", "limit"} {
		a.flag(deliveries, name, cobra.NoFileCompletions)
	}
	a.flag(a.command("trigger", "match"), "trigger", completeTriggers)
	a.flag(a.command("trigger", "match"), "event", words("pull_request", "push", "issues", "issue_comment", "pull_request_review", "workflow_run", "release"))
	for _, verb := range []string{"show", "replay"} {
		a.command("delivery", verb).ValidArgsFunction = cobra.NoFileCompletions
	}
	a.command("schedule", "preview").ValidArgsFunction = cobra.NoFileCompletions
	for _, name := range []string{"zone", "count", "after"} {
		a.flag(a.command("schedule", "preview"), name, cobra.NoFileCompletions)
	}
}

// forAccounts completes accounts, budgets, usage and keys.
func (a completions) forAccounts() {
	for _, c := range a.command("account").Commands() {
		if c.Name() != "list" && c.Name() != "create" {
			c.ValidArgsFunction = firstOnly(completeAccounts)
		}
	}
	a.command("account", "create").ValidArgsFunction = firstOnly(words(agented.Backends...))
	a.command("account", "list").ValidArgsFunction = cobra.NoFileCompletions
	for _, c := range a.command("budget").Commands() {
		if c.Name() != "list" && c.Name() != "create" {
			c.ValidArgsFunction = firstOnly(completeBudgets)
		} else {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		for name, f := range map[string]cobra.CompletionFunc{
			"period": words("day", "week", "month"), "trigger": completeTriggers, "account": completeAccounts,
			"limit": cobra.NoFileCompletions, "warn": cobra.NoFileCompletions, "name": cobra.NoFileCompletions,
		} {
			if c.Flags().Lookup(name) != nil {
				a.flag(c, name, f)
			}
		}
	}
	a.flag(a.command("usage"), "by", words("day", "trigger", "account", "model", "backend"))
	a.flag(a.command("usage"), "days", cobra.NoFileCompletions)
	a.command("usage").ValidArgsFunction = cobra.NoFileCompletions
	a.command("key", "revoke").ValidArgsFunction = firstOnly(completeKeys)
	a.command("key", "create").ValidArgsFunction = cobra.NoFileCompletions
	a.flag(a.command("key", "create"), "role", words(roles...))
}

// forAgents completes agents, conversations and messages.
func (a completions) forAgents() {
	for _, verb := range []string{"show", "delete"} {
		a.command("agent", verb).ValidArgsFunction = firstOnly(completeAgents)
	}
	a.command("chat").ValidArgsFunction = firstOnly(completeAgents)
	a.flag(a.command("chat"), "conversation", completeConversations)
	for _, verb := range []string{"close", "delete"} {
		a.command("conversation", verb).ValidArgsFunction = firstOnly(completeConversations)
	}
	a.flag(a.command("conversation", "list"), "agent", completeAgents)
	for _, c := range a.command("message").Commands() {
		c.ValidArgsFunction = cobra.NoFileCompletions
		if c.Flags().Lookup("agent") != nil {
			a.flag(c, "agent", completeAgents)
		}
	}
	send := a.command("message", "send")
	send.ValidArgsFunction = firstOnly(completeAgents)
	a.flag(send, "type", words("message", "request", "response", "status", "alert", "artifact"))
	a.flag(send, "priority", words("low", "normal", "high"))
	for _, name := range []string{"subject", "reply-to", "key", "wait", "ttl"} {
		a.flag(send, name, cobra.NoFileCompletions)
	}
}

// forRun completes the commands that define what runs.
func (a completions) forRun() {
	run := a.command("run")
	a.flag(run, "backend", words(agented.Backends...))
	a.flag(run, "permission", words(string(agented.PermissionRead), string(agented.PermissionEdit), string(agented.PermissionFull)))
	a.flag(run, "sandbox", words(string(agented.SandboxOff), string(agented.SandboxGuard), string(agented.SandboxStrict)))
	for _, name := range []string{"model", "env", "plain-env", "timeout", "name", "limit"} {
		a.flag(run, name, cobra.NoFileCompletions)
	}
	a.flag(a.command("trigger", "apply"), "file", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	})
}

func words(list ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
}

// firstOnly completes the first argument only.
func firstOnly(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, begun)
	}
}

// offered fetches a list from the server and converts its items to words with descriptions. It
// returns no words on any error, because a shell cannot show errors during completion.
func offered[T any](cmd *cobra.Command, items func(context.Context, *client.Client) iter.Seq2[client.Response[T], error], word func(*T) (word, about string)) ([]string, cobra.ShellCompDirective) {
	c, err := quietly(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var out []string
	for item, err := range items(ctx, c) {
		if err != nil {
			break
		}
		if w, about := word(&item.Value); w != "" && w == term.Printable(w) {
			out = append(out, cobra.CompletionWithDesc(w, term.Cell(about)))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// quietly is connect without warnings, which would appear in the command line.
func quietly(cmd *cobra.Command) (*client.Client, error) {
	c, err := clientConfig(cmd)
	if err != nil {
		return nil, err
	}
	return dial(c)
}

func completeTriggers(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Trigger], error] {
		return c.Triggers(ctx, false, completionItems)
	}
	return offered(cmd, list, func(t *client.Trigger) (string, string) {
		if strings.HasPrefix(begun, "trg-") {
			return beginning(t.ID, begun), t.Name
		}
		return beginning(t.Name, begun), t.Backend
	})
}

func completeAccounts(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Account], error] {
		return c.Accounts(ctx, completionItems)
	}
	return offered(cmd, list, func(a *client.Account) (string, string) { return beginning(a.Label, begun), a.Backend })
}

func completeAgents(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Agent], error] {
		return c.Agents(ctx, completionItems)
	}
	return offered(cmd, list, func(a *client.Agent) (string, string) { return beginning(a.Name, begun), a.Backend })
}

func completeBudgets(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Budget], error] {
		return func(yield func(client.Response[client.Budget], error) bool) {
			got, err := c.Budgets(ctx)
			if err != nil {
				yield(client.Response[client.Budget]{}, err)
				return
			}
			for _, b := range got.Value.Items {
				if !yield(client.Response[client.Budget]{Value: b}, nil) {
					return
				}
			}
		}
	}
	return offered(cmd, list, func(b *client.Budget) (string, string) { return beginning(b.Name, begun), "" })
}

func completeConversations(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Conversation], error] {
		return c.Conversations(ctx, "", completionItems)
	}
	return offered(cmd, list, func(r *client.Conversation) (string, string) {
		if !strings.HasPrefix(r.ID, begun) {
			return "", ""
		}
		return r.ID, strings.TrimSpace(r.AgentName + " " + r.Title)
	})
}

func completeExecutions(statuses string) cobra.CompletionFunc {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Execution], error] {
		return c.Executions(ctx, client.ExecutionQuery{Status: statuses}, completionItems)
	}
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return offered(cmd, list, func(e *client.Execution) (string, string) {
			if !strings.HasPrefix(e.ID, begun) {
				return "", ""
			}
			return e.ID, strings.TrimSpace(e.Status + " " + e.TriggerName + ", " + term.Ago(e.CreatedAt))
		})
	}
}

func completeKeys(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := func(ctx context.Context, c *client.Client) iter.Seq2[client.Response[client.Key], error] {
		return c.Keys(ctx, completionItems)
	}
	return offered(cmd, list, func(k *client.Key) (string, string) {
		switch {
		case k.Revoked():
			return "", ""
		case strings.HasPrefix(begun, "key-"):
			return beginning(k.ID, begun), k.Name
		}
		return beginning(k.Name, begun), k.Role
	})
}

// beginning returns a word if it begins with a prefix, ignoring case, and "" otherwise.
func beginning(word, prefix string) string {
	if !hasPrefixFold(word, prefix) {
		return ""
	}
	return word
}

// completeStatuses completes the last word of a comma-separated list.
func completeStatuses(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	before := ""
	if i := strings.LastIndexByte(begun, ','); i >= 0 {
		before = begun[:i+1]
	}
	var out []string
	for _, s := range agented.States {
		if w := before + string(s); strings.HasPrefix(w, begun) {
			out = append(out, w)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
