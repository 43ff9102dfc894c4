package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

// completionTime is how long a shell waits for names from the server.
const completionTime = time.Second

// completionItems bounds how many names a shell is offered.
const completionItems = 200

// roles are the words that --role takes.
var roles = []string{string(agented.RoleViewer), string(agented.RoleOperator), string(agented.RoleAdmin)}

// addCompletions tells shells what arguments and flags of the commands below
// root can be.
func addCompletions(root *cobra.Command) {
	command := func(path ...string) *cobra.Command {
		c, _, err := root.Find(path)
		if err != nil || c.Name() != path[len(path)-1] {
			panic("no command " + strings.Join(path, " ")) // a typo above
		}
		return c
	}
	flag := func(c *cobra.Command, name string, f cobra.CompletionFunc) {
		if err := c.RegisterFlagCompletionFunc(name, f); err != nil {
			panic(err) // a typo above
		}
	}
	for _, verb := range []string{"show", "run", "delete"} {
		command("trigger", verb).ValidArgsFunction = firstOnly(completeTriggers)
	}
	for _, verb := range []string{"show", "logs", "retry"} {
		command("execution", verb).ValidArgsFunction = firstOnly(completeExecutions(""))
	}
	command("execution", "cancel").ValidArgsFunction = firstOnly(completeExecutions("pending,running"))
	command("key", "revoke").ValidArgsFunction = firstOnly(completeKeys)
	command("key", "create").ValidArgsFunction = cobra.NoFileCompletions

	list := command("execution", "list")
	flag(list, "trigger", completeTriggers)
	flag(list, "status", completeStatuses)
	flag(list, "limit", cobra.NoFileCompletions)
	ticks := command("tick", "list")
	flag(ticks, "trigger", completeTriggers)
	flag(command("schedule", "list"), "trigger", completeTriggers)
	var outcomes []string
	for _, o := range agented.TickOutcomes {
		outcomes = append(outcomes, string(o))
	}
	flag(ticks, "outcome", words(outcomes...))
	for _, name := range []string{"schedule", "limit"} {
		flag(ticks, name, cobra.NoFileCompletions)
	}
	deliveries := command("delivery", "list")
	flag(deliveries, "trigger", completeTriggers)
	flag(deliveries, "verdict", words("accepted", "ignored", "duplicate", "rejected"))
	for _, name := range []string{"event", "endpoint", "limit"} {
		flag(deliveries, name, cobra.NoFileCompletions)
	}
	flag(command("trigger", "match"), "trigger", completeTriggers)
	flag(command("trigger", "match"), "event", words("pull_request", "push", "issues", "issue_comment", "pull_request_review", "workflow_run", "release"))
	for _, verb := range []string{"show", "replay"} {
		command("delivery", verb).ValidArgsFunction = cobra.NoFileCompletions
	}
	command("schedule", "preview").ValidArgsFunction = cobra.NoFileCompletions
	for _, name := range []string{"zone", "count", "after"} {
		flag(command("schedule", "preview"), name, cobra.NoFileCompletions)
	}
	flag(command("key", "create"), "role", words(roles...))
	run := command("run")
	flag(run, "backend", words(agented.Backends...))
	flag(run, "permission", words(string(agented.PermissionRead), string(agented.PermissionEdit), string(agented.PermissionFull)))
	for _, name := range []string{"model", "env", "timeout", "name"} {
		flag(run, name, cobra.NoFileCompletions)
	}
	flag(command("trigger", "apply"), "file", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	})
}

func words(list ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
}

// firstOnly offers nothing behind the first argument.
func firstOnly(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, begun)
	}
}

// offered asks the server for a list and turns its items into words with a
// description. Whatever goes wrong, there is nothing to offer: nobody reads
// errors at that moment.
func offered(cmd *cobra.Command, path string, query url.Values, word func(json.RawMessage) (word, about string)) ([]string, cobra.ShellCompDirective) {
	c, err := quietly(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var out []string
	_ = pages(ctx, c, path, query, completionItems, func(item json.RawMessage) error {
		if w, about := word(item); w != "" && w == oneLine(w) {
			out = append(out, cobra.CompletionWithDesc(w, printable(about)))
		}
		return nil
	})
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// quietly is connect without warnings, which would end up in the command line.
func quietly(cmd *cobra.Command) (*client.Client, error) {
	c, err := clientConfig(cmd)
	if err != nil {
		return nil, err
	}
	return dial(c)
}

func completeTriggers(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return offered(cmd, "/api/v1/triggers", url.Values{}, func(item json.RawMessage) (string, string) {
		var t triggerRow
		if json.Unmarshal(item, &t) != nil {
			return "", ""
		}
		w, about := t.Name, t.Backend
		if strings.HasPrefix(begun, "trg-") {
			w, about = t.ID, t.Name
		}
		if !hasPrefixFold(w, begun) {
			return "", ""
		}
		return w, about
	})
}

func completeExecutions(statuses string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		query := url.Values{}
		if statuses != "" {
			query.Set("status", statuses)
		}
		return offered(cmd, "/api/v1/executions", query, func(item json.RawMessage) (string, string) {
			var e executionRow
			if json.Unmarshal(item, &e) != nil || !strings.HasPrefix(e.ID, begun) {
				return "", ""
			}
			return e.ID, strings.TrimSpace(e.Status + " " + e.TriggerName + ", " + ago(e.CreatedAt))
		})
	}
}

func completeKeys(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return offered(cmd, keysPath, url.Values{}, func(item json.RawMessage) (string, string) {
		var k keyRow
		if json.Unmarshal(item, &k) != nil || k.revoked() {
			return "", ""
		}
		w, about := k.Name, k.Role
		if strings.HasPrefix(begun, "key-") {
			w, about = k.ID, k.Name
		}
		if !hasPrefixFold(w, begun) {
			return "", ""
		}
		return w, about
	})
}

// completeStatuses completes the last word of a list with commas.
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
