package stripe_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	stripewebhook "github.com/stripe/stripe-go/v76/webhook"

	"leadpipe/contracts"
	"leadpipe/internal/webhook"
	"leadpipe/internal/webhook/stripe"
)

const event = `{"id":"evt_1","object":"event","api_version":"2026-09-30.endive","created":1764000000,"type":"invoice.payment_failed","data":{"object":{"id":"in_1","object":"invoice"}}}`

var now = time.Unix(1764000100, 0)

func verifier(t testing.TB, secrets ...string) *stripe.Verifier {
	t.Helper()
	v, err := stripe.New(secrets, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTrapEmptySecret: stripe-go takes an empty secret, and then anybody can sign.
func TestTrapEmptySecret(t *testing.T) {
	t.Parallel()
	for _, secrets := range [][]string{nil, {}, {""}, {"whsec_1", ""}} {
		if _, err := stripe.New(secrets, time.Minute); !errors.Is(err, webhook.ErrNoSecret) {
			t.Errorf("secrets %q: %v", secrets, err)
		}
	}
	if _, err := stripe.New([]string{"whsec_1"}, 0); err == nil {
		t.Error("a tolerance of zero was taken")
	}
}

func TestSignedByStripesOwnLibrary(t *testing.T) {
	t.Parallel()
	p := stripewebhook.GenerateTestSignedPayload(&stripewebhook.UnsignedPayload{Payload: []byte(event), Secret: "whsec_1", Timestamp: now})
	msgs, err := verifier(t, "whsec_1").Messages(p.Payload, p.Header, now)
	if err != nil {
		t.Fatal(err)
	}
	m := msgs[0]
	if m.Subject != "webhooks.stripe.invoice.payment_failed" || m.ID != "stripe:evt_1" || !bytes.Equal(m.Data, []byte(event)) {
		t.Errorf("message: %+v", m)
	}
	for h, want := range map[string]string{
		contracts.HeaderSpecVersion: "1.0", contracts.HeaderID: "evt_1", contracts.HeaderType: "invoice.payment_failed",
		contracts.HeaderSubject: "in_1", contracts.HeaderSource: "/stripe", contracts.HeaderContentType: "application/json",
		contracts.HeaderTime: "2025-11-24T16:01:40Z",
	} {
		if m.Header[h] != want {
			t.Errorf("%s: %q, want %q", h, m.Header[h], want)
		}
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	sign := func(at time.Time, secrets ...string) string { return stripe.Sign([]byte(event), at, secrets...) }
	v1 := strings.TrimPrefix(sign(now, "whsec_1"), "t=1764000100,")
	for _, tt := range []struct {
		name, header string
		ok           bool
	}{
		{"right", sign(now, "whsec_1"), true},
		{"the second of our secrets", sign(now, "whsec_2"), true},
		{"two signatures while rolling, ours last", sign(now, "whsec_other", "whsec_1"), true},
		{"two signatures while rolling, ours first", sign(now, "whsec_1", "whsec_other"), true},
		{"spaces after the commas", strings.ReplaceAll(sign(now, "whsec_1"), ",", ", "), true},
		{"an unknown scheme beside it", sign(now, "whsec_1") + ",v0=00", true},
		{"as old as allowed", sign(now.Add(-5*time.Minute), "whsec_1"), true},
		{"as far in the future as allowed", sign(now.Add(5*time.Minute), "whsec_1"), true},
		{"too old", sign(now.Add(-5*time.Minute-time.Second), "whsec_1"), false},
		{"trap: in the future", sign(now.Add(5*time.Minute+time.Second), "whsec_1"), false},
		{"an hour in the future", sign(now.Add(time.Hour), "whsec_1"), false},
		{"at the end of time", "t=9223372036854775807," + v1, false},
		{"at its beginning", "t=-9223372036854775808," + v1, false},
		{"signed, for the end of time", sign(time.Unix(math.MaxInt64, 0), "whsec_1"), false},
		{"signed, so far away that the distance overflows", sign(time.Unix(now.Unix()+math.MinInt64, 0), "whsec_1"), false},
		{"wrong secret", sign(now, "whsec_3"), false},
		{"another time than signed", "t=1764000101," + v1, false},
		{"no time", v1, false},
		{"no signature", "t=1764000100", false},
		{"empty signature", "t=1764000100,v1=", false},
		{"not hex", "t=1764000100,v1=zz", false},
		{"only the test scheme", strings.Replace(sign(now, "whsec_1"), "v1=", "v0=", 1), false},
		{"missing", "", false},
		{"signed with nothing", sign(now, ""), false},
	} {
		_, err := verifier(t, "whsec_1", "whsec_2").Messages([]byte(event), tt.header, now)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, webhook.ErrSignature) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	altered := strings.Replace(event, "in_1", "in_2", 1)
	if _, err := verifier(t, "whsec_1").Messages([]byte(altered), sign(now, "whsec_1"), now); !errors.Is(err, webhook.ErrSignature) {
		t.Errorf("an altered body: %v", err)
	}
}

// TestTrapNullBody: a body of null, or without data, verifies and must not be taken.
func TestTrapNullBody(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"null": `null`, "empty": ``, "a list": `[]`, "a string": `"evt"`, "no object": `{}`,
		"no data":          `{"id":"evt_1","object":"event","type":"a.b"}`,
		"null data":        `{"id":"evt_1","object":"event","type":"a.b","data":null}`,
		"empty data":       `{"id":"evt_1","object":"event","type":"a.b","data":{}}`,
		"null object":      `{"id":"evt_1","object":"event","type":"a.b","data":{"object":null}}`,
		"object is text":   `{"id":"evt_1","object":"event","type":"a.b","data":{"object":"in_1"}}`,
		"thin event":       `{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter","created":"2026-01-01T00:00:00Z","related_object":{}}`,
		"no id":            `{"object":"event","type":"a.b","data":{"object":{}}}`,
		"id with a space":  `{"id":"evt 1","object":"event","type":"a.b","data":{"object":{}}}`,
		"wildcard in type": `{"id":"evt_1","object":"event","type":"a.*","data":{"object":{}}}`,
		"type ends early":  `{"id":"evt_1","object":"event","type":"a.","data":{"object":{}}}`,
		"no type":          `{"id":"evt_1","object":"event","data":{"object":{}}}`,
		"trailing bytes":   `{"id":"evt_1","object":"event","type":"a.b","data":{"object":{}}} x`,
	} {
		_, err := verifier(t, "whsec_1").Messages([]byte(body), stripe.Sign([]byte(body), now, "whsec_1"), now)
		if !errors.Is(err, webhook.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTrapAPIVersion: stripe-go refuses every version but its own; none is lost here.
func TestTrapAPIVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{`"2023-10-16"`, `"2025-03-31.basil"`, `"2026-09-30.endive"`, `null`} {
		body := `{"id":"evt_1","object":"event","api_version":` + version + `,"type":"anything.new_here","data":{"object":{"object":"thing"}}}`
		if _, err := verifier(t, "whsec_1").Messages([]byte(body), stripe.Sign([]byte(body), now, "whsec_1"), now); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(event), stripe.Sign([]byte(event), now, "whsec_1"), true)
	f.Add([]byte("null"), "t=,v1=", false)
	f.Add([]byte(`{"id":1}`), "t=1764000100,v1=00,v1=", true)
	v := verifier(f, "whsec_1")
	f.Fuzz(func(t *testing.T, body []byte, header string, sign bool) {
		if sign {
			header = stripe.Sign(body, now, "whsec_1")
		}
		msgs, err := v.Messages(body, header, now)
		if err != nil {
			if sign && errors.Is(err, webhook.ErrSignature) {
				t.Fatal("a right signature was refused")
			}
			return
		}
		// Whoever has no secret can't make this body pass, unless it is the seed's.
		if !sign && header != stripe.Sign(body, now, "whsec_1") && stripewebhook.ValidatePayloadIgnoringTolerance(body, header, "whsec_1") != nil {
			t.Fatalf("a forged request passed: %q", header)
		}
		if len(msgs) != 1 || strings.ContainsAny(msgs[0].Subject, " *>\r\n") || !bytes.Equal(msgs[0].Data, body) {
			t.Fatalf("messages %v", msgs)
		}
	})
}
