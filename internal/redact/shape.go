package redact

import (
	"bytes"
	"slices"
)

// class is a set of ASCII bytes; a constant, so that it costs nothing at start.
type class struct{ lo, hi uint64 }

func (c class) has(b byte) bool {
	if b < 64 {
		return c.lo>>b&1 != 0
	}
	return b < 128 && c.hi>>(b-64)&1 != 0
}

const (
	digits  = 0x3ff << '0'
	letters = 0x07fffffe | 0x07fffffe<<32 // A-Z and a-z, counted from 64
)

var (
	alnum  = class{lo: digits, hi: letters}
	word   = class{lo: digits, hi: letters | 1<<('_'-64)}
	dash   = class{lo: digits | 1<<'-', hi: letters}
	b64url = class{lo: digits | 1<<'-', hi: letters | 1<<('_'-64)}
	b64std = class{lo: digits | 1<<'+' | 1<<'/' | 1<<'=', hi: letters}
	dotted = class{lo: digits | 1<<'-' | 1<<'.', hi: letters | 1<<('_'-64)}
	// token68 of RFC 9110 section 11.2, which also covers the tokens of RFC 6750.
	token68 = class{
		lo: digits | 1<<'-' | 1<<'.' | 1<<'+' | 1<<'/' | 1<<'=',
		hi: letters | 1<<('_'-64) | 1<<('~'-64),
	}
)

// Limits of one token, in bytes. No shape is longer than maxShape, so a Stream
// never waits for more.
const (
	maxToken  = 4 << 10
	maxJWT    = 12 << 10
	maxHeader = 2 << 10 // of a JWT
	maxShape  = 16 << 10
)

// shape recognises one kind of token by its form.
type shape struct {
	prefix string
	kind   shapeKind
	tail   class
	least  int // bytes of tail
}

type shapeKind uint8

const (
	plain    shapeKind = iota // prefix and at least least bytes of tail
	exact                     // prefix and exactly least bytes of tail
	dense                     // like plain, with a digit and a stretch of least bytes without - and _
	digit                     // like plain, with a digit
	jwt                       // RFC 7519 section 3, RFC 7516 section 3
	pem                       // RFC 7468 section 3: private keys only
	header                    // an HTTP header that carries a credential, however it is printed
	bearer                    // "Bearer x" without a header
	userinfo                  // RFC 3986 section 3.2.1: the password of a URL
)

