package edge_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/bus"
	"leadpipe/internal/edge"
	"leadpipe/internal/natstest"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/stripe"
	"leadpipe/internal/webhook/twilio"
)

func TestMain(m *testing.M) {
	natstest.ServeApart()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

const account = "AC00000000000000000000000000000001"

// publisher is a function in the publisher's place, for answers that a healthy
// JetStream does not give.
type publisher func(ctx context.Context, msgs []contracts.Message) error

// Publish gives the function copies: as bus.Publisher's caller the edge uses a body again
// once Publish has returned nil, and the function may keep what it is given.
func (p publisher) Publish(ctx context.Context, msgs []contracts.Message) error {
	kept := slices.Clone(msgs)
	for i := range kept {
		kept[i].Data = bytes.Clone(kept[i].Data)
	}
	return p(ctx, kept)
}

// rig is a running edge.
type rig struct {
	t    testing.TB
	edge *edge.Edge
	url  string
	log  *bytes.Buffer
}

func start(t testing.TB, p edge.Publisher, change ...func(*edge.Options)) *rig {
	t.Helper()
	// The public URL is known only once the server listens.
	r := &rig{t: t, log: &bytes.Buffer{}}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.edge.ServeHTTP(w, req) }))
	t.Cleanup(ts.Close)
	r.url = ts.URL
	s, err := stripe.New([]string{"whsec_next", "whsec_1"}, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	f, err := facebook.New([]string{"app_secret"}, "verify_me")
	if err != nil {
		t.Fatal(err)
	}
	tw, err := twilio.New(twilio.Options{Tokens: []string{"token"}, Account: account, PublicURL: ts.URL, Region: "FR"})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	var mu sync.Mutex
	o := edge.Options{
		Publisher: p, Stripe: s, Facebook: f, Twilio: tw, PublishTimeout: 3 * time.Second, OptOutHold: 250 * time.Millisecond,
		Ready: func(context.Context) error { return nil }, Registerer: reg, Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
		Log: slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return r.log.Write(b) }), nil)),
	}
	for _, c := range change {
		c(&o)
	}
	if r.edge, err = edge.New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// real starts an edge over a real JetStream and gives the number of stored webhooks.
func real(t testing.TB) (*rig, func() uint64) {
	t.Helper()
	s := natstest.New(t)
	js := s.JetStream("operator")
	return start(t, bus.NewPublisher(s.JetStream("edge"))), func() uint64 {
		st, err := js.Stream(context.Background(), "WEBHOOKS")
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().State.Msgs
	}
}

// request is a POST as a provider makes it.
type request struct {
	path, contentType string
	body              []byte
	header            map[string]string
	chunked           bool
}

