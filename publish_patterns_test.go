package agented

import "testing"

func TestPublishPullRequest_patterns(t *testing.T) {
	t.Parallel()
	for pattern, fine := range map[string]bool{"deploy/**": true, `a\*`: true, `a\\`: true, `deploy\`: false, `a\\\`: false, "!x": false, "/x": false} {
		refused := false
		pr := PublishPullRequest{ForbiddenPaths: []string{pattern}}
		pr.validate(func(string, string, ...any) { refused = true })
		if refused == fine {
			t.Errorf("%q: refused %v", pattern, refused)
		}
	}
}
