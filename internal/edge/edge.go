// Package edge receives the providers' webhooks over HTTP. It checks the signature over
// the raw bytes, publishes, and answers 200 once everything is stored. No business
// rule, no remote call, no state.
package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"leadpipe/contracts"
	"leadpipe/internal/webhook"
	"leadpipe/internal/webhook/facebook"
	"leadpipe/internal/webhook/stripe"
	"leadpipe/internal/webhook/twilio"
)

// A Publisher stores messages. nil: every one is durable, stored now or before. With an
// error some may be stored; publishing them again is safe.
type Publisher interface {
	Publish(ctx context.Context, msgs []contracts.Message) error
}

const (
	// maxBody is the largest body that is taken, to the byte.
	maxBody = 1 << 20
	// maxRequests bounds the webhooks in hand. At 3,000 a second and PUBLISH_TIMEOUT of
	// 8 s more could not be answered in time anyway.
	maxRequests = 4096
	// maxBytes bounds the memory of their bodies, which is taken in steps: small enough
	// for maxRequests small bodies.
	maxBytes, readStep = 128 << 20, 16 << 10
	// readyFor is how long an answer of /readyz holds, so that asking costs nothing.
	readyFor = time.Second
	// retryAfter is what 503 asks a provider for, in seconds.
	retryAfter = "5"
)

// DefaultOptOutHold is how long the answer to a STOP waits after it was stored. A
// sender starts a call at most 200 ms after it began to look for a STOP, so whoever
// missed this one has begun its call, or given it up, before the answer.
const DefaultOptOutHold = 250 * time.Millisecond

// Options are what an edge needs. A provider that is nil has no route.
type Options struct {
	Publisher Publisher
	Stripe    *stripe.Verifier
	Facebook  *facebook.Verifier
	Twilio    *twilio.Verifier

	PublishTimeout time.Duration               // from the body's arrival until 503
	OptOutHold     time.Duration               // 0: DefaultOptOutHold
	Ready          func(context.Context) error // could a webhook be stored now?
	Metrics        http.Handler                // serves /metrics
	Registerer     prometheus.Registerer       // takes the edge's own; may be nil
	Log            *slog.Logger
}

// An Edge is the HTTP handler.
type Edge struct {
	o        Options
	mux      *http.ServeMux
	requests *semaphore.Weighted
	bytes    *semaphore.Weighted
	draining atomic.Bool
	reading  reading
	ready    readiness

	answered *prometheus.CounterVec
	took     *prometheus.HistogramVec
	inHand   prometheus.Gauge
	unnamed  prometheus.Counter
}

// New checks the options and makes an edge.
func New(o Options) (*Edge, error) {
	if o.Publisher == nil || o.Ready == nil || o.Metrics == nil || o.Log == nil || o.PublishTimeout <= 0 {
		return nil, errors.New("edge: an option is missing")
	}
	if o.OptOutHold < 0 {
		return nil, errors.New("edge: the hold of an opt-out's answer is negative")
	}
	if o.OptOutHold == 0 {
		o.OptOutHold = DefaultOptOutHold
	}
	e := &Edge{
		o: o, mux: http.NewServeMux(),
		requests: semaphore.NewWeighted(maxRequests), bytes: semaphore.NewWeighted(maxBytes),
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edge_requests_total", Help: "Webhook requests answered, by provider, status and reason."}, []string{"provider", "status", "reason"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "edge_request_seconds", Help: "From the first byte to the answer.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}, []string{"provider"}),
		inHand: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "edge_requests_in_hand", Help: "Webhook requests being handled."}),
		unnamed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edge_leads_unnamed_total", Help: "Times that Meta told of leads and not of which: they are missed."}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(e.answered, e.took, e.inHand, e.unnamed)
		e.countSecrets()
	}
	e.routes()
	e.zero()
	return e, nil
}

// countSecrets registers how many signatures each secret has made, by its place in the
// variable, from 1: while one is being rolled it shows when the former is no longer needed.
func (e *Edge) countSecrets() {
	keys := map[string][]*webhook.Key{}
	if e.o.Stripe != nil {
		keys["stripe"] = e.o.Stripe.Keys()
	}
	if e.o.Facebook != nil {
		keys["facebook"] = e.o.Facebook.Keys()
	}
	if e.o.Twilio != nil {
		keys["twilio"] = e.o.Twilio.Keys()
	}
	for provider, ks := range keys {
		for i, key := range ks {
			e.o.Registerer.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "edge_signatures_total", Help: "Webhooks that a secret has signed, by its place in the variable, from 1.",
				ConstLabels: prometheus.Labels{"provider": provider, "secret": strconv.Itoa(i + 1)},
			}, func() float64 { return float64(key.Matched()) }))
		}
	}
}