// shapes has no particular order. The forms are from the providers'
// documentation and their lists for secret scanning; if a provider documents no
// length, the shortest known one is used.
var shapes = [...]shape{
	{prefix: "sk-ant-", tail: b64url, least: 20},                // Anthropic: sk-ant-api03-, -oat01-, -ort01-, -admin01-, 93 and "AA"
	{prefix: "sk-proj-", tail: b64url, least: 20},               // OpenAI project keys
	{prefix: "sk-svcacct-", tail: b64url, least: 20},            // OpenAI service accounts
	{prefix: "sk-admin-", tail: b64url, least: 20, kind: digit}, // OpenAI administration
	{prefix: "sk-", tail: b64url, least: 20, kind: dense},       // OpenAI until 2024 (48), OpenRouter (64 hex), DeepSeek (32 hex)
	{prefix: "ghp_", tail: word, least: 36},                     // GitHub personal access token, classic
	{prefix: "gho_", tail: word, least: 36},                     // GitHub OAuth
	{prefix: "ghu_", tail: word, least: 36},                     // GitHub App, user
	{prefix: "ghs_", tail: dotted, least: 36},                   // GitHub App, server; newer ones hold a JWT
	{prefix: "ghr_", tail: word, least: 36},                     // GitHub App, refresh
	{prefix: "github_pat_", tail: word, least: 40},              // GitHub fine-grained: 22, "_", 59
	{prefix: "glpat-", tail: dotted, least: 20},                 // GitLab personal; newer ones end in .01.xxxxxxxxx
	{prefix: "gldt-", tail: dotted, least: 20, kind: digit},     // GitLab deploy
	{prefix: "glrt-", tail: dotted, least: 20, kind: digit},     // GitLab runner
	{prefix: "glptt-", tail: dotted, least: 20, kind: digit},    // GitLab pipeline trigger
	{prefix: "glcbt-", tail: dotted, least: 20, kind: digit},    // GitLab CI job
	{prefix: "xoxa-", tail: dash, least: 20, kind: digit},       // Slack
	{prefix: "xoxb-", tail: dash, least: 20, kind: digit},       // Slack bot
	{prefix: "xoxe-", tail: dash, least: 20, kind: digit},       // Slack refresh
	{prefix: "xoxp-", tail: dash, least: 20, kind: digit},       // Slack user
	{prefix: "xoxr-", tail: dash, least: 20, kind: digit},       // Slack
	{prefix: "xoxs-", tail: dash, least: 20, kind: digit},       // Slack
	{prefix: "xapp-", tail: dash, least: 20, kind: digit},       // Slack app level
	{prefix: "AKIA", tail: alnum, least: 16, kind: exact},       // AWS access key id
	{prefix: "ASIA", tail: alnum, least: 16, kind: exact},       // AWS temporary access key id
	{prefix: "AIza", tail: b64url, least: 35, kind: exact},      // Google API key
	{prefix: "ya29.", tail: dotted, least: 20},                  // Google OAuth access token
	{prefix: "sk_live_", tail: word, least: 16},                 // Stripe
	{prefix: "rk_live_", tail: word, least: 16},                 // Stripe, restricted
	{prefix: "sk_test_", tail: word, least: 16, kind: digit},    // Stripe, test
	{prefix: "rk_test_", tail: word, least: 16, kind: digit},    // Stripe, test, restricted
	{prefix: "npm_", tail: alnum, least: 36},                    // npm
	{prefix: "pypi-AgE", tail: b64url, least: 40},               // PyPI: a macaroon, which begins so in base64
	{prefix: "hf_", tail: alnum, least: 30},                     // Hugging Face: 34
	{prefix: "agk_", tail: b64url, least: 20},                   // Agented
	{prefix: "eyJ", kind: jwt},                                  // base64 of `{"`
	{prefix: "-----BEGIN ", kind: pem},                          //
	{prefix: "authorization", kind: header},                     //
	{prefix: "x-api-key", kind: header},                         // Anthropic, AWS, Agented
	{prefix: "x-goog-api-key", kind: header},                    // Google
	{prefix: "x-auth-token", kind: header},                      //
	{prefix: "bearer", kind: bearer},                            //
	{prefix: "://", kind: userinfo},                             //
	{prefix: `:\/\/`, kind: userinfo},                           // as PHP writes it in JSON
}

// anchors calls yield with every three bytes with which a match can begin.
func (h *shape) anchors(yield func(key uint32)) {
	p := h.prefix
	yield(key3(p[0], p[1], p[2]))
	if h.kind != header && h.kind != bearer {
		return
	}
	up := func(c byte) byte {
		if 'a' <= c && c <= 'z' {
			return c - 32
		}
		return c
	}
	for bits := 1; bits < 16; bits++ {
		k := [3]byte{p[0], p[1], p[2]}
		for i := range k {
			if bits>>i&1 != 0 {
				k[i] = up(k[i])
			}
			if bits>>3 != 0 && k[i] == '-' {
				k[i] = '_'
			}
		}
		yield(key3(k[0], k[1], k[2]))
	}
}

// anywhere reports whether a match may begin directly after a letter or digit.
func (h *shape) anywhere() bool {
	return h.kind == pem || h.kind == header || h.kind == userinfo
}

// match matches the shape at i. The part to mask is lo to hi.
func (h *shape) match(s *scan, i int) (lo, hi int, v matchResult) {
	j, v := h.begin(s, i)
	if v != match {
		return 0, 0, v
	}
	switch h.kind {
	case jwt:
		return matchJWT(s, i)
	case pem:
		return matchPEM(s, i, j)
	case header:
		return matchHeader(s, i, j, h.prefix == "authorization")
	case bearer:
		return matchBearer(s, i, j)
	case userinfo:
		return matchUserinfo(s, i, j)
	}
	return h.matchToken(s, i, j)
}

// begin compares the prefix and returns its end.
func (h *shape) begin(s *scan, i int) (int, matchResult) {
	fold := h.kind == header || h.kind == bearer
	for k := range len(h.prefix) {
		if i+k == len(s.t) {
			return 0, s.need()
		}
		c := s.t[i+k]
		if fold {
			c = lower(c)
			if c == '_' {
				c = '-' // X_API_KEY, as in environments and WSGI
			}
		}
		if c != h.prefix[k] {
			return 0, none
		}
	}
	return i + len(h.prefix), match
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 32
	}
	return c
}

