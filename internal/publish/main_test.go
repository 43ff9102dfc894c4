package publish

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

// childName is the variable that makes the test program a server that only publishes.
const childName = "PUBLISH_TEST_CHILD"

func TestMain(m *testing.M) {
	if root := os.Getenv(childName); root != "" {
		if err := child(root, os.Getenv(childName+"_URL"), os.Getenv(childName+"_TOKEN")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testrun.Contain()
	testrun.RunMoreInParallel()
	os.Exit(m.Run())
}

// child publishes until it is killed.
func child(root, address, token string) error {
	db, err := store.Open(context.Background(), filepath.Join(root, "agented.db"), store.Options{})
	if err != nil {
		return err
	}
	p, err := newPublisher(db, agented.Layout{Root: root}, address, token)
	if err != nil {
		return err
	}
	p.Run(context.Background())
	return nil
}
