package sms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/twilio"
)

func newMessages(t *testing.T, url string) *messages {
	t.Helper()
	c, err := twilio.New(twilio.Options{Account: "AC00000000000000000000000000000001", Token: "token", BaseURL: url, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &messages{client: c, from: "38998"}
}

// Whatever status comes with something that is not Twilio's error document.
func TestJudgeEveryStatus(t *testing.T) {
	t.Parallel()
	for status := 300; status < 600; status++ {
		want := unknown
		switch status {
		case http.StatusUnauthorized, http.StatusForbidden:
			want = refused
		case http.StatusTooManyRequests:
			want = later
		}
		if got := judge(errors.New("not JSON"), true, status).verdict; got != want {
			t.Errorf("%d: %s, not %s", status, got, want)
		}
	}
}

// Every way in which a call ends, over HTTP and through twilio-go.
func TestSendOutcomes(t *testing.T) {
	t.Parallel()
	code := func(status, code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"code":%d,"message":"about +33639980001","more_info":"","status":%d}`, code, status)
		}
	}
	body := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   verdict
		kind   outcome.Kind
	}{
		{"accepted", body(201, `{"sid":"SM1","status":"queued","date_created":"Tue, 24 Nov 2026 10:00:00 +0000"}`), sent, ""},
		{"accepted with rubbish", body(201, `{"sid": "SM`), unknown, outcome.KindTemporary},
		{"accepted with nothing", body(201, ``), unknown, outcome.KindTemporary},
		{"accepted without a sid", body(201, `{}`), unknown, outcome.KindTemporary},
		{"redirected", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, unknown, outcome.KindTemporary},
		{"500", code(500, 20500), unknown, outcome.KindTemporary},
		{"503 of a proxy", body(503, `<html>`), unknown, outcome.KindTemporary},
		{"400 of a proxy", body(400, `<html>`), unknown, outcome.KindTemporary},
		{"hung up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unknown, outcome.KindTemporary},
		{"stalled", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not see that the caller left
			<-r.Context().Done()
		}, unknown, outcome.KindTemporary},
		{"too many, 20429", code(429, 20429), later, outcome.KindTemporary},
		{"too many, of a proxy", body(429, `<html>`), later, outcome.KindTemporary},
		{"wrong credentials, 20003", code(401, 20003), refused, outcome.KindBlocked},
		{"no such account, 20404", code(404, 20404), refused, outcome.KindBlocked},
		{"sender can't text, 21606", code(400, 21606), refused, outcome.KindBlocked},
		{"sender is not valid, 21212", code(400, 21212), refused, outcome.KindBlocked},
		{"no such service, 21701", code(400, 21701), refused, outcome.KindBlocked},
		{"not a number, 21211", code(400, 21211), never, outcome.KindPermanent},
		{"country not allowed, 21408", code(400, 21408), never, outcome.KindPermanent},
		{"trial account, 21608", code(400, 21608), never, outcome.KindPermanent},
		{"no route from this sender, 21612", code(400, 21612), refused, outcome.KindBlocked},
		{"sender of another country, 21659", code(400, 21659), refused, outcome.KindBlocked},
		{"the sender's queue is full, 21611", code(400, 21611), later, outcome.KindTemporary},
		{"the sender is being set up, 21267", code(400, 21267), later, outcome.KindTemporary},
		{"too many at once, 14107", code(429, 14107), later, outcome.KindTemporary},
		{"a landline, 21614", code(400, 21614), never, outcome.KindPermanent},
		{"an error that is new", code(400, 29999), never, outcome.KindPermanent},
		{"opted out at twilio, 21610", code(400, 21610), unsubscribed, outcome.KindPermanent},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				c.answer(w, r)
			}))
			defer srv.Close()
			a := newMessages(t, srv.URL).send(context.Background(), contracts.SMS{To: "+33639980001", Body: "secret"}, nil)
			if a.verdict != c.want {
				t.Errorf("%s, not %s: %v", a.verdict, c.want, a.err)
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests", requests.Load())
			}
			if c.kind == "" {
				if a.err != nil || a.news.SID != "SM1" || a.news.At.IsZero() {
					t.Errorf("%+v", a)
				}
				return
			}
			if o := outcome.Of(a.err); o.Kind != c.kind {
				t.Errorf("%s, not %s", o.Kind, c.kind)
			}
			for _, private := range []string{"33639980001", "secret", "token"} {
				if strings.Contains(a.err.Error(), private) {
					t.Errorf("the error tells %q: %v", private, a.err)
				}
			}
		})
	}
	t.Run("connection_refused", func(t *testing.T) {
		t.Parallel()
		srv := httptest.NewServer(nil)
		srv.Close()
		if a := newMessages(t, srv.URL).send(context.Background(), contracts.SMS{To: "+33639980001", Body: "x"}, nil); a.verdict != later {
			t.Errorf("%s: %v", a.verdict, a.err)
		}
	})
	t.Run("a_gate_that_does_not_open", func(t *testing.T) {
		t.Parallel()
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
		defer srv.Close()
		a := newMessages(t, srv.URL).send(context.Background(), contracts.SMS{To: "+33639980001", Body: "x"},
			func(context.Context) error { return &holdError{why: "closed"} })
		if a.verdict != held {
			t.Errorf("%s: %v", a.verdict, a.err)
		}
	})
}
