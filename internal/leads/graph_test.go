package leads

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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"leadpipe/internal/outcome"
	"leadpipe/internal/sandbox/meta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testToken  = "EAAtoken"
	testSecret = "app-secret"
)

// newTestGraph makes a client of a handler, with a clock that stands until it is moved.
func newTestGraph(t *testing.T, h http.Handler) (g *Graph, clock *atomic.Int64) {
	t.Helper()
	ts := httptest.NewServer(h)
	clock = &atomic.Int64{}
	clock.Store(1795422600)
	g, err := NewGraph(GraphOptions{URL: ts.URL + "/v26.0/", Token: testToken, AppSecret: testSecret,
		Now: func() time.Time { return time.Unix(clock.Load(), 0) }, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close(); ts.Close() })
	return g, clock
}

// answering is a handler with one answer.
func answering(status int, header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Business-Use-Case-Usage", header)
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // a caller that left is no concern of ours
	}
}

// noSecrets fails the test if an error shows what it must not.
func noSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{testToken, testSecret, meta.Proof(testToken, testSecret), "appsecret_proof=", "Zoé"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in the error: %v", secret, err)
		}
	}
}

// TestEveryErrorCode sends each documented code over HTTP, with a message that quotes
// the token as Graph's do.
func TestEveryErrorCode(t *testing.T) {
	t.Parallel()
	type key struct{ status, code, subcode int }
	type verdict struct {
		kind   outcome.Kind
		reason outcome.Reason
	}
	var (
		unavailable = verdict{outcome.KindTemporary, outcome.Unavailable}
		limited     = verdict{outcome.KindTemporary, outcome.RateLimited}
		pausing     = verdict{outcome.KindTemporary, outcome.Refused}
		forbidden   = verdict{outcome.KindPermanent, outcome.Refused}
		unknown     = verdict{outcome.KindPermanent, outcome.Unknown}
		auth        = verdict{outcome.KindBlocked, outcome.Auth}
		misused     = verdict{outcome.KindBlocked, outcome.Refused}
	)
	cases := map[key]verdict{
		{400, 1, 0}: unavailable, {400, 2, 0}: unavailable, {500, 2, 0}: unavailable, {503, 1, 99}: unavailable,
		{400, 368, 0}: pausing,
		{400, 10, 0}:  forbidden, {403, 200, 0}: forbidden, {400, 190, 0}: auth,
		{400, 100, 33}: unknown, {404, 803, 0}: unknown,
		{400, 102, 0}: auth, {400, 104, 0}: auth, {401, 190, 463}: auth, {500, 190, 467}: auth, {401, 0, 0}: auth,
		{400, 100, 0}: unknown, {400, 100, 2018001}: unknown, {400, 3, 0}: misused, {400, 12, 0}: misused, {404, 2500, 0}: misused, {400, 2635, 0}: misused,
		{302, 0, 0}: misused, {404, 0, 0}: misused, {405, 0, 0}: misused,
		{429, 0, 0}: limited,
		{400, 0, 0}: unavailable, {403, 0, 0}: unavailable, {418, 0, 0}: unavailable, {500, 0, 0}: unavailable, {502, 0, 0}: unavailable, {503, 0, 0}: unavailable, {504, 0, 0}: unavailable,
		{400, 12345, 0}: unavailable, {400, 300, 0}: unavailable, {400, 199, 0}: unavailable, {400, 79999, 0}: unavailable, {400, 80015, 0}: unavailable, {400, -1, 0}: unavailable,
		{200, 190, 0}: auth, {200, 2, 0}: unavailable, // an error with a friendly status
	}
	for _, code := range []int{4, 17, 32, 341, 613} {
		cases[key{400, code, 0}] = limited
		cases[key{403, code, 2446079}] = limited
	}
	for code := 80000; code <= 80014; code++ {
		cases[key{400, code, 0}] = limited
	}
	for code := 200; code <= 299; code++ {
		cases[key{400, code, 0}] = forbidden
	}
	var now key
	g, clock := newTestGraph(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := fmt.Sprintf(`{"error":{"message":"Malformed access token %s of Zoé","type":"OAuthException","code":%d,"error_subcode":%d,"fbtrace_id":"A1"}}`,
			testToken, now.code, now.subcode)
		if now.code == 0 {
			body = "<!DOCTYPE html>" + testToken
		}
		answering(now.status, "", body)(w, r)
	}))
	var messages = map[string]string{}
	for k, want := range cases {
		now = k
		clock.Add(2 * 3600) // past any hold
		_, err := g.lead(t.Context(), "1", false)
		if err == nil {
			t.Errorf("%v: no error", k)
			continue
		}
		if o := outcome.Of(err); (verdict{o.Kind, o.Reason}) != want {
			t.Errorf("HTTP %d, code %d/%d: %s, %s; want %v", k.status, k.code, k.subcode, o.Kind, o.Reason, want)
		}
		noSecrets(t, err)
		clock.Add(2 * 3600)
		if _, again := g.lead(t.Context(), "1", false); want != limited && again.Error() != err.Error() {
			t.Errorf("the same refusal reads differently, so that a replay would write it: %v", again)
		}
		messages[err.Error()] = ""
	}
	for m := range messages {
		if strings.Contains(m, "code 190,") && !strings.Contains(m, "FACEBOOK_PAGE_ACCESS_TOKEN") {
			t.Errorf("does not say what to do: %s", m)
		}
	}
}

