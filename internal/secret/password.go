package secret

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/agented/agented"
	"golang.org/x/crypto/argon2"
)

// Limits of a password.
const (
	MinPassword = 10   // characters
	MaxPassword = 1024 // bytes; longer ones would only cost time
)

// Cost is the cost of a password hash.
type Cost struct {
	MemoryKiB uint32
	Passes    uint32
	Threads   uint8
}

// DefaultCost is above OWASP's minimum for argon2id (19 MiB, two passes) and
// suitable for small machines.
var DefaultCost = Cost{MemoryKiB: 32 << 10, Passes: 3, Threads: 1}

// maxCost limits the cost that a stored hash may request, so that a manipulated
// row cannot exhaust the server.
var maxCost = Cost{MemoryKiB: 256 << 10, Passes: 16, Threads: 16}

const (
	saltLength = 16
	hashLength = 32
	maxWaiting = 64 // logins that may wait for their turn; others are rejected immediately
)

// Passwords hashes and verifies passwords with argon2id. It limits concurrency,
// so that memory stays bounded however many people or attackers log in at once.
type Passwords struct {
	cost    Cost
	working chan struct{} // one entry per hash being computed
	waiting chan struct{} // one entry per caller
	dummy   string        // a hash that no password matches
}

// NewPasswords returns a hasher of the given cost that computes at most
// parallel hashes at once (at least 1).
func NewPasswords(cost Cost, parallel int) *Passwords {
	parallel = max(parallel, 1)
	return &Passwords{
		cost:    cost,
		working: make(chan struct{}, parallel),
		waiting: make(chan struct{}, parallel+maxWaiting),
		dummy:   phc(cost, make([]byte, saltLength), make([]byte, hashLength)),
	}
}

// CheckPassword returns an Invalid error if a new password is not acceptable.
// names are those of its user.
func CheckPassword(password string, names ...string) error {
	switch {
	case !utf8.ValidString(password):
		return agented.Errorf(agented.Invalid, "the password is not valid UTF-8 text: use printable characters")
	case utf8.RuneCountInString(password) < MinPassword:
		return agented.Errorf(agented.Invalid, "the password is too short: use at least %d characters", MinPassword)
	case len(password) > MaxPassword:
		return agented.Errorf(agented.Invalid, "the password is too long: use at most %d bytes", MaxPassword)
	}
	return checkGuessable(password, names)
}

// Hash returns the hash of a password in the PHC format, which records its
// cost. It waits for its turn, and returns an error if ctx ends or too many
// callers wait (RateLimited).
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	if len(password) > MaxPassword {
		return "", agented.Errorf(agented.Invalid, "the password is too long: use at most %d bytes", MaxPassword)
	}
	salt := make([]byte, saltLength)
	rand.Read(salt)
	sum, err := p.sum(ctx, password, salt, p.cost, hashLength)
	if err != nil {
		return "", err
	}
	return phc(p.cost, salt, sum), nil
}

// Verify reports whether the password matches the stored hash, and whether the
// hash has another cost and should be recomputed. An empty hash stands for an
// unknown user: it matches nothing and takes as long, so that the response time
// does not reveal which names exist.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (ok, rehash bool, err error) {
	if len(password) > MaxPassword {
		return false, false, nil
	}
	nobody := hash == ""
	if nobody {
		hash = p.dummy
	}
	cost, salt, want, err := parsePHC(hash)
	if err != nil {
		return false, false, err
	}
	got, err := p.sum(ctx, password, salt, cost, len(want))
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(got, want) == 1 && !nobody
	return ok, ok && (cost != p.cost || len(want) != hashLength), nil
}

func (p *Passwords) sum(ctx context.Context, password string, salt []byte, cost Cost, length int) ([]byte, error) {
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return nil, agented.Errorf(agented.RateLimited, "too many concurrent logins: try again in a moment")
	}
	select {
	case p.working <- struct{}{}:
		defer func() { <-p.working }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return argon2.IDKey([]byte(password), salt, cost.Passes, cost.MemoryKiB, cost.Threads, uint32(length)), nil
}

func phc(cost Cost, salt, sum []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		cost.MemoryKiB, cost.Passes, cost.Threads, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

func parsePHC(s string) (cost Cost, salt, sum []byte, err error) {
	bad := agented.Errorf(agented.Internal, "a stored password hash cannot be read: set the password again")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return Cost{}, nil, nil, bad
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &cost.MemoryKiB, &cost.Passes, &cost.Threads); err != nil {
		return Cost{}, nil, nil, bad
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(sum) < 16 || len(sum) > 64 ||
		cost.Passes < 1 || cost.Passes > maxCost.Passes || cost.Threads < 1 || cost.Threads > maxCost.Threads ||
		cost.MemoryKiB < 8*uint32(cost.Threads) || cost.MemoryKiB > maxCost.MemoryKiB {
		return Cost{}, nil, nil, bad
	}
	return cost, salt, sum, nil
}
