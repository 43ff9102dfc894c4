package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/anthropicapi"
	"github.com/agented/agented/internal/config"
)

// askProgram is the argument that runs this program as an attempt of the backend anthropic. Only
// the server uses it.
const askProgram = "ask-anthropic"

// maxAsk is the maximum size of system prompt and prompt together, in bytes.
const maxAsk = agented.MaxPrompt + agented.MaxGoals + 1<<20

// callAnthropic sends the prompt on standard input to Anthropic's API and returns the exit code.
func callAnthropic(args []string) int {
	env := config.AttemptVariable
	o := anthropicapi.Options{
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
	resume := f.String("resume", "", "id of the conversation to resume")
	f.StringVar(&o.Model, "model", o.Model, "model")
	f.BoolVar(&o.Pieces, "pieces", false, "also print partial messages")
	system := f.Int("system-bytes", 0, "number of bytes of standard input that are the system prompt")
	f.StringVar(&o.Direct, "direct", "", "base URL of the API")
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return exitUsage
	}
	if o.Session = *session; *resume != "" {
		o.Session, o.Resume = *resume, true
	}
	in, err := io.ReadAll(io.LimitReader(os.Stdin, maxAsk+1))
	switch {
	case err != nil:
		return wrong("standard input cannot be read: %v", err)
	case len(in) > maxAsk:
		return wrong("the prompt is too long: shorten it")
	case *system < 0 || *system > len(in):
		return wrong("standard input ended within the system prompt")
	}
	o.System, o.Prompt = string(in[:*system]), string(in[*system:])
	return anthropicapi.Run(context.Background(), o)
}
