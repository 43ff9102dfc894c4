package auth

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
)

// The token of an execution consists of agx_, its id, the number of its
// attempt, and a signature. It is not stored, and is valid while that attempt
// runs.
const (
	tokenPrefix  = agented.TokenPrefix
	tokenPurpose = "execution token"
)

// ExecutionToken returns the token of an attempt.
func ExecutionToken(key secret.Key, id agented.ExecutionID, attempt int) string {
	what := string(id) + "." + strconv.Itoa(attempt)
	return tokenPrefix + what + "." + base64.RawURLEncoding.EncodeToString(key.Sign(tokenPurpose, []byte(what)))
}

// byToken authenticates an execution by its token.
func (a *Service) byToken(ctx context.Context, token string) (Caller, error) {
	refused := agented.Errorf(agented.Unauthenticated, "this token of an execution is not valid, or the execution has ended")
	rest := strings.TrimPrefix(token, tokenPrefix)
	cut := strings.LastIndexByte(rest, '.')
	if cut < 0 {
		return Caller{}, refused
	}
	what, signature := rest[:cut], rest[cut+1:]
	mac, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	if err != nil || !a.o.Key.Verify(tokenPurpose, []byte(what), mac) {
		return Caller{}, refused
	}
	id, number, _ := strings.Cut(what, ".")
	attempt, err := strconv.Atoi(number)
	if err != nil || !agented.ValidID("exec", id) {
		return Caller{}, refused
	}
	e, err := a.o.DB.Execution(ctx, agented.ExecutionID(id))
	switch {
	case agented.KindOf(err) == agented.NotFound:
		return Caller{}, refused
	case err != nil:
		return Caller{}, err
	case e.State != agented.StateRunning || e.AttemptNo != attempt:
		return Caller{}, refused
	}
	return Caller{
		Principal:  agented.Principal{Name: "execution " + id, Execution: e.ID, Agent: agented.AgentID(e.Snapshot.Agent), Trigger: e.Trigger},
		Credential: Credential{kind: byExecution, execution: e.ID, attempt: attempt},
	}, nil
}
