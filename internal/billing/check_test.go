package billing

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"leadpipe/internal/outcome"
)

// A key that may read subscriptions is told that there is none; other answers say what is
// wrong with the key, or that nobody can tell now.
// https://docs.stripe.com/api/errors, https://docs.stripe.com/keys#limit-access
func TestCheckOfTheKey(t *testing.T) {
	t.Parallel()
	const wrong = `{"error":{"type":"invalid_request_error","message":"…"}}`
	for status, want := range map[int]struct {
		kind   outcome.Kind
		reason outcome.Reason
		says   string
	}{
		200: {}, 404: {},
		401: {outcome.KindBlocked, outcome.Auth, "refuses the key"}, 403: {outcome.KindBlocked, outcome.Refused, "may not read"},
		429: {outcome.KindTemporary, outcome.Unavailable, "429"}, 500: {outcome.KindTemporary, outcome.Unavailable, "500"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var asked string
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.Path
				w.WriteHeader(status)
				if status == 200 {
					_, _ = w.Write([]byte(`{"id":"sub_check","object":"subscription"}`))
					return
				}
				_, _ = w.Write([]byte(wrong))
			}))
			s, err := NewStripe("rk_test_1", web.URL)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Check(t.Context())
			web.Close()
			switch o := outcome.Of(err); {
			case want.says == "" && err != nil:
				t.Errorf("%d: %v", status, err)
			case want.says != "" && (err == nil || o.Kind != want.kind || o.Reason != want.reason || !strings.Contains(err.Error(), want.says)):
				t.Errorf("%d: %v", status, err)
			}
			if !strings.HasPrefix(asked, "/v1/subscriptions/") {
				t.Errorf("asked for %s", asked)
			}
			if err := s.Check(t.Context()); err == nil || outcome.Of(err).Kind != outcome.KindTemporary || !strings.Contains(err.Error(), "does not answer") {
				t.Errorf("nobody there: %v", err)
			}
		})
	}
	// One that hangs is given up with the context.
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer web.Close()
	defer close(release)
	s, err := NewStripe("rk_test_1", web.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Check(ctx); err == nil || outcome.Of(err).Kind != outcome.KindTemporary {
		t.Errorf("given up: %v", err)
	}
}
