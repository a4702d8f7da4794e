package edge

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/webhook"
)

// A result is what a verified request asks for.
type result struct {
	messages []contracts.Message
	hold     time.Duration // between "stored" and the answer
}

// A verifier turns a request into messages; its errors are those of package webhook.
type verifier func(ctx context.Context, r *http.Request, body []byte) (result, error)

// A refusal is an answer other than 200, with a reason from a short fixed list that is
// the public text and the metric label.
type refusal struct {
	status int
	reason string
	cause  error // private; may be nil
}

func (r *refusal) Error() string { return r.reason }

// The refusals.
func errContentType() error      { return &refusal{http.StatusUnsupportedMediaType, "content_type", nil} }
func errTooLarge() error         { return &refusal{http.StatusRequestEntityTooLarge, "too_large", nil} }
func errBody(err error) error    { return &refusal{http.StatusBadRequest, "body", err} }
func errSlow(err error) error    { return &refusal{http.StatusServiceUnavailable, "slow", err} }
func errSignature() error        { return &refusal{http.StatusForbidden, "signature", nil} }
func errMalformed() error        { return &refusal{http.StatusBadRequest, "malformed", nil} }
func errDraining() error         { return &refusal{http.StatusServiceUnavailable, "draining", nil} }
func errOverloaded() error       { return &refusal{http.StatusServiceUnavailable, "overloaded", nil} }
func errNotStored(e error) error { return &refusal{http.StatusServiceUnavailable, "not_stored", e} }

// A route is a provider's way in, with its metrics at hand.
type route struct {
	provider    string
	contentType string
	typed       []string // the content type as providers write it
	verify      verifier
	stored      prometheus.Counter
	took        prometheus.Observer
}

// webhook registers a provider's route.
func (e *Edge) webhook(path, provider, contentType string, verify verifier) {
	rt := &route{provider, contentType, []string{contentType, contentType + "; charset=utf-8", contentType + "; charset=UTF-8"}, verify,
		e.answered.WithLabelValues(provider, "200", ""), e.took.WithLabelValues(provider)}
	e.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		e.inHand.Inc()
		defer e.inHand.Dec()
		err := e.receive(w, r, rt)
		rt.took.Observe(time.Since(start).Seconds())
		if err == nil {
			rt.stored.Inc()
			answer(w, provider, http.StatusOK, "")
			return
		}
		e.refuse(w, provider, err)
	})
}

// refuse answers a webhook that was not taken.
func (e *Edge) refuse(w http.ResponseWriter, provider string, err error) {
	ref := &refusal{http.StatusServiceUnavailable, "not_stored", err}
	_ = errors.As(err, &ref)
	if ref.cause != nil {
		e.o.Log.Error("webhook not taken", "provider", provider, "status", ref.status, "kind", ref.reason, "reason", ref.cause.Error())
	} else {
		e.o.Log.Warn("webhook not taken", "provider", provider, "status", ref.status, "kind", ref.reason)
	}
	e.answered.WithLabelValues(provider, strconv.Itoa(ref.status), ref.reason).Inc()
	answer(w, provider, ref.status, ref.reason)
}

// onlyPost answers the other methods of Twilio's routes: ServeMux would, in text/plain.
func (e *Edge) onlyPost(path string) {
	e.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, "twilio", http.StatusMethodNotAllowed, "")
	})
}

// receive is a webhook's way in: limits, signature, publish. nil: everything is stored.
func (e *Edge) receive(w http.ResponseWriter, r *http.Request, rt *route) error {
	if e.draining.Load() {
		return errDraining()
	}
	if !e.requests.TryAcquire(1) {
		return errOverloaded()
	}
	defer e.requests.Release(1)
	if !rt.takes(r.Header.Get("Content-Type")) {
		return errContentType()
	}
	if r.ContentLength > maxBody {
		return errTooLarge()
	}
	b := bodies.Get().(*body)
	held, err := e.read(w, r, b)
	defer func() { e.bytes.Release(held) }()
	if err != nil {
		b.free()
		return err
	}

	// A provider that hangs up comes again; what it sent is stored all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), e.o.PublishTimeout)
	defer cancel()
	res, err := rt.verify(ctx, r, b.bytes)
	if err == nil && len(res.messages) > 0 {
		if err := e.o.Publisher.Publish(ctx, res.messages); err != nil {
			return errNotStored(err) // a try may still be under way: the body is left to it
		}
	}
	b.free()
	switch {
	case errors.Is(err, webhook.ErrSignature):
		return errSignature()
	case err != nil:
		return errMalformed()
	}
	if res.hold > 0 {
		time.Sleep(res.hold)
	}
	return nil
}

