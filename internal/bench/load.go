package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/stripe"
)

// callers are how many call at a time.
var callers = []int{1, 16, 64, 256}

// A Rate is what callers reached that call one after another, for as long as they may.
type Rate struct {
	PerSecond float64 `json:"per_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// measure has n callers call until the time is over. The first error ends it.
func measure(ctx context.Context, n int, length time.Duration, caller func() (call func() error, done func(), err error)) (Rate, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	took := make([][]time.Duration, n)
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		all.Go(func() {
			call, done, err := caller()
			if err != nil {
				fail(err)
				return
			}
			defer done()
			for time.Since(start) < length && ctx.Err() == nil {
				began := time.Now()
				if err := call(); err != nil {
					fail(err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	all.Wait()
	elapsed := time.Since(start)
	if err := context.Cause(ctx); err != nil {
		return Rate{}, err
	}
	times := slices.Concat(took...)
	if len(times) == 0 {
		return Rate{}, errors.New("nothing was called")
	}
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	return Rate{PerSecond: float64(len(times)) / elapsed.Seconds(), P50: ms(times[len(times)/2]), P99: ms(times[len(times)*99/100])}, nil
}

// A source makes webhooks of Stripe, each under another id.
type source struct {
	template string
	next     atomic.Int64
	each     int64 // how many events in a row are of one customer
}

const (
	eventMark    = "E00000000000"
	customerMark = "C00000000000"
)

// newSource makes a source of payments that have failed, of so many bytes.
func newSource(bytes int) *source {
	now := time.Now()
	invoice := stripe.Invoice{ID: "in_" + customerMark, Customer: "cus_" + customerMark, Subscription: "sub_" + customerMark, Email: customerMark + "@example.com",
		Name: "Léa Martin", Status: "open", Currency: "eur", AmountDue: 2900, AttemptCount: 1, Created: now, PeriodStart: now, PeriodEnd: now}.Render(stripe.Endive)
	event := stripe.Event{ID: "evt_" + eventMark, Type: "invoice.payment_failed", Version: stripe.Endive, Created: now, Object: invoice, Live: true}
	invoice["footer"] = ""
	invoice["footer"] = strings.Repeat("x", max(0, bytes-len(event.JSON())))
	return &source{template: string(event.JSON()), each: 20}
}

// webhook is the next one.
func (s *source) webhook() (id string, body []byte) {
	n := s.next.Add(1)
	id = fmt.Sprintf("E%011d", n)
	return "evt_" + id, []byte(strings.NewReplacer(eventMark, id, customerMark, fmt.Sprintf("C%011d", n-n%s.each)).Replace(s.template))
}

// post is a caller who posts webhooks on a connection of its own. It reads of an answer
// what it has to: the callers share the machine with what they measure.
func (s *source) post(addr string) func() (call func() error, done func(), err error) {
	return func() (func() error, func(), error) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("connecting to what is measured: %w", err)
		}
		in := bufio.NewReader(conn)
		call := func() error {
			_, body := s.webhook()
			if _, err := conn.Write(request(addr, body)); err != nil {
				return fmt.Errorf("sending a webhook: %w", err)
			}
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				return fmt.Errorf("reading an answer: %w", err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("a webhook was answered %d", res.StatusCode)
			}
			return errors.Join(err, res.Body.Close())
		}
		return call, func() { _ = conn.Close() }, nil
	}
}

// request is a webhook as it goes over the wire.
func request(addr string, body []byte) []byte {
	head := fmt.Appendf(make([]byte, 0, len(body)+300), "POST /api/webhooks/stripe HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nStripe-Signature: %s\r\nContent-Length: %d\r\n\r\n",
		addr, stripe.Sign(body, time.Now(), sandbox.StripeSecret), len(body))
	return append(head, body...)
}
