package billing

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

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
	// Nothing is asked any more once the program ends.
	var asked atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer web.Close()
	s, err := NewStripe("rk_test_1", web.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Check(ctx); err == nil || outcome.Of(err).Kind != outcome.KindTemporary {
		t.Errorf("given up: %v", err)
	}
	if _, err := s.Subscription(ctx, "sub_1"); err == nil || outcome.Of(err).Kind != outcome.KindTemporary {
		t.Errorf("given up: %v", err)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d calls after the end", n)
	}
}

// The client waits no longer for Stripe than a message can, writes no log, and measures
// nothing for Stripe.
func TestCheckThatTheClientIsQuiet(t *testing.T) {
	t.Parallel()
	measured := 0
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Stripe-Client-Telemetry") != "" {
			measured++
		}
		w.Header().Set("Request-Id", "req_1")
		_, _ = w.Write([]byte(`{"id":"sub_1","object":"subscription"}`))
	}))
	defer web.Close()
	s, err := NewStripe("rk_test_1", web.URL)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Subscription(t.Context(), "sub_1"); err != nil {
			t.Fatal(err)
		}
	}
	if measured > 0 {
		t.Error("the client tells Stripe how long its calls took")
	}
	backend := s.client.B.(*stripe.BackendImplementation)
	if log, ok := backend.LeveledLogger.(*stripe.LeveledLogger); !ok || log.Level != stripe.LevelNull {
		t.Errorf("the client writes a log: %+v", backend.LeveledLogger)
	}
	if wait := backend.HTTPClient.Timeout; wait != 10*time.Second {
		t.Errorf("the client waits for %v", wait)
	}
}
