package github

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

const (
	// secondaryWait is the shortest pause after a secondary limit that names
	// none, as GitHub's documentation requires.
	secondaryWait = time.Minute
	maxWait       = 2 * time.Hour // for times that GitHub names; its windows are one hour
	skewTolerance = 30 * time.Second
)

// Quota is the primary rate limit of a credential as of its last answer.
type Quota struct {
	Limit, Remaining int
	Reset            time.Time
}

// Quotas returns the last known limits by credential: "app", "token", or
// "installation ID".
func (c *Client) Quotas() map[string]Quota {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]Quota{}
	for k, v := range c.quotas {
		out[k] = v
	}
	return out
}

// mayCall returns a RateLimited error while GitHub refuses calls of a
// credential: repeating them then can get an App banned.
func (c *Client) mayCall(key string, k call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.blocked[key]
	if !ok {
		return nil
	}
	if !c.now().Before(until) {
		delete(c.blocked, key)
		return nil
	}
	return &Error{Kind: agented.RateLimited, Method: k.method, Path: k.path, RetryAt: until, Text: "the rate limit of the credential is used up; nothing was sent"}
}

// block stops calls of a credential until a time.
func (c *Client) block(key string, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until.After(c.blocked[key]) {
		c.blocked[key] = until
	}
}

// limitOf reports whether an answer is that of a rate limit, and when the next
// call is allowed. Times are relative to GitHub's clock in the answer.
func (c *Client) limitOf(res *http.Response, message string) (at time.Time, secondary, limited bool) {
	if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusTooManyRequests {
		return at, false, false
	}
	lower := strings.ToLower(message)
	secondary = strings.Contains(lower, "secondary rate limit") || strings.Contains(lower, "abuse detection")
	now := c.now()
	wait := time.Duration(0)
	switch after, err := strconv.Atoi(res.Header.Get("Retry-After")); {
	case err == nil && after >= 0:
		wait, secondary = time.Duration(min(after, int(maxWait/time.Second)))*time.Second, true
	case res.Header.Get("X-Ratelimit-Remaining") == "0":
		reset, err := strconv.ParseInt(res.Header.Get("X-Ratelimit-Reset"), 10, 64)
		if err != nil {
			wait = secondaryWait
			break
		}
		wait = time.Unix(reset, 0).Sub(serverTime(res, now))
	case secondary || res.StatusCode == http.StatusTooManyRequests || strings.Contains(lower, "rate limit exceeded"):
		wait = secondaryWait
	default:
		return at, false, false
	}
	return now.Add(min(max(wait, time.Second), maxWait)), secondary, true
}

// observe records the limits and the clock of an answer.
func (c *Client) observe(key string, res *http.Response) {
	now := c.now()
	there := serverTime(res, now)
	limit, err1 := strconv.Atoi(res.Header.Get("X-Ratelimit-Limit"))
	remaining, err2 := strconv.Atoi(res.Header.Get("X-Ratelimit-Remaining"))
	reset, err3 := strconv.ParseInt(res.Header.Get("X-Ratelimit-Reset"), 10, 64)
	c.mu.Lock()
	defer c.mu.Unlock()
	// Date has a resolution of seconds, and an answer takes time.
	if c.skew = there.Sub(now); c.skew.Abs() <= skewTolerance {
		c.skew = 0
	}
	if err1 == nil && err2 == nil && err3 == nil {
		c.quotas[key] = Quota{Limit: limit, Remaining: remaining, Reset: now.Add(time.Unix(reset, 0).Sub(there))}
	}
}

func (c *Client) clockSkew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew
}

// Skew returns GitHub's clock minus the clock of this machine as of the last
// answer; 0 if they differ by 30 seconds or less.
func (c *Client) Skew() time.Duration { return c.clockSkew() }

// serverTime returns the time of an answer, or now if it names none.
func serverTime(res *http.Response, now time.Time) time.Time {
	t, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return now
	}
	return t
}
