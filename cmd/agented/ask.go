package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/ask"
)

// askProgram is the word that makes this program an attempt of the backend
// anthropic. It is not for people: the server starts it.
const askProgram = "ask-anthropic"

// maxAsk bounds system prompt and prompt together.
const maxAsk = agented.MaxPrompt + agented.MaxGoals + 1<<20

// askAnthropic puts what is on standard input to Anthropic's API.
func askAnthropic(args []string) int {
	env := os.Getenv // the attempt's own, which the server made
	o := ask.Options{
		Dir: env(agented.ConfigVariable(agented.BackendAnthropic)), Model: env("ANTHROPIC_MODEL"),
		Key: env("ANTHROPIC_API_KEY"), Token: env("ANTHROPIC_AUTH_TOKEN"), Base: env("ANTHROPIC_BASE_URL"),
		Version: version, Out: os.Stdout, Err: os.Stderr,
	}
	wrong := func(format string, args ...any) int {
		fmt.Fprintf(os.Stderr, "Error: "+format+"\n", args...)
		return exitUsage
	}
	if v := env("ANTHROPIC_MAX_TOKENS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1_000_000 {
			return wrong("ANTHROPIC_MAX_TOKENS must be a number from 1 to 1000000")
		}
		o.MaxTokens = n
	}
	f := flag.NewFlagSet(askProgram, flag.ContinueOnError)
	session := f.String("session-id", "", "id of a new conversation")
	resume := f.String("resume", "", "id of the conversation that goes on")
	f.StringVar(&o.Model, "model", o.Model, "model to ask")
	f.BoolVar(&o.Pieces, "pieces", false, "print the answer in pieces too")
	system := f.Int("system-bytes", 0, "how much of standard input is the system prompt")
	f.StringVar(&o.Direct, "direct", "", "where the API itself is")
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return exitUsage
	}
	if o.Session = *session; *resume != "" {
		o.Session, o.Resume = *resume, true
	}
	in, err := io.ReadAll(io.LimitReader(os.Stdin, maxAsk+1))
	switch {
	case err != nil:
		return wrong("standard input: %v", err)
	case len(in) > maxAsk:
		return wrong("the prompt is too long")
	case *system < 0 || *system > len(in):
		return wrong("the system prompt is not whole")
	}
	o.System, o.Prompt = string(in[:*system]), string(in[*system:])
	return ask.Run(context.Background(), o)
}
