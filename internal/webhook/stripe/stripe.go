// Package stripe verifies and names Stripe's webhooks.
//
// It does not use stripe-go's webhook package: that accepts an empty secret and a
// signature from the future, and refuses every API version but its own. The scheme is
// https://docs.stripe.com/webhooks#verify-manually.
package stripe

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/webhook"
)

// A Verifier turns signed requests into messages. It is safe for concurrent use.
type Verifier struct {
	secrets   [][]byte
	tolerance time.Duration
}

// New makes a verifier that takes a signature by any of the secrets (several while one
// is being rolled) whose time is at most tolerance from now, to either side.
func New(secrets []string, tolerance time.Duration) (*Verifier, error) {
	if err := webhook.Secrets(secrets); err != nil {
		return nil, fmt.Errorf("stripe: %w", err)
	}
	if tolerance <= 0 {
		return nil, fmt.Errorf("stripe: tolerance %v is not positive", tolerance)
	}
	v := &Verifier{tolerance: tolerance}
	for _, s := range secrets {
		v.secrets = append(v.secrets, []byte(s))
	}
	return v, nil
}

// Messages verifies a body by its Stripe-Signature header and names the event in it.
// The message holds the body byte for byte. Errors: webhook.ErrSignature,
// webhook.ErrMalformed.
func (v *Verifier) Messages(body []byte, signature string, now time.Time) ([]contracts.Message, error) {
	if !v.signed(body, signature, now) {
		return nil, webhook.ErrSignature
	}
	// Only what names the event is read: an API version that we do not know is no reason
	// to lose one. A v2 "thin" event has no data.object, and does not belong here.
	var e struct {
		ID     string `json:"id"`
		Object string `json:"object"`
		Type   string `json:"type"`
		Data   *struct {
			Object json.RawMessage `json:"object"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, webhook.ErrMalformed
	}
	if e.Object != "" && e.Object != "event" || !contracts.ValidID(e.ID) || !eventType.MatchString(e.Type) || e.Data == nil ||
		!bytes.HasPrefix(bytes.TrimSpace(e.Data.Object), []byte("{")) {
		return nil, webhook.ErrMalformed
	}
	var object struct {
		ID json.RawMessage `json:"id"` // absent on an upcoming invoice
	}
	if err := json.Unmarshal(e.Data.Object, &object); err != nil {
		return nil, webhook.ErrMalformed
	}
	var about string
	if json.Unmarshal(object.ID, &about) != nil || !contracts.ValidID(about) {
		about = e.ID
	}
	return []contracts.Message{webhook.Message(contracts.SubjectStripe(e.Type), contracts.MessageIDStripe(e.ID),
		"/stripe", e.ID, e.Type, about, now, body)}, nil
}

// eventType is what may stand in a subject: "invoice.payment_failed".
var eventType = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}$`)

// signed tries every v1 of the header against every secret, in constant time each.
func (v *Verifier) signed(body []byte, header string, now time.Time) bool {
	var timestamp string
	var candidates [][]byte
	for part := range strings.SplitSeq(header, ",") {
		switch key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key {
		case "t":
			timestamp = value
		case "v1":
			if sum, err := hex.DecodeString(value); err == nil && len(candidates) < 16 {
				candidates = append(candidates, sum)
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
	for _, secret := range v.secrets {
		want := mac(secret, timestamp, body)
		for _, sum := range candidates {
			ok = hmac.Equal(sum, want) || ok
		}
	}
	return ok
}

func mac(secret []byte, timestamp string, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(timestamp))
	m.Write([]byte("."))
	m.Write(body)
	return m.Sum(nil)
}

// Sign makes the Stripe-Signature header of a body, with one v1 a secret as Stripe
// does while one is being rolled.
func Sign(body []byte, at time.Time, secrets ...string) string {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	header := "t=" + timestamp
	for _, s := range secrets {
		header += ",v1=" + hex.EncodeToString(mac([]byte(s), timestamp, body))
	}
	return header
}