func (h *shape) matchToken(s *scan, i, j int) (lo, hi int, v matchResult) {
	if !s.starts(i, h.tail) {
		return 0, 0, none
	}
	end, v := s.run(j, h.tail, maxToken)
	if v != match {
		return 0, 0, v
	}
	tail := s.t[j:end]
	switch h.kind {
	case exact:
		if len(tail) != h.least {
			return 0, 0, none
		}
	case dense:
		if !hasDigit(tail) || stretch(tail, alnum) < h.least {
			return 0, 0, none
		}
	case digit:
		if !hasDigit(tail) {
			return 0, 0, none
		}
	}
	tail = bytes.TrimRight(tail, ".")
	if len(tail) < h.least {
		return 0, 0, none
	}
	return i, j + len(tail), match
}

// run returns the end of the run of bytes of c that begins at j, limited to
// limit bytes. A run that reaches the end of an incomplete text is partial.
func (s *scan) run(j int, c class, limit int) (end int, v matchResult) {
	stop := min(len(s.t), j+limit)
	for end = j; end < stop && c.has(s.t[end]); end++ {
	}
	if end == len(s.t) && end < j+limit && !s.final {
		return end, partial
	}
	return end, match
}

// value is run for the value of a header. A header's name consists of the same
// bytes, so the end of a run is cached: otherwise a sequence of
// "authorization=" would take quadratic time.
func (s *scan) value(j int) (end int, v matchResult) {
	if j < s.valFrom || j > s.valTo || s.valTo == 0 {
		s.valFrom, s.valTo = j, j
		for s.valTo < len(s.t) && token68.has(s.t[s.valTo]) {
			s.valTo++
		}
	}
	end = min(s.valTo, j+maxToken)
	if s.valTo == len(s.t) && end < j+maxToken && !s.final {
		return end, partial
	}
	return end, match
}

// starts reports whether a token may begin at i: the previous byte is neither
// of its class nor a letter or digit, or it is the end of an escape such as \n,
// \u003d, %3D or a terminal colour. Since a token cannot begin inside a run of
// its own class, each run is examined once per shape.
func (s *scan) starts(i int, c class) bool {
	b := s.back(i, 1)
	if !c.has(b) && !alnum.has(b) {
		return true
	}
	switch b {
	case 'n', 'r', 't', 'b', 'f', 'v':
		if s.back(i, 2) == '\\' {
			return true
		}
	case 'm': // ESC [ 1 ; 31 m
		k := 2
		for k < lookback && (s.back(i, k) == ';' || digitByte(s.back(i, k))) {
			k++
		}
		if s.back(i, k) == '[' {
			return true
		}
	}
	if unhex(b) < 0 || unhex(s.back(i, 2)) < 0 {
		return false
	}
	switch s.back(i, 3) {
	case '%':
		return true
	case 'x':
		return s.back(i, 4) == '\\'
	}
	return unhex(s.back(i, 3)) >= 0 && unhex(s.back(i, 4)) >= 0 && s.back(i, 5) == 'u' && s.back(i, 6) == '\\'
}

// back returns the byte n before i in the line, 0 before its start.
func (s *scan) back(i, n int) byte {
	if i >= n {
		return s.t[i-n]
	}
	if n -= i; n <= len(s.left) {
		return s.left[len(s.left)-n]
	}
	return 0
}

func digitByte(c byte) bool { return '0' <= c && c <= '9' }

// hasDigit examines only the beginning of t: a token without a digit in so many
// letters is not a token, and the work per match stays small.
func hasDigit(t []byte) bool { return slices.ContainsFunc(t[:min(len(t), 128)], digitByte) }

// stretch returns the length of the longest run of c in t.
func stretch(t []byte, c class) (best int) {
	n := 0
	for _, b := range t {
		if n++; !c.has(b) {
			n = 0
		}
		best = max(best, n)
	}
	return best
}

// matchJWT matches header.claims[.signature] if the claims are JSON too, and
// otherwise anything with three or more parts (encrypted tokens).
func matchJWT(s *scan, i int) (lo, hi int, v matchResult) {
	if s.back(i, 1) == '.' || !s.starts(i, b64url) {
		return 0, 0, none
	}
	head, v := s.run(i, b64url, maxHeader)
	if v != match {
		return 0, 0, v
	}
	if head-i < 12 || head == len(s.t) || s.t[head] != '.' {
		return 0, 0, none
	}
	end, v := s.run(head, dotted, maxJWT)
	if v != match {
		return 0, 0, v
	}
	rest := bytes.TrimRight(s.t[head+1:end], ".")
	second, more, _ := bytes.Cut(rest, []byte("."))
	switch {
	case bytes.HasPrefix(second, []byte("eyJ")) && len(second) >= 8:
	case len(more) >= 16:
	default:
		return 0, 0, none
	}
	return i, head + 1 + len(rest), match
}

