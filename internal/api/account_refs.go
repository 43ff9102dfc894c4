package api

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/store"
)

// checkAccountRefs rejects a spec that names an account that does not exist.
// References that are already in before, the stored spec, are accepted.
func checkAccountRefs(ctx context.Context, db *store.DB, spec, before *agented.Spec) error {
	if before != nil && before.Backend == spec.Backend && before.Account == spec.Account && reflect.DeepEqual(before.Fallback, spec.Fallback) {
		return nil
	}
	var bad []agented.Field
	var list []agented.Account
	for i, c := range spec.Chain() {
		if c.Account == "" || c.Account == agented.DefaultAccount(c.Backend) || strings.EqualFold(string(c.Account), "default") {
			continue
		}
		if list == nil {
			var err error
			if list, err = db.Accounts(ctx); err != nil {
				return err
			}
		}
		if slices.ContainsFunc(list, func(a agented.Account) bool {
			return a.Backend == c.Backend && (a.ID == c.Account || strings.EqualFold(a.Name, string(c.Account)))
		}) {
			continue
		}
		path := "account"
		if i > 0 {
			path = fmt.Sprintf("fallback.%d.account", i-1)
		}
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf("there is no account %q of %s: create it first, or use one from agented account list", format.Clip(string(c.Account), 100), c.Backend)})
	}
	return agented.InvalidFields(bad)
}
