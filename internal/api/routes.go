package api

import (
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
)

// allRoutes is every way in, with the role that it needs. RoleNone is open to
// anyone; a test lists those by name.
func (s *Server) allRoutes() []route {
	const (
		anyone   = agented.RoleNone
		viewer   = agented.RoleViewer
		operator = agented.RoleOperator
		admin    = agented.RoleAdmin
	)
	st := s.streams
	overview := &overview{s: s}
	return append([]route{
		// Triggers. Who may change one may run any command as the server's user:
		// that is an admin.
		op("GET /api/v1/triggers", viewer, s.listTriggers, about{
			id: "list-triggers", tag: "triggers", summary: "List triggers",
			text: "In the order of their names.",
		}),
		op("POST /api/v1/triggers", admin, s.createTrigger, about{
			id: "create-trigger", tag: "triggers", summary: "Create a trigger", status: http.StatusCreated, errors: []int{http.StatusConflict},
			text: "The least that works is `{\"name\":\"hello\",\"backend\":\"command\",\"command\":[\"sh\",\"-c\",\"echo hi\"]}`.",
		}),
		op("GET /api/v1/triggers/{id}", viewer, s.getTrigger, about{
			id: "get-trigger", tag: "triggers", summary: "Show a trigger", errors: []int{http.StatusNotFound},
			text: "Values of variables are never shown.",
		}),
		op("PATCH /api/v1/triggers/{id}", admin, s.updateTrigger, about{
			id: "update-trigger", tag: "triggers", summary: "Change a trigger", errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "A JSON merge patch: what is left out stays, null resets a field to its default. `env` is replaced as a whole; `***` as a value keeps the one that the name has, and null passes the server's variable on. Executions that exist keep the settings they were fired with.",
		}),
		op("DELETE /api/v1/triggers/{id}", admin, s.deleteTrigger, about{
			id: "delete-trigger", tag: "triggers", summary: "Delete a trigger", status: http.StatusNoContent, errors: []int{http.StatusNotFound},
			text: "Its executions that wait are cancelled, those that run go on, and the history stays.",
		}),
		op("POST /api/v1/triggers/{id}/run", operator, s.runTrigger, about{
			id: "run-trigger", tag: "triggers", summary: "Run a trigger", status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "Answers once the execution is stored: it runs, whatever happens to the server. The body may be left out. A disabled trigger is a conflict, and so is one whose overlap rule is skip while an earlier execution has not ended.",
		}),

		// Schedules.
		op("GET /api/v1/schedules", viewer, s.listSchedules, about{
			id: "list-schedules", tag: "schedules", summary: "List schedules",
			text: "Those of all triggers, in the order in which they were made, each with its next due time.",
		}),
		op("POST /api/v1/schedules/preview", viewer, s.previewSchedule, about{
			id: "preview-schedule", tag: "schedules", summary: "Preview a schedule", status: http.StatusOK,
			text: "When the schedule of the body would be due next, with the days on which the clock of its zone changes. Nothing is stored.",
		}),
		op("GET /api/v1/ticks", viewer, s.listTicks, about{
			id: "list-ticks", tag: "schedules", summary: "List ticks",
			text: "What was done about each due time of each schedule, the latest due time first.",
		}),
		op("GET /api/v1/triggers/{id}/ticks", viewer, s.listTriggerTicks, about{
			id: "list-trigger-ticks", tag: "schedules", summary: "List the ticks of a trigger", errors: []int{http.StatusNotFound},
			text: "What was done about each due time of the trigger's schedules, the latest due time first.",
		}),

		// Executions.
		op("GET /api/v1/executions", viewer, s.listExecutions, about{
			id: "list-executions", tag: "executions", summary: "List executions",
			text: "The newest first, without prompt and result.",
		}),
		op("POST /api/v1/executions", admin, s.createExecution, about{
			id: "create-execution", tag: "executions", summary: "Run something without a trigger", status: http.StatusAccepted,
			text: "The body is that of a trigger; the name may be left out. Answers once the execution is stored.", errors: []int{http.StatusConflict},
		}),
		op("GET /api/v1/executions/{id}", viewer, s.getExecution, about{
			id: "get-execution", tag: "executions", summary: "Show an execution", errors: []int{http.StatusNotFound},
			text: "With its attempts, prompt and result.",
		}),
		op("POST /api/v1/executions/{id}/cancel", operator, s.cancelExecution, about{
			id: "cancel-execution", tag: "executions", summary: "Cancel an execution", status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "One that waits is cancelled at once; one that runs is asked to stop, and is killed if it does not. One that has ended is a conflict.",
		}),
		op("POST /api/v1/executions/{id}/retry", operator, s.retryExecution, about{
			id: "retry-execution", tag: "executions", summary: "Repeat an execution", status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "Makes a new execution with the prompt and the settings of one that has ended. One that has not is a conflict.",
		}),

		op("POST /api/v1/executions/{id}/pin", operator, s.pinExecution, about{
			id: "pin-execution", tag: "executions", summary: "Keep an execution", status: http.StatusOK, errors: []int{http.StatusNotFound},
			text: "Retention leaves it and its log alone, whatever the limits say.",
		}),
		op("POST /api/v1/executions/{id}/unpin", operator, s.unpinExecution, about{
			id: "unpin-execution", tag: "executions", summary: "Let retention have an execution", status: http.StatusOK, errors: []int{http.StatusNotFound},
			text: "The limits count for it again.",
		}),

		// What is kept.
		op("GET /api/v1/retention", viewer, s.getRetention, about{
			id: "get-retention", tag: "server", summary: "What is kept, and what would go",
			text: "The limits of the settings, and what lies beyond them now. Nothing is removed.",
		}),
		op("POST /api/v1/retention/prune", admin, s.prune, about{
			id: "prune", tag: "server", summary: "Remove what lies beyond the limits", status: http.StatusOK, errors: []int{http.StatusConflict},
			text: "What the server does every hour by itself. A conflict while a backup is being taken.",
		}),
		op("GET /api/v1/backup", admin, s.getBackup, about{
			id: "get-backup", tag: "server", summary: "How the scheduled backups stand",
			text: "Backups are taken by the server itself, as AGENTED_BACKUP_DIR and AGENTED_BACKUP_SCHEDULE say, or by `agented backup` on its machine.",
		}),

		// Logs and streams.
		raw("GET /api/v1/executions/{id}/log", viewer, func(*Server) http.HandlerFunc { return st.ServeLog }, about{
			id: "get-log", tag: "logs", summary: "Read lines of a log",
			text:   "Lines with a number above `after`, in order. Ask again with `after` set to `next_after` for those behind them; an empty list means that there are no more yet.",
			params: []*huma.Param{inPath("id", "The execution's id, exec-…"), inURL("after", "integer", "Number of the last line that is known; 0 for all"), inURL("limit", "integer", "Lines at most, from 1 to 5000; 500 if left out"), inURL("stream", "string", "Only stdout, stderr or system")},
			answers: map[string]*huma.Response{"200": {
				Description: "Lines", Content: map[string]*huma.MediaType{"application/json": {Schema: s.schemaOf(LogPage{})}},
			}},
			errors: []int{http.StatusBadRequest, http.StatusNotFound},
		}),
		raw("GET /api/v1/executions/{id}/log.txt", viewer, func(*Server) http.HandlerFunc { return st.ServeText }, about{
			id: "get-log-text", tag: "logs", summary: "Download a log as text",
			text:    "What was printed to stdout and stderr, byte for byte, without numbers and times. The size is fixed when the request starts. Ranges are honoured.",
			params:  []*huma.Param{inPath("id", "The execution's id, exec-…")},
			answers: map[string]*huma.Response{"200": describe("The text", "text/plain"), "206": describe("The range that was asked for", "text/plain")},
			errors:  []int{http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable},
		}).streams(),
		raw("GET /api/v1/executions/{id}/stream", viewer, func(*Server) http.HandlerFunc { return st.ServeStream }, about{
			id: "stream-execution", tag: "logs", summary: "Follow an execution",
			text:    "Server-sent events: `status`, `log` (its id is the line's number) and, at the end, `complete`. Last-Event-ID or `after` resumes exactly there; who comes back behind `complete` gets 204, which ends an EventSource.",
			params:  []*huma.Param{inPath("id", "The execution's id, exec-…"), inURL("after", "integer", "Number of the last line that is known; 0 for all. Last-Event-ID wins"), lastEventID()},
			answers: map[string]*huma.Response{"200": describe("The events", "text/event-stream"), "204": describe("There is nothing more", "")},
			errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).streams(),
		op("GET /api/v1/executions/{id}/search", viewer, s.searchLog, about{
			id: "search-log", tag: "logs", summary: "Search a log", errors: []int{http.StatusNotFound},
			text: "Lines that hold a text or match a regular expression, in order; parts of a cut line are one, colours and other escape sequences are left out. One answer looks for two seconds at most: ask again with `after` set to `next_after` until `done`.",
		}),
		raw("GET /api/v1/events/stream", viewer, func(*Server) http.HandlerFunc { return st.ServeEvents }, about{
			id: "stream-events", tag: "logs", summary: "Follow all executions",
			text:    "Server-sent events: `execution`, with the execution as lists show it, at every change of any. The ids resume. With `lines=true` also `line`, without id: the last line of each execution that runs, at most once a second. With `changes=true` also `delivery`, `tick`, `trigger`, `account`, `agent`, `budget`, `conversation` and `member`, without id and with an empty object: the list of that name is another one, said at most once a second each. Who connects anew asks for the lists once, and has missed nothing.",
			params:  []*huma.Param{inURL("after", "integer", "Id of the last event that is known. Last-Event-ID wins"), inURL("lines", "boolean", "Also the last line of what runs"), inURL("changes", "boolean", "Also which lists change"), lastEventID()},
			answers: map[string]*huma.Response{"200": describe("The events", "text/event-stream")},
			errors:  []int{http.StatusBadRequest},
		}).streams(),

		// Logging in, users, keys, sessions.
		op("POST /api/v1/auth/setup", anyone, s.setup, about{
			id: "setup", tag: "auth", summary: "Create the first user", status: http.StatusCreated, errors: []int{http.StatusForbidden, http.StatusConflict, http.StatusTooManyRequests},
			text: "Takes the token of the one-time link that the server wrote to the file setup-link in its data folder, and logs in.", maxBody: maxForm,
		}),
		op("POST /api/v1/auth/login", anyone, s.login, about{
			id: "login", tag: "auth", summary: "Log in", status: http.StatusOK, errors: []int{http.StatusUnauthorized, http.StatusTooManyRequests},
			text: "Sets the session cookie.", maxBody: maxForm,
		}),
		op("POST /api/v1/auth/logout", viewer, s.logout, about{
			id: "logout", tag: "auth", summary: "Log out", status: http.StatusNoContent,
			text: "Ends the session and removes its cookie.",
		}),
		op("GET /api/v1/auth/me", viewer, s.me, about{
			id: "get-me", tag: "auth", summary: "Who am I",
			text: "The user or the key of this request.",
		}),
		op("POST /api/v1/auth/password", viewer, s.changePassword, about{
			id: "change-password", tag: "auth", summary: "Change your password", status: http.StatusNoContent, errors: []int{http.StatusTooManyRequests},
			text: "Ends your other sessions.", maxBody: maxForm,
		}),
		op("GET /api/v1/auth/users", admin, s.listUsers, about{
			id: "list-users", tag: "auth", summary: "List users", text: "In the order of their names.",
		}),
		op("POST /api/v1/auth/users", admin, s.createUser, about{
			id: "create-user", tag: "auth", summary: "Create a user", status: http.StatusCreated, errors: []int{http.StatusConflict},
			text: "The user logs in with name and password.", maxBody: maxForm,
		}),
		op("GET /api/v1/auth/users/{id}", admin, s.getUser, about{
			id: "get-user", tag: "auth", summary: "Show a user", errors: []int{http.StatusNotFound}, text: "Without the password.",
		}),
		op("PATCH /api/v1/auth/users/{id}", admin, s.updateUser, about{
			id: "update-user", tag: "auth", summary: "Change a user", errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "What is left out stays. The last active admin stays one.", maxBody: maxForm,
		}),
		op("DELETE /api/v1/auth/users/{id}", admin, s.deleteUser, about{
			id: "delete-user", tag: "auth", summary: "Delete a user", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "The user's sessions end. The last active admin cannot be deleted.",
		}),
		op("GET /api/v1/auth/keys", admin, s.listKeys, about{
			id: "list-keys", tag: "auth", summary: "List API keys", text: "The newest first, revoked ones too, without the keys themselves.",
		}),
		op("POST /api/v1/auth/keys", admin, s.createKey, about{
			id: "create-key", tag: "auth", summary: "Create an API key", status: http.StatusCreated, errors: []int{http.StatusConflict},
			text: "The answer is the only place where the key is shown.", maxBody: maxForm,
		}),
		op("DELETE /api/v1/auth/keys/{id}", admin, s.revokeKey, about{
			id: "revoke-key", tag: "auth", summary: "Revoke an API key", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "For good, from the next request on.",
		}),
		op("GET /api/v1/auth/sessions", viewer, s.listSessions, about{
			id: "list-sessions", tag: "auth", summary: "List sessions",
			text: "Your own; with `all=true`, for an admin, those of everybody. The newest first.",
		}),
		op("DELETE /api/v1/auth/sessions/{id}", viewer, s.revokeSession, about{
			id: "revoke-session", tag: "auth", summary: "End a session", status: http.StatusNoContent, errors: []int{http.StatusNotFound},
			text: "One of your own; for an admin, anybody's.",
		}),

		// The server.
		op("GET /api/v1/overview", viewer, overview.get, about{
			id: "get-overview", tag: "server", summary: "Show what goes on", text: "What runs with its last line, what waits and why, what failed since yesterday, what is due next, executions by day and outcome, and how the server is.",
		}),
		op("GET /api/v1/info", viewer, s.info, about{
			id: "get-info", tag: "server", summary: "Show what runs here", text: "Version, node and what triggers may use.",
		}),
		op("GET /api/v1/config", admin, s.settings, about{
			id: "get-config", tag: "server", summary: "Show the settings", text: "Each with where it came from. Secrets are masked.",
		}),
		op("POST /api/v1/reload", admin, s.reload, about{
			id: "reload-settings", tag: "server", summary: "Read the settings again", status: http.StatusOK,
			text: "As SIGHUP does. Says what has changed and what needs a restart. Settings that are wrong change nothing; the answer names file and line.",
		}),
		op("GET /api/v1/drain", viewer, s.getDrain, about{
			id: "get-drain", tag: "server", summary: "Show whether executions are started", text: "With how many run and wait.",
		}),
		op("PUT /api/v1/drain", admin, s.setDrain, about{
			id: "set-drain", tag: "server", summary: "Start no more executions, or again", text: "While the server is drained, what is fired is stored and waits; what runs goes on. It stays so over a restart.",
		}),
		op("GET /api/v1/audit", admin, s.listAudit, about{
			id: "list-audit", tag: "server", summary: "Who did what", text: "Changes of triggers, users and keys, logins and the like, the newest first.",
		}),
		raw("GET /health/liveness", anyone, (*Server).liveness, about{
			id: "get-liveness", tag: "server", summary: "Does it answer", text: "200 as long as the process answers.",
			answers: map[string]*huma.Response{"200": s.healthAnswer("It answers")},
		}),
		raw("GET /health/readiness", anyone, (*Server).readiness, about{
			id: "get-readiness", tag: "server", summary: "Can it work", text: "503 names the check that failed: draining, store or dispatcher.",
			answers: map[string]*huma.Response{"200": s.healthAnswer("It can"), "503": s.healthAnswer("It cannot")},
		}),
		raw("GET /metrics", viewer, (*Server).metrics, about{
			id: "get-metrics", tag: "server", summary: "Metrics for Prometheus", text: "Open to anyone while the server is bound to this machine only and no proxy is in between.",
			answers: map[string]*huma.Response{"200": describe("The metrics", "text/plain")},
		}).isLocal(),
		raw("GET /openapi.json", viewer, (*Server).openAPIJSON, about{
			id: "get-openapi-json", tag: "server", summary: "This description as JSON", text: "OpenAPI 3.1.",
			answers: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{"application/json": {}}}},
		}).isPage(),
		raw("GET /openapi.yaml", viewer, (*Server).openAPIYAML, about{
			id: "get-openapi-yaml", tag: "server", summary: "This description as YAML", text: "OpenAPI 3.1.",
			answers: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{"application/yaml": {}}}},
		}).isPage(),

		// Pages.
		raw("GET /login", anyone, (*Server).loginForm, about{
			id: "login-page", tag: "pages", summary: "The login page", text: "Says so when somebody is logged in, or when the server has not been set up.",
			params:  []*huma.Param{inURL("next", "string", "Path to go to after the login"), inURL("out", "string", "Set after a logout")},
			answers: map[string]*huma.Response{"200": describe("The page", "text/html")},
		}),
		raw("POST /login", anyone, (*Server).loginSubmit, about{
			id: "login-form", tag: "pages", summary: "Log in with a form", text: "Sets the session cookie and goes on to `next`.",
			body:    formOf("name", "password", "next"),
			answers: map[string]*huma.Response{"303": describe("Logged in", ""), "401": describe("The page, with what was wrong", "text/html"), "429": describe("Too many attempts", "text/html")},
		}),
		raw("POST /logout", anyone, (*Server).logoutSubmit, about{
			id: "logout-form", tag: "pages", summary: "Log out with a form", text: "Ends the session, if there is one, and goes to the login page.",
			answers: map[string]*huma.Response{"303": describe("Logged out", "")},
		}),
		raw("GET /setup", anyone, (*Server).setupForm, about{
			id: "setup-page", tag: "pages", summary: "The page of the one-time setup link", text: "Asks for the first user.",
			params:  []*huma.Param{inURL("token", "string", "The token of the link")},
			answers: map[string]*huma.Response{"200": describe("The page", "text/html"), "403": describe("The token is not valid", "text/html")},
		}),
		raw("POST /setup", anyone, (*Server).setupSubmit, about{
			id: "setup-form", tag: "pages", summary: "Create the first user with a form", text: "Creates the first user and logs in.",
			body:    formOf("token", "name", "password", "again"),
			answers: map[string]*huma.Response{"303": describe("Done and logged in", ""), "403": describe("The token is not valid", "text/html"), "422": describe("The page, with what was wrong", "text/html")},
		}),
		raw("GET /docs", viewer, (*Server).docs, about{
			id: "docs-page", tag: "pages", summary: "This description as a page", text: "Needs no script and nothing from elsewhere.",
			answers: map[string]*huma.Response{"200": describe("The page", "text/html")},
		}).isPage(),
		raw("GET /static/style.css", anyone, (*Server).stylesheet, about{}),
	}, slices.Concat(s.hookRoutes(), s.uiRoutes(), s.agentRoutes(), s.accountRoutes(), s.conversationRoutes(), s.messageRoutes(), s.moneyRoutes())...)
}

func lastEventID() *huma.Param {
	return &huma.Param{Name: "Last-Event-ID", In: "header", Description: "Where to resume; an EventSource sends it by itself", Schema: &huma.Schema{Type: huma.TypeString}}
}

// formOf describes a posted form of text fields.
func formOf(names ...string) *huma.RequestBody {
	s := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}}
	for _, n := range names {
		s.Properties[n] = &huma.Schema{Type: huma.TypeString}
	}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: s}}}
}
