package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/logsearch"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
)

// logs handles the requests about logs and streams.
type logs struct {
	db       *store.DB
	streams  *sse.Streams
	layout   agented.Layout
	masker   func() *redact.Masker
	schemaOf func(any) *huma.Schema
}

// LogHits are the lines of a log that match a search.
type LogHits struct {
	Hits       []LogHit    `json:"hits"`
	NextAfter  agented.Seq `json:"next_after" doc:"Last line that was searched: send it as after to continue"`
	NextBefore agented.Seq `json:"next_before" doc:"With before: first line that was searched. Send it as before to continue"`
	Done       bool        `json:"done" doc:"The current end of the log was reached; with before, its start, or with count, that line"`
	Count      int64       `json:"count" doc:"With count: number of matching lines after after, up to next_after"`
	LastSeq    agented.Seq `json:"last_seq" doc:"Number of the last line of the log at this moment"`
	Note       string      `json:"note,omitempty" doc:"Why there is nothing to search, if retention removed the log"`
}

// LogHit is one matching line.
type LogHit struct {
	Seq     agented.Seq    `json:"seq" doc:"Line number; of its first part if it was split"`
	At      time.Time      `json:"timestamp"`
	Attempt int            `json:"attempt"`
	Stream  agented.Stream `json:"stream" enum:"stdout,stderr,system"`
	Excerpt string         `json:"excerpt" doc:"Text around the first match, at most 240 bytes, without escape sequences"`
}

type searchInput struct {
	ID     string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Query  string `query:"q" required:"true" minLength:"1" maxLength:"1000" doc:"Text to search for"`
	Regex  bool   `query:"regex" doc:"q is a regular expression (RE2 syntax)"`
	Case   bool   `query:"case" doc:"Match case. Default: ignore case"`
	After  int64  `query:"after" minimum:"0" doc:"Search after this line"`
	Before int64  `query:"before" minimum:"0" doc:"Search before this line, backwards: the last hits before it are returned, in order. With count: count up to this line"`
	Count  bool   `query:"count" doc:"Only count the matching lines"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"Maximum number of hits"`
}

// searchTime limits the search of one request.
const searchTime = 2 * time.Second