// matchHeader matches the value of a header, printed raw, as JSON, as a Go map,
// or as a list of pairs. A scheme ("Bearer") before the value is kept.
func matchHeader(s *scan, i, j int, scheme bool) (lo, hi int, v matchResult) {
	t, named := s.t, false
	stop := min(len(t), j+24)
	for j < stop && bytes.IndexByte([]byte(":=, \t\"'\\[({"), t[j]) >= 0 {
		named = named || t[j] == ':' || t[j] == '=' || t[j] == ','
		j++
	}
	if j == len(t) && !s.final {
		return 0, 0, partial
	}
	if !named || j == len(t) {
		return 0, 0, none
	}
	end, v := s.value(j)
	if v != match {
		return 0, 0, v
	}
	basic, known := false, false
	if scheme && end-j <= 16 {
		k, v := s.gap(end)
		if v != match {
			return 0, 0, v
		}
		if k > end {
			basic = foldIs(t[j:end], "basic")
			known = basic || foldIs(t[j:end], "bearer") || foldIs(t[j:end], "token")
			j = k
			if end, v = s.value(j); v != match {
				return 0, 0, v
			}
		}
	}
	val := bytes.TrimRight(t[j:end], ".")
	n := len(val)
	switch {
	case basic && n >= 8:
	case (known || !scheme) && n >= 8 && hasDigit(val):
	case n >= 16 && hasDigit(val):
	case n >= 24 && bytes.IndexByte(val[:min(n, 128)], '.') < 0: // not process.env.SOME_KEY
	default:
		return 0, 0, none
	}
	return j, j + n, match
}

// gap returns the end of the space after a scheme: up to four blanks, plus
// signs or %20.
func (s *scan) gap(j int) (int, matchResult) {
	for range 4 {
		switch {
		case j == len(s.t):
			return j, s.blank()
		case s.t[j] == ' ' || s.t[j] == '\t':
			j++
		case s.t[j] == '%':
			if j+3 > len(s.t) {
				return j, s.blank()
			}
			if s.t[j+1] != '2' || s.t[j+2] != '0' {
				return j, match
			}
			j += 3
		default:
			return j, match
		}
	}
	return j, match
}

// blank is need for an optional part.
func (s *scan) blank() matchResult {
	if s.final {
		return match
	}
	return partial
}

func foldIs(t []byte, want string) bool {
	return len(t) == len(want) && bytes.EqualFold(t, []byte(want))
}

func matchBearer(s *scan, i, j int) (lo, hi int, v matchResult) {
	if !s.starts(i, word) {
		return 0, 0, none
	}
	k, v := s.gap(j)
	if v != match {
		return 0, 0, v
	}
	if k == j {
		return 0, 0, none
	}
	end, v := s.value(k)
	if v != match {
		return 0, 0, v
	}
	val := bytes.TrimRight(s.t[k:end], ".")
	if len(val) < 20 || !hasDigit(val) {
		return 0, 0, none
	}
	return k, k + len(val), match
}

// matchUserinfo matches the password of scheme://user:password@host. j is after
// the slashes.
func matchUserinfo(s *scan, i, j int) (lo, hi int, v matchResult) {
	if !alnum.has(s.back(i, 1)) {
		return 0, 0, none
	}
	t := s.t
	for stop := j + 256; ; j++ {
		if j == len(t) {
			return 0, 0, s.need()
		}
		if t[j] == ':' {
			break
		}
		if j == stop || outsideUserinfo(t[j]) || t[j] == '@' {
			return 0, 0, none
		}
	}
	lo = j + 1
	// A password may contain an unescaped @: the last one ends it.
	k, at, stop := lo, -1, lo+maxToken
	for ; k < len(t) && k < stop && !outsideUserinfo(t[k]); k++ {
		if t[k] == '@' {
			at = k
		}
	}
	if k == len(t) && k < stop && !s.final {
		return 0, 0, partial
	}
	if at <= lo || placeholder(t[lo:at]) {
		return 0, 0, none
	}
	return lo, at, match
}

func outsideUserinfo(c byte) bool {
	return c <= ' ' || c == 0x7f || bytes.IndexByte([]byte("/?#\"'<>\\`"), c) >= 0
}

// placeholder reports whether a password is a typical placeholder in documents
// or programs.
func placeholder(p []byte) bool {
	switch p[0] {
	case '$', '{', '*':
		return true
	case '%':
		return len(p) == 2
	}
	return false
}