func (r *rig) do(method string, q request) (*http.Response, string) {
	r.t.Helper()
	var body io.Reader = bytes.NewReader(q.body)
	if q.chunked {
		body = io.MultiReader(body) // of a length that the client can't know
	}
	req, err := http.NewRequestWithContext(context.Background(), method, r.url+q.path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", q.contentType)
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

func (r *rig) post(q request) int {
	r.t.Helper()
	res, _ := r.do(http.MethodPost, q)
	return res.StatusCode
}

func stripeEvent(id string) []byte {
	return []byte(`{"id":"` + id + `","object":"event","type":"invoice.paid","data":{"object":{"id":"in_1"}}}`)
}

func stripeRequest(body []byte) request {
	return request{path: "/api/webhooks/stripe", contentType: "application/json; charset=utf-8", body: body,
		header: map[string]string{"Stripe-Signature": stripe.Sign(body, time.Now(), "whsec_1")}}
}

func facebookRequest(body string) request {
	return request{path: "/api/webhooks/facebook", contentType: "application/json", body: []byte(body),
		header: map[string]string{"X-Hub-Signature-256": facebook.Sign([]byte(body), "app_secret")}}
}

func (r *rig) smsRequest(sid, text string) request {
	return r.twilioRequest(twilio.InboundPath, map[string]string{"MessageSid": sid, "AccountSid": account, "From": "+33639980102", "To": "+33939980001", "Body": text})
}

func (r *rig) twilioRequest(path string, form map[string]string) request {
	v := url.Values{}
	for k, s := range form {
		v.Set(k, s)
	}
	return request{path: path, contentType: "application/x-www-form-urlencoded", body: []byte(v.Encode()),
		header: map[string]string{"X-Twilio-Signature": twilio.Sign("token", r.url+path, form)}}
}

func lead(id string) string {
	return `{"object":"page","entry":[{"id":"5","changes":[{"field":"leadgen","value":{"leadgen_id":` + id + `,"page_id":"5"}}]}]}`
}

func TestEachProviderIsStored(t *testing.T) {
	t.Parallel()
	r, stored := real(t)
	for i, q := range []request{
		stripeRequest(stripeEvent("evt_1")), facebookRequest(lead("1234567890123456789")), r.smsRequest("SM1", "Bonjour"), r.smsRequest("SM2", "STOP"),
		r.twilioRequest(twilio.StatusPath+"?sms=welcome.1", map[string]string{"MessageSid": "SM3", "MessageStatus": "sent", "AccountSid": account}),
	} {
		if status := r.post(q); status != 200 {
			t.Errorf("%s: %d", q.path, status)
		}
		if n := stored(); n != uint64(i+1) {
			t.Errorf("%s: %d stored", q.path, n)
		}
	}
}

func TestSameEventTwentyTimesAtOnce(t *testing.T) {
	t.Parallel()
	r, stored := real(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if status := r.post(stripeRequest(stripeEvent("evt_1"))); status != 200 {
				t.Errorf("status %d", status)
			}
		})
	}
	wg.Wait()
	if n := stored(); n != 1 {
		t.Errorf("%d stored", n)
	}
}

