package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/stripe"
	"leadpipe/internal/webhook/facebook"
)

// A ledger is what providers know of their webhooks: which were acknowledged, and when.
type ledger struct {
	mu      sync.Mutex
	acked   map[*delivery]time.Time // the first 2xx
	answers map[int]int             // by status; 0: none
	longest time.Duration           // from the first try to an answer, without pauses between tries
	refused []string                // answers that no honest provider should get
}

func newLedger() *ledger { return &ledger{acked: map[*delivery]time.Time{}, answers: map[int]int{}} }

// ack is when a delivery was acknowledged.
func (l *ledger) ack(d *delivery) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.acked[d]
	return at, ok
}

// summary gives the answers by status, and the longest time that one took.
func (l *ledger) summary() (answers map[int]int, longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers), l.longest
}

func (l *ledger) note(d *delivery, status int, took time.Duration) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[status]++
	l.longest = max(l.longest, took)
	if status >= 200 && status < 300 {
		if _, again := l.acked[d]; !again {
			l.acked[d] = now
		}
	}
	if status >= 300 && status != http.StatusServiceUnavailable {
		l.refused = append(l.refused, fmt.Sprintf("%s %s was answered %d", d.what, d.ids[0], status))
	}
}

// A sender plays the providers.
type sender struct {
	w      *world
	ledger *ledger
	client *http.Client
}

func newSender(w *world) *sender {
	return &sender{w: w, ledger: newLedger(), client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
}

// send sends a plan's webhooks at their times, each until it is acknowledged, and waits
// for the last. An error says that ctx ended before that.
func (s *sender) send(ctx context.Context, p *plan, begin time.Time) error {
	var wg sync.WaitGroup
	errs := make(chan error, 2*len(p.deliveries))
	at := func(d *delivery, when time.Duration, impatient bool) {
		wg.Go(func() {
			if err := sleep(ctx, time.Until(begin.Add(when))); err != nil {
				errs <- err
				return
			}
			errs <- s.deliver(ctx, d, impatient)
		})
	}
	for _, d := range p.deliveries {
		at(d, d.at, d.impatient)
		if d.again > 0 {
			at(d, d.again, false)
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver sends one webhook until it is acknowledged.
func (s *sender) deliver(ctx context.Context, d *delivery, impatient bool) error {
	for {
		try, cancel := ctx, context.CancelFunc(func() {})
		if impatient {
			try, cancel = context.WithTimeout(ctx, 2*time.Millisecond) // the effect, perhaps, without the answer
			impatient = false
		}
		began := time.Now()
		status, err := s.once(try, d)
		cancel()
		if err != nil {
			status = 0
		}
		s.ledger.note(d, status, time.Since(began))
		if status >= 200 && status < 300 {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond+rand.N(400*time.Millisecond)); err != nil {
			return fmt.Errorf("%s %s was never acknowledged, last answer %d", d.what, d.ids[0], status)
		}
	}
}

func (s *sender) once(ctx context.Context, d *delivery) (int, error) {
	if d.inbound != nil {
		r, err := s.w.twilio.Inbound(ctx, *d.inbound)
		return r.Status, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.w.edgeURL+d.path, bytes.NewReader(d.body))
	if err != nil {
		return 0, fmt.Errorf("making a webhook: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if d.path == "/api/webhooks/stripe" {
		req.Header.Set("Stripe-Signature", stripe.Sign(d.body, time.Now(), sandbox.StripeSecret))
	} else {
		req.Header.Set("X-Hub-Signature-256", facebook.Sign(d.body, sandbox.AppSecret))
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("sending a webhook: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errors.New("time is up")
	case <-time.After(d):
		return nil
	}
}
