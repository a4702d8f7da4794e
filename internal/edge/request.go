package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

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

// webhook registers a provider's route.
func (e *Edge) webhook(path, provider, contentType string, verify verifier) {
	e.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		e.inHand.Inc()
		defer e.inHand.Dec()
		err := e.receive(w, r, contentType, verify)
		status, reason := http.StatusOK, ""
		var ref *refusal
		if errors.As(err, &ref) {
			status, reason = ref.status, ref.reason
			if ref.cause != nil {
				e.o.Log.Error("webhook not taken", "provider", provider, "status", status, "kind", reason, "reason", ref.cause.Error())
			} else {
				e.o.Log.Warn("webhook not taken", "provider", provider, "status", status, "kind", reason)
			}
		}
		e.answered.WithLabelValues(provider, strconv.Itoa(status), reason).Inc()
		e.took.WithLabelValues(provider).Observe(time.Since(start).Seconds())
		answer(w, provider, status, reason)
	})
}

// onlyPost answers the other methods of Twilio's routes: ServeMux would, in text/plain.
func (e *Edge) onlyPost(path string) {
	e.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, "twilio", http.StatusMethodNotAllowed, "")
	})
}

// receive is a webhook's way in: limits, signature, publish. nil: everything is stored.
func (e *Edge) receive(w http.ResponseWriter, r *http.Request, contentType string, verify verifier) error {
	if e.draining.Load() {
		return errDraining()
	}
	if !e.requests.TryAcquire(1) {
		return errOverloaded()
	}
	defer e.requests.Release(1)
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); media != contentType ||
		err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return errContentType()
	}
	if r.ContentLength > maxBody {
		return errTooLarge()
	}
	body, held, err := e.read(w, r)
	defer func() { e.bytes.Release(held) }()
	if err != nil {
		return err
	}

	// A provider that hangs up comes again; what it sent is stored all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), e.o.PublishTimeout)
	defer cancel()
	res, err := verify(ctx, r, body)
	switch {
	case errors.Is(err, webhook.ErrSignature):
		return errSignature()
	case err != nil:
		return errMalformed()
	case len(res.messages) == 0:
		return nil
	}
	if err := e.o.Publisher.Publish(ctx, res.messages); err != nil {
		return errNotStored(err)
	}
	if res.hold > 0 {
		time.Sleep(res.hold)
	}
	return nil
}

// read takes a body in, and room for it as it arrives: what is announced and not sent
// keeps nobody out. held is the room that the caller has to give back, error or not.
func (e *Edge) read(w http.ResponseWriter, r *http.Request) (body []byte, held int64, err error) {
	// A drain does not wait for what has not arrived. Where the deadline can't be set,
	// the server's own ends it.
	defer context.AfterFunc(e.drained, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) })()
	var buf bytes.Buffer
	for {
		if !e.bytes.TryAcquire(readStep) {
			return nil, held, errOverloaded()
		}
		held += readStep
		switch _, err := io.CopyN(&buf, r.Body, readStep); {
		case buf.Len() > maxBody:
			return nil, held, errTooLarge()
		case err == nil:
		case err == io.EOF:
			return buf.Bytes(), held, nil
		case e.draining.Load():
			return nil, held, errDraining()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, held, errSlow(err)
		default:
			return nil, held, errBody(err)
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
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `<Response/>`)
		return
	}
	if reason == "" {
		reason = "ok"
	}
	text(w, status, reason)
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
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