func TestOneBodyManyLeads(t *testing.T) {
	t.Parallel()
	r, stored := real(t)
	var changes []string
	for i := range 300 {
		changes = append(changes, fmt.Sprintf(`{"field":"leadgen","value":{"leadgen_id":"%d","page_id":"5"}}`, 1000+i))
	}
	body := `{"object":"page","entry":[{"id":"5","changes":[` + strings.Join(changes, ",") + `]}]}`
	for range 2 {
		if status := r.post(facebookRequest(body)); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := stored(); n != 300 {
		t.Errorf("%d stored", n)
	}
}

// Nothing that is not signed as it should be gets in.
func TestForgedRequestsStoreNothing(t *testing.T) {
	t.Parallel()
	r, stored := real(t)
	body := stripeEvent("evt_1")
	forged := func(header string, b []byte) request {
		q := stripeRequest(body)
		q.body, q.header = b, map[string]string{"Stripe-Signature": header}
		return q
	}
	var all []struct {
		q    request
		want []int
	}
	add := func(q request, want ...int) {
		all = append(all, struct {
			q    request
			want []int
		}{q, want})
	}
	for i := range 30 {
		now := time.Now()
		altered := bytes.Replace(body, []byte("in_1"), fmt.Appendf(nil, "in_%d", i+2), 1)
		add(forged("", body), 403)                                                    // missing
		add(forged("t=1,v1=00", body), 403)                                           // wrong
		add(forged(stripe.Sign(body, now, "whsec_1"), altered), 403)                  // altered
		add(forged(stripe.Sign(body, now.Add(-6*time.Minute), "whsec_1"), body), 403) // expired
		add(forged(stripe.Sign(body, now.Add(6*time.Minute), "whsec_1"), body), 403)  // future
		add(forged(stripe.Sign(body, now, "whsec_2"), body), 403)                     // wrong secret
		add(forged(stripe.Sign([]byte("null"), now, "whsec_1"), []byte("null")), 400) // null body
		q := facebookRequest(lead("1"))
		switch i % 3 {
		case 0:
			q.header = nil
		case 1:
			q.body = []byte(lead("2"))
		case 2:
			q.header["X-Hub-Signature-256"] = facebook.Sign(q.body, "another")
		}
		add(q, 403)
		sms := r.smsRequest("SM1", "STOP")
		switch i % 4 {
		case 0:
			sms.header = nil
		case 1:
			sms.path = twilio.StatusPath // signed for another path
		case 2:
			sms.body = bytes.Replace(sms.body, []byte("3363998"), []byte("3363999"), 1)
		case 3:
			sms.header["X-Twilio-Signature"] = twilio.Sign("another", r.url+twilio.InboundPath, map[string]string{})
		}
		add(sms, 403)
		wrong := stripeRequest(body)
		wrong.path = []string{"/api/webhooks/paypal", "/api/webhooks/stripe/", "/webhooks/stripe"}[i%3]
		add(wrong, 404)
	}
	if len(all) != 300 {
		t.Fatalf("%d requests", len(all))
	}
	for _, a := range all {
		if status := r.post(a.q); !slices.Contains(a.want, status) {
			t.Errorf("%s %q: %d, want %v", a.q.path, a.q.header, status, a.want)
		}
	}
	if n := stored(); n != 0 {
		t.Errorf("%d forged requests are stored", n)
	}
	if strings.Contains(r.log.String(), "33639980102") || strings.Contains(r.log.String(), "whsec_") {
		t.Error("the log shows a phone number or a secret")
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	ok := publisher(func(context.Context, []contracts.Message) error { return nil })
	full := publisher(func(context.Context, []contracts.Message) error {
		return errors.New("the stream is full, says +33639980102")
	})
	silent := publisher(func(ctx context.Context, _ []contracts.Message) error { <-ctx.Done(); return ctx.Err() })
	big := func(n int) []byte {
		b := stripeEvent("evt_1")
		return append(b, bytes.Repeat([]byte(" "), n-len(b))...)
	}
	plain := func(q request, contentType string) request { q.contentType = contentType; return q }
	chunked := func(q request) request { q.chunked = true; return q }
	short := func(o *edge.Options) { o.PublishTimeout = 50 * time.Millisecond }
	for _, tt := range []struct {
		name   string
		p      publisher
		q      func(*rig) request
		status int
		header map[string]string
		body   string
		change func(*edge.Options)
	}{
		{"stored", ok, func(*rig) request { return stripeRequest(stripeEvent("evt_1")) }, 200, nil, "ok", nil},
		{"1 MiB exactly is taken", ok, func(*rig) request { return stripeRequest(big(1 << 20)) }, 200, nil, "", nil},
		{"1 MiB exactly, chunked", ok, func(*rig) request { return chunked(stripeRequest(big(1 << 20))) }, 200, nil, "", nil},
		{"one byte more", ok, func(*rig) request { return stripeRequest(big(1<<20 + 1)) }, 413, nil, "", nil},
		{"one byte more, chunked", ok, func(*rig) request { return chunked(stripeRequest(big(1<<20 + 1))) }, 413, nil, "", nil},
		{"signed but malformed", ok, func(*rig) request { return stripeRequest([]byte(`{"a":`)) }, 400, nil, "", nil},
		{"wrong content type for Stripe", ok, func(*rig) request { return plain(stripeRequest(stripeEvent("evt_1")), "text/plain") }, 415, nil, "", nil},
		{"wrong content type for Meta", ok, func(*rig) request { return plain(facebookRequest(lead("1")), "application/x-www-form-urlencoded") }, 415, nil, "", nil},
		{"wrong content type for Twilio", ok, func(r *rig) request { return plain(r.smsRequest("SM1", "x"), "application/json") }, 415, nil, "", nil},
		{"no content type", ok, func(*rig) request { return plain(stripeRequest(stripeEvent("evt_1")), "") }, 415, nil, "", nil},
		{"the stream is full", full, func(*rig) request { return stripeRequest(stripeEvent("evt_1")) }, 503, map[string]string{"Retry-After": "5"}, "not_stored", nil},
		{"nobody acknowledges in time", silent, func(*rig) request { return stripeRequest(stripeEvent("evt_1")) }, 503, map[string]string{"Retry-After": "5"}, "not_stored", short},
		{"trap: Twilio texts a plain answer to the sender", ok, func(r *rig) request { return r.smsRequest("SM1", "Bonjour") }, 200, map[string]string{"Content-Type": "text/xml"}, "<Response/>", nil},
		{"trap: an error to Twilio is no text either", full, func(r *rig) request { return r.smsRequest("SM1", "Bonjour") }, 503, map[string]string{"Content-Type": "text/xml", "Retry-After": "5"}, "<Response/>", nil},
		{"trap: nor is a refusal", ok, func(r *rig) request { q := r.smsRequest("SM1", "Bonjour"); q.header = nil; return q }, 403, map[string]string{"Content-Type": "text/xml"}, "<Response/>", nil},
		{"a body without leads", ok, func(*rig) request { return facebookRequest(`{"object":"page","entry":[]}`) }, 200, nil, "ok", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var change []func(*edge.Options)
			if tt.change != nil {
				change = append(change, tt.change)
			}
			r := start(t, tt.p, change...)
			res, body := r.do(http.MethodPost, tt.q(r))
			if res.StatusCode != tt.status {
				t.Errorf("status %d, want %d", res.StatusCode, tt.status)
			}
			for k, want := range tt.header {
				if got := res.Header.Get(k); got != want {
					t.Errorf("%s: %q, want %q", k, got, want)
				}
			}
			if tt.body != "" && body != tt.body {
				t.Errorf("body %q, want %q", body, tt.body)
			}
		})
	}
}

func TestMethodsAndRoutes(t *testing.T) {
	t.Parallel()
	ok := publisher(func(context.Context, []contracts.Message) error { return nil })
	r := start(t, ok)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/api/webhooks/stripe", 405, "POST"},
		{"PUT", "/api/webhooks/stripe", 405, "POST"},
		{"DELETE", "/api/webhooks/facebook", 405, "GET, HEAD, POST"},
		{"GET", "/api/webhooks/sms", 405, "POST"},
		{"GET", "/api/webhooks/sms/status", 405, "POST"},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"GET", "/healthz", 200, ""}, {"HEAD", "/healthz", 200, ""}, {"GET", "/readyz", 200, ""}, {"GET", "/metrics", 200, ""},
		{"GET", "/", 404, ""}, {"POST", "/api/webhooks", 404, ""},
		{"GET", "/api/webhooks/facebook?hub.mode=subscribe&hub.verify_token=verify_me&hub.challenge=1158201444", 200, ""},
		{"GET", "/api/webhooks/facebook?hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1158201444", 403, ""},
		{"GET", "/api/webhooks/facebook", 403, ""},
	} {
		res, body := r.do(tt.method, request{path: tt.path})
		if res.StatusCode != tt.status || tt.allow != "" && res.Header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q", tt.method, tt.path, res.StatusCode, res.Header.Get("Allow"))
		}
		if strings.Contains(tt.path, "verify_me") && (body != "1158201444" || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain")) {
			t.Errorf("challenge answered %q as %s", body, res.Header.Get("Content-Type"))
		}
	}
	none := start(t, ok, func(o *edge.Options) { o.Stripe, o.Facebook, o.Twilio = nil, nil, nil })
	for _, path := range []string{"/api/webhooks/stripe", "/api/webhooks/facebook", "/api/webhooks/sms", "/api/webhooks/sms/status"} {
		if res, _ := none.do("POST", request{path: path}); res.StatusCode != 404 {
			t.Errorf("a provider without a secret: POST %s %d", path, res.StatusCode)
		}
	}
}

