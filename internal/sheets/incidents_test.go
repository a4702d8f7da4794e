package sheets

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/outcome"
)

// For every reason: the incident of a message that ends with it, and of a consumer that
// waits for it, is seen open in the tab, and closed there once its cause is mended and the
// message is delivered again.
func TestEveryReasonIsSeenOpenAndClosed(t *testing.T) {
	t.Parallel()
	reasons := outcome.Reasons()
	t.Run("messages given up", func(t *testing.T) {
		t.Parallel()
		newRig(t).openAndClose(t, len(reasons), func(n int) error { return outcome.Permanentf(reasons[n], "it can't be done") })
	})
	for _, reason := range reasons {
		t.Run("waiting/"+string(reason), func(t *testing.T) {
			t.Parallel()
			newRig(t).openAndClose(t, 1, func(int) error { return outcome.Blocked(reason, errors.New("the provider takes nothing")) })
		})
	}
}

// openAndClose has a durable fail at some messages, looks at the tab, mends the cause and
// looks again.
func (r *rig) openAndClose(t *testing.T, messages int, failure func(n int) error) {
	t.Helper()
	w := r.writer(t)
	var broken atomic.Bool
	broken.Store(true)
	loop, err := bus.NewLoop(r.js, bus.Options{Stream: contracts.StreamWebhooks, Durable: contracts.Billing, Store: r.store,
		Log: slog.New(slog.DiscardHandler), Metrics: bus.NewMetrics(prometheus.NewRegistry()),
		Handle: func(_ context.Context, msgs []contracts.Message) []error {
			errs := make([]error, len(msgs))
			for i, m := range msgs {
				n, err := strconv.Atoi(string(m.Data))
				if err != nil {
					t.Error(err)
				}
				if broken.Load() {
					errs[i] = failure(n)
				}
			}
			return errs
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	for n := range messages {
		if _, err := r.js.Publish(ctx, contracts.SubjectStripe("test"), []byte(strconv.Itoa(n))); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitIncidents(t, w, "open", messages, func(row map[string]string) bool { return row["resolved_at"] == "" })
	broken.Store(false)
	stream, err := r.js.Stream(ctx, contracts.StreamWebhooks)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.ResetConsumerToSequence(ctx, contracts.Billing, 1); err != nil {
		t.Fatal(err)
	}
	r.awaitIncidents(t, w, "open", 0, func(row map[string]string) bool { return row["resolved_at"] == "" })
	r.awaitIncidents(t, w, "closed", messages, func(row map[string]string) bool { return row["resolved_at"] != "" })
}

// awaitIncidents has the writer write until the tab has so many rows of a kind.
func (r *rig) awaitIncidents(t *testing.T, w *Writer, what string, want int, kind func(map[string]string) bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		r.handle(t, w)
		got := 0
		for _, row := range r.paper.page(t, "Incidents").table() {
			if kind(row) {
				got++
			}
		}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows of incidents are %s, not %d: %v", got, what, want, r.paper.page(t, "Incidents").table())
		}
		time.Sleep(20 * time.Millisecond)
	}
}
