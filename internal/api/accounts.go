package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/store"
)

// accounts handles the requests about accounts.
type accounts struct {
	db             *store.DB
	sealer         auth.Sealer
	runs           Starter
	queue          Queue
	changes        *sse.Changes
	now            func() time.Time
	mask           func(string) string
	secretsChanged func() // nil: nothing depends on them

	changing sync.Mutex // held while an account is read, changed and written
}

// Queue looks for executions that can start.
type Queue interface{ Wake() }

// routes returns the routes of accounts.
func (h *accounts) routes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/accounts", viewer, h.list, rest.About{
			ID: "list-accounts", Tag: "accounts", Summary: "List accounts",
			Text: "Lists the accounts of all backends in order of preference, and the cooldowns of whole backends. Credentials are never returned.",
		}),
		rest.Op("POST /api/v1/accounts", admin, h.create, rest.About{
			ID: "create-account", Tag: "accounts", Summary: "Create an account", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "Requires `credentials` (variables for the CLI, sealed at rest) or `config` (the directory of the CLI's own login).",
		}),
		rest.Op("GET /api/v1/accounts/{id}", viewer, h.get, rest.About{
			ID: "get-account", Tag: "accounts", Summary: "Show an account", Errors: []int{http.StatusNotFound}, Text: "Returns one account. Credentials are never returned.",
		}),
		rest.Op("PATCH /api/v1/accounts/{id}", admin, h.update, rest.About{
			ID: "update-account", Tag: "accounts", Summary: "Update an account", Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
			Text: "Takes a JSON merge patch. `credentials` is replaced as a whole; the value `***` keeps the stored value of that name. Changing the credentials or the directory, or enabling the account, makes it ready. Of a default account, only order, limit and enabled can change.",
		}),
		rest.Op("DELETE /api/v1/accounts/{id}", admin, h.remove, rest.About{
			ID: "delete-account", Tag: "accounts", Summary: "Delete an account", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Default accounts and accounts in use cannot be deleted.",
		}),
		rest.Op("POST /api/v1/accounts/{id}/probe", operator, h.probe, rest.About{
			ID: "probe-account", Tag: "accounts", Summary: "Probe an account", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound},
			Text: "Runs the cheapest call of the CLI with the account, whatever its state, and updates the account's state from the result of that execution.",
		}),
		rest.Op("POST /api/v1/accounts/{id}/reset", operator, h.reset, rest.About{
			ID: "reset-account", Tag: "accounts", Summary: "Reset an account's limit", Status: http.StatusOK, Errors: []int{http.StatusNotFound},
			Text: "Sets the account to ready, ends the cooldown of its backend, and resumes the executions that wait for it.",
		}),
	}
}

// AccountView is an account in responses. Names are stable; fields may be
// added.
type AccountView struct {
	ID                agented.AccountID            `json:"id" example:"acc-01jdc4q7zv8m3k2n5p6r7s8t9w" doc:"acc-…, or default-BACKEND for the account that the server's environment defines"`
	Backend           agentBackend                 `json:"backend"`
	Name              string                       `json:"name" doc:"Unique within the backend, ignoring case"`
	Label             string                       `json:"label" doc:"backend/name, as used in messages"`
	Default           bool                         `json:"default" doc:"Defined by the server's environment"`
	Enabled           bool                         `json:"enabled"`
	Order             int                          `json:"order" doc:"Accounts with a lower order are preferred"`
	MaxConcurrent     int                          `json:"max_concurrent" doc:"Concurrent attempts; 0 means no limit"`
	Config            string                       `json:"config" doc:"Directory of the CLI's own login; empty: none"`
	Credentials       map[string]AccountCredential `json:"credentials" doc:"Variables for the CLI. Values are never returned: *** stands for each, or {\"secret\": NAME} for a named secret"`
	State             agented.AccountState         `json:"state" enum:"ready,cooling,needs_login,out_of_credit"`
	Until             *time.Time                   `json:"until" nullable:"true" doc:"End of the cooldown, if state is cooling"`
	Evidence          string                       `json:"evidence" doc:"Output from which the state was derived"`
	Cause             agented.Class                `json:"cause" doc:"Class of the attempt's end from which the state was derived; empty when ready"`
	Hint              string                       `json:"hint" doc:"Problem that may keep a ready account from working, such as missing credentials. Accounts without a hint are preferred"`
	Fix               string                       `json:"fix" doc:"The fix for the hint, with the command; empty without a hint"`
	Check             AccountCheck                 `json:"check" doc:"Whether the account works"`
	ConsecutiveLimits int                          `json:"consecutive_limits" doc:"Consecutive limits"`
	Probing           bool                         `json:"probing" doc:"An attempt is testing whether the account is ready again"`
	Running           int                          `json:"running" doc:"Running attempts that use it"`
	UsedAt            *time.Time                   `json:"used_at" nullable:"true" doc:"Start of the latest attempt that used it"`
	CreatedAt         time.Time                    `json:"created_at"`
	UpdatedAt         time.Time                    `json:"updated_at"`
	ETag              string                       `json:"etag" doc:"Version of the object, for If-Match in an update"`
}

