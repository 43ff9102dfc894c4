package cron

import (
	"slices"
	"time"

	"github.com/agented/agented"
)

// Merge returns the wanted schedules of a trigger, with the ids and the state of those that it has
// already: a schedule that names an id or equals a stored one keeps them. A new schedule gets an id,
// and the others without an anchor start at now. unknown lists the indexes of wanted schedules whose
// id is not that of a stored one, or is repeated; the result is then incomplete.
func Merge(stored, wanted []agented.Schedule, now time.Time) (list []agented.Schedule, unknown []int) {
	left := map[agented.ScheduleID]agented.Schedule{}
	for _, c := range stored {
		left[c.ID] = c
	}
	list = slices.Clone(wanted)
	for i := range list {
		c := &list[i]
		if c.ID == "" {
			continue
		}
		old, ok := left[c.ID]
		if !ok {
			unknown = append(unknown, i)
		}
		delete(left, c.ID)
		switch {
		case old.Same(*c):
			*c = old
		case c.Every == old.Every && c.Anchor.IsZero():
			c.Anchor = old.Anchor
		}
	}
	if len(unknown) > 0 || len(list) == 0 {
		return nil, unknown
	}
	for i := range list {
		c := &list[i]
		if c.ID != "" {
			continue
		}
		for _, old := range stored {
			if _, free := left[old.ID]; free && old.Same(*c) {
				*c = old
				delete(left, old.ID)
				break
			}
		}
		if c.ID == "" {
			c.ID = agented.ScheduleID(agented.NewID("sch", now))
		}
		if c.Every != "" && c.Anchor.IsZero() {
			c.Anchor = now.Truncate(time.Second)
		}
	}
	return list, nil
}
