package doctor

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestTriggerHints(t *testing.T) {
	t.Parallel()
	var list []TriggerHint
	for i := range 7 {
		list = append(list, TriggerHint{fmt.Sprintf("t%d", i), "no secret", "run this"}, TriggerHint{fmt.Sprintf("t%d", i), "no secret", "run this"})
	}
	list = append(list, TriggerHint{"other", "no secret", "run that"})
	got := checkHints(t.Context(), Options{Hints: func(context.Context) ([]TriggerHint, error) { return list, nil }})
	if len(got) != 2 || got[0].Name != "t0, t1, t2, t3, t4 and 2 more" || got[0].Fix != "run this" || got[1].Name != "other" || got[0].Status != Warn || got[0].ID == got[1].ID {
		t.Errorf("findings: %+v", got)
	}
	if got := checkHints(t.Context(), Options{Hints: func(context.Context) ([]TriggerHint, error) { return nil, errors.New("no server") }}); len(got) != 0 {
		t.Errorf("without a server: %+v", got)
	}
}
