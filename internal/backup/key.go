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

// A sealed key consists of a version byte, the cost of argon2id (memory in KiB, passes, threads),
// a salt, and nonce, ciphertext and tag of AES-256-GCM. Everything before the nonce is
// authenticated.
const (
	sealVersion = 1
	saltSize    = 16
	sealHead    = 1 + 4 + 4 + 1 + saltSize
)

// sealCost is the cost of argon2id. It is high, because a passphrase may be weak and backups are kept
// for years. Tests lower it.
var sealCost = cost{memory: 128 << 10, passes: 4, threads: 1}

// cost is a cost of argon2id.
type cost struct {
	memory, passes uint32 // memory in KiB
	threads        byte
}

// Maximum cost that a file may demand.
const (
	maxMemory  = 512 << 10
	maxPasses  = 16
	maxThreads = 8
)

// MinPassphrase is the minimum length of a passphrase, in characters.
const MinPassphrase = 10

// seal encrypts the key with a passphrase.
func seal(key string, passphrase []byte, bound string) ([]byte, error) {
	head := []byte{sealVersion}
	head = binary.BigEndian.AppendUint32(head, sealCost.memory)
	head = binary.BigEndian.AppendUint32(head, sealCost.passes)
	head = append(head, sealCost.threads)
	salt := make([]byte, saltSize)
	rand.Read(salt)
	head = append(head, salt...)
	aead, err := sealer(passphrase, head)
	if err != nil {
		return nil, err
	}
	return append(head, aead.Seal(nil, nil, []byte(key), append(bytes.Clone(head), bound...))...), nil
}

// open decrypts the output of seal.
func open(sealed, passphrase []byte, bound string) (string, error) {
	if len(sealed) < sealHead || sealed[0] != sealVersion {
		return "", agented.Errorf(agented.Invalid, "the key in the backup has an unknown version: use a newer version of Agented")
	}
	head := sealed[:sealHead]
	m, p, t := binary.BigEndian.Uint32(head[1:]), binary.BigEndian.Uint32(head[5:]), head[9]
	if m < 8 || m > maxMemory || p < 1 || p > maxPasses || t < 1 || t > maxThreads {
		return "", agented.Errorf(agented.Invalid, "the key in the backup demands more memory or time than is allowed")
	}
	aead, err := sealer(passphrase, head)
	if err != nil {
		return "", err
	}
	plain, err := aead.Open(nil, nil, sealed[sealHead:], append(bytes.Clone(head), bound...))
	if err != nil {
		return "", agented.Errorf(agented.Denied, "the passphrase does not decrypt the key in the backup: use the passphrase of the backup, or --without-key")
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
