package facebook_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/webhook"
	"leadpipe/internal/webhook/facebook"
)

var now = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func verifier(t testing.TB) *facebook.Verifier {
	t.Helper()
	v, err := facebook.New([]string{"new", "old"}, "verify_me")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func body(changes ...string) []byte {
	return []byte(`{"object":"page","entry":[{"id":"77","time":1764000000,"changes":[` + strings.Join(changes, ",") + `]}]}`)
}

func leadgen(value string) string { return `{"field":"leadgen","value":` + value + `}` }

// TestTrapIDsAreNumbersOrStrings: an id of 18 digits does not survive a float.
func TestTrapIDsAreNumbersOrStrings(t *testing.T) {
	t.Parallel()
	b := body(leadgen(`{"leadgen_id":1234567890123456789,"page_id":555}`), leadgen(`{"leadgen_id":"1234567890123456787","page_id":"555"}`),
		leadgen(`{"leadgen_id": 42, "form_id": 7}`))
	got, err := verifier(t).Messages(b, facebook.Sign(b, "new"), now)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ id, data string }{
		{"facebook:1234567890123456789", `{"leadgen_id":1234567890123456789,"page_id":555}`},
		{"facebook:1234567890123456787", `{"leadgen_id":"1234567890123456787","page_id":"555"}`},
		{"facebook:42", `{"form_id":7,"leadgen_id":42,"page_id":"77"}`}, // the page is the entry's
	}
	if len(got.Messages) != len(want) {
		t.Fatalf("%d messages", len(got.Messages))
	}
	for i, m := range got.Messages {
		if m.ID != want[i].id || string(m.Data) != want[i].data || m.Subject != "webhooks.facebook.leadgen" {
			t.Errorf("message %d: %s %s %s", i, m.Subject, m.ID, m.Data)
		}
	}
}

func TestManyLeadsInManyEntries(t *testing.T) {
	t.Parallel()
	var entries []string
	for range 10 {
		var changes []string
		for range 100 {
			changes = append(changes, leadgen(`{"leadgen_id":"`+string(rune('1'+len(entries)%9))+strings.Repeat("0", len(changes)%20)+`1","page_id":"5"}`))
		}
		entries = append(entries, `{"id":"77","changes":[`+strings.Join(changes, ",")+`]}`)
	}
	b := []byte(`{"object":"page","entry":[` + strings.Join(entries, ",") + `]}`)
	got, err := verifier(t).Messages(b, facebook.Sign(b, "new"), now)
	if err != nil || len(got.Messages) != 1000 {
		t.Errorf("%d messages, %v", len(got.Messages), err)
	}
}