// AccountCheck is what is known about whether an account works.
type AccountCheck struct {
	Result      agented.AccountCheck `json:"result" enum:"not_installed,no_credentials,not_tried,works,refused" doc:"not_installed: the CLI's program is missing; no_credentials: neither credentials nor a login were found; not_tried: no attempt has ended since the credentials changed; works: the latest attempt that shows it used the model; refused: that attempt failed without the model"`
	At          *time.Time           `json:"at" nullable:"true" doc:"End of the latest attempt that shows whether the account works"`
	Reason      string               `json:"reason" doc:"Why it does not work: the hint, or why the latest attempt failed"`
	ExecutionID agented.ExecutionID  `json:"execution_id" doc:"Execution of that attempt; empty: none"`
}

func (h *accounts) check(a *agented.Account) AccountCheck {
	c := AccountCheck{Result: a.Check(), At: rest.OptionalTime(a.Used.At), ExecutionID: a.Used.Execution}
	switch c.Result {
	case agented.CheckNotInstalled, agented.CheckNoCredentials:
		c.Reason = a.Hint
	case agented.CheckRefused:
		if c.Reason = h.mask(a.Used.Reason); a.Used.At.IsZero() || a.Used.Works {
			c.Reason = h.mask(a.Evidence)
		}
	}
	return c
}

func (h *accounts) view(ctx context.Context, a *agented.Account) AccountView {
	v := AccountView{
		ID: a.ID, Backend: agentBackend(a.Backend), Name: a.Name, Label: a.Label(), Default: a.Default, Enabled: a.Enabled, Order: a.Order,
		MaxConcurrent: a.MaxConcurrent, Config: a.Config, Credentials: map[string]AccountCredential{}, State: a.State, Until: rest.OptionalTime(a.Until),
		Evidence: h.mask(a.Evidence), Cause: a.Cause, Hint: a.Hint, Fix: a.Fix, Check: h.check(a), ConsecutiveLimits: a.ConsecutiveLimits, Probing: a.Probing, Running: a.Running, UsedAt: rest.OptionalTime(a.UsedAt),
		CreatedAt: rest.Time(a.CreatedAt), UpdatedAt: rest.Time(a.UpdatedAt), ETag: accountETag(a),
	}
	if a.State != agented.AccountCooling {
		v.Until = nil
	}
	for variable, value := range a.Credentials {
		mask := maskedValue
		v.Credentials[variable] = AccountCredential{Value: &mask}
		if name, ref := agented.RefersTo(value); ref {
			v.Credentials[variable] = AccountCredential{Named: name}
		}
	}
	return v
}

// BackendCooldown is a cooldown of all accounts of a backend.
type BackendCooldown struct {
	Backend  string    `json:"backend"`
	Kind     string    `json:"kind" enum:"provider,address" doc:"provider: overload or consecutive failures; address: too many requests from this server"`
	Until    time.Time `json:"until"`
	Reason   string    `json:"reason"`
	Failures int       `json:"failures"`
	Probing  bool      `json:"probing" doc:"An attempt is testing whether the backend is available again"`
}

// AccountList is the list of all accounts.
type AccountList struct {
	Items            []AccountView     `json:"items"`
	NextCursor       *string           `json:"next_cursor" nullable:"true" doc:"Always null: all accounts are in one page"`
	BackendCooldowns []BackendCooldown `json:"backend_cooldowns" doc:"Cooldowns that apply to all accounts of a backend"`
}

// AccountFields are the fields of an account in requests.
type AccountFields struct {
	Name          rest.Optional[string]                       `json:"name,omitzero" doc:"Unique within the backend, ignoring case; letters, digits and . _ -"`
	Enabled       rest.Optional[bool]                         `json:"enabled,omitzero" doc:"Default true"`
	Order         rest.Optional[int]                          `json:"order,omitzero" doc:"Accounts with a lower order are preferred; default 0"`
	MaxConcurrent rest.Optional[int]                          `json:"max_concurrent,omitzero" doc:"Concurrent attempts; 0 (default) means no limit"`
	Config        rest.Optional[string]                       `json:"config,omitzero" doc:"Absolute path of the directory of the CLI's own login, such as CLAUDE_CONFIG_DIR or CODEX_HOME"`
	Credentials   rest.Optional[map[string]AccountCredential] `json:"credentials,omitzero" doc:"Variables for the CLI, such as ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN; {\"secret\": NAME} uses a named secret. Replaces all stored ones; in an update, the value *** keeps the stored value of that name"`
}

