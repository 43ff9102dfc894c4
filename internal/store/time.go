package store

import (
	"database/sql/driver"
	"fmt"
	"time"
)

// micros writes a time as microseconds since 1970. The zero time is NULL.
type micros time.Time

// Value implements driver.Valuer.
func (m micros) Value() (driver.Value, error) {
	if time.Time(m).IsZero() {
		return nil, nil
	}
	return time.Time(m).UnixMicro(), nil
}

// toTime reads what micros wrote.
type toTime struct{ t *time.Time }

// Scan implements sql.Scanner.
func (s toTime) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*s.t = time.Time{}
	case int64:
		*s.t = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("a time is stored as %T", v)
	}
	return nil
}

// stored is the time as the database gives it back.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