func TestWhatIsNoLeadIsLeftOut(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body    string
		changed int
	}{
		"another field":                        {string(body(`{"field":"feed","value":{"item":"post"}}`)), 0},
		"another object":                       {`{"object":"instagram","entry":[{"id":"1","changes":[{"field":"leadgen","value":{"leadgen_id":"1"}}]}]}`, 0},
		"no entries":                           {`{"object":"page","entry":[]}`, 0},
		"values not included":                  {`{"object":"page","entry":[{"id":"1","changed_fields":["leadgen"]},{"id":"2","changed_fields":["leadgen"]}]}`, 2},
		"values of another field not included": {`{"object":"page","entry":[{"id":"1","changed_fields":["feed"]}]}`, 0},
	} {
		got, err := verifier(t).Messages([]byte(tt.body), facebook.Sign([]byte(tt.body), "new"), now)
		if err != nil || len(got.Messages) != 0 || got.Changed != tt.changed {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]string{
		"null": `null`, "empty": ``, "a list": `[]`, "no object": `{"entry":[]}`, "half": `{"object":"page","entry":[`,
		"no id": string(body(leadgen(`{"page_id":"5"}`))), "null value": string(body(leadgen(`null`))),
		"id is a float": string(body(leadgen(`{"leadgen_id":1.5,"page_id":"5"}`))), "id in exponent form": string(body(leadgen(`{"leadgen_id":1e17,"page_id":"5"}`))),
		"id is negative": string(body(leadgen(`{"leadgen_id":-1,"page_id":"5"}`))), "id is a word": string(body(leadgen(`{"leadgen_id":"a.b","page_id":"5"}`))),
		"id too long": string(body(leadgen(`{"leadgen_id":"` + strings.Repeat("1", 33) + `","page_id":"5"}`))),
	} {
		if _, err := verifier(t).Messages([]byte(b), facebook.Sign([]byte(b), "new"), now); !errors.Is(err, webhook.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	// Meta signs the text as it is sent, escapes and all: encoding it again breaks it.
	b := []byte(`{"object":"page","entry":[{"id":"1","changes":[{"field":"leadgen","value":{"leadgen_id":"1","page_id":"5","note":"caf\u00e9 \ud83d\ude00 <>&\/"}}]}]}`)
	right := facebook.Sign(b, "new")
	for name, tt := range map[string]struct {
		header string
		ok     bool
	}{
		"right": {right, true}, "the old secret": {facebook.Sign(b, "old"), true},
		"wrong secret": {facebook.Sign(b, "other"), false}, "missing": {"", false}, "no scheme": {strings.TrimPrefix(right, "sha256="), false},
		"sha1": {"sha1=" + strings.TrimPrefix(right, "sha256="), false}, "cut": {right[:len(right)-2], false}, "longer": {right + "00", false},
		"not hex": {"sha256=zz", false}, "empty": {"sha256=", false}, "of another body": {facebook.Sign([]byte(`{}`), "new"), false},
	} {
		_, err := verifier(t).Messages(b, tt.header, now)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, webhook.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := facebook.New([]string{""}, "x"); !errors.Is(err, webhook.ErrNoSecret) {
		t.Errorf("an empty secret: %v", err)
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	q := func(mode, token string) url.Values {
		return url.Values{"hub.mode": {mode}, "hub.verify_token": {token}, "hub.challenge": {"1158201444"}}
	}
	for name, tt := range map[string]struct {
		q  url.Values
		ok bool
	}{
		"right": {q("subscribe", "verify_me"), true}, "wrong token": {q("subscribe", "verify_you"), false},
		"no token": {q("subscribe", ""), false}, "another mode": {q("unsubscribe", "verify_me"), false}, "nothing": {url.Values{}, false},
	} {
		if got, ok := verifier(t).Challenge(tt.q); ok != tt.ok || ok && got != "1158201444" {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
	without, err := facebook.New([]string{"s"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := without.Challenge(q("subscribe", "")); ok {
		t.Error("without a token of ours, an empty one was taken")
	}
}

func FuzzMessages(f *testing.F) {
	b := body(leadgen(`{"leadgen_id":1,"page_id":"5"}`))
	f.Add(b, facebook.Sign(b, "new"), true)
	f.Add([]byte("null"), "sha256=", false)
	f.Add(body(leadgen(`{"LEADGEN_ID":1,"page_id":"5"}`)), "", true)
	v := verifier(f)
	f.Fuzz(func(t *testing.T, body []byte, header string, sign bool) {
		if sign {
			header = facebook.Sign(body, "new")
		}
		got, err := v.Messages(body, header, now)
		if err != nil {
			if sign && errors.Is(err, webhook.ErrSignature) {
				t.Fatal("a right signature was refused")
			}
			return
		}
		if !sign && !strings.EqualFold(header, facebook.Sign(body, "new")) && !strings.EqualFold(header, facebook.Sign(body, "old")) {
			t.Fatalf("a forged request passed: %q", header)
		}
		for _, m := range got.Messages {
			var value struct { // as a consumer reads it, whatever the names' letter case
				LeadgenID json.RawMessage `json:"leadgen_id"`
				PageID    json.RawMessage `json:"page_id"`
			}
			if err := json.Unmarshal(m.Data, &value); err != nil || value.LeadgenID == nil || value.PageID == nil {
				t.Fatalf("message %s: %v", m.Data, err)
			}
		}
	})
}
