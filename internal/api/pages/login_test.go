package pages

import "testing"

func TestNextPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "/", "/": "/", "/docs": "/docs", "/a?b=c#d": "/a?b=c#d", "docs": "/", "//evil": "/", "/\\evil": "/", "\\/evil": "/",
		"http://evil": "/", "///evil": "/", "/\t/evil": "/", "javascript:alert(1)": "/", "/login": "/", "/login?next=/x": "/", "/\n/evil": "/",
	} {
		if got := nextPath(in); got != want {
			t.Errorf("%q leads to %q, want %q", in, got, want)
		}
	}
}

func FuzzNextPath(f *testing.F) {
	for _, s := range []string{"/docs", "//evil", "/\\evil", "http:evil", "/%2f/evil", "/ /evil"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got := nextPath(next)
		if got[0] != '/' || len(got) > 1 && (got[1] == '/' || got[1] == '\\') {
			t.Errorf("%q leads to %q", next, got)
		}
	})
}