func TestFaultsOfTheStandIn(t *testing.T) {
	t.Parallel()
	s, err := meta.New(meta.Options{Token: testToken, AppSecret: testSecret, RegainMinutes: 7})
	if err != nil {
		t.Fatal(err)
	}
	s.AddLead(meta.Lead{ID: "1", CreatedTime: time.Unix(1795422600, 0)})
	g, clock := newTestGraph(t, s)
	for fault, want := range map[meta.Fault]outcome.Error{
		meta.TokenExpired: {Kind: outcome.KindBlocked, Reason: outcome.Auth},
		meta.NotShown:     {Kind: outcome.KindPermanent, Reason: outcome.Unknown},
		meta.Unsupported:  {Kind: outcome.KindPermanent, Reason: outcome.Unknown},
		meta.Forbidden:    {Kind: outcome.KindPermanent, Reason: outcome.Refused},
		meta.NoFields:     {Kind: outcome.KindPermanent, Reason: outcome.Refused},
		meta.HTML503:      {Kind: outcome.KindTemporary, Reason: outcome.Unavailable},
		meta.OldPageLimit: {Kind: outcome.KindTemporary, Reason: outcome.RateLimited, After: time.Minute},
		meta.CustomLimit:  {Kind: outcome.KindTemporary, Reason: outcome.RateLimited, After: time.Minute},
		meta.AppLimit:     {Kind: outcome.KindTemporary, Reason: outcome.RateLimited, After: time.Minute},
		meta.UserLimit:    {Kind: outcome.KindTemporary, Reason: outcome.RateLimited, After: time.Minute},
		meta.PageLimit:    {Kind: outcome.KindTemporary, Reason: outcome.RateLimited, After: 7 * time.Minute},
		meta.Temporary:    {Kind: outcome.KindTemporary, Reason: outcome.Unavailable},
		meta.HTML500:      {Kind: outcome.KindTemporary, Reason: outcome.Unavailable},
		meta.HangUp:       {Kind: outcome.KindTemporary, Reason: outcome.Unavailable},
	} {
		clock.Add(2 * 3600)
		s.SetFault(fault)
		_, err := g.lead(t.Context(), "1", false)
		if err == nil {
			t.Errorf("%s: no error", fault)
			continue
		}
		noSecrets(t, err)
		if o := outcome.Of(err); o.Kind != want.Kind || o.Reason != want.Reason || o.After != want.After {
			t.Errorf("%s: %s, %s, after %v; want %s, %s, after %v", fault, o.Kind, o.Reason, o.After, want.Kind, want.Reason, want.After)
		}
		if permission := fault == meta.Forbidden || fault == meta.NoFields; errors.Is(err, errPermission) != permission {
			t.Errorf("%s: about the permission: %v", fault, !permission)
		}
	}
	clock.Add(2 * 3600)
	s.SetFault("")
	if f, err := g.lead(t.Context(), "1", false); err != nil || f.ID != "1" {
		t.Errorf("after the faults: %v, %v", f.ID, err)
	}
	if n := testutil.ToFloat64(g.calls.WithLabelValues("rate_limited")); n != 5 {
		t.Errorf("the metric counts %v rate limits", n)
	}
}