// A STOP is answered only once every sender that had looked before it was stored has
// begun its call or given it up.
func TestAnswerToStopIsHeldBack(t *testing.T) {
	t.Parallel()
	var storedAt atomic.Int64
	r := start(t, publisher(func(context.Context, []contracts.Message) error {
		time.Sleep(30 * time.Millisecond)
		storedAt.Store(time.Now().UnixNano())
		return nil
	}))
	for text, hold := range map[string]time.Duration{"STOP": 250 * time.Millisecond, "stop merci": 250 * time.Millisecond, "Bonjour": 0} {
		if status := r.post(r.smsRequest("SM1", text)); status != 200 {
			t.Errorf("%q: %d", text, status)
		}
		since := time.Since(time.Unix(0, storedAt.Load()))
		if since < hold {
			t.Errorf("%q was answered %v after it was stored, want %v at least", text, since, hold)
		}
	}
	failing := start(t, publisher(func(context.Context, []contracts.Message) error { return errors.New("no") }), func(o *edge.Options) { o.OptOutHold = time.Hour })
	if status := failing.post(failing.smsRequest("SM1", "STOP")); status != 503 {
		t.Errorf("a STOP that is not stored: %d", status)
	}
}

func TestOverload(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var waiting atomic.Int64
	r := start(t, publisher(func(context.Context, []contracts.Message) error { waiting.Add(1); <-release; return nil }))
	// 128 MiB fit, taken in steps of 16 KiB: 126 bodies of 1 MiB, each with one step to
	// find its end.
	large := func(id string) request {
		body := stripeEvent(id)
		return stripeRequest(append(body, bytes.Repeat([]byte(" "), 1<<20-len(body))...))
	}
	var wg sync.WaitGroup
	for i := range 126 {
		wg.Go(func() {
			q := large(fmt.Sprintf("evt_%d", i))
			q.chunked = i%2 == 0
			if status := r.post(q); status != 200 {
				t.Errorf("status %d", status)
			}
		})
	}
	for deadline := time.Now().Add(2 * time.Minute); waiting.Load() < 126; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) || t.Failed() {
			close(release) // or all would wait for ever
			wg.Wait()
			t.Fatalf("%d of 126 bodies are in hand", waiting.Load())
		}
	}
	res, _ := r.do(http.MethodPost, large("evt_more"))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	close(release)
	wg.Wait()
	if status := r.post(stripeRequest(stripeEvent("evt_after"))); status != 200 {
		t.Errorf("after the overload: %d", status)
	}
}

