// Package facebook verifies Meta's webhooks and splits them into leads.
// https://developers.facebook.com/docs/graph-api/webhooks/getting-started
package facebook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/webhook"
)

// A Verifier turns signed requests into messages. It is safe for concurrent use.
type Verifier struct {
	secrets [][]byte
	token   string
}

// New makes a verifier that takes a signature by any of the app secrets, and answers
// the subscription's challenge to whoever knows the token. Without a token it answers
// nobody.
func New(secrets []string, verifyToken string) (*Verifier, error) {
	if err := webhook.Secrets(secrets); err != nil {
		return nil, fmt.Errorf("facebook: %w", err)
	}
	v := &Verifier{token: verifyToken}
	for _, s := range secrets {
		v.secrets = append(v.secrets, []byte(s))
	}
	return v, nil
}

// Challenge answers Meta's GET: the challenge to echo, and whether to.
func (v *Verifier) Challenge(query url.Values) (string, bool) {
	sum, want := sha256.Sum256([]byte(query.Get("hub.verify_token"))), sha256.Sum256([]byte(v.token))
	right := subtle.ConstantTimeCompare(sum[:], want[:]) == 1
	return query.Get("hub.challenge"), right && v.token != "" && query.Get("hub.mode") == "subscribe"
}

// A Body is what a verified request holds.
type Body struct {
	Messages []contracts.Message // one a lead
	// Changed counts entries that say that there are leads and not which. That happens when
	// "Include Values" is off at Meta: the leads' ids are missing, and a person has to
	// switch it on.
	Changed int
}

// Messages verifies a body by its X-Hub-Signature-256 header and splits it. Each
// message holds the value object of one leadgen change, with page_id. What is not a
// lead is left out: Meta sends whatever the page is subscribed to. Errors:
// webhook.ErrSignature, webhook.ErrMalformed (one lead without a usable id makes the
// whole body malformed, since Meta repeats all of it or nothing).
func (v *Verifier) Messages(body []byte, signature string, now time.Time) (Body, error) {
	if !v.signed(body, signature) {
		return Body{}, webhook.ErrSignature
	}
	var envelope struct {
		Object string `json:"object"`
		Entry  []struct {
			ID            json.RawMessage `json:"id"`
			ChangedFields []string        `json:"changed_fields"`
			Changes       []struct {
				Field string          `json:"field"`
				Value json.RawMessage `json:"value"`
			} `json:"changes"`
		} `json:"entry"`
	}
	// A literal null decodes into an empty envelope, which no provider sends.
	if err := json.Unmarshal(body, &envelope); err != nil || envelope.Object == "" {
		return Body{}, webhook.ErrMalformed
	}
	var out Body
	if envelope.Object != "page" {
		return out, nil
	}
	for _, entry := range envelope.Entry {
		if slices.Contains(entry.ChangedFields, "leadgen") {
			out.Changed++
		}
		for _, change := range entry.Changes {
			if change.Field != "leadgen" {
				continue
			}
			m, err := lead(change.Value, entry.ID, now)
			if err != nil {
				return Body{}, err
			}
			out.Messages = append(out.Messages, m)
		}
	}
	return out, nil
}

// lead names one lead. Ids may be numbers or strings, and a number of 18 digits does
// not survive a float, so they are taken from the text.
func lead(value, entryID json.RawMessage, now time.Time) (contracts.Message, error) {
	var v struct {
		LeadgenID json.RawMessage `json:"leadgen_id"`
		PageID    json.RawMessage `json:"page_id"`
	}
	value = bytes.TrimSpace(value)
	if !bytes.HasPrefix(value, []byte("{")) || json.Unmarshal(value, &v) != nil {
		return contracts.Message{}, webhook.ErrMalformed
	}
	id := digits(v.LeadgenID)
	if id == "" {
		return contracts.Message{}, webhook.ErrMalformed
	}
	if digits(v.PageID) == "" {
		page := digits(entryID)
		if page == "" {
			return contracts.Message{}, webhook.ErrMalformed
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(value, &fields); err != nil {
			return contracts.Message{}, webhook.ErrMalformed
		}
		fields["page_id"] = json.RawMessage(`"` + page + `"`)
		completed, err := json.Marshal(fields)
		if err != nil {
			return contracts.Message{}, webhook.ErrMalformed
		}
		value = completed
	}
	return webhook.Message(contracts.SubjectFacebookLeadgen, contracts.MessageIDFacebook(id),
		"/facebook", id, "leadgen", id, now, value), nil
}

// digits reads an id that is a JSON string or an integer, of 1 to 32 digits; "" for
// anything else.
func digits(raw json.RawMessage) string {
	s := strings.Trim(string(bytes.TrimSpace(raw)), `"`)
	if s == "" || len(s) > 32 || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return ""
	}
	return s
}

func (v *Verifier) signed(body []byte, header string) bool {
	value, ok := strings.CutPrefix(header, "sha256=")
	sum, err := hex.DecodeString(value)
	if !ok || err != nil {
		return false
	}
	ok = false
	for _, secret := range v.secrets {
		ok = hmac.Equal(sum, mac(secret, body)) || ok
	}
	return ok
}

func mac(secret, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write(body)
	return m.Sum(nil)
}

// Sign makes the X-Hub-Signature-256 header of a body.
func Sign(body []byte, secret string) string {
	return "sha256=" + hex.EncodeToString(mac([]byte(secret), body))
}
