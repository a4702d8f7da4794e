// Package stripe verifies and names Stripe's webhooks.
//
// It does not use stripe-go's webhook package: that accepts an empty secret and a
// signature from the future, and refuses every API version but its own. The scheme is
// https://docs.stripe.com/webhooks#verify-manually.
package stripe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/rawjson"
	"leadpipe/internal/webhook"
)

// A Verifier turns signed requests into messages. It is safe for concurrent use.
type Verifier struct {
	keys      []*webhook.Key
	tolerance time.Duration
}

// New makes a verifier that takes a signature by any of the secrets (several while one
// is being rolled) whose time is at most tolerance from now, to either side.
func New(secrets []string, tolerance time.Duration) (*Verifier, error) {
	keys, err := webhook.NewKeys(sha256.New, secrets)
	if err != nil {
		return nil, fmt.Errorf("stripe: %w", err)
	}
	if tolerance <= 0 {
		return nil, fmt.Errorf("stripe: tolerance %v is not positive", tolerance)
	}
	return &Verifier{keys: keys, tolerance: tolerance}, nil
}

// Keys are those of the secrets.
func (v *Verifier) Keys() []*webhook.Key { return v.keys }

// Messages verifies a body by its Stripe-Signature header and names the event in it.
// The message holds the body byte for byte. Errors: webhook.ErrSignature,
// webhook.ErrMalformed.
func (v *Verifier) Messages(body []byte, signature string, now time.Time) ([]contracts.Message, error) {
	if !v.signed(body, signature, now) {
		return nil, webhook.ErrSignature
	}
	// Only what names the event is read: an API version that we do not know is no reason
	// to lose one. A v2 "thin" event has no data.object, and does not belong here.
	e := events.Get().(*event)
	defer events.Put(e)
	if rawjson.Read(body, e[:]) != nil {
		return nil, webhook.ErrMalformed
	}
	object := &e[3].Members[0]
	id, _ := rawjson.Text(e[0].Value)
	what, isText := rawjson.Text(e[1].Value)
	typ, _ := rawjson.Text(e[2].Value)
	if what != "event" && what != "" || !isText && !rawjson.Missing(e[1].Value) ||
		!contracts.ValidID(id) || !validType(typ) || !rawjson.Object(object.Value) {
		return nil, webhook.ErrMalformed
	}
	about, _ := rawjson.Text(object.Members[0].Value) // absent on an upcoming invoice
	if !contracts.ValidID(about) {
		about = id
	}
	return []contracts.Message{webhook.Message(contracts.SubjectStripe(typ), contracts.MessageIDStripe(id),
		"/stripe", id, typ, about, now, body)}, nil
}

// event is what is read of one, again and again.
type event [4]rawjson.Member

var events = sync.Pool{New: func() any {
	return &event{{Name: "id"}, {Name: "object"}, {Name: "type"}, {Name: "data", Members: []rawjson.Member{
		{Name: "object", Members: []rawjson.Member{{Name: "id"}}}}}}
}}

// validType says whether an event's type may stand in a subject: "invoice.payment_failed",
// one to eight words of the characters of an id.
func validType(typ string) bool {
	words := 0
	for word := range strings.SplitSeq(typ, ".") {
		if words++; words > 8 || len(word) > 64 || !contracts.ValidID(word) {
			return false
		}
	}
	return true
}

// mostSignatures is how many signatures of a header are tried.
const mostSignatures = 16

// signed tries every v1 of the header against every secret, in constant time each.
func (v *Verifier) signed(body []byte, header string, now time.Time) bool {
	var timestamp string
	var sums [mostSignatures][sha256.Size]byte
	n := 0
	for part := range strings.SplitSeq(header, ",") {
		switch key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key {
		case "t":
			timestamp = value
		case "v1":
			if n < mostSignatures && webhook.Hex(sums[n][:], value) {
				n++
			}
		}
	}
	at, err := strconv.ParseInt(timestamp, 10, 40) // 17,000 years, and no distance overflows
	if err != nil {
		return false
	}
	if age := now.Sub(time.Unix(at, 0)); age > v.tolerance || age < -v.tolerance {
		return false
	}
	ok := false
	for _, key := range v.keys {
		m := mac(key, timestamp, body)
		match := false
		for i := range sums[:n] {
			match = hmac.Equal(sums[i][:], m.Sum()) || match
		}
		ok = key.Count(match) || ok
		m.Close()
	}
	return ok
}

func mac(key *webhook.Key, timestamp string, body []byte) *webhook.MAC {
	m := key.Begin()
	m.Text(timestamp)
	m.Text(".")
	m.Bytes(body)
	return m
}

// Sign makes the Stripe-Signature header of a body, with one v1 a secret as Stripe
// does while one is being rolled.
func Sign(body []byte, at time.Time, secrets ...string) string {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	header := "t=" + timestamp
	for _, s := range secrets {
		m := mac(webhook.NewKey(sha256.New, s), timestamp, body)
		header += ",v1=" + hex.EncodeToString(m.Sum())
		m.Close()
	}
	return header
}
