package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

func conversationCommand() *cobra.Command {
	return group("conversation", "List, close and delete conversations with agents",
		conversationList(), conversationDo("close", "Close a conversation; a new message reopens it", (*client.Client).CloseConversation, "closed"),
		conversationDo("delete", "Delete a conversation and its files; its executions are kept", (*client.Client).DeleteConversation, "deleted"))
}

func conversationList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List conversations, latest first", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			agent, _ := cmd.Flags().GetString("agent")
			limit, _ := cmd.Flags().GetInt("limit")
			return showList(cmd, c.Conversations(cmd.Context(), agent, limit), listing{
				header: "ID AGENT STATUS ACTIVE TITLE",
				empty:  "There are no conversations. Start one with `agented chat AGENT`.",
			}, func(r *client.Conversation) []string {
				return []string{r.ID, r.AgentName, r.Status, term.Ago(r.ActiveAt), r.Title}
			})
		},
	})
	cmd.Flags().String("agent", "", "only conversations with this agent (id or name)")
	cmd.Flags().Int("limit", 20, "maximum number of conversations; 0 shows all")
	return cmd
}

func conversationDo(verb, short string, do func(*client.Client, context.Context, string) error, done string) *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: verb + " CONVERSATION", Short: short, Args: exactArgs("the conversation's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if err := do(c, cmd.Context(), args[0]); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{done: args[0]})
			}
			fmt.Fprintln(os.Stderr, done+" "+args[0])
			return nil
		},
	})
}
