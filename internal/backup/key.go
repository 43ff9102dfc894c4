package backup

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"golang.org/x/crypto/argon2"

	"github.com/agented/agented"
)

// A sealed key is a version byte, the cost of argon2id (memory in KiB, passes,
// threads), a salt, and nonce, ciphertext and tag of AES-256-GCM. All before the
// nonce is authenticated.
const (
	sealVersion = 1
	saltSize    = 16
	sealHead    = 1 + 4 + 4 + 1 + saltSize
)

// The cost: a passphrase may be weak, and a backup lies about for years.
const (
	sealMemory  = 128 << 10 // KiB
	sealPasses  = 4
	sealThreads = 1
)

// Bounds of what a file may ask for.
const (
	maxMemory  = 512 << 10
	maxPasses  = 16
	maxThreads = 8
)

// MinPassphrase is the least number of characters of a passphrase.
const MinPassphrase = 10

// seal encrypts the key under a passphrase.
func seal(key string, passphrase []byte, bound string) ([]byte, error) {
	head := []byte{sealVersion}
	head = binary.BigEndian.AppendUint32(head, sealMemory)
	head = binary.BigEndian.AppendUint32(head, sealPasses)
	head = append(head, sealThreads)
	salt := make([]byte, saltSize)
	rand.Read(salt)
	head = append(head, salt...)
	aead, err := sealer(passphrase, head)
	if err != nil {
		return nil, err
	}
	return append(head, aead.Seal(nil, nil, []byte(key), append(bytes.Clone(head), bound...))...), nil
}

// open decrypts what seal made.
func open(sealed, passphrase []byte, bound string) (string, error) {
	if len(sealed) < sealHead || sealed[0] != sealVersion {
		return "", agented.Errorf(agented.Invalid, "the key in the backup is not of this version")
	}
	head := sealed[:sealHead]
	m, p, t := binary.BigEndian.Uint32(head[1:]), binary.BigEndian.Uint32(head[5:]), head[9]
	if m < 8 || m > maxMemory || p < 1 || p > maxPasses || t < 1 || t > maxThreads {
		return "", agented.Errorf(agented.Invalid, "the key in the backup asks for more work than this program does")
	}
	aead, err := sealer(passphrase, head)
	if err != nil {
		return "", err
	}
	plain, err := aead.Open(nil, nil, sealed[sealHead:], append(bytes.Clone(head), bound...))
	if err != nil {
		return "", agented.Errorf(agented.Denied, "the passphrase does not open the key in the backup: give the one that it was made with, or --without-key")
	}
	return string(plain), nil
}

func sealer(passphrase, head []byte) (cipher.AEAD, error) {
	sum := argon2.IDKey(passphrase, head[10:sealHead], binary.BigEndian.Uint32(head[5:]), binary.BigEndian.Uint32(head[1:]), head[9], 32)
	block, err := aes.NewCipher(sum)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
