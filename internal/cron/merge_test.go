package cron_test

import (
	"slices"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 31, 9, 0, 0, 500, time.UTC)
	due := now.Add(time.Hour)
	daily := agented.Schedule{ID: "sch-a", Cron: "0 9 * * *", NextDue: due}
	hourly := agented.Schedule{ID: "sch-b", Every: "1h", Anchor: now.Add(-time.Minute), NextDue: due}
	stored := []agented.Schedule{daily, hourly}

	t.Run("keeps_ids_and_state", func(t *testing.T) {
		list, unknown := cron.Merge(stored, []agented.Schedule{{Cron: "0 9 * * *"}, {ID: "sch-b", Every: "1h", Message: "new"}, {Every: "2h"}}, now)
		if len(unknown) > 0 || len(list) != 3 {
			t.Fatalf("%d schedules, unknown %v", len(list), unknown)
		}
		if list[0] != daily {
			t.Errorf("an equal schedule became %+v", list[0])
		}
		if c := list[1]; c.ID != "sch-b" || !c.Anchor.Equal(hourly.Anchor) || c.Message != "new" || !c.NextDue.IsZero() {
			t.Errorf("a changed schedule became %+v", c)
		}
		if c := list[2]; !agented.ValidID("sch", string(c.ID)) || !c.Anchor.Equal(now.Truncate(time.Second)) {
			t.Errorf("a new schedule became %+v", c)
		}
	})
	t.Run("equal_schedules_keep_one_id", func(t *testing.T) {
		list, _ := cron.Merge(stored[:1], []agented.Schedule{{Cron: "0 9 * * *"}, {Cron: "0 9 * * *"}}, now)
		if len(list) != 2 || list[0].ID != "sch-a" || list[1].ID == "sch-a" {
			t.Errorf("%+v", list)
		}
	})
	t.Run("unknown_and_repeated_ids", func(t *testing.T) {
		_, unknown := cron.Merge(stored, []agented.Schedule{{ID: "sch-x"}, {ID: "sch-a"}, {ID: "sch-a"}}, now)
		if !slices.Equal(unknown, []int{0, 2}) {
			t.Errorf("unknown: %v", unknown)
		}
	})
	t.Run("none", func(t *testing.T) {
		if list, unknown := cron.Merge(stored, nil, now); list != nil || unknown != nil {
			t.Errorf("%v, %v", list, unknown)
		}
	})
}
