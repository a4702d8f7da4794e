// Package twilio verifies and names Twilio's webhooks: inbound texts, and delivery
// statuses of ours. https://www.twilio.com/docs/usage/security#validating-requests
package twilio

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/keyword"
	"leadpipe/internal/phone"
	"leadpipe/internal/webhook"
)

// The routes, under the public URL. Twilio signs the whole URL.
const (
	InboundPath = "/api/webhooks/sms"
	StatusPath  = "/api/webhooks/sms/status"
)

// Options say by what requests are checked.
type Options struct {
	Tokens    []string // auth tokens: the primary one, and the next while it is being changed
	Account   string   // AC…; where set, a request for another account is refused
	PublicURL string   // the URL that Twilio was given, without the path
	Region    string   // of senders without a prefix, e.g. "FR"
}

// A Verifier turns signed requests into messages. It is safe for concurrent use.
type Verifier struct {
	o     Options
	keys  []*webhook.Key
	bases []string // the public URL as Twilio may sign it: with its default port written out, say, or its port left out
}

// New makes a verifier.
func New(o Options) (*Verifier, error) {
	keys, err := webhook.NewKeys(sha1.New, o.Tokens)
	if err != nil {
		return nil, fmt.Errorf("twilio: %w", err)
	}
	u, err := url.Parse(o.PublicURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("twilio: the public URL is not a URL")
	}
	v := &Verifier{o: o, keys: keys}
	v.add(*u)
	// Twilio signs the URL as it was typed into its console, but for a user and password,
	// which it sends as a header, and a host in capitals, which it calls in small letters.
	u.User = nil
	for _, host := range []string{u.Host, strings.ToLower(u.Host)} {
		u.Host = host
		v.add(*u)
		switch {
		case u.Port() != "":
			u.Host = strings.TrimSuffix(host, ":"+u.Port())
		case u.Scheme == "http":
			u.Host += ":80"
		default:
			u.Host += ":443"
		}
		v.add(*u)
	}
	return v, nil
}

// Keys are those of the auth tokens.
func (v *Verifier) Keys() []*webhook.Key { return v.keys }

// add enters a form of the public URL that Twilio may have signed.
func (v *Verifier) add(u url.URL) {
	if s := strings.TrimSuffix(u.String(), "/"); !slices.Contains(v.bases, s) {
		v.bases = append(v.bases, s)
	}
}

// Inbound verifies a text that somebody sent us. requestURI is path and query as they
// came. The message's data is one JSON object of all form fields. optOut: the text asks
// for no more texts. Errors: webhook.ErrSignature, webhook.ErrMalformed.
func (v *Verifier) Inbound(body []byte, requestURI, signature string, now time.Time) (msgs []contracts.Message, optOut bool, err error) {
	form, err := v.verified(body, requestURI, signature)
	if err != nil {
		return nil, false, err
	}
	sid, from := form.get("MessageSid"), form.get("From")
	if !contracts.ValidID(sid) || from == "" {
		return nil, false, webhook.ErrMalformed
	}
	meaning, _ := keyword.Judge(form.get("Body"))
	// Twilio's own judgement counts first: it has blocked the number already.
	optOut = meaning == keyword.OptOut || strings.EqualFold(form.get("OptOutType"), "STOP")
	subject, typ := contracts.SubjectInbound, "com.twilio.sms.inbound"
	if optOut {
		subject, typ = contracts.SubjectOptOut, "com.twilio.sms.optout"
	}
	return []contracts.Message{webhook.Message(subject(v.sender(from)), contracts.MessageIDTwilio(sid),
		"/twilio", sid, typ, sid, now, form.json())}, optOut, nil
}

// Status verifies a delivery status of a text that we sent. The data has, beside the
// form fields, "sms": our id from the callback URL's query.
func (v *Verifier) Status(body []byte, requestURI, signature string, now time.Time) ([]contracts.Message, error) {
	form, err := v.verified(body, requestURI, signature)
	if err != nil {
		return nil, err
	}
	sid, status := form.get("MessageSid"), form.get("MessageStatus")
	if !contracts.ValidID(sid) || !contracts.ValidID(status) {
		return nil, webhook.ErrMalformed
	}
	u, err := url.ParseRequestURI(requestURI)
	if err != nil {
		return nil, webhook.ErrMalformed
	}
	data := form.with("sms", u.Query().Get("sms")).json()
	return []contracts.Message{webhook.Message(contracts.SubjectStatus(sid), contracts.MessageIDStatus(sid, status),
		"/twilio", sid+":"+status, "com.twilio.sms.status", sid, now, data)}, nil
}

// verified checks the signature and gives the form.
func (v *Verifier) verified(body []byte, requestURI, signature string) (form, error) {
	if signature == "" {
		return nil, webhook.ErrSignature
	}
	f, ok := parse(string(body))
	if !ok {
		// Twilio's form encoder does not make such a body, so nobody can have signed it.
		return nil, webhook.ErrSignature
	}
	var buf [32]byte // 28 of them
	given := append(make([]byte, 0, len(buf)), signature...)
	ok = false
	for _, key := range v.keys {
		match := false
		for _, base := range v.bases {
			m := key.Begin()
			f.sign(m, base, requestURI)
			match = hmac.Equal(base64.StdEncoding.AppendEncode(buf[:0], m.Sum()), given) || match
			m.Close()
		}
		ok = key.Count(match) || ok
	}
	if !ok || v.o.Account != "" && f.get("AccountSid") != v.o.Account {
		return nil, webhook.ErrSignature
	}
	return f, nil
}

// sender is what stands for a text's sender in a subject: a phone's digits, or the
// letters and digits of a short code or of a name.
func (v *Verifier) sender(from string) string {
	if n, err := phone.Parse(from, v.o.Region); err == nil {
		return n.Digits()
	}
	token := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, from)
	if token == "" {
		return "unknown"
	}
	return token[:min(len(token), 32)]
}

// Sign makes the X-Twilio-Signature header: the URL as it was configured, then each
// field's name and value in the order of names, by HMAC-SHA1 and base64.
func Sign(token, url string, fields map[string]string) string {
	var f form
	for name, value := range fields {
		f = f.with(name, value)
	}
	m := webhook.NewKey(sha1.New, token).Begin()
	defer m.Close()
	f.sign(m, url, "")
	return base64.StdEncoding.EncodeToString(m.Sum())
}