// takes says whether a body of that content type is the provider's.
func (rt *route) takes(contentType string) bool {
	if slices.Contains(rt.typed, contentType) {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return media == rt.contentType && (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter))
}

// reading is who is being read from. A drain does not wait for what has not arrived.
type reading struct {
	mu   sync.Mutex
	from map[*body]http.ResponseWriter
}

func (r *reading) add(b *body, w http.ResponseWriter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from == nil {
		r.from = map[*body]http.ResponseWriter{}
	}
	r.from[b] = w
}

func (r *reading) remove(b *body) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.from, b)
}

// end ends the reading. Where the deadline can't be set, the server's own ends it.
func (r *reading) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.from {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

// A body is a request's body in memory that is used again: for the next request once
// nobody reads it any more.
type body struct{ bytes []byte }

// bodies holds those that nobody reads.
var bodies = sync.Pool{New: func() any { return &body{make([]byte, 0, leastBody)} }}

// leastBody is room for most webhooks; of what is larger than mostKept none is kept.
const leastBody, mostKept = 4 << 10, 64 << 10

// grow makes room, if there is none, for as much again as has arrived, or for what is
// still announced.
func (b *body) grow(announced int64) {
	n := len(b.bytes)
	if n < cap(b.bytes) {
		return
	}
	more := n
	if rest := int(announced) - n; rest > 0 {
		more = min(more, rest)
	}
	b.bytes = slices.Grow(b.bytes, more)
}

func (b *body) free() {
	if cap(b.bytes) <= mostKept {
		b.bytes = b.bytes[:0]
		bodies.Put(b)
	}
}

// read takes a body in, and room for it as it arrives: what is announced and not sent
// keeps nobody out. held is the room that the caller has to give back, error or not.
func (e *Edge) read(w http.ResponseWriter, r *http.Request, b *body) (held int64, _ error) {
	e.reading.add(b, w)
	defer e.reading.remove(b)
	if e.draining.Load() {
		return 0, errDraining() // Drain may have looked before
	}
	if !e.bytes.TryAcquire(readStep) {
		return 0, errOverloaded()
	}
	held = readStep
	for {
		b.grow(r.ContentLength)
		n, err := r.Body.Read(b.bytes[len(b.bytes):min(cap(b.bytes), int(held))])
		b.bytes = b.bytes[:len(b.bytes)+n]
		if int64(len(b.bytes)) == held { // also where that is the end
			if !e.bytes.TryAcquire(readStep) {
				return held, errOverloaded()
			}
			held += readStep
		}
		switch {
		case len(b.bytes) > maxBody:
			return held, errTooLarge()
		case err == nil:
		case err == io.EOF:
			return held, nil
		case e.draining.Load():
			return held, errDraining()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return held, errSlow(err)
		default:
			return held, errBody(err)
		}
	}
}

// answer writes the answer. Twilio texts a text/plain body to the person who wrote to
// us, and http.Error makes one; so whatever Twilio gets is XML that says nothing.
func answer(w http.ResponseWriter, provider string, status int, reason string) {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	if provider == "twilio" {
		w.Header()["Content-Type"] = typeXML
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `<Response/>`)
		return
	}
	if reason == "" {
		reason = "ok"
	}
	text(w, status, reason)
}

// What answers say of themselves, made once.
var typeText, typeXML, noSniff = []string{"text/plain; charset=utf-8"}, []string{"text/xml"}, []string{"nosniff"}

func text(w http.ResponseWriter, status int, s string) {
	w.Header()["Content-Type"] = typeText
	w.Header()["X-Content-Type-Options"] = noSniff
	w.WriteHeader(status)
	_, _ = io.WriteString(w, s)
}

// readiness remembers an answer for a moment, so that asking often costs nothing.
type readiness struct {
	mu    sync.Mutex
	asked time.Time
	err   error
}

func (e *Edge) readyz(w http.ResponseWriter, r *http.Request) {
	if e.draining.Load() {
		w.Header().Set("Retry-After", retryAfter)
		text(w, http.StatusServiceUnavailable, "draining")
		return
	}
	e.ready.mu.Lock()
	defer e.ready.mu.Unlock()
	if time.Since(e.ready.asked) > readyFor {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		e.ready.err = e.o.Ready(ctx)
		if r.Context().Err() == nil { // an impatient caller must not decide for the next one
			e.ready.asked = time.Now()
		}
	}
	if e.ready.err != nil {
		e.o.Log.Warn("not ready", "reason", e.ready.err.Error())
		w.Header().Set("Retry-After", retryAfter)
		text(w, http.StatusServiceUnavailable, "a webhook could not be stored now")
		return
	}
	text(w, http.StatusOK, "ready")
}
