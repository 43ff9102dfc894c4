package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
)

// AccountPurpose is what the credentials of accounts are sealed for.
const AccountPurpose = "account credential"

// SealedCredential names a credential inside its seal.
func SealedCredential(id agented.AccountID, name string) string { return string(id) + "/" + name }

// accountRoutes are the ways to accounts.
func (s *Server) accountRoutes() []route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []route{
		op("GET /api/v1/accounts", viewer, s.listAccounts, about{
			id: "list-accounts", tag: "accounts", summary: "List accounts",
			text: "Of all backends, in the order in which they are taken, with what rests for a whole backend. Credentials are never shown.",
		}),
		op("POST /api/v1/accounts", admin, s.createAccount, about{
			id: "create-account", tag: "accounts", summary: "Create an account", status: http.StatusCreated, errors: []int{http.StatusConflict},
			text: "With `credentials` (variables for the CLI, sealed at rest) or `config` (the folder with the CLI's own login).",
		}),
		op("GET /api/v1/accounts/{id}", viewer, s.getAccount, about{
			id: "get-account", tag: "accounts", summary: "Show an account", errors: []int{http.StatusNotFound}, text: "Credentials are never shown.",
		}),
		op("PATCH /api/v1/accounts/{id}", admin, s.updateAccount, about{
			id: "update-account", tag: "accounts", summary: "Change an account", errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "A JSON merge patch; `credentials` is replaced as a whole, and `***` as a value keeps the one that the name has. New credentials, another folder and enabling make the account ready. Of a default account only order, limit and enabled can change.",
		}),
		op("DELETE /api/v1/accounts/{id}", admin, s.deleteAccount, about{
			id: "delete-account", tag: "accounts", summary: "Delete an account", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "The default accounts stay, and so does one that is in use.",
		}),
		op("POST /api/v1/accounts/{id}/probe", operator, s.probeAccount, about{
			id: "probe-account", tag: "accounts", summary: "Try an account", status: http.StatusAccepted, errors: []int{http.StatusNotFound},
			text: "Runs the cheapest call of the CLI that there is with the account, whatever its state. When that execution has ended, the account's state is what it found.",
		}),
		op("POST /api/v1/accounts/{id}/reset", operator, s.resetAccount, about{
			id: "reset-account", tag: "accounts", summary: "Say that an account is ready", status: http.StatusOK, errors: []int{http.StatusNotFound},
			text: "Whatever it was; what rests for its whole backend is over too, and what waits goes on.",
		}),
	}
}

// AccountView is an account as the API shows it. Names stay; more may be added.
type AccountView struct {
	ID            agented.AccountID    `json:"id" example:"acc-01jdc4q7zv8m3k2n5p6r7s8t9w" doc:"acc-…, or default-BACKEND for the one that the server's environment forms"`
	Backend       string               `json:"backend" enum:"claude,codex,gemini,opencode,anthropic"`
	Name          string               `json:"name" doc:"Unique for the backend, ignoring case"`
	Label         string               `json:"label" doc:"backend/name, as sentences have it"`
	Default       bool                 `json:"default" doc:"Formed by the server's environment"`
	Enabled       bool                 `json:"enabled"`
	Order         int                  `json:"order" doc:"Lower is taken first"`
	MaxConcurrent int                  `json:"max_concurrent" doc:"Attempts at once; 0: no limit"`
	Config        string               `json:"config" doc:"Folder with the CLI's own login; empty: none of its own"`
	Credentials   map[string]string    `json:"credentials" doc:"Variables for the CLI. Values are never shown: *** stands for one"`
	State         agented.AccountState `json:"state" enum:"ready,cooling,needs_login,out_of_credit"`
	Until         *time.Time           `json:"until" nullable:"true" doc:"Of cooling: when it is tried again"`
	Evidence      string               `json:"evidence" doc:"What the state was read from"`
	Cause         agented.Class        `json:"cause" doc:"Class of the end that the state was read from; empty when ready"`
	Strikes       int                  `json:"strikes" doc:"Limits in a row"`
	Probing       bool                 `json:"probing" doc:"An attempt finds out whether it is ready again"`
	Running       int                  `json:"running" doc:"Attempts that use it now"`
	UsedAt        *time.Time           `json:"used_at" nullable:"true" doc:"When an attempt last began with it"`
	CreatedAt     time.Time            `json:"created_at"`
	UpdatedAt     time.Time            `json:"updated_at"`
}