func (h *logs) search(ctx context.Context, in *searchInput) (*rest.Output[LogHits], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	options := logsearch.Options{
		Regex: in.Regex, Case: in.Case, After: agented.Seq(in.After), Limit: in.Limit, Count: in.Count,
		Masker: h.masker(), Until: time.Now().Add(searchTime),
	}
	if in.Count {
		options.Stop = agented.Seq(in.Before)
	} else if in.Before > 0 && in.After > 0 {
		return nil, agented.InvalidFields([]agented.Field{{Path: "query.before", Text: "cannot be combined with after, except with count=true"}})
	}
	search, err := logsearch.New(in.Query, options)
	if err != nil {
		return nil, agented.InvalidFields([]agented.Field{{Path: "query.q", Text: agented.Message(err)}})
	}
	e, err := h.db.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	out := rest.Reply(LogHits{Hits: []LogHit{}, NextAfter: agented.Seq(in.After)})
	log, err := runlog.OpenReader(h.layout.Execution(id))
	if errors.Is(err, agented.NotFound) {
		out.Body.Done, out.Body.Note = true, sse.Removed(e)
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if out.Body.LastSeq, err = log.LastSeq(); err != nil {
		return nil, err
	}
	var found *logsearch.Result
	if in.Before > 0 && !in.Count {
		before := min(agented.Seq(in.Before), out.Body.LastSeq+1)
		found, out.Body.NextBefore, err = logsearch.Backwards(ctx, log, in.Query, options, before)
	} else if err = log.SeekAfter(agented.Seq(in.After)); err == nil {
		found, err = search.Run(ctx, log)
	}
	if err != nil {
		return nil, err
	}
	out.Body.Count = found.Count
	for _, h := range found.Hits {
		h.At = rest.Time(h.At)
		out.Body.Hits = append(out.Body.Hits, LogHit(h))
	}
	out.Body.NextAfter, out.Body.Done = found.NextAfter, found.Done
	return out, nil
}

// routes returns the routes of logs and streams.
func (h *logs) routes() []rest.Route {
	const viewer = agented.RoleViewer
	st := h.streams
	return []rest.Route{
		rest.Raw("GET /api/v1/executions/{id}/log", viewer, st.ServeLog, rest.About{
			ID: "list-log-lines", Tag: "logs", Summary: "Read log lines",
			Text:   "Returns lines with a number above `after`, in order. For the next page, send `next_after` as `after`; an empty list means that there are no more lines yet.",
			Params: []*huma.Param{rest.PathParam("id", "The execution's id, exec-…"), rest.QueryParam("after", "integer", "Number of the last line received; 0 for all"), rest.QueryParam("limit", "integer", "Page size, from 1 to 5000; default 500"), rest.QueryParam("stream", "string", "Only stdout, stderr or system"), rest.QueryParam("events", "boolean", "Also return the events of an agent CLI's lines")},
			Answers: map[string]*huma.Response{"200": {
				Description: "Lines", Content: map[string]*huma.MediaType{"application/json": {Schema: h.schemaOf(LogPage{})}},
			}},
			Errors: []int{http.StatusBadRequest, http.StatusNotFound},
		}).Reaching(rest.OwnExecution),
		rest.Raw("GET /api/v1/executions/{id}/log.txt", viewer, st.ServeText, rest.About{
			ID: "download-log", Tag: "logs", Summary: "Download a log as text",
			Text:    "Returns stdout and stderr byte for byte, without numbers and times. The size is fixed when the request starts. Supports range requests.",
			Params:  []*huma.Param{rest.PathParam("id", "The execution's id, exec-…")},
			Answers: map[string]*huma.Response{"200": rest.Describe("The text", "text/plain"), "206": rest.Describe("The requested range", "text/plain")},
			Errors:  []int{http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable},
		}).Streams().Reaching(rest.OwnExecution),
		rest.Raw("GET /api/v1/executions/{id}/stream", viewer, st.ServeStream, rest.About{
			ID: "stream-execution", Tag: "logs", Summary: "Stream an execution",
			Text:    "Server-sent events: `status`, `log` (its id is the line number) and finally `complete`. Last-Event-ID or `after` resumes after that line; a client that reconnects after `complete` gets 204, which ends an EventSource.",
			Params:  []*huma.Param{rest.PathParam("id", "The execution's id, exec-…"), rest.QueryParam("after", "integer", "Number of the last line received; 0 for all. Last-Event-ID takes precedence"), rest.QueryParam("events", "boolean", "Also send the events of an agent CLI's lines"), rest.LastEventID()},
			Answers: map[string]*huma.Response{"200": rest.Describe("The events", "text/event-stream"), "204": rest.Describe("The stream has ended", "")},
			Errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).Streams().Reaching(rest.OwnExecution),
		rest.Op("GET /api/v1/executions/{id}/search", viewer, h.search, rest.About{
			ID: "search-log", Tag: "logs", Summary: "Search a log", Errors: []int{http.StatusNotFound},
			Text: "Returns lines that contain a text or match a regular expression, in order. Parts of a split line are searched as one line; colours and other escape sequences are ignored. One request searches for at most two seconds: repeat it with `next_after` as `after` until `done`. With `before`, the search goes backwards from a line: repeat it with `next_before` as `before`. With `count`, it only counts: add up `count`.",
		}).Reaching(rest.OwnExecution),
		rest.Raw("GET /api/v1/events/stream", viewer, st.ServeEvents, rest.About{
			ID: "stream-events", Tag: "logs", Summary: "Stream all executions",
			Text:    "Server-sent events: `execution` at every change of an execution, with the same fields as in lists and an id for resuming. `lines=true` adds `line` without an id: the last line of each running execution, at most once a second. `changes=true` adds `delivery`, `tick`, `trigger`, `account`, `agent`, `budget`, `conversation` and `member`, without an id and with an empty object: the list of that name has changed, at most once a second each. These events are not replayed: fetch each list once after connecting, then refetch it when its event arrives.",
			Params:  []*huma.Param{rest.QueryParam("after", "integer", "Id of the last event received. Last-Event-ID takes precedence"), rest.QueryParam("lines", "boolean", "Also send the last line of running executions"), rest.QueryParam("changes", "boolean", "Also send changes of lists"), rest.LastEventID()},
			Answers: map[string]*huma.Response{"200": rest.Describe("The events", "text/event-stream")},
			Errors:  []int{http.StatusBadRequest},
		}).Streams(),
	}
}
