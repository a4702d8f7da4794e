package edge_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/stripe"
	"leadpipe/internal/webhook/twilio"
)

// benchID makes the ids of a run differ: what is a duplicate costs the disk nothing.
var benchID atomic.Int64

// A kind is a webhook as it comes again and again, each time under other ids.
type kind struct {
	name string
	path string
	typ  string
	body func(r *rig) (body []byte, header, signature string)
}

var kinds = []kind{
	{"stripe", "/api/webhooks/stripe", "application/json; charset=utf-8", func(*rig) ([]byte, string, string) {
		body := stripeEventOf(fmt.Sprintf("evt_%d", benchID.Add(1)), 2600)
		return body, "Stripe-Signature", stripe.Sign(body, time.Now(), "whsec_1")
	}},
	{"facebook", "/api/webhooks/facebook", "application/json", func(*rig) ([]byte, string, string) {
		var changes []string
		for range 5 {
			changes = append(changes, fmt.Sprintf(`{"field":"leadgen","value":{"created_time":1764000000,"leadgen_id":"%d","page_id":"444","form_id":"111222333","ad_id":"555666777","adgroup_id":"888999000"}}`, 1000+benchID.Add(1)))
		}
		body := []byte(`{"object":"page","entry":[{"id":"444","time":1764000000,"changes":[` + strings.Join(changes, ",") + `]}]}`)
		return body, "X-Hub-Signature-256", facebook.Sign(body, "app_secret")
	}},
	{"twilio", twilio.InboundPath, "application/x-www-form-urlencoded", func(r *rig) ([]byte, string, string) {
		form := map[string]string{
			"MessageSid": fmt.Sprintf("SM%032d", benchID.Add(1)), "SmsSid": "SM0", "SmsMessageSid": "SM0", "AccountSid": account, "MessagingServiceSid": "MG00000000000000000000000000000001",
			"From": "+33639980102", "To": "+33939980001", "Body": "Bonjour, à quelle heure ? Merci", "NumMedia": "0", "NumSegments": "1", "SmsStatus": "received",
			"ApiVersion": "2010-04-01", "FromCountry": "FR", "FromState": "", "FromCity": "", "FromZip": "", "ToCountry": "FR", "ToState": "", "ToCity": "", "ToZip": "",
		}
		v := url.Values{}
		for k, s := range form {
			v.Set(k, s)
		}
		return []byte(v.Encode()), "X-Twilio-Signature", twilio.Sign("token", r.url+twilio.InboundPath, form)
	}},
}

// stripeEventOf is an event of about so many bytes, with what events are made of.
func stripeEventOf(id string, size int) []byte {
	head := `{"id":"` + id + `","object":"event","api_version":"2026-09-30.endive","created":1764000000,"data":{"object":{"id":"in_1","object":"invoice","amount_due":5990,"currency":"eur","customer":"cus_1","lines":{"object":"list","data":[`
	line := `{"id":"il_1","object":"line_item","amount":5990,"currency":"eur","description":"1 \u00d7 Pro (at \u20ac59.90 / month)","metadata":{},"period":{"end":1766678400,"start":1764000000},"proration":false,"quantity":1}`
	tail := `],"has_more":false}}},"livemode":true,"pending_webhooks":1,"request":{"id":null,"idempotency_key":null},"type":"invoice.paid"}`
	var lines []string
	for n := len(head) + len(tail); n < size; n += len(line) + 1 {
		lines = append(lines, line)
	}
	return []byte(head + strings.Join(lines, ",") + tail)
}

// prepared makes n requests before their time is taken.
func (k kind) prepared(r *rig, n int) []*http.Request {
	all := make([]*http.Request, n)
	for i := range all {
		body, header, signature := k.body(r)
		req := httptest.NewRequest(http.MethodPost, k.path, bytes.NewReader(body)) //nolint:noctx // served directly
		req.Header.Set("Content-Type", k.typ)
		req.Header.Set(header, signature)
		all[i] = req
	}
	return all
}

// A nobody takes an answer and keeps its status.
type nobody struct {
	header http.Header
	status int
}

func (n *nobody) Header() http.Header         { return n.header }
func (n *nobody) WriteHeader(status int)      { n.status = status }
func (n *nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n *nobody) WriteString(s string) (int, error) {
	return len(s), nil
}

var _ io.StringWriter = (*nobody)(nil)

// BenchmarkWebhook is what a webhook costs the edge, from a request that net/http has read
// to the answer: limits, signature, names, publish, acknowledgement. The server is real and
// in a process of its own, so that allocations are the edge's.
func BenchmarkWebhook(b *testing.B) {
	r := start(b, bus.NewPublisher(natstest.Apart(b).JetStream()))
	for _, k := range kinds {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", k.name, callers), func(b *testing.B) {
				reqs := k.prepared(r, b.N)
				b.SetBytes(reqs[0].ContentLength)
				b.ReportAllocs()
				runtime.GC()
				b.ResetTimer()
				serve(b, r, reqs, callers)
			})
		}
	}
}

// serve serves requests directly, so many at a time.
func serve(tb testing.TB, r *rig, reqs []*http.Request, callers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			w := &nobody{header: http.Header{}}
			for i := next.Add(1) - 1; i < int64(len(reqs)); i = next.Add(1) - 1 {
				clear(w.header)
				if r.edge.ServeHTTP(w, reqs[i]); w.status != http.StatusOK {
					tb.Errorf("status %d", w.status)
				}
			}
		})
	}
	wg.Wait()
}
