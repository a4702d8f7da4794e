package twilio_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/twilio/twilio-go/client"

	"leadpipe/internal/webhook"
	"leadpipe/internal/webhook/twilio"
)

const (
	account = "AC00000000000000000000000000000001"
	public  = "https://hooks.example.com"
)

var now = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func verifier(t testing.TB) *twilio.Verifier {
	t.Helper()
	v, err := twilio.New(twilio.Options{Tokens: []string{"new", "old"}, Account: account, PublicURL: public, Region: "FR"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func encode(form map[string]string) []byte {
	v := url.Values{}
	for k, s := range form {
		v.Set(k, s)
	}
	return []byte(v.Encode())
}

func sms(change map[string]string) map[string]string {
	form := map[string]string{"MessageSid": "SM1", "AccountSid": account, "From": "+33639980102", "To": "+33939980001", "Body": "Bonjour", "NumMedia": "0"}
	maps.Copy(form, change)
	return form
}

func TestInbound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		change  map[string]string
		subject string
		optOut  bool
	}{
		{"a text", nil, "webhooks.twilio.inbound.33639980102", false},
		{"STOP", map[string]string{"Body": " Stop ! "}, "webhooks.twilio.optout.33639980102", true},
		{"Twilio's own judgement", map[string]string{"Body": "basta", "OptOutType": "STOP"}, "webhooks.twilio.optout.33639980102", true},
		{"START is no opt-out", map[string]string{"Body": "START", "OptOutType": "START"}, "webhooks.twilio.inbound.33639980102", false},
		{"without a prefix", map[string]string{"From": "0639980102"}, "webhooks.twilio.inbound.33639980102", false},
		{"from a short code", map[string]string{"From": "36123"}, "webhooks.twilio.inbound.36123", false},
		{"from a name", map[string]string{"From": "Ma Banque > *.1"}, "webhooks.twilio.inbound.MaBanque1", false},
		{"from nothing printable", map[string]string{"From": "***"}, "webhooks.twilio.inbound.unknown", false},
		{"emoji, accents, plus and ampersand", map[string]string{"Body": "été 🛑 a+b & c=d\n%"}, "webhooks.twilio.inbound.33639980102", false},
	} {
		form := sms(tt.change)
		msgs, optOut, err := verifier(t).Inbound(encode(form), twilio.InboundPath, twilio.Sign("new", public+twilio.InboundPath, form), now)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if m := msgs[0]; m.Subject != tt.subject || m.ID != "twilio:SM1" || optOut != tt.optOut {
			t.Errorf("%s: %s %s %v", tt.name, m.Subject, m.ID, optOut)
		}
		var got map[string]string
		if err := json.Unmarshal(msgs[0].Data, &got); err != nil || !maps.Equal(got, form) {
			t.Errorf("%s: data %s, %v", tt.name, msgs[0].Data, err)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	form := sms(map[string]string{"MessageStatus": "delivered"})
	uri := twilio.StatusPath + "?sms=payment_failed.in_1.2"
	msgs, err := verifier(t).Status(encode(form), uri, twilio.Sign("new", public+uri, form), now)
	if err != nil {
		t.Fatal(err)
	}
	m := msgs[0]
	var got map[string]string
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	if m.Subject != "webhooks.twilio.status.SM1" || m.ID != "twilio:SM1:delivered" || got["sms"] != "payment_failed.in_1.2" || got["MessageStatus"] != "delivered" {
		t.Errorf("%s %s %v", m.Subject, m.ID, got)
	}
	// The query is signed too: nobody can point a status at another text.
	if _, err := verifier(t).Status(encode(form), twilio.StatusPath+"?sms=welcome.1", twilio.Sign("new", public+uri, form), now); !errors.Is(err, webhook.ErrSignature) {
		t.Errorf("another query: %v", err)
	}
	for name, change := range map[string]map[string]string{"no status": {}, "no sid": {"MessageStatus": "sent", "MessageSid": ""}, "sid with a dot": {"MessageStatus": "sent", "MessageSid": "SM.1"}} {
		form := sms(change)
		if _, err := verifier(t).Status(encode(form), uri, twilio.Sign("new", public+uri, form), now); !errors.Is(err, webhook.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	form := sms(nil)
	sign := func(token, url string) string { return twilio.Sign(token, url, form) }
	for _, tt := range []struct {
		name, signature string
		ok              bool
	}{
		{"right", sign("new", public+twilio.InboundPath), true},
		{"the old token", sign("old", public+twilio.InboundPath), true},
		{"with the default port written out", sign("new", "https://hooks.example.com:443"+twilio.InboundPath), true},
		{"with another port", sign("new", "https://hooks.example.com:8443"+twilio.InboundPath), false},
		{"wrong token", sign("other", public+twilio.InboundPath), false},
		{"another path", sign("new", public+"/api/webhooks/other"), false},
		{"http", sign("new", "http://hooks.example.com"+twilio.InboundPath), false},
		{"another host", sign("new", "https://evil.example.com"+twilio.InboundPath), false},
		{"missing", "", false},
		{"not base64", "%%%", false},
	} {
		if _, _, err := verifier(t).Inbound(encode(form), twilio.InboundPath, tt.signature, now); (err == nil) != tt.ok || err != nil && !errors.Is(err, webhook.ErrSignature) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for name, change := range map[string]map[string]string{"another account": {"AccountSid": "AC2"}, "no account": {"AccountSid": ""}} {
		form := sms(change)
		if _, _, err := verifier(t).Inbound(encode(form), twilio.InboundPath, twilio.Sign("new", public+twilio.InboundPath, form), now); !errors.Is(err, webhook.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	altered := sms(map[string]string{"Body": "STOP"})
	if _, _, err := verifier(t).Inbound(encode(altered), twilio.InboundPath, sign("new", public+twilio.InboundPath), now); !errors.Is(err, webhook.ErrSignature) {
		t.Errorf("an altered text: %v", err)
	}
	for _, o := range []twilio.Options{{PublicURL: public}, {Tokens: []string{""}, PublicURL: public}, {Tokens: []string{"x"}, PublicURL: "nowhere"}} {
		if _, err := twilio.New(o); err == nil {
			t.Errorf("options %+v were taken", o)
		}
	}
}

// Twilio may leave a port out of what it signs, or write the default one out.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	form := sms(nil)
	for _, tt := range []struct {
		name, public, signed string
		ok                   bool
	}{
		{"as configured", "https://hooks.example.com", "https://hooks.example.com", true},
		{"slash at the end", "https://hooks.example.com/", "https://hooks.example.com", true},
		{"letter case is kept", "https://Hooks.Example.com", "https://Hooks.Example.com", true},
		{"below a path", "https://example.com/hooks", "https://example.com/hooks", true},
		{"with credentials", "https://user:pass@example.com", "https://user:pass@example.com", true},
		{"with credentials, signed without", "https://user:pass@example.com", "https://example.com", true},
		{"with credentials and a port, signed without", "https://user:pass@example.com/hooks", "https://example.com:443/hooks", true},
		{"a host in capitals", "https://Hooks.Example.com", "https://hooks.example.com", true},
		{"a host in capitals, as it stands", "https://Hooks.Example.com", "https://Hooks.Example.com", true},
		{"default port signed", "https://hooks.example.com", "https://hooks.example.com:443", true},
		{"default port configured", "https://hooks.example.com:443", "https://hooks.example.com", true},
		{"default port of http signed", "http://localhost", "http://localhost:80", true},
		{"another port, as configured", "http://localhost:3000", "http://localhost:3000", true},
		{"another port left out", "https://hooks.example.com:8443", "https://hooks.example.com", true},
		{"another port added", "https://hooks.example.com", "https://hooks.example.com:8443", false},
		{"another host", "https://hooks.example.com", "https://hooks.example.net", false},
		{"another scheme", "https://hooks.example.com", "http://hooks.example.com", false},
	} {
		v, err := twilio.New(twilio.Options{Tokens: []string{"token"}, PublicURL: tt.public, Region: "FR"})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		_, _, err = v.Inbound(encode(form), twilio.InboundPath, twilio.Sign("token", tt.signed+twilio.InboundPath, form), now)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, webhook.ErrSignature) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A field twice: its first value is signed, as Twilio's library has it, and published,
// so that nobody can add a second one to a signed request.
func TestFirstValueOfAFieldCounts(t *testing.T) {
	t.Parallel()
	form := sms(nil)
	body := append(encode(form), "&Body=STOP&From=%2B33639980199"...)
	msgs, optOut, err := verifier(t).Inbound(body, twilio.InboundPath, twilio.Sign("new", public+twilio.InboundPath, form), now)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(msgs[0].Data, &got); err != nil || !maps.Equal(got, form) || optOut || msgs[0].Subject != "webhooks.twilio.inbound.33639980102" {
		t.Errorf("%s %s, opt-out %v, %v", msgs[0].Subject, msgs[0].Data, optOut, err)
	}
	if rv := client.NewRequestValidator("new"); !rv.ValidateBody(public+twilio.InboundPath, body, twilio.Sign("new", public+twilio.InboundPath, form)) {
		t.Error("Twilio's library sees it otherwise")
	}
}

// Our signature is the one that Twilio's own library checks.
func TestSignAgreesWithTwilio(t *testing.T) {
	t.Parallel()
	form := sms(map[string]string{"Body": "é+& \n", "Empty": ""})
	rv := client.NewRequestValidator("token")
	if !rv.Validate(public+"/x?a=b", form, twilio.Sign("token", public+"/x?a=b", form)) {
		t.Error("Twilio's library refuses our signature")
	}
}

func FuzzInbound(f *testing.F) {
	f.Add(string(encode(sms(nil))), twilio.InboundPath, "AAAA", true)
	f.Add("MessageSid=1&From=%2B33&Body=%ff", "/x?y=%zz", "", true)
	f.Add("%zz", "::", "x", false)
	v := verifier(f)
	f.Fuzz(func(t *testing.T, body, uri, signature string, sign bool) {
		form := map[string]string{}
		if values, err := url.ParseQuery(body); err == nil {
			for k, vs := range values {
				form[k] = vs[0]
			}
		}
		if sign {
			signature = twilio.Sign("new", public+uri, form)
		}
		for name, verify := range map[string]func() (int, string, error){
			"inbound": func() (int, string, error) {
				m, _, err := v.Inbound([]byte(body), uri, signature, now)
				if err != nil {
					return 0, "", err
				}
				return len(m), m[0].Subject, nil
			},
			"status": func() (int, string, error) {
				m, err := v.Status([]byte(body), uri, signature, now)
				if err != nil {
					return 0, "", err
				}
				return len(m), m[0].Subject, nil
			},
		} {
			n, subject, err := verify()
			if err != nil {
				continue
			}
			if !sign && signature != twilio.Sign("new", public+uri, form) && signature != twilio.Sign("old", public+uri, form) &&
				signature != twilio.Sign("new", public+":443"+uri, form) && signature != twilio.Sign("old", public+":443"+uri, form) {
				t.Fatalf("%s: a forged request passed", name)
			}
			if n != 1 || strings.ContainsAny(subject, " *>\r\n\t") || strings.Contains(subject, "..") || strings.HasSuffix(subject, ".") {
				t.Fatalf("%s: subject %q", name, subject)
			}
		}
	})
}
