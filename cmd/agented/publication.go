package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

func executionPublications() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "publications EXECUTION", Short: "List what an execution publishes", Args: exactArgs("the execution's id"),
		Long: `List what an execution publishes to the forge: kind, status, and the address of what was
written or the reason why nothing was.`,
		Example: `  agented execution publications @last`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			list, err := c.Publications(cmd.Context(), id)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, list)
			}
			if len(list.Value.Items) == 0 {
				fmt.Fprintln(os.Stderr, "it publishes nothing")
				return nil
			}
			var rows [][]string
			for _, p := range list.Value.Items {
				rows = append(rows, []string{strconv.Itoa(p.Number), term.Cell(p.Kind), term.Cell(p.Status), term.Cell(p.Repository), term.Cell(publicationDetail(&p.PublicationSummary))})
			}
			return term.Table(os.Stdout, "NUMBER\tKIND\tSTATUS\tREPOSITORY\tDETAIL", rows)
		},
	})
}

// publicationDetail returns the address of what was written, or the reason why nothing was.
func publicationDetail(p *client.PublicationSummary) string {
	switch {
	case p.URL != "":
		return term.Printable(p.URL)
	case p.Rule != "":
		return term.Printable(p.Rule + ": " + p.Reason)
	}
	return term.Printable(p.Reason)
}

// publicationLines describes the publications of an execution, one line each.
func publicationLines(e *client.Execution) []string {
	var out []string
	for _, p := range e.Publications {
		text := p.Kind + " " + p.Status
		if detail := publicationDetail(&p); detail != "" {
			text += ": " + detail
		}
		out = append(out, text)
	}
	return out
}

func executionApprove() *cobra.Command { return decidePublication("approve", true) }

func executionReject() *cobra.Command { return decidePublication("reject", false) }

func decidePublication(verb string, approve bool) *cobra.Command {
	long := "Reject a publication that waits for an approval. Nothing is written."
	if approve {
		long = `Approve a publication that waits for it. The server writes it to the forge, unless the pull
request has newer commits by then.`
	}
	return jsonFlag(&cobra.Command{
		Use: verb + " EXECUTION NUMBER", Short: strings.ToUpper(verb[:1]) + verb[1:] + " a held publication", Args: exactArgs("the execution's id", "the number of the publication"),
		Long: long, Example: "  agented execution " + verb + " @last 1",
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := strconv.Atoi(args[1])
			if err != nil || number < 1 {
				return agented.Errorf(agented.Invalid, "%q is not the number of a publication: agented execution publications lists them", args[1])
			}
			c, id, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			p, err := c.DecidePublication(cmd.Context(), id, number, approve)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, p)
			}
			fmt.Fprintln(os.Stderr, p.Value.Reason)
			return nil
		},
	})
}