// TestNoCallDuringARateLimit: Graph counts the calls made during a limit too, so that
// calling on would prolong it.
func TestNoCallDuringARateLimit(t *testing.T) {
	t.Parallel()
	const usage = `{"100":[{"type":"leadgen","call_count":100,"estimated_time_to_regain_access":0}],"200":[{"type":"x"},{"type":"leadgen","estimated_time_to_regain_access":%s}]}`
	const limit, sound = `{"error":{"code":80005}}`, `{"id":"1","field_data":[]}`
	for name, c := range map[string]struct {
		status       int
		header, body string
		first, hold  time.Duration // what the first answer asks for, and how long no call is made
	}{
		"as the header says":            {400, fmt.Sprintf(usage, "7"), limit, 7 * time.Minute, 7 * time.Minute},
		"a header without a time":       {400, fmt.Sprintf(usage, "0"), limit, time.Minute, time.Minute},
		"no header":                     {400, "", limit, time.Minute, time.Minute},
		"a header that is not readable": {400, `{"100":{"a":1}}`, limit, time.Minute, time.Minute},
		"a time beyond reason":          {400, fmt.Sprintf(usage, "1e9"), limit, time.Hour, time.Hour},
		"a time before now":             {400, fmt.Sprintf(usage, "-5"), limit, time.Minute, time.Minute},
		"announced by the last good":    {200, fmt.Sprintf(usage, "3"), sound, 0, 3 * time.Minute},
		"no limit":                      {200, fmt.Sprintf(usage, "0"), sound, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			g, clock := newTestGraph(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				answering(c.status, c.header, c.body)(w, r)
			}))
			_, err := g.lead(t.Context(), "1", false)
			if (err != nil) != (c.first > 0) || err != nil && outcome.Of(err).After != c.first {
				t.Fatalf("the first call: %v", err)
			}
			if c.hold == 0 {
				if _, err := g.lead(t.Context(), "1", false); err != nil || calls.Load() != 2 {
					t.Errorf("%d calls, %v", calls.Load(), err)
				}
				return
			}
			clock.Add(int64(c.hold/time.Second) - 1)
			_, err = g.lead(t.Context(), "1", false)
			if o := outcome.Of(err); err == nil || o.Kind != outcome.KindTemporary || o.Reason != outcome.RateLimited || o.After != time.Second || calls.Load() != 1 {
				t.Errorf("a second before the end: %d calls, %v", calls.Load(), err)
			}
			clock.Add(1)
			if _, _ = g.lead(t.Context(), "1", false); calls.Load() != 2 {
				t.Errorf("after the end: %d calls", calls.Load())
			}
		})
	}
}

func TestAnswersThatAreNoLead(t *testing.T) {
	t.Parallel()
	long := `{"id":"1","field_data":[{"name":"` + strings.Repeat("x", maxAnswer) + `"}]}`
	for name, c := range map[string]struct {
		body string
		kind outcome.Kind
	}{
		"nothing":          {"", outcome.KindTemporary},
		"HTML":             {"<html>", outcome.KindTemporary},
		"null":             {"null", outcome.KindTemporary},
		"another lead":     {`{"id":"2","field_data":[]}`, outcome.KindTemporary},
		"answers are text": {`{"id":"1","field_data":"Zoé"}`, outcome.KindTemporary},
		"cut short":        {`{"id":"1","field_data":[{"name":"Zoé"`, outcome.KindTemporary},
		"without end":      {long, outcome.KindPermanent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := newTestGraph(t, answering(200, "", c.body))
			_, err := g.lead(t.Context(), "1", false)
			if o := outcome.Of(err); err == nil || o.Kind != c.kind || o.Reason != outcome.Malformed {
				t.Fatalf("%v", err)
			}
			noSecrets(t, err)
		})
	}
}

