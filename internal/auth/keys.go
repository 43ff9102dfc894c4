package auth

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// NewKey describes an API key to create.
type NewKey struct {
	Name      string
	Role      agented.Role
	Expires   time.Time // zero: never
	Triggers  []string  // ids or names of the triggers that it is limited to; empty: no limit
	Addresses []string  // addresses or networks that it is valid from; empty: everywhere
	Owner     string    // id or name of the user with whom it ends; empty: the owner of the caller's credential
}

// CreateKey creates an API key. plain is the key itself; it is not stored.
func (a *Service) CreateKey(ctx context.Context, n NewKey, by agented.Principal) (k *store.Key, plain string, err error) {
	k = &store.Key{Name: n.Name, Role: n.Role, CreatedAt: a.o.Now(), ExpiresAt: n.Expires, Owner: by.Owner}
	bad := checkName("name", n.Name)
	if !n.Expires.IsZero() && !n.Expires.After(a.o.Now()) {
		bad = append(bad, agented.Field{Path: "expires_at", Text: "must be in the future"})
	}
	wrong, err := a.limitTriggers(ctx, k, n.Triggers)
	if err != nil {
		return nil, "", err
	}
	bad = append(append(bad, wrong...), limitAddresses(k, n.Addresses)...)
	if n.Owner != "" {
		wrong, err := a.assign(ctx, k, n.Owner)
		if err != nil {
			return nil, "", err
		}
		bad = append(bad, wrong...)
	}
	if err := agented.InvalidFields(bad); err != nil {
		return nil, "", err
	}
	plain, prefix, hash := secret.NewAPIKey()
	k.Prefix = prefix
	if err := a.o.DB.CreateKey(ctx, k, digest(hash), by.Name); err != nil {
		return nil, "", err
	}
	return k, plain, nil
}

// limitTriggers limits a key to triggers, given by id or name.
func (a *Service) limitTriggers(ctx context.Context, k *store.Key, list []string) (bad []agented.Field, err error) {
	if len(list) > 0 && k.Role == agented.RoleAdmin {
		bad = append(bad, agented.Field{Path: "role", Text: "must be viewer or operator for a key that is limited to triggers"})
	}
	if len(list) > store.MaxKeyTriggers {
		return append(bad, agented.Field{Path: "triggers", Text: fmt.Sprintf("has too many items: use at most %d", store.MaxKeyTriggers)}), nil
	}
	for i, ref := range list {
		var t *agented.Trigger
		if agented.ValidID("trg", ref) {
			t, err = a.o.DB.Trigger(ctx, agented.TriggerID(ref))
		} else {
			t, err = a.o.DB.TriggerByName(ctx, ref)
		}
		switch {
		case agented.KindOf(err) == agented.NotFound:
			bad = append(bad, agented.Field{Path: fmt.Sprintf("triggers.%d", i), Text: fmt.Sprintf("%.60q is not the id or the name of a trigger", ref)})
		case err != nil:
			return nil, err
		default:
			k.Triggers = append(k.Triggers, t.ID)
		}
	}
	return bad, nil
}

// limitAddresses makes a key valid from addresses and networks only.
func limitAddresses(k *store.Key, list []string) (bad []agented.Field) {
	if len(list) > store.MaxKeyAddresses {
		return []agented.Field{{Path: "addresses", Text: fmt.Sprintf("has too many items: use at most %d", store.MaxKeyAddresses)}}
	}
	for i, text := range list {
		network, err := parseNetwork(text)
		if err != nil {
			bad = append(bad, agented.Field{Path: fmt.Sprintf("addresses.%d", i), Text: "is not an address or a network: write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"})
			continue
		}
		k.Addresses = append(k.Addresses, network)
	}
	return bad
}

func parseNetwork(text string) (netip.Prefix, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "/") {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address", text)
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network", text)
	}
	return network.Masked(), nil
}

// validFrom returns an error unless a key is valid from the address of a client.
func validFrom(k *store.Key, c Client) error {
	if len(k.Addresses) == 0 {
		return nil
	}
	ip, err := netip.ParseAddr(c.Address)
	if err == nil {
		ip = ip.Unmap().WithZone("")
		for _, network := range k.Addresses {
			if network.Contains(ip) {
				return nil
			}
		}
	}
	return agented.Errorf(agented.Denied, "this API key is not valid from the address %s", c.Address)
}

// assign makes a user, given by id or name, the owner of a key.
func (a *Service) assign(ctx context.Context, k *store.Key, owner string) (bad []agented.Field, err error) {
	var u *store.User
	if agented.ValidID("usr", owner) {
		u, err = a.o.DB.User(ctx, agented.UserID(owner))
	} else {
		u, err = a.o.DB.UserByName(ctx, owner)
	}
	switch {
	case agented.KindOf(err) == agented.NotFound:
		return []agented.Field{{Path: "owner", Text: "is not the id or the name of a user"}}, nil
	case err != nil:
		return nil, err
	case u.Disabled:
		return []agented.Field{{Path: "owner", Text: "is disabled"}}, nil
	case !u.Role.Allows(k.Role):
		return []agented.Field{{Path: "role", Text: fmt.Sprintf("is higher than %s, the role of the owner", u.Role)}}, nil
	}
	k.Owner = u.ID
	return nil, nil
}

// RevokeKey revokes an API key and ends its streams.
func (a *Service) RevokeKey(ctx context.Context, id agented.KeyID, by string) error {
	defer a.Recheck(ctx)
	return a.o.DB.RevokeKey(ctx, id, by, a.o.Now())
}