// AccountCreate is the request to create an account.
type AccountCreate struct {
	Backend agentBackend `json:"backend"`
	AccountFields
}

// AccountCredential is a credential of an account: in JSON a text, or {"secret": NAME}
// for a named secret.
type AccountCredential struct {
	Value *string
	Named string
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *AccountCredential) UnmarshalJSON(text []byte) error {
	*c = AccountCredential{}
	var ref namedSecret
	if json.Unmarshal(text, &ref) == nil && ref.Secret != "" {
		c.Named = ref.Secret
		return nil
	}
	return json.Unmarshal(text, &c.Value)
}

// MarshalJSON implements [json.Marshaler].
func (c AccountCredential) MarshalJSON() ([]byte, error) {
	if c.Named != "" {
		return json.Marshal(namedSecret{c.Named})
	}
	return json.Marshal(c.Value)
}

// Schema implements [huma.SchemaProvider].
func (AccountCredential) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Nullable: true}, secretSchema()}}
}

// AccountUpdate is the request to update an account; omitted fields are
// unchanged.
type AccountUpdate struct{ AccountFields }

// checkAccountName validates the account, and its name if it is new. References
// are matched against ids first, and default-BACKEND is an id.
func checkAccountName(a *agented.Account, before string) []agented.Field {
	bad := checkName(a.Validate(), before, a.Name)
	if a.Name == before {
		return bad
	}
	for _, backend := range agented.Backends {
		if strings.EqualFold(a.Name, string(agented.DefaultAccount(backend))) {
			return append(bad, agented.Field{Path: "name", Text: "is the id of the default account: choose another name"})
		}
	}
	return bad
}