// TestWhatIsAboutAllCalls: a token that is refused, or a proof that is wrong, costs one
// call now and then, however many leads come; Graph's first answer lets all through again.
func TestWhatIsAboutAllCalls(t *testing.T) {
	t.Parallel()
	s, err := meta.New(meta.Options{Token: testToken, AppSecret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	s.AddLead(meta.Lead{ID: "1"})
	g, clock := newTestGraph(t, s)
	right := g.proof
	for name, broken := range map[string]struct {
		reason outcome.Reason
		set    func(broken bool)
	}{
		"token": {outcome.Auth, func(b bool) {
			if s.SetFault(""); b {
				s.SetFault(meta.TokenExpired)
			}
		}},
		"proof": {outcome.Refused, func(b bool) {
			if g.proof = right; b {
				g.proof = meta.Proof(testToken, "another secret")
			}
		}},
	} {
		before := len(s.Calls())
		broken.set(true)
		for range 120 { // four minutes, two leads a second
			for range 4 {
				_, err := g.lead(t.Context(), "1", false)
				if o := outcome.Of(err); err == nil || o.Kind != outcome.KindBlocked || o.Reason != broken.reason {
					t.Fatalf("%s: %v", name, err)
				}
			}
			clock.Add(2)
		}
		if n := len(s.Calls()) - before; n < 16 || n > 24 {
			t.Errorf("%s: %d calls in four minutes", name, n)
		}
		broken.set(false)
		clock.Add(int64(lastTrial / time.Second))
		before = len(s.Calls())
		for range 3 {
			if _, err := g.lead(t.Context(), "1", false); err != nil {
				t.Errorf("%s: mended, and %v", name, err)
			}
		}
		if n := len(s.Calls()) - before; n != 3 {
			t.Errorf("%s: mended, and %d calls for 3 leads", name, n)
		}
	}
}

// TestFieldsThatMayNotBeRead: rights on the ad account, or another version of the API, are
// no reason to go without the form.
func TestFieldsThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	s, err := meta.New(meta.Options{Token: testToken, AppSecret: testSecret, Unknown: []string{"campaign_id", "platform", "ad_id"}})
	if err != nil {
		t.Fatal(err)
	}
	s.AddLead(meta.Lead{ID: "1", AdID: "2", CampaignID: "3", Platform: "ig", Fields: []meta.Field{{Name: "email", Values: []string{"a@example.com"}}}})
	g, _ := newTestGraph(t, s)
	f, err := g.lead(t.Context(), "1", false)
	if err != nil || len(f.Fields) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := g.lead(t.Context(), "2", false); outcome.Of(err).Reason != outcome.Unknown || len(s.Calls()) != 3 {
		t.Errorf("a lead that is not there: %v, after %d calls", err, len(s.Calls()))
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	g, _ := newTestGraph(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-never:
		case <-r.Context().Done():
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := g.lead(ctx, "1", false)
	if o := outcome.Of(err); err == nil || o.Kind != outcome.KindTemporary || o.Reason != outcome.Timeout {
		t.Errorf("silence: %v", err)
	}
	noSecrets(t, err)

	refusing, err := NewGraph(GraphOptions{URL: "http://127.0.0.1:1/v26.0", Token: testToken, AppSecret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	defer refusing.Close()
	_, err = refusing.lead(t.Context(), "1", false)
	if o := outcome.Of(err); err == nil || o.Kind != outcome.KindTemporary || o.Reason != outcome.Unavailable {
		t.Errorf("nobody there: %v", err)
	}
	noSecrets(t, err)
}

// TestTokenStaysOutOfURLs: URLs end up in the logs of every proxy.
func TestTokenStaysOutOfURLs(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	g, _ := newTestGraph(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		answering(200, "", `{"id":"1","field_data":[]}`)(w, r)
	}))
	if _, err := g.lead(t.Context(), "1", false); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(seen.URL.String(), testToken) || seen.Header.Get("Authorization") != "Bearer "+testToken || seen.URL.Path != "/v26.0/1" ||
		seen.URL.Query().Get("appsecret_proof") != meta.Proof(testToken, testSecret) {
		t.Errorf("%s, %v", seen.URL, seen.Header)
	}
	if !strings.Contains(seen.URL.Query().Get("fields"), "custom_disclaimer_responses") {
		t.Error("consent check boxes are not asked for")
	}
}

func TestNewGraphRefusesUnusableOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]GraphOptions{
		"no token":   {URL: "https://graph.example.com/v26.0"},
		"no URL":     {Token: testToken},
		"no host":    {URL: "https:///v26.0", Token: testToken},
		"not http":   {URL: "file://host/x", Token: testToken},
		"no scheme":  {URL: "graph.example.com/v26.0", Token: testToken},
		"with query": {URL: "https://graph.example.com/?access_token=" + testToken, Token: testToken},
	} {
		_, err := NewGraph(o)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		noSecrets(t, err)
	}
}
