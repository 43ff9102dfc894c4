package store

import (
	"testing"
)

// Not parallel: it counts the statements of all databases of the process.
func TestAClaimTakesTheSameFewStatementsHoweverMuchWaits(t *testing.T) {
	const most = 15 // BEGIN and COMMIT among them
	var counts []int
	for _, waiting := range []int{1, 500} {
		db := openNew(t)
		for range waiting {
			admit(t, db, "", start)
		}
		n := 0
		beforeStatement = func(string) { n++ }
		e, err := db.Claim(t.Context(), "node-x", 1000, start, ttl)
		beforeStatement = func(string) {}
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		counts = append(counts, n)
	}
	t.Logf("%v statements", counts)
	if counts[0] != counts[1] || counts[1] > most {
		t.Errorf("a claim took %d statements with one execution that waits and %d with 500, want the same and at most %d", counts[0], counts[1], most)
	}
}
