package app

import (
	"context"
	"strings"

	"github.com/agented/agented/internal/reseal"
	"github.com/agented/agented/internal/secret"
)

// reseal seals the stored values with the current SECRET_KEY if it was changed and the former one is
// known. Nothing else uses the database yet. If the process ends, the next start continues.
func (a *App) reseal(ctx context.Context) error {
	setting := a.o.Config.FormerSecretKey.Reveal()
	former, ok, err := secret.LoadFormer(setting, a.layout.FormerSecretKey())
	if err != nil || !ok {
		return err
	}
	r, err := reseal.All(ctx, a.db, former, a.key)
	if err != nil {
		return err
	}
	a.o.Log.Info("stored values were sealed with the current secret key", "values", r.Values, "former", former.Fingerprint(), "fingerprint", a.key.Fingerprint())
	switch {
	case len(r.Left) > 0:
		a.o.Log.Warn("some values could not be sealed with the current secret key: enter them again; until then keep the former key",
			"former_key", former.Source(), "columns", strings.Join(r.Left, ", "))
		return nil
	case setting != "":
		a.o.Log.Warn("SECRET_KEY_PREVIOUS is no longer needed: remove it")
		return nil
	}
	return secret.RemoveFormer(a.layout.FormerSecretKey())
}
