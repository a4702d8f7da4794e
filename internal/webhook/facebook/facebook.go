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
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/rawjson"
	"leadpipe/internal/webhook"
)

// A Verifier turns signed requests into messages. It is safe for concurrent use.
type Verifier struct {
	keys  []*webhook.Key
	token string
}

// New makes a verifier that takes a signature by any of the app secrets, and answers
// the subscription's challenge to whoever knows the token. Without a token it answers
// nobody.
func New(secrets []string, verifyToken string) (*Verifier, error) {
	keys, err := webhook.NewKeys(sha256.New, secrets)
	if err != nil {
		return nil, fmt.Errorf("facebook: %w", err)
	}
	return &Verifier{keys: keys, token: verifyToken}, nil
}

// Keys are those of the app secrets.
func (v *Verifier) Keys() []*webhook.Key { return v.keys }

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
	envelope := [...]rawjson.Member{{Name: "object"}, {Name: "entry"}}
	if rawjson.Read(body, envelope[:]) != nil {
		return Body{}, webhook.ErrMalformed
	}
	object, _ := rawjson.Text(envelope[0].Value) // also nothing, which no provider sends
	s := splitter{page: object == "page", now: now}
	if object == "" || !each(envelope[1].Value, s.entry) {
		return Body{}, webhook.ErrMalformed
	}
	return s.out, nil
}

// A splitter collects what is in a body. Its methods say whether a part of it can be read.
type splitter struct {
	page    bool // the body is about a page; of anything else nothing is taken
	now     time.Time
	entryID []byte
	out     Body
}

// each calls f for the elements of a list, of which null has none.
func each(list []byte, f func([]byte) bool) bool {
	return rawjson.Missing(list) || rawjson.Elements(list, f)
}

func (s *splitter) entry(entry []byte) bool {
	if rawjson.Missing(entry) {
		return true
	}
	e := [...]rawjson.Member{{Name: "id"}, {Name: "changed_fields"}, {Name: "changes"}}
	if rawjson.Read(entry, e[:]) != nil || !rawjson.Object(entry) {
		return false
	}
	changed := false
	if !each(e[1].Value, func(field []byte) bool {
		name, ok := rawjson.Text(field)
		changed = changed || name == "leadgen"
		return ok || rawjson.Missing(field)
	}) {
		return false
	}
	if changed && s.page {
		s.out.Changed++
	}
	s.entryID = e[0].Value
	return each(e[2].Value, s.change)
}

func (s *splitter) change(change []byte) bool {
	if rawjson.Missing(change) {
		return true
	}
	c := [...]rawjson.Member{{Name: "field"}, {Name: "value", Members: []rawjson.Member{{Name: "leadgen_id"}, {Name: "page_id"}}}}
	if rawjson.Read(change, c[:]) != nil || !rawjson.Object(change) {
		return false
	}
	field, ok := rawjson.Text(c[0].Value)
	if field != "leadgen" || !s.page {
		return ok || rawjson.Missing(c[0].Value)
	}
	m, err := lead(c[1], s.entryID, s.now)
	s.out.Messages = append(s.out.Messages, m)
	return err == nil
}

// lead names one lead. Ids may be numbers or strings, and a number of 18 digits does
// not survive a float, so they are taken from the text.
func lead(v rawjson.Member, entryID []byte, now time.Time) (contracts.Message, error) {
	value := v.Value
	id := digits(v.Members[0].Value)
	if !rawjson.Object(value) || id == "" {
		return contracts.Message{}, webhook.ErrMalformed
	}
	if digits(v.Members[1].Value) == "" {
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
func digits(raw []byte) string {
	if len(raw) > 1 && raw[0] == '"' {
		raw = raw[1 : len(raw)-1]
	}
	if len(raw) > 32 || bytes.ContainsFunc(raw, func(r rune) bool { return r < '0' || r > '9' }) {
		return ""
	}
	return string(raw)
}

func (v *Verifier) signed(body []byte, header string) bool {
	value, ok := strings.CutPrefix(header, "sha256=")
	var sum [sha256.Size]byte
	if !ok || !webhook.Hex(sum[:], value) {
		return false
	}
	ok = false
	for _, key := range v.keys {
		m := key.Begin()
		m.Bytes(body)
		ok = key.Count(hmac.Equal(sum[:], m.Sum())) || ok
		m.Close()
	}
	return ok
}

// Sign makes the X-Hub-Signature-256 header of a body.
func Sign(body []byte, secret string) string {
	m := webhook.NewKey(sha256.New, secret).Begin()
	defer m.Close()
	m.Bytes(body)
	return "sha256=" + hex.EncodeToString(m.Sum())
}