// apply applies the request to the account, and seals new credentials.
func (h *accounts) apply(a *agented.Account, f *AccountFields) error {
	before := a.Name
	f.Name.Into(&a.Name, "")
	f.Enabled.Into(&a.Enabled, true)
	f.Order.Into(&a.Order, 0)
	f.MaxConcurrent.Into(&a.MaxConcurrent, 0)
	f.Config.Into(&a.Config, "")
	if !f.Credentials.Set {
		return agented.InvalidFields(checkAccountName(a, before))
	}
	old := a.Credentials
	fresh := map[string]string{}
	a.Credentials = nil
	var bad []agented.Field
	for name, value := range f.Credentials.Value {
		switch {
		case value.Named != "":
			fresh[name] = agented.SecretRef(value.Named)
		case value.Value == nil:
			continue
		case refersToSecret(*value.Value):
			bad = append(bad, agented.Field{Path: "credentials." + format.Clip(name, 60), Text: `cannot begin with secret:v1: to use a named secret, write {"secret": NAME}`})
		case *value.Value == maskedValue:
			if _, ok := old[name]; !ok {
				bad = append(bad, agented.Field{Path: "credentials." + format.Clip(name, 60), Text: "*** keeps a stored value, but this variable has none: send the value"})
				continue
			}
			fresh[name] = old[name]
		default:
			fresh[name] = *value.Value
		}
	}
	if len(fresh) > 0 {
		a.Credentials = fresh
	}
	if bad = append(bad, checkAccountName(a, before)...); len(bad) > 0 {
		return agented.InvalidFields(bad)
	}
	for name, value := range fresh {
		if refersToSecret(value) {
			continue
		}
		if sealed, ok := old[name]; ok {
			if value == sealed {
				continue
			}
			if was, err := h.sealer.OpenCredential(a.ID, name, sealed); err == nil && was == value {
				fresh[name] = sealed
				continue
			}
		}
		fresh[name] = h.sealer.SealCredential(a.ID, name, value)
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

func (h *accounts) list(ctx context.Context, _ *rest.PageInput) (*rest.Output[AccountList], error) {
	items, err := h.db.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	cooldowns, err := h.db.BackendCooldowns(ctx)
	if err != nil {
		return nil, err
	}
	out := rest.Reply(AccountList{Items: make([]AccountView, len(items)), BackendCooldowns: make([]BackendCooldown, len(cooldowns))})
	for i := range items {
		out.Body.Items[i] = h.view(ctx, &items[i])
	}
	for i, r := range cooldowns {
		out.Body.BackendCooldowns[i] = BackendCooldown{Backend: r.Backend, Kind: r.Kind, Until: rest.Time(r.Until), Reason: h.mask(r.Reason), Failures: r.Failures, Probing: r.Probing}
	}
	return out, nil
}

type createdAccount struct {
	Location string `header:"Location" doc:"Path of the new account"`
	Body     AccountView
}

func (h *accounts) create(ctx context.Context, in *rest.Input[AccountCreate]) (*createdAccount, error) {
	now := h.now()
	a := &agented.Account{ID: agented.AccountID(agented.NewID("acc", now)), Backend: string(in.Body.Backend), Enabled: true, CreatedAt: now}
	if err := h.apply(a, &in.Body.AccountFields); err != nil {
		return nil, err
	}
	if err := h.db.CreateAccount(ctx, a, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	h.changed()
	return &createdAccount{Location: "/api/v1/accounts/" + string(a.ID), Body: h.view(ctx, a)}, nil
}

// changed updates the values to mask, and wakes executions that may now
// run.
func (h *accounts) changed() {
	if h.secretsChanged != nil {
		h.secretsChanged()
	}
	h.queue.Wake()
	h.changes.Notify(sse.ChangedAccounts)
}

func (h *accounts) find(ctx context.Context, id string) (*agented.Account, error) {
	aid, err := accountID(id)
	if err != nil {
		return nil, err
	}
	return h.db.Account(ctx, aid)
}

func (h *accounts) get(ctx context.Context, in *accountPath) (*rest.Tagged[AccountView], error) {
	a, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return rest.Versioned(h.view(ctx, a), accountETag(a)), nil
}

type accountChange struct {
	ID string `path:"id" maxLength:"100" doc:"The account's id, acc-… or default-BACKEND"`
	rest.IfMatch
	Body AccountUpdate
}

func (h *accounts) update(ctx context.Context, in *accountChange) (*rest.Tagged[AccountView], error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	a, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := in.Check("account", accountETag(a), func() any { return h.view(ctx, a) }); err != nil {
		return nil, err
	}
	if f := &in.Body.AccountFields; a.Default && (f.Name.Set || f.Config.Set || f.Credentials.Set) {
		return nil, agented.Errorf(agented.Conflict, "account %s is defined by the server's environment: change name, config or credentials there, or create another account", a.Label())
	}
	if err := h.apply(a, &in.Body.AccountFields); err != nil {
		return nil, err
	}
	if err := h.db.UpdateAccount(ctx, a, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	h.changed()
	return rest.Versioned(h.view(ctx, a), accountETag(a)), nil
}

func (h *accounts) remove(ctx context.Context, in *accountPath) (*struct{}, error) {
	id, err := accountID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := h.db.DeleteAccount(ctx, id, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	h.changed()
	return nil, nil
}

func (h *accounts) reset(ctx context.Context, in *accountPath) (*rest.Tagged[AccountView], error) {
	id, err := accountID(in.ID)
	if err != nil {
		return nil, err
	}
	a, err := h.db.ResetAccount(ctx, id, rest.Principal(ctx).Name, h.now())
	if err != nil {
		return nil, err
	}
	h.queue.Wake()
	h.changes.Notify(sse.ChangedAccounts)
	return rest.Versioned(h.view(ctx, a), accountETag(a)), nil
}

// probeModel returns a cheap model for probes that every account of a backend
// can use, or "".
func probeModel(backend string) string {
	if cli, ok := registry.ByName(backend); ok {
		return cli.Rules().ProbeModel
	}
	return ""
}

func (h *accounts) probe(ctx context.Context, in *accountPath) (*acceptedOutput, error) {
	a, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	spec := newSpec(0)
	spec.Backend, spec.Account, spec.Model = a.Backend, a.ID, probeModel(a.Backend)
	spec.Prompt, spec.Permission, spec.TimeoutSeconds = "Reply with the single word ok.", agented.PermissionRead, 180
	e, repeated, err := h.runs.Fire(ctx, dispatch.Firing{
		Spec: &spec, Name: "probe of " + a.Label(), Source: agented.SourceManual, Actor: rest.Principal(ctx).Name, ProbeAccount: a.ID,
	})
	if err != nil {
		return nil, err
	}
	return accepted(e, repeated), nil
}

// secrets returns the credentials of all accounts, for masking.
func (h *accounts) secrets() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := h.db.Accounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the accounts: %w", err)
	}
	return h.sealer.Credentials(list), nil
}
