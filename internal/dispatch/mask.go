package dispatch

import (
	"context"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
)

// masker returns the masker for everything that an execution prints or sends.
func (d *Dispatcher) masker(ctx context.Context, e *agented.Execution) (*redact.Masker, error) {
	secrets, err := d.secretsOf(ctx, e)
	if err != nil {
		return nil, err
	}
	return redact.New(secrets), nil
}

// Printed returns the text of an execution's log as it was printed.
func (d *Dispatcher) Printed(e *agented.Execution) *printed.Text {
	return printed.New(printed.Source{
		Bundle: func(attempt int) string { return d.o.Layout.Attempt(e.ID, attempt) },
		Masker: func(ctx context.Context) (*redact.Masker, error) { return d.masker(ctx, e) },
		Log:    d.o.Log.With("execution", e.ID),
	})
}

// MaskOutput masks texts that a running execution sends, as its log is masked.
func (d *Dispatcher) MaskOutput(ctx context.Context, e *agented.Execution, texts ...*string) error {
	m, err := d.masker(ctx, e)
	if err != nil {
		return err
	}
	for _, t := range texts {
		*t = m.MaskString(*t)
	}
	return nil
}

// maskEnd masks the texts of an attempt's end that come from lines as they were
// printed.
func maskEnd(mask func(string) string, end *store.AttemptEnd) {
	a := &end.Attempt
	for _, s := range []*string{&end.Reason, &end.Error, &end.Result, &end.Limit.Evidence, &a.Reason, &a.Evidence, &a.CLIVersion} {
		*s = mask(*s)
	}
	if mask(a.SessionID) != a.SessionID {
		a.SessionID = "" // a session cannot be resumed by a mask
	}
}
