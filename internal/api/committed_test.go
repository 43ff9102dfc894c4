package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"testing"

	"github.com/agented/agented"
)

var updateDocument = flag.Bool("update", false, "rewrite docs/reference/openapi.json")

// TestCommittedDocument compares docs/reference/openapi.json with the document that
// the server sends. Its version is that of the API, because the version of the server
// differs in each build.
func TestCommittedDocument(t *testing.T) {
	t.Parallel()
	const path = "../../docs/reference/openapi.json"
	g := start(t, settings{})
	var doc map[string]any
	g.do(agented.RoleViewer, "GET", "/openapi.json", "").want(200).json(&doc)
	doc["info"].(map[string]any)["version"] = "v1"
	checkOperationIDs(t, doc)
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	if *updateDocument {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, want.Bytes()) {
		t.Errorf("%s is out of date (%v): run go test ./internal/api -run TestCommittedDocument -update", path, err)
	}
}

// operationID has the form verb-object, so that generated clients get method names such
// as ListTriggers.
var operationID = regexp.MustCompile(`^(log(in|out)|[a-z]+(-[a-z]+)+)$`)

func checkOperationIDs(t *testing.T, doc map[string]any) {
	t.Helper()
	for path, item := range doc["paths"].(map[string]any) {
		for method, o := range item.(map[string]any) {
			if id, _ := o.(map[string]any)["operationId"].(string); !operationID.MatchString(id) {
				t.Errorf("%s %s: operationId %q lacks the form verb-object", method, path, id)
			}
		}
	}
}