// zero makes the counters begin at nothing for what somebody is woken for: of one that
// begins at its first event Prometheus sees no increase.
func (e *Edge) zero() {
	for provider, on := range map[string]bool{"stripe": e.o.Stripe != nil, "facebook": e.o.Facebook != nil, "twilio": e.o.Twilio != nil} {
		if !on {
			continue
		}
		for _, err := range []error{errSignature(), errDraining(), errOverloaded(), errSlow(nil), errNotStored(nil)} {
			var ref *refusal
			if errors.As(err, &ref) {
				e.answered.WithLabelValues(provider, strconv.Itoa(ref.status), ref.reason)
			}
		}
	}
}

// routes is the table of docs/interface.md. A method without a row is answered 405
// with Allow, a provider without a verifier 404.
func (e *Edge) routes() {
	if e.o.Stripe != nil {
		e.webhook("/api/webhooks/stripe", "stripe", "application/json", e.stripe) // an event
	}
	if e.o.Facebook != nil {
		e.mux.HandleFunc("GET /api/webhooks/facebook", e.challenge)                     // Meta asks whether we are we
		e.webhook("/api/webhooks/facebook", "facebook", "application/json", e.facebook) // leads
	}
	if e.o.Twilio != nil {
		e.webhook(twilio.InboundPath, "twilio", "application/x-www-form-urlencoded", e.inbound) // somebody wrote to us
		e.webhook(twilio.StatusPath, "twilio", "application/x-www-form-urlencoded", e.status)   // what became of our text
		e.onlyPost(twilio.InboundPath)
		e.onlyPost(twilio.StatusPath)
	}
	e.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") }) // the process is up
	e.mux.HandleFunc("GET /readyz", e.readyz)                                                                       // a webhook can be stored now
	e.mux.Handle("GET /metrics", e.o.Metrics)                                                                       // Prometheus
}

// ServeHTTP serves the routes.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.mux.ServeHTTP(w, r) }

// Drain answers 503 to everything new, so that a provider comes again elsewhere or
// later, and to what has not arrived whole. What is in hand goes on.
func (e *Edge) Drain() {
	e.draining.Store(true)
	e.reading.end()
}

func (e *Edge) stripe(_ context.Context, r *http.Request, body []byte) (result, error) {
	msgs, err := e.o.Stripe.Messages(body, r.Header.Get("Stripe-Signature"), time.Now())
	return result{messages: msgs}, err
}

func (e *Edge) facebook(_ context.Context, r *http.Request, body []byte) (result, error) {
	b, err := e.o.Facebook.Messages(body, r.Header.Get("X-Hub-Signature-256"), time.Now())
	if b.Changed > 0 {
		e.unnamed.Add(float64(b.Changed))
		e.o.Log.Error("Meta names changes without their values: switch on \"Include Values\" of the leadgen webhook, or leads are missed",
			"entries", b.Changed)
	}
	return result{messages: b.Messages}, err
}

func (e *Edge) inbound(_ context.Context, r *http.Request, body []byte) (result, error) {
	msgs, optOut, err := e.o.Twilio.Inbound(body, r.URL.RequestURI(), r.Header.Get("X-Twilio-Signature"), time.Now())
	res := result{messages: msgs}
	if optOut {
		res.hold = e.o.OptOutHold
	}
	return res, err
}

func (e *Edge) status(_ context.Context, r *http.Request, body []byte) (result, error) {
	msgs, err := e.o.Twilio.Status(body, r.URL.RequestURI(), r.Header.Get("X-Twilio-Signature"), time.Now())
	return result{messages: msgs}, err
}

func (e *Edge) challenge(w http.ResponseWriter, r *http.Request) {
	challenge, ok := e.o.Facebook.Challenge(r.URL.Query())
	if !ok {
		text(w, http.StatusForbidden, "forbidden")
		return
	}
	text(w, http.StatusOK, challenge)
}
