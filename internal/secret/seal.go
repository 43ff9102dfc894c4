package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/agented/agented"
)

// A sealed value is a version byte, four bytes of key id, and then nonce,
// ciphertext and tag of AES-256-GCM. Both header fields are authenticated.
const (
	sealVersion = 1
	idLength    = 4
	headLength  = 1 + idLength
)

// ID identifies the key in sealed values: eight hexadecimal digits. Two keys
// collide with a probability of 2^-32.
func (k Key) ID() string { return hex.EncodeToString(k.id()) }

func (k Key) id() []byte { return k.Derive("key id")[:idLength] }

// Seal encrypts plaintext under a key derived for the purpose. Only Open with
// the same key, purpose and aad decrypts it; aad identifies the owner of the
// value, for example the id of its row, so that it cannot be moved to another
// row.
func (k Key) Seal(purpose string, plaintext, aad []byte) []byte {
	head := append([]byte{sealVersion}, k.id()...)
	return append(head, k.aead(purpose).Seal(nil, nil, plaintext, bind(head, aad))...)
}

// Open decrypts a value from Seal. The error says whether the value belongs to
// another key or was modified, and contains nothing of it.
func (k Key) Open(purpose string, sealed, aad []byte) ([]byte, error) {
	id, ok := SealedBy(sealed)
	if !ok {
		return nil, agented.Errorf(agented.Invalid, "this is not a sealed value of this version")
	}
	if id != k.ID() {
		return nil, agented.Errorf(agented.Invalid,
			"this value was sealed with another SECRET_KEY (key id %s, the server has %s): restore that key, or enter the value again", id, k.ID())
	}
	plaintext, err := k.aead(purpose).Open(nil, nil, sealed[headLength:], bind(sealed[:headLength], aad))
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "a sealed value was modified or moved: enter it again")
	}
	return plaintext, nil
}

// SealedBy returns the id of the key that sealed a value, and whether it is a
// sealed value.
func SealedBy(sealed []byte) (id string, ok bool) {
	if len(sealed) < headLength || sealed[0] != sealVersion {
		return "", false
	}
	return hex.EncodeToString(sealed[1:headLength]), true
}

func (k Key) aead(purpose string) cipher.AEAD {
	block, err := aes.NewCipher(k.Derive("seal " + purpose))
	if err != nil {
		panic("secret: " + err.Error()) // only for an invalid key length
	}
	// Random nonces of 96 bits are safe for 2^32 values per purpose.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("secret: " + err.Error())
	}
	return aead
}

func bind(head, aad []byte) []byte {
	return append(append(make([]byte, 0, len(head)+len(aad)), head...), aad...)
}

// Sign returns the HMAC-SHA256 of message under a key derived for the purpose.
func (k Key) Sign(purpose string, message []byte) []byte {
	mac := hmac.New(sha256.New, k.Derive("sign "+purpose))
	mac.Write(message)
	return mac.Sum(nil)
}

// Verify reports, in constant time, whether the signature is from Sign.
func (k Key) Verify(purpose string, message, signature []byte) bool {
	return hmac.Equal(k.Sign(purpose, message), signature)
}
