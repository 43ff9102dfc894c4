package api_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/identity"
	"github.com/agented/agented/internal/api/rest"
)

// follow opens a stream and returns a channel that is closed when the stream
// ends.
func (g *rig) follow(c *http.Client, path string, changes ...change) <-chan struct{} {
	g.t.Helper()
	r, err := http.NewRequest("GET", g.http.URL+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range changes {
		f(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		g.t.Fatalf("%s: status %d", path, resp.StatusCode)
	}
	in := bufio.NewReader(resp.Body)
	if _, err := in.ReadString('\n'); err != nil {
		g.t.Fatalf("%s: %v", path, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := in.ReadByte(); err != nil {
				return
			}
		}
	}()
	g.t.Cleanup(func() { resp.Body.Close(); <-done })
	return done
}

func TestOpenStreams_end_with_credential(t *testing.T) {
	t.Parallel()
	paths := func(g *rig) []string {
		g.t.Helper()
		var agent api.AgentView
		g.admin("POST", "/api/v1/agents", `{"name":"worker","backend":"claude"}`).want(201).json(&agent)
		var conversation struct {
			ID string `json:"id"`
		}
		g.admin("POST", "/api/v1/conversations", `{"agent":"worker","message":"hi"}`).want(201).json(&conversation)
		return []string{
			"/api/v1/executions/" + g.execution() + "/stream", "/api/v1/events/stream", "/api/v1/events/stream?lines=true&changes=true",
			"/api/v1/agents/" + string(agent.ID) + "/inbox/stream", "/api/v1/conversations/" + conversation.ID + "/stream",
		}
	}
	user := func(g *rig, name string) (id string) {
		var list rest.ListOf[identity.UserView]
		g.admin("GET", "/api/v1/auth/users", "").want(200).json(&list)
		for _, u := range list.Items {
			if u.Name == name {
				return string(u.ID)
			}
		}
		t.Fatalf("no user %s", name)
		return ""
	}
	for name, end := range map[string]func(g *rig, c *http.Client){
		"disabled_user": func(g *rig, _ *http.Client) {
			g.admin("PATCH", "/api/v1/auth/users/"+user(g, "olga"), `{"disabled":true}`).want(200)
		},
		"deleted_user": func(g *rig, _ *http.Client) { g.admin("DELETE", "/api/v1/auth/users/"+user(g, "olga"), "").want(204) },
		"lowered_role": func(g *rig, _ *http.Client) {
			g.admin("PATCH", "/api/v1/auth/users/"+user(g, "olga"), `{"role":"viewer"}`).want(200)
		},
		"password_set_by_admin": func(g *rig, _ *http.Client) {
			g.admin("PATCH", "/api/v1/auth/users/"+user(g, "olga"), `{"password":"another long password"}`).want(200)
		},
		"password_changed_elsewhere": func(g *rig, _ *http.Client) {
			other := g.loggedIn("olga")
			g.send(other, "POST", "/api/v1/auth/password", `{"current":"`+password+`","new":"another long password"}`).want(204)
		},
		"logout": func(g *rig, c *http.Client) { g.send(c, "POST", "/api/v1/auth/logout", "").want(204) },
		"session_ended_by_admin": func(g *rig, _ *http.Client) {
			var list rest.ListOf[identity.SessionView]
			g.admin("GET", "/api/v1/auth/sessions?all=true", "").want(200).json(&list)
			for _, s := range list.Items {
				if s.UserName == "olga" {
					g.admin("DELETE", "/api/v1/auth/sessions/"+string(s.ID), "").want(204)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, settings{})
			g.addUser("olga", agented.RoleOperator)
			g.addUser("ulla", agented.RoleOperator)
			c, other := g.loggedIn("olga"), g.loggedIn("ulla")
			var ended, stays []<-chan struct{}
			for _, path := range paths(g) {
				ended = append(ended, g.follow(c, path))
				stays = append(stays, g.follow(other, path))
			}
			end(g, c)
			expectEnd(t, ended)
			expectOpen(t, stays)
		})
	}
	t.Run("revoked_key", func(t *testing.T) {
		t.Parallel()
		g := start(t, settings{})
		var k identity.NewKey
		g.admin("POST", "/api/v1/auth/keys", `{"name":"k","role":"viewer"}`).want(201).json(&k)
		var ended, stays []<-chan struct{}
		for _, path := range paths(g) {
			ended = append(ended, g.follow(g.client(), path, with("X-API-Key", k.Key)))
			stays = append(stays, g.follow(g.client(), path, with("X-API-Key", staticKey)))
		}
		g.admin("DELETE", fmt.Sprint("/api/v1/auth/keys/", k.ID), "").want(204)
		expectEnd(t, ended)
		expectOpen(t, stays)
		until(t, func() bool { return g.api.StreamsOpen() == 1 })
	})
}

func expectEnd(t *testing.T, streams []<-chan struct{}) {
	t.Helper()
	for i, done := range streams {
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Errorf("stream %d is still open", i)
		}
	}
}

func expectOpen(t *testing.T, streams []<-chan struct{}) {
	t.Helper()
	for i, done := range streams {
		select {
		case <-done:
			t.Errorf("stream %d of another credential ended", i)
		default:
		}
	}
}

func TestFeed_without_readers(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for range 50 {
		g.do(agented.RoleViewer, "GET", "/api/v1/conversations/"+agented.NewID("conv", time.Now())+"/stream", "").problem(404)
	}
	if n := g.api.FeedsInUse(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

func TestInboxStream_viewer(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var agent api.AgentView
	g.admin("POST", "/api/v1/agents", `{"name":"worker","backend":"claude"}`).want(201).json(&agent)
	g.admin("POST", "/api/v1/messages", `{"to":"agent:worker","body":"hi"}`).want(201)
	state := func() string {
		t.Helper()
		return g.admin("GET", "/api/v1/agents/"+string(agent.ID)+"/inbox", "").want(200).body
	}
	if !strings.Contains(state(), `"pending"`) {
		t.Fatalf("no message waits: %s", state())
	}
	path := "/api/v1/agents/" + string(agent.ID) + "/inbox/stream"
	g.follow(g.client(), path, with("X-API-Key", g.key(agented.RoleViewer)))
	if !strings.Contains(state(), `"pending"`) {
		t.Error("a viewer who watched took the message")
	}
	g.follow(g.client(), path, with("X-API-Key", g.key(agented.RoleOperator)))
	until(t, func() bool { return strings.Contains(state(), `"delivered"`) })
}
