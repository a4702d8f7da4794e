// Package webhook holds what the verifiers of Stripe, Meta and Twilio have in common.
//
// A verifier is a pure function of a request's parts, its secrets and the time. It
// checks the signature over the exact bytes before it looks at anything else, and
// then names and splits what came: the result is the messages to store. It does not
// interpret, but for one judgement: whether an inbound SMS is an opt-out, since the
// subject says so.
package webhook

import (
	"errors"
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

// Secrets checks that there is at least one secret and that none is empty.
func Secrets(secrets []string) error {
	if len(secrets) == 0 {
		return ErrNoSecret
	}
	for _, s := range secrets {
		if s == "" {
			return ErrNoSecret
		}
	}
	return nil
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