func (s *Server) viewAccount(ctx context.Context, a *agented.Account) AccountView {
	v := AccountView{
		ID: a.ID, Backend: a.Backend, Name: a.Name, Label: a.Label(), Default: a.Default, Enabled: a.Enabled, Order: a.Order,
		MaxConcurrent: a.MaxConcurrent, Config: a.Config, Credentials: map[string]string{}, State: a.State, Until: known(a.Until),
		Evidence: s.mask(a.Evidence), Cause: a.Cause, Strikes: a.Strikes, Probing: a.Probing, Running: a.Running, UsedAt: known(a.UsedAt),
		CreatedAt: shown(a.CreatedAt), UpdatedAt: shown(a.UpdatedAt),
	}
	if a.State != agented.AccountCooling {
		v.Until = nil
	}
	for name := range a.Credentials {
		v.Credentials[name] = kept
	}
	return v
}

// RestView is something that rests for all accounts of a backend.
type RestView struct {
	Backend  string    `json:"backend"`
	Kind     string    `json:"kind" enum:"provider,address" doc:"provider: overload or failures in a row; address: too many requests from here"`
	Until    time.Time `json:"until"`
	Why      string    `json:"why"`
	Failures int       `json:"failures"`
	Probing  bool      `json:"probing" doc:"An attempt finds out whether it is over"`
}

// AccountList is all accounts.
type AccountList struct {
	Items      []AccountView `json:"items"`
	NextCursor *string       `json:"next_cursor" nullable:"true" doc:"Always null: there are few"`
	Rests      []RestView    `json:"rests" doc:"What rests for all accounts of a backend"`
}

// AccountFields is an account in requests.
type AccountFields struct {
	Name          optional[string]             `json:"name,omitzero" doc:"Unique for the backend, ignoring case; letters, digits and . _ -"`
	Enabled       optional[bool]               `json:"enabled,omitzero" doc:"Default true"`
	Order         optional[int]                `json:"order,omitzero" doc:"Lower is taken first; default 0"`
	MaxConcurrent optional[int]                `json:"max_concurrent,omitzero" doc:"Attempts at once; 0 (default) is no limit"`
	Config        optional[string]             `json:"config,omitzero" doc:"Absolute path of the folder with the CLI's own login, such as CLAUDE_CONFIG_DIR or CODEX_HOME"`
	Credentials   optional[map[string]*string] `json:"credentials,omitzero" doc:"Variables for the CLI, such as ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN; replaces all earlier ones. In a change *** keeps the value that the name has"`
}

// AccountCreate is a new account.
type AccountCreate struct {
	Backend string `json:"backend" enum:"claude,codex,gemini,opencode,anthropic"`
	AccountFields
}

// AccountUpdate is a change of an account; what is left out stays.
type AccountUpdate struct{ AccountFields }

// apply changes an account as the request says, and seals what is new.
func (s *Server) applyAccount(a *agented.Account, f *AccountFields) error {
	f.Name.into(&a.Name, "")
	f.Enabled.into(&a.Enabled, true)
	f.Order.into(&a.Order, 0)
	f.MaxConcurrent.into(&a.MaxConcurrent, 0)
	f.Config.into(&a.Config, "")
	if !f.Credentials.set {
		return agented.InvalidFields(a.Validate())
	}
	old := a.Credentials
	fresh := map[string]string{}
	a.Credentials = nil
	var bad []agented.Field
	for name, value := range f.Credentials.value {
		switch {
		case value == nil:
			continue
		case *value == kept:
			if _, ok := old[name]; !ok {
				bad = append(bad, agented.Field{Path: "credentials." + clip(name, 60), Text: "*** keeps a value, and this variable has none: send the value"})
				continue
			}
			fresh[name] = old[name]
		default:
			fresh[name] = *value
		}
	}
	if len(fresh) > 0 {
		a.Credentials = fresh
	}
	if bad = append(bad, a.Validate()...); len(bad) > 0 {
		return agented.InvalidFields(bad)
	}
	for name, value := range fresh {
		if sealed, ok := old[name]; ok {
			if value == sealed {
				continue
			}
			if was, err := s.o.Key.OpenText(AccountPurpose, SealedCredential(a.ID, name), sealed); err == nil && was == value {
				fresh[name] = sealed
				continue
			}
		}
		fresh[name] = s.o.Key.SealText(AccountPurpose, SealedCredential(a.ID, name), value)
	}
	return nil
}

type accountPath struct {
	ID string `path:"id" maxLength:"100" doc:"The account's id, acc-… or default-BACKEND"`
}

func accountID(id string) (agented.AccountID, error) {
	if !agented.AccountID(id).Valid() {
		return "", agented.Errorf(agented.NotFound, "no account has this id; GET /api/v1/accounts lists them")
	}
	return agented.AccountID(id), nil
}

