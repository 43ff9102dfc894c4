package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/term"
)

// interruptWithin bounds how long an interrupted command waits for the server: for the number of
// a message in flight, and for the interruption.
const interruptWithin = 5 * time.Second

// phase returns a context that the next signal cancels. stop ends the phase and returns the
// signal that cancelled it, or nil.
func (t *chat) phase() (ctx context.Context, stop func() os.Signal) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.cmd.Context()))
	got := make(chan os.Signal, 1)
	go func() {
		defer close(got)
		select {
		case s := <-t.signals:
			got <- s
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() os.Signal {
		cancel()
		return <-got
	}
}

// once sends one message and shows its turn.
func (t *chat) once(text string) error {
	status, sig, err := t.turn(text)
	switch {
	case err != nil:
		return err
	case sig != nil:
		return exitError(exitInterrupted)
	case status != "success":
		return exitError(exitFailed)
	}
	return nil
}

// lines sends each line of standard input as a message and shows its turn.
func (t *chat) lines() error {
	in := term.NewLineReader()
	for {
		if !t.json && term.IsTerminal(os.Stdin) {
			fmt.Fprint(os.Stderr, "> ")
		}
		ctx, stop := t.phase()
		text, err := in.Next(ctx, agented.MaxPrompt)
		if stop() != nil || errors.Is(err, context.Canceled) {
			return exitError(exitInterrupted)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if text = strings.TrimSpace(term.ToUTF8("the line", []byte(text))); text == "" {
			continue
		}
		_, sig, err := t.turn(text)
		if err != nil {
			return err
		}
		if sig != nil && sig != os.Interrupt {
			return exitError(exitInterrupted)
		}
	}
}

// turn sends a message and shows its turn until it ends. A signal also interrupts the turn on the
// server, and is returned.
func (t *chat) turn(text string) (status string, sig os.Signal, err error) {
	ctx, stop := t.phase()
	number, err := t.send(ctx, text)
	if err == nil && ctx.Err() == nil {
		status, err = t.follow(ctx, number)
	}
	if sig = stop(); sig == nil {
		return status, nil, err
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(t.cmd.Context()), interruptWithin)
	defer cancel()
	if err := t.c.InterruptConversation(within, t.id); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = agented.Errorf(agented.Unavailable, "the server has not answered within %s: the turn may still be running", interruptWithin)
		}
		return "", sig, err
	}
	fmt.Fprintln(os.Stderr, "\ninterrupted")
	return "", sig, nil
}

// send sends a message. When ctx ends it waits up to interruptWithin for the server's answer,
// because a message that is accepted after the interruption would still run.
func (t *chat) send(ctx context.Context, text string) (int64, error) {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	late := context.AfterFunc(ctx, func() { time.AfterFunc(interruptWithin, cancel) })
	defer late()
	got, err := t.c.SendToConversation(sending, t.id, text)
	return got.Value.Number, err
}
