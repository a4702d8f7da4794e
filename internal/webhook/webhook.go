// Package webhook holds what the verifiers of Stripe, Meta and Twilio have in common.
//
// A verifier is a pure function of a request's parts, its secrets and the time. It
// checks the signature over the exact bytes before it looks at anything else, and
// then names and splits what came: the result is the messages to store. It does not
// interpret, but for one judgement: whether an inbound SMS is an opt-out, since the
// subject says so.
package webhook

import (
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"hash"
	"sync"
	"sync/atomic"
	"time"

	"leadpipe/contracts"
)

// What is wrong with a request. The texts are public; a verifier adds no detail that
// could help a forger.
var (
	ErrSignature = errors.New("signature missing, wrong or out of tolerance") // 403
	ErrMalformed = errors.New("signed but malformed")                         // 400
)

// ErrNoSecret refuses a verifier that would accept anything.
var ErrNoSecret = errors.New("a webhook secret is missing or empty")

// NewKeys makes a key of each secret, in their order (several while one is being rolled),
// e.g. with sha256.New. There has to be at least one,
// and none may be empty.
func NewKeys(h func() hash.Hash, secrets []string) ([]*Key, error) {
	if len(secrets) == 0 {
		return nil, ErrNoSecret
	}
	keys := make([]*Key, len(secrets))
	for i, s := range secrets {
		if s == "" {
			return nil, ErrNoSecret
		}
		keys[i] = NewKey(h, s)
	}
	return keys, nil
}

// Message names a message with the CloudEvents attributes of binary mode. id is the
// provider's own, subject the id of what it is about.
func Message(natsSubject, msgID, source, id, typ, subject string, received time.Time, data []byte) contracts.Message {
	h := map[string]string{
		contracts.HeaderSpecVersion: contracts.SpecVersion,
		contracts.HeaderID:          id,
		contracts.HeaderSource:      source,
		contracts.HeaderType:        typ,
		contracts.HeaderTime:        received.UTC().Format(time.RFC3339Nano),
		contracts.HeaderSubject:     subject,
		contracts.HeaderContentType: contracts.ContentJSON,
	}
	return contracts.Message{Subject: natsSubject, ID: msgID, Header: h, Data: data}
}

// Hex reads a signature in hexadecimal, and says whether it has exactly the length of sum.
func Hex(sum []byte, text string) bool {
	if hex.DecodedLen(len(text)) != len(sum) || len(text)%2 != 0 {
		return false
	}
	var buf [64]byte
	_, err := hex.Decode(sum, append(buf[:0], text...))
	return err == nil
}

// A Key makes HMACs under one secret. It is safe for concurrent use, and keeps what it
// has prepared for the next.
type Key struct {
	pool    sync.Pool
	matched atomic.Uint64
}

// NewKey makes a key of a secret, e.g. with sha256.New.
func NewKey(h func() hash.Hash, secret string) *Key {
	k := &Key{}
	k.pool.New = func() any { return &MAC{key: k, hash: hmac.New(h, []byte(secret))} }
	return k
}

// Count counts a signature if it is the key's, and gives back whether it is.
func (k *Key) Count(match bool) bool {
	if match {
		k.matched.Add(1)
	}
	return match
}

// Matched is how many signatures Count has counted.
func (k *Key) Matched() uint64 { return k.matched.Load() }

// mostKept bounds the memory that is kept for the next HMAC.
const mostKept = 16 << 10

// A MAC is one HMAC in the making.
type MAC struct {
	key  *Key
	hash hash.Hash
	buf  []byte
}

// Begin begins an HMAC, which has to be closed.
func (k *Key) Begin() *MAC { return k.pool.Get().(*MAC) }

// Bytes adds bytes, which it does not copy.
func (m *MAC) Bytes(b []byte) { m.hash.Write(b) }

// Text adds a text.
func (m *MAC) Text(s string) {
	m.buf = append(m.buf[:0], s...)
	m.hash.Write(m.buf)
}

// Sum gives the HMAC of what was added, which holds until Close.
func (m *MAC) Sum() []byte {
	m.buf = m.hash.Sum(m.buf[:0])
	return m.buf
}

// Close gives the HMAC back.
func (m *MAC) Close() {
	m.hash.Reset()
	if cap(m.buf) > mostKept {
		m.buf = nil
	}
	m.key.pool.Put(m)
}