func (s *Server) listAccounts(ctx context.Context, _ *pageInput) (*output[AccountList], error) {
	items, err := s.o.DB.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	rests, err := s.o.DB.BackendRests(ctx)
	if err != nil {
		return nil, err
	}
	out := &output[AccountList]{AccountList{Items: make([]AccountView, len(items)), Rests: make([]RestView, len(rests))}}
	for i := range items {
		out.Body.Items[i] = s.viewAccount(ctx, &items[i])
	}
	for i, r := range rests {
		out.Body.Rests[i] = RestView{Backend: r.Backend, Kind: r.Kind, Until: shown(r.Until), Why: s.mask(r.Why), Failures: r.Failures, Probing: r.Probing}
	}
	return out, nil
}

type createdAccount struct {
	Location string `header:"Location" doc:"Path of the new account"`
	Body     AccountView
}

func (s *Server) createAccount(ctx context.Context, in *createInput[AccountCreate]) (*createdAccount, error) {
	now := s.now()
	a := &agented.Account{ID: agented.AccountID(agented.NewID("acc", now)), Backend: in.Body.Backend, Enabled: true, CreatedAt: now}
	if err := s.applyAccount(a, &in.Body.AccountFields); err != nil {
		return nil, err
	}
	if err := s.o.DB.CreateAccount(ctx, a, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.accountsChanged()
	return &createdAccount{Location: "/api/v1/accounts/" + string(a.ID), Body: s.viewAccount(ctx, a)}, nil
}

// accountsChanged makes what is new known: values to mask, and work that may go
// on.
func (s *Server) accountsChanged() {
	if s.o.SecretsChanged != nil {
		s.o.SecretsChanged()
	}
	s.o.Dispatch.Wake()
	s.changes.tell(changedAccounts)
}

func (s *Server) account(ctx context.Context, id string) (*agented.Account, error) {
	aid, err := accountID(id)
	if err != nil {
		return nil, err
	}
	return s.o.DB.Account(ctx, aid)
}

func (s *Server) getAccount(ctx context.Context, in *accountPath) (*output[AccountView], error) {
	a, err := s.account(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &output[AccountView]{s.viewAccount(ctx, a)}, nil
}

type accountChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The account's id, acc-… or default-BACKEND"`
	Body AccountUpdate
}

func (s *Server) updateAccount(ctx context.Context, in *accountChange) (*output[AccountView], error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	a, err := s.account(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if f := &in.Body.AccountFields; a.Default && (f.Name.set || f.Config.set || f.Credentials.set) {
		return nil, agented.Errorf(agented.Conflict, "account %s is formed by the server's environment: change name, config or credentials there, or make another account", a.Label())
	}
	if err := s.applyAccount(a, &in.Body.AccountFields); err != nil {
		return nil, err
	}
	if err := s.o.DB.UpdateAccount(ctx, a, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.accountsChanged()
	return &output[AccountView]{s.viewAccount(ctx, a)}, nil
}

func (s *Server) deleteAccount(ctx context.Context, in *accountPath) (*struct{}, error) {
	id, err := accountID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.o.DB.DeleteAccount(ctx, id, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.accountsChanged()
	return nil, nil
}

func (s *Server) resetAccount(ctx context.Context, in *accountPath) (*output[AccountView], error) {
	id, err := accountID(in.ID)
	if err != nil {
		return nil, err
	}
	a, err := s.o.DB.ResetAccount(ctx, id, principal(ctx).Name, s.now())
	if err != nil {
		return nil, err
	}
	s.o.Dispatch.Wake()
	s.changes.tell(changedAccounts)
	return &output[AccountView]{s.viewAccount(ctx, a)}, nil
}

// probeModels are the models that make a probe cheap, where a CLI has a name
// for one that every account can use.
var probeModels = map[string]string{agented.BackendClaude: "haiku"}

func (s *Server) probeAccount(ctx context.Context, in *accountPath) (*acceptedOutput, error) {
	a, err := s.account(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	spec := newSpec(0)
	spec.Backend, spec.Account, spec.Model = a.Backend, a.ID, probeModels[a.Backend]
	spec.Prompt, spec.Permission, spec.TimeoutSeconds = "Reply with the single word ok.", agented.PermissionRead, 180
	e, repeated, err := s.o.Dispatch.Fire(ctx, dispatch.Firing{
		Spec: &spec, Name: "probe of " + a.Label(), Source: agented.SourceManual, Actor: principal(ctx).Name, Probes: a.ID,
	})
	if err != nil {
		return nil, err
	}
	return accepted(e, repeated), nil
}

// AccountSecrets lists the credentials of accounts, for masking.
func (s *Server) AccountSecrets() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	accounts, err := s.o.DB.Accounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	var out []string
	for i := range accounts {
		a := &accounts[i]
		for _, name := range slices.Sorted(maps.Keys(a.Credentials)) {
			if value, err := s.o.Key.OpenText(AccountPurpose, SealedCredential(a.ID, name), a.Credentials[name]); err == nil {
				out = append(out, value)
			}
		}
	}
	return out, nil
}
