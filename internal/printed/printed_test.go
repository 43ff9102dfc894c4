package printed

import (
	"encoding/json"
	"testing"

	"github.com/agented/agented/internal/redact"
)

func TestMaskJSON(t *testing.T) {
	t.Parallel()
	p := &Text{used: true, masker: redact.New([]string{"file_path", "12345678", "/srv/secret"})}
	got := string(p.MaskRaw(json.RawMessage(`{"file_path":"/srv/secret/a","n":12345678,"m":[1,true,null,"file_path"]}`)))
	if want := `{"***":"***/a","m":[1,true,null,"***"],"n":"***"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
