package api

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
)

// The token of an execution is agx_, its id, the number of its attempt, and a
// signature. Nothing of it is stored: it is good while that attempt runs.
const (
	tokenPrefix  = "agx_"
	tokenPurpose = "execution token"
)

// ExecutionToken makes the token that an attempt is given.
func ExecutionToken(key secret.Key, id agented.ExecutionID, attempt int) string {
	what := string(id) + "." + strconv.Itoa(attempt)
	return tokenPrefix + what + "." + base64.RawURLEncoding.EncodeToString(key.Sign(tokenPurpose, []byte(what)))
}

// byToken finds out which execution asks.
func (s *Server) byToken(q *request, r *http.Request, token string) error {
	refused := agented.Errorf(agented.Unauthenticated, "this token of an execution is not good, or the execution has ended")
	rest := strings.TrimPrefix(token, tokenPrefix)
	cut := strings.LastIndexByte(rest, '.')
	if cut < 0 {
		return refused
	}
	what, signature := rest[:cut], rest[cut+1:]
	mac, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	if err != nil || !s.o.Key.Verify(tokenPurpose, []byte(what), mac) {
		return refused
	}
	id, number, _ := strings.Cut(what, ".")
	attempt, err := strconv.Atoi(number)
	if err != nil || !agented.ValidID("exec", id) {
		return refused
	}
	e, err := s.o.DB.Execution(r.Context(), agented.ExecutionID(id))
	switch {
	case agented.KindOf(err) == agented.NotFound && err != nil:
		return refused
	case err != nil:
		return err
	case e.State != agented.StateRunning || e.AttemptNo != attempt:
		return refused
	}
	q.who = agented.Principal{Name: "execution " + id, Execution: e.ID, Agent: agented.AgentID(e.Snapshot.Agent), Trigger: e.Trigger}
	return nil
}