// unfinished sends the head of a request and one byte of the body that it announces.
func unfinished(t *testing.T, url string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "POST /api/webhooks/stripe HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	return c
}

// Strangers who announce bodies and do not send them keep nobody out.
func TestUnfinishedBodiesKeepNobodyOut(t *testing.T) {
	t.Parallel()
	r := start(t, publisher(func(context.Context, []contracts.Message) error { return nil }))
	for range 300 {
		unfinished(t, r.url)
	}
	for i := range 20 {
		if status := r.post(stripeRequest(stripeEvent(fmt.Sprintf("evt_%d", i)))); status != 200 {
			t.Fatalf("status %d", status)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestDrainDoesNotWaitForBodies(t *testing.T) {
	t.Parallel()
	r := start(t, publisher(func(context.Context, []contracts.Message) error { return nil }))
	c := unfinished(t, r.url)
	time.Sleep(50 * time.Millisecond) // for the request to be in hand
	r.edge.Drain()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, " 503 ") {
		t.Errorf("answer %q, %v", line, err)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	started, release := make(chan struct{}), make(chan struct{})
	r := start(t, publisher(func(context.Context, []contracts.Message) error { close(started); <-release; return nil }))
	inHand := make(chan int)
	go func() { inHand <- r.post(stripeRequest(stripeEvent("evt_1"))) }()
	<-started
	r.edge.Drain()
	if status := r.post(stripeRequest(stripeEvent("evt_2"))); status != 503 {
		t.Errorf("new while draining: %d", status)
	}
	if res, _ := r.do("GET", request{path: "/readyz"}); res.StatusCode != 503 {
		t.Errorf("readyz while draining: %d", res.StatusCode)
	}
	if res, _ := r.do("GET", request{path: "/healthz"}); res.StatusCode != 200 {
		t.Errorf("healthz while draining: %d", res.StatusCode)
	}
	close(release)
	if status := <-inHand; status != 200 {
		t.Errorf("in hand while draining: %d", status)
	}
}

func TestReadyIsAskedOnceASecond(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var broken atomic.Bool
	r := start(t, publisher(func(context.Context, []contracts.Message) error { return nil }), func(o *edge.Options) {
		o.Ready = func(context.Context) error {
			asked.Add(1)
			if broken.Load() {
				return errors.New("no leader")
			}
			return nil
		}
	})
	begin := time.Now()
	for range 50 {
		if res, _ := r.do("GET", request{path: "/readyz"}); res.StatusCode != 200 {
			t.Fatalf("readyz: %d", res.StatusCode)
		}
	}
	if n, took := asked.Load(), time.Since(begin); n > int64(took.Seconds())+1 {
		t.Errorf("asked %d times for 50 requests in %v", n, took)
	}
	broken.Store(true)
	deadline := time.Now().Add(10 * time.Second)
	for {
		res, body := r.do("GET", request{path: "/readyz"})
		if res.StatusCode == 503 {
			if strings.Contains(body, "leader") {
				t.Errorf("the private cause is shown: %q", body)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("readyz does not notice")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// One request more than the edge holds at a time is told to come again.
func TestTooManyRequestsAtATime(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var waiting atomic.Int64
	r := start(t, publisher(func(context.Context, []contracts.Message) error { waiting.Add(1); <-release; return nil }))
	q := stripeRequest(stripeEvent("evt_1"))
	send := func() *httptest.ResponseRecorder { // without sockets, of which there may be too few
		req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, q.path, bytes.NewReader(q.body))
		req.Header.Set("Content-Type", q.contentType)
		req.Header.Set("Stripe-Signature", q.header["Stripe-Signature"])
		w := httptest.NewRecorder()
		r.edge.ServeHTTP(w, req)
		return w
	}
	var wg sync.WaitGroup
	for range 4096 {
		wg.Go(func() { send() })
	}
	deadline := time.Now().Add(10 * time.Second)
	for waiting.Load() < 4096 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := waiting.Load(); n != 4096 {
		t.Errorf("%d are taken at a time", n)
	}
	if w := send(); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	close(release)
	wg.Wait()
}

// A provider that hangs up does not take back what it has sent.
func TestHangingUpDoesNotStopAPublish(t *testing.T) {
	t.Parallel()
	started, gone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	r := start(t, publisher(func(ctx context.Context, _ []contracts.Message) error {
		close(started)
		<-gone
		select { // the server needs a moment to notice
		case <-ctx.Done():
			ended <- ctx.Err()
		case <-time.After(100 * time.Millisecond):
			ended <- nil
		}
		return nil
	}))
	q := stripeRequest(stripeEvent("evt_1"))
	ctx, hangUp := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+q.path, bytes.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", q.contentType)
	req.Header.Set("Stripe-Signature", q.header["Stripe-Signature"])
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-started
	hangUp()
	<-answered
	close(gone)
	if err := <-ended; err != nil {
		t.Errorf("the publish was given up: %v", err)
	}
}

// Whatever a Twilio route answers, nothing of it can become a text to a person.
func TestTrapNoAnswerToTwilioIsPlainText(t *testing.T) {
	t.Parallel()
	r := start(t, publisher(func(context.Context, []contracts.Message) error { return nil }))
	unsigned := request{path: twilio.InboundPath, contentType: "application/x-www-form-urlencoded", body: []byte("Body=x")}
	large := unsigned
	large.body = bytes.Repeat([]byte("x"), 1<<20+1)
	typed := unsigned
	typed.contentType = "text/plain"
	for name, tt := range map[string]struct {
		method string
		q      request
		status int
	}{
		"unsigned": {http.MethodPost, unsigned, 403}, "too large": {http.MethodPost, large, 413}, "content type": {http.MethodPost, typed, 415},
		"malformed": {http.MethodPost, r.twilioRequest(twilio.InboundPath, map[string]string{"AccountSid": account}), 400},
		"method":    {http.MethodGet, request{path: twilio.InboundPath}, 405}, "method of a status": {http.MethodGet, request{path: twilio.StatusPath}, 405},
	} {
		res, body := r.do(tt.method, tt.q)
		if res.StatusCode != tt.status || res.Header.Get("Content-Type") != "text/xml" || body != "<Response/>" {
			t.Errorf("%s: %d %s %q", name, res.StatusCode, res.Header.Get("Content-Type"), body)
		}
		if tt.status == 405 && res.Header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q", name, res.Header.Get("Allow"))
		}
	}
}

// A hold that is less than nothing would answer a STOP at once.
func TestOptOutHoldIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := edge.New(edge.Options{
		Publisher:      publisher(func(context.Context, []contracts.Message) error { return nil }),
		PublishTimeout: time.Second, OptOutHold: -1, Ready: func(context.Context) error { return nil },
		Metrics: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
	}); err == nil {
		t.Error("it was taken")
	}
}

// The largest body that is taken fits into JetStream, and a lead twice in one body is
// stored once.
func TestLimitsAgainstJetStream(t *testing.T) {
	t.Parallel()
	r, stored := real(t)
	body := stripeEvent("evt_1")
	body = append(body, bytes.Repeat([]byte(" "), 1<<20-len(body))...)
	if status := r.post(stripeRequest(body)); status != 200 || stored() != 1 {
		t.Errorf("1 MiB: %d, %d stored", status, stored())
	}
	change := `{"field":"leadgen","value":{"leadgen_id":1,"page_id":"5"}}`
	if status := r.post(facebookRequest(`{"object":"page","entry":[{"id":"5","changes":[` + change + `,` + change + `]}]}`)); status != 200 || stored() != 2 {
		t.Errorf("one lead twice: %d, %d stored", status, stored())
	}
}

// What is published is what the schemas say, for every example.
func TestExamplesAreStoredAsTheSchemasSay(t *testing.T) {
	t.Parallel()
	got := make(chan contracts.Message, 1)
	r := start(t, publisher(func(_ context.Context, msgs []contracts.Message) error {
		for _, m := range msgs {
			got <- m
		}
		return nil
	}))
	files, err := contracts.Examples.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		body, err := contracts.Examples.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var q request
		switch {
		case strings.HasPrefix(f.Name(), "stripe_"):
			q = stripeRequest(body)
		case strings.HasPrefix(f.Name(), "facebook_"):
			q = facebookRequest(string(body))
		case strings.HasPrefix(f.Name(), "sms_"):
			var form map[string]string
			if err := json.Unmarshal(body, &form); err != nil {
				t.Fatal(err)
			}
			q = r.twilioRequest(twilio.InboundPath, form)
		default:
			t.Errorf("%s: of which provider?", f.Name())
			continue
		}
		if status := r.post(q); status != 200 {
			t.Errorf("%s: %d", f.Name(), status)
			continue
		}
		m := <-got
		contractstest.Webhook(t, m.Subject, m.Data)
		if strings.HasPrefix(f.Name(), "stripe_") && !bytes.Equal(m.Data, body) {
			t.Errorf("%s: not byte for byte", f.Name())
		}
	}
}

// Every answer is counted under a reason from the fixed list.
func TestAnswersAreCounted(t *testing.T) {
	t.Parallel()
	r := start(t, publisher(func(context.Context, []contracts.Message) error { return nil }))
	r.post(stripeRequest(stripeEvent("evt_1")))
	unsigned := facebookRequest(lead("1"))
	unsigned.header = nil
	r.post(unsigned)
	r.post(facebookRequest(`{"object":"page","entry":[{"id":"5","changed_fields":["leadgen"]}]}`))
	_, metrics := r.do(http.MethodGet, request{path: "/metrics"})
	for _, want := range []string{
		`edge_requests_total{provider="stripe",reason="",status="200"} 1`,
		`edge_requests_total{provider="facebook",reason="signature",status="403"} 1`,
		`edge_leads_unnamed_total 1`,
		`edge_signatures_total{provider="stripe",secret="1"} 0`,
		`edge_signatures_total{provider="stripe",secret="2"} 1`,
		`edge_signatures_total{provider="facebook",secret="1"} 1`,
		`edge_request_seconds_count{provider="facebook"} 2`,
		`edge_requests_in_hand 0`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}
